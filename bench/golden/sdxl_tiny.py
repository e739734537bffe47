#!/usr/bin/env python3
"""Writes crates/diffusion/tests/golden/sdxl/: a whole SDXL of a few thousand random numbers, and what diffusers makes of it.

    bench/golden/sdxl_tiny.py [--out crates/diffusion/tests/golden/sdxl]

The model (f16) has the miniature's tokenizer, two text encoders of different widths, transformers of depth 1 and 2, and an empty prompt of zeros.
reference.safetensors (f32): `tokens` and `pooled` of PROMPT, and latents and pictures of the drawings in DRAWINGS.
"""
import argparse
import json
import os
import shutil

import numpy as np
import torch
from diffusers import (AutoencoderKL, DDIMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler,
                       StableDiffusionXLPipeline, UNet2DConditionModel, UniPCMultistepScheduler)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WIDTHS = (12, 20)
POOLED = 10
PROMPT = 'a church in ink style'
SCHEDULERS = dict(euler=EulerDiscreteScheduler, ddim=DDIMScheduler, dpmpp_2m=DPMSolverMultistepScheduler, unipc=UniPCMultistepScheduler,
                  euler_ancestral=EulerAncestralDiscreteScheduler)
# name -> scheduler, changes of its configuration, arguments of the pipeline
DRAWINGS = {
    'plain': ('euler', {}, dict(guidance_scale=5.)),
    'negative': ('ddim', dict(clip_sample=False), dict(guidance_scale=4., negative_prompt='a dog')),
    'sized': ('dpmpp_2m', {}, dict(guidance_scale=3., original_size=(40, 24), crops_coords_top_left=(3, 5))),
    'unguided': ('euler_ancestral', dict(timestep_spacing='trailing'), dict(guidance_scale=0.)),
    'tall': ('unipc', {}, dict(guidance_scale=5., height=24, width=16)),
    'v': ('euler', dict(prediction_type='v_prediction', rescale_betas_zero_snr=True, timestep_spacing='trailing'), dict(guidance_scale=3.)),
}


def text(width, layers):
    return CLIPTextConfig(vocab_size=726, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers, num_attention_heads=2,
                          max_position_embeddings=32, hidden_act='gelu', projection_dim=POOLED, bos_token_id=0, eos_token_id=2, pad_token_id=1)


def filled(network, seed):
    """Numbers that make every input count."""
    g = torch.Generator().manual_seed(seed)
    for name, p in sorted(network.named_parameters()):
        norm = 'norm' in name
        x = torch.randn(p.shape, generator=g)
        if 'embedding' in name and 'add_embedding' not in name and 'time_embedding' not in name:
            p.data = x * .7
        elif p.ndim > 1:
            p.data = x * (1.3 / (p[0].numel() ** .5))
        else:
            p.data = (1 + .1 * x) if norm and name.endswith('weight') else .1 * x
    return network.half().float().eval()


def pipeline():
    down, up = ['DownBlock2D', 'CrossAttnDownBlock2D'], ['CrossAttnUpBlock2D', 'UpBlock2D']
    unet = UNet2DConditionModel(sample_size=8, block_out_channels=(8, 16), layers_per_block=1, down_block_types=down, up_block_types=up,
                                attention_head_dim=(2, 4), cross_attention_dim=sum(WIDTHS), norm_num_groups=4, use_linear_projection=True,
                                transformer_layers_per_block=(1, 2), addition_embed_type='text_time', addition_time_embed_dim=4,
                                projection_class_embeddings_input_dim=POOLED + 24)
    vae = AutoencoderKL(block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, latent_channels=4, sample_size=16, scaling_factor=.13025,
                        down_block_types=['DownEncoderBlock2D'] * 2, up_block_types=['UpDecoderBlock2D'] * 2, force_upcast=False)
    folder = os.path.join(ROOT, 'models', 'emoji-sd', 'tokenizer')
    tokenizer, tokenizer_2 = CLIPTokenizer.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder, pad_token='!')
    scheduler = EulerDiscreteScheduler(beta_start=.00085, beta_end=.012, beta_schedule='scaled_linear', steps_offset=1, timestep_spacing='leading')
    pipe = StableDiffusionXLPipeline(vae=filled(vae, 4), text_encoder=filled(CLIPTextModel(text(WIDTHS[0], 2)), 1),
                                     text_encoder_2=filled(CLIPTextModelWithProjection(text(WIDTHS[1], 3)), 2), tokenizer=tokenizer,
                                     tokenizer_2=tokenizer_2, unet=filled(unet, 3), scheduler=scheduler, force_zeros_for_empty_prompt=True,
                                     add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', default=os.path.join(ROOT, 'crates', 'diffusion', 'tests', 'golden', 'sdxl'))
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipe = pipeline()
    model = os.path.join(args.out, 'model')
    shutil.rmtree(args.out, ignore_errors=True)
    pipe.to(torch.float16).save_pretrained(model)
    pipe.to(torch.float32)
    for name in ('tokenizer', 'tokenizer_2'):
        # The fast tokenizer's file says the same as the vocabulary and the merges.
        os.remove(os.path.join(model, name, 'tokenizer.json'))
        for file in ('vocab.json', 'merges.txt'):
            shutil.copy(os.path.join(ROOT, 'models', 'emoji-sd', 'tokenizer', file), os.path.join(model, name, file))
    out = {}
    with torch.no_grad():
        tokens, _, pooled, _ = pipe.encode_prompt(PROMPT, device='cpu', num_images_per_prompt=1, do_classifier_free_guidance=False)
        out |= {'tokens': tokens, 'pooled': pooled}
        base = dict(pipe.scheduler.config)
        for name, (scheduler, changes, how) in DRAWINGS.items():
            pipe.scheduler = SCHEDULERS[scheduler].from_config({k: v for k, v in base.items() if not k.startswith('_')} | changes)
            if name == 'plain':
                # What the pipeline's scheduler is told is what the folder says.
                pipe.scheduler = EulerDiscreteScheduler.from_pretrained(os.path.join(model, 'scheduler'))
            latents = pipe(PROMPT, num_inference_steps=5, generator=torch.Generator().manual_seed(7), output_type='latent', **how).images
            picture = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
            out |= {f'{name}.latents': latents, f'{name}.picture': picture}
            print(f'{name}: latents {latents.abs().max():.2f}, picture {picture.abs().max():.2f}')
    save_file({name: tensor.float().contiguous() for name, tensor in out.items()}, os.path.join(args.out, 'reference.safetensors'))
    size = sum(os.path.getsize(os.path.join(d, f)) for d, _, files in os.walk(args.out) for f in files)
    print(f'{size / 1024:.0f} KiB')


if __name__ == '__main__':
    main()
