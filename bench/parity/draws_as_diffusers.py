#!/usr/bin/env python3
"""Proof that the same seed gives the same picture as diffusers: `scumble generate` against StableDiffusionPipeline, PNG against PNG.

    draws_as_diffusers.py --scumble target/release/scumble [--model DIR]

Every sampler, three pictures of a prompt (in diffusers: a list of generators), a negative prompt, a picture that is not square, guidance
off, and a row of a prompt file (one generator draws the whole block), the latter also with samplers that draw noise in every step.
Exit 1 if any picture is under 40 dB.
"""
import argparse
import csv
import importlib.util
import json
import math
import os
import subprocess
import tempfile

import diffusers
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

import drawing

SCHEDULERS = {
    'ddim': ('DDIMScheduler', {}), 'ddpm': ('DDPMScheduler', {}), 'pndm': ('PNDMScheduler', {}), 'lms': ('LMSDiscreteScheduler', {}),
    'euler': ('EulerDiscreteScheduler', {}), 'euler-a': ('EulerAncestralDiscreteScheduler', {}),
    'dpm++2m': ('DPMSolverMultistepScheduler', {}), 'dpm++2m-karras': ('DPMSolverMultistepScheduler', {'use_karras_sigmas': True}),
    'unipc': ('UniPCMultistepScheduler', {})}
PROMPT = 'a church in ink style'


def bytes_of(picture):
    return torch.frombuffer(bytearray(picture.convert('RGB').tobytes()), dtype=torch.uint8).int()


def theirs(args, sampler, seeds, block=None, **options):
    pipe = StableDiffusionPipeline.from_pretrained(args.model, dtype=torch.float32, safety_checker=None, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    name, extra = SCHEDULERS[sampler]
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **extra)
    many = block or len(seeds)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return pipe(PROMPT, num_images_per_prompt=many, generator=generators[0] if block else generators, num_inference_steps=args.steps,
                **options).images


def ours(args, folder, *words):
    command = [args.scumble, 'generate', *words, '--model', args.model, '--steps', str(args.steps), '--output-dir', folder, '--json', '--quiet']
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f'{" ".join(command)}\nexit {done.returncode}\n{done.stderr}')
    return [Image.open(p['file']) for p in json.loads(done.stdout)['pictures']]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--scumble', default=os.path.join(drawing.ROOT, 'target', 'release', 'scumble'))
    p.add_argument('--model', default=drawing.MODEL)
    p.add_argument('--steps', type=int, default=12)
    p.add_argument('--minimum', type=float, default=40., help='dB')
    p.add_argument('--threads', type=int, default=1)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    good = True
    with tempfile.TemporaryDirectory() as work:
        rows = os.path.join(work, 'rows.csv')
        with open(rows, 'w', newline='') as f:
            csv.writer(f).writerows([['case_number', 'prompt', 'evaluation_seed', 'evaluation_guidance'], [41, PROMPT, 4068, 3.5]])
        three = [PROMPT, '--n', '3', '--seed', '7', '--guidance-scale', '4']
        cases = [(f'{s}, n 3', [*three, '--sampler', s], dict(sampler=s, seeds=[7, 8, 9], guidance_scale=4.)) for s in SCHEDULERS]
        cases += [
            ('negative prompt', [*three, '--negative-prompt', 'noto style', '--sampler', 'ddim'],
             dict(sampler='ddim', seeds=[7, 8, 9], guidance_scale=4., negative_prompt='noto style')),
            ('48 x 32', [*three, '--width', '48', '--height', '32', '--sampler', 'ddim'],
             dict(sampler='ddim', seeds=[7, 8, 9], guidance_scale=4., width=48, height=32)),
            ('guidance 1', [PROMPT, '--n', '3', '--seed', '7', '--guidance-scale', '1', '--sampler', 'ddim'],
             dict(sampler='ddim', seeds=[7, 8, 9], guidance_scale=1.)),
            ('eta 1', [*three, '--eta', '1', '--sampler', 'ddim'], dict(sampler='ddim', seeds=[7, 8, 9], guidance_scale=4., eta=1.))]
        for s in ('ddim', 'ddpm', 'euler-a'):
            cases.append((f'CSV row, {s}, n 2, batch 1', ['--prompts', rows, '--n', '2', '--batch', '1', '--sampler', s],
                          dict(sampler=s, seeds=[4068], block=2, guidance_scale=3.5)))
        for i, (name, words, how) in enumerate(cases):
            if how['sampler'] == 'lms' and importlib.util.find_spec('scipy') is None:
                print(f'{name:28} not compared: diffusers needs scipy for it')
                continue
            pairs = list(zip(ours(args, f'{work}/{i}', *words), theirs(args, **how), strict=True))
            differences = [(bytes_of(a) - bytes_of(b)).abs() for a, b in pairs]
            error = max(d.double().pow(2).mean().item() for d in differences)
            level = 10 * math.log10(255 ** 2 / error) if error else math.inf
            most = max(d.max().item() for d in differences)
            off = sum((d > 1).sum().item() for d in differences) / sum(d.numel() for d in differences)
            fine = level >= args.minimum
            good &= fine
            print(f'{name:28} worst {level:6.1f} dB  largest difference {most:3}/255  over 1/255: {off:.2%}  {"ok" if fine else "TOO FAR"}')
    raise SystemExit(0 if good else 1)


if __name__ == '__main__':
    main()
