#!/usr/bin/env python3
"""Makes reference files for `scumble verify MODEL --reference REF.safetensors` with diffusers and transformers, in f32 on the CPU.

    make_references.py --model models/emoji-sd --latent-size 8 8 --out DIR     DIR/reference.safetensors for a folder that exists
    make_references.py --family sd14 --seed 1 --width-divisor 10 --out DIR     DIR/model and DIR/reference.safetensors
    ... --dtype f16 --single-file OUT.safetensors                              stored in f16; the same model as one LDM file, too

The keys and their conventions are those of models/emoji-sd.reference.safetensors. The weights are read back from the files written, so
the references are computed from exactly the stored numbers. With `--floor` everything is computed again in f64 and the largest
relative difference of each tensor is printed: what f32 itself leaves open, to be seen beside a verifier's numbers.
"""
import argparse
import copy
import json
import os
import sys

os.environ.setdefault('HF_HUB_OFFLINE', '1')
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from diffusers.utils import logging
from safetensors.torch import save_file
from transformers.utils import logging as transformers_logging

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import ldm_names
import networks

logging.set_verbosity_error()
logging.disable_progress_bar()
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()
DTYPES = {'f32': torch.float32, 'f16': torch.float16, 'bf16': torch.bfloat16}


def load(folder):
    pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, safety_checker=None, local_files_only=True)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.eval()
    return pipe


def token_ids(pipe, prompts):
    return pipe.tokenizer(prompts, padding='max_length', max_length=pipe.tokenizer.model_max_length, truncation=True,
                          return_tensors='pt').input_ids


def inputs(pipe, seed, prompt, sizes):
    """Everything that goes in: ids of the prompt and of the empty one, noise, a picture, two different timesteps."""
    def noise(offset, *shape):
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed + offset))

    h, w = sizes['image']
    picture = torch.rand((2, 3, h, w), generator=torch.Generator().manual_seed(seed + 3)) * 2 - 1
    # Smooth parts and noise together, as in a drawing.
    picture[1] = torch.nn.functional.interpolate(picture[1:, :, ::4, ::4], size=(h, w), mode='bilinear')[0]
    return dict(input_ids=token_ids(pipe, [prompt, '']), unet_sample=noise(1, 2, 4, *sizes['unet']), unet_timestep=torch.tensor([981, 41]),
                vae_image=picture, ddim_init=noise(0, 1, 4, *sizes['ddim']))


@torch.no_grad()
def references(pipe, given, steps, guidance, dtype=torch.float32):
    """All reference tensors, in f32 or f64. `ddim_*`: deterministic DDIM with the model's own scheduler configuration."""
    unet, vae, text = (part if dtype == torch.float32 else copy.deepcopy(part).to(dtype)
                       for part in (pipe.unet, pipe.vae, pipe.text_encoder))
    out = dict(given)
    out['text_hidden'] = text(given['input_ids']).last_hidden_state
    out['unet_context'] = context = out['text_hidden'].clone()
    out['unet_out'] = unet(given['unet_sample'].to(dtype), given['unet_timestep'], context).sample
    out['vae_latents'] = vae.encode(given['vae_image'].to(dtype)).latent_dist.mean
    out['vae_decoded'] = vae.decode(out['vae_latents']).sample
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(steps)
    z, both = given['ddim_init'].to(dtype) * scheduler.init_noise_sigma, context[[1, 0]]
    for t in scheduler.timesteps:
        unconditional, conditional = unet(torch.cat([z, z]), t, both).sample.chunk(2)
        z = scheduler.step(unconditional + guidance * (conditional - unconditional), t, z).prev_sample
    out['ddim_latents'] = z
    out['ddim_image'] = vae.decode(z / vae.config.scaling_factor).sample
    return {k: v.contiguous() for k, v in out.items()}


