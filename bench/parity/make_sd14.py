#!/usr/bin/env python3
"""A diffusers folder of Stable Diffusion 1.4's size with random weights: what bench/speed/closed_form.sh measures on.

    make_sd14.py FOLDER [--dtype f16|f32] [--seed N]

Configurations are SD 1.4's; weights are what diffusers and transformers initialise with that seed; the vocabulary is CLIP's, from the list
that scumble is compiled with. Nothing is downloaded. FOLDER should lie outside of the repository: it takes 2.1 GB in f16, 4.3 GB in f32.
"""
import argparse
import gzip
import json
import os

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MERGES = os.path.join(ROOT, 'assets', 'clip-vocabulary', 'bpe_simple_vocab_16e6.txt.gz')
WORDS = 49408

UNET = dict(sample_size=64, cross_attention_dim=768, attention_head_dim=8)           # the rest are the class's own defaults
VAE = dict(sample_size=512, latent_channels=4, layers_per_block=2, block_out_channels=(128, 256, 512, 512),
           down_block_types=('DownEncoderBlock2D',) * 4, up_block_types=('UpDecoderBlock2D',) * 4)
TEXT = dict(vocab_size=WORDS, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
            max_position_embeddings=77, hidden_act='quick_gelu', layer_norm_eps=1e-5, pad_token_id=1, bos_token_id=0, eos_token_id=2,
            projection_dim=768)
SCHEDULER = dict(beta_start=.00085, beta_end=.012, beta_schedule='scaled_linear', num_train_timesteps=1000, skip_prk_steps=True,
                 set_alpha_to_one=False, steps_offset=1)
TOKENIZER = dict(tokenizer_class='CLIPTokenizer', model_max_length=77, bos_token='<|startoftext|>', eos_token='<|endoftext|>',
                 unk_token='<|endoftext|>', pad_token='<|endoftext|>', do_lower_case=True, errors='replace', add_prefix_space=False)
INDEX = {'_class_name': 'StableDiffusionPipeline', 'requires_safety_checker': False, 'feature_extractor': [None, None],
         'safety_checker': [None, None], 'scheduler': ['diffusers', 'PNDMScheduler'], 'text_encoder': ['transformers', 'CLIPTextModel'],
         'tokenizer': ['transformers', 'CLIPTokenizer'], 'unet': ['diffusers', 'UNet2DConditionModel'], 'vae': ['diffusers', 'AutoencoderKL']}


def byte_letters():
    """GPT-2's printable letter for each byte, in the order in which they open the vocabulary."""
    printable = [*range(ord('!'), ord('~') + 1), *range(0xa1, 0xac + 1), *range(0xae, 0xff + 1)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]


def tokenizer(folder):
    with gzip.open(MERGES, 'rt', encoding='utf-8') as f:
        letters = byte_letters()
        merges = f.read().split('\n')[1:WORDS - 2 * len(letters) - 2 + 1]
    words = letters + [c + '</w>' for c in letters] + [m.replace(' ', '') for m in merges] + ['<|startoftext|>', '<|endoftext|>']
    os.makedirs(folder, exist_ok=True)
    write(os.path.join(folder, 'vocab.json'), {word: i for i, word in enumerate(words)})
    write(os.path.join(folder, 'tokenizer_config.json'), TOKENIZER)
    with open(os.path.join(folder, 'merges.txt'), 'w', encoding='utf-8') as f:
        f.write('\n'.join(['#version: 0.2', *merges]) + '\n')


def write(path, value):
    with open(path, 'w', encoding='utf-8') as f:
        json.dump(value, f, indent=1, ensure_ascii=False)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder')
    p.add_argument('--dtype', choices=('f16', 'f32'), default='f16')
    p.add_argument('--seed', type=int, default=0)
    args = p.parse_args()
    torch.manual_seed(args.seed)
    dtype = {'f16': torch.float16, 'f32': torch.float32}[args.dtype]
    parts = {'text_encoder': lambda: CLIPTextModel(CLIPTextConfig(**TEXT)), 'unet': lambda: UNet2DConditionModel(**UNET),
             'vae': lambda: AutoencoderKL(**VAE)}
    for name, make in parts.items():
        network = make().to(dtype)
        network.save_pretrained(os.path.join(args.folder, name), safe_serialization=True, max_shard_size='20GB')
        print(f'{name}: {sum(t.numel() for t in network.parameters()) / 1e6:.1f} M numbers', flush=True)
    PNDMScheduler(**SCHEDULER).save_pretrained(os.path.join(args.folder, 'scheduler'))
    tokenizer(os.path.join(args.folder, 'tokenizer'))
    write(os.path.join(args.folder, 'model_index.json'), INDEX)


if __name__ == '__main__':
    main()