def check_single_file(path, folder, tensors):
    """diffusers must give back every tensor of the folder from the single file."""
    one = StableDiffusionPipeline.from_single_file(path, config=folder, local_files_only=True, dtype=torch.float32)
    two = load(folder)
    for name in ('unet', 'vae', 'text_encoder'):
        a, b = getattr(one, name).state_dict(), getattr(two, name).state_dict()
        wrong = [k for k in b if k not in a or not torch.equal(a[k], b[k])]
        if wrong or len(a) != len(b):
            sys.exit(f'{path}: diffusers reads other {name} tensors from the single file, first {wrong[:3]}')


def make_model(args):
    spec = networks.configuration(args.family, args.seed, 1 if args.full_width else args.width_divisor)
    return make_folder(spec, args.seed, os.path.join(args.out, 'model'), DTYPES[args.dtype], args.single_file)


def make_folder(spec, seed, folder, dtype, single=None):
    tensors = networks.write(networks.build(spec, seed), spec, folder, dtype)
    if single:
        configs = [json.load(open(os.path.join(folder, part, 'config.json'))) for part in ('unet', 'vae', 'text_encoder')]
        save_file(ldm_names.single_file(tensors, *configs), single, metadata={'format': 'pt'})
        check_single_file(single, folder, tensors)
    return folder


def make_reference(folder, path, seed, prompt, steps, guidance, floor, latent_size=None):
    """Writes the reference file; returns {key: relative deviation of f32 from f64} when `floor` is asked for."""
    pipe = load(folder)
    sizes = networks.sizes(dict(unet=pipe.unet.config, vae=pipe.vae.config))
    if latent_size:
        factor = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
        sizes = dict(unet=latent_size, ddim=latent_size, image=[n * factor for n in latent_size])
    given = inputs(pipe, seed, prompt, sizes)
    made = references(pipe, given, steps, guidance)
    broken = [k for k, v in made.items() if not torch.isfinite(v.float()).all()]
    if broken:
        sys.exit(f'{folder}: not finite: {broken}')
    about = dict(prompt=prompt, steps=str(steps), guidance=str(float(guidance)), seed=str(seed))
    save_file(made, path, metadata=about)
    if not floor:
        return None
    exact = references(pipe, given, steps, guidance, torch.float64)
    return {k: ((made[k].double() - v).abs().max() / v.abs().max()).item() for k, v in exact.items() if k not in given}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument('--model', help='a diffusers folder that exists')
    what.add_argument('--family', choices=['sd14', 'sd21v', 'mini-random'], help='make a random model of this shape')
    p.add_argument('--out', required=True, help='folder for model/ and reference.safetensors')
    p.add_argument('--seed', type=int, default=5)
    p.add_argument('--width-divisor', type=float, default=10, help='published widths are divided by this (default 10)')
    p.add_argument('--full-width', action='store_true', help='the published widths: 4 GB in f32, minutes on a CPU')
    p.add_argument('--dtype', choices=sorted(DTYPES), default='f32', help='how weights are stored')
    p.add_argument('--single-file', metavar='FILE', help='write the random model as one LDM file, too')
    p.add_argument('--prompt', default='a church in ink style')
    p.add_argument('--steps', type=int, default=None, help='DDIM steps (default 30, 10 for random models)')
    p.add_argument('--guidance', type=float, default=None, help='guidance scale (default 5, 3 for random models)')
    p.add_argument('--latent-size', nargs=2, type=int, metavar=('H', 'W'), help='latents of all tensors (default: small, not square, odd)')
    p.add_argument('--floor', action='store_true', help='compare with f64 and print the deviation')
    p.add_argument('--threads', type=int, default=1)
    args = p.parse_args()
    if args.single_file and args.model:
        p.error('--single-file goes with --family')
    torch.set_num_threads(args.threads)
    os.makedirs(args.out, exist_ok=True)
    folder = args.model or make_model(args)
    path = os.path.join(args.out, 'reference.safetensors')
    steps = args.steps or (30 if args.model else 10)
    guidance = (5. if args.model else 3.) if args.guidance is None else args.guidance
    floor = make_reference(folder, path, args.seed, args.prompt, steps, guidance, args.floor, args.latent_size)
    print(json.dumps({'model': folder, 'reference': path, 'single_file': args.single_file, 'f32_against_f64': floor}, indent=2))


if __name__ == '__main__':
    main()
