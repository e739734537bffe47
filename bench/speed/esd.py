#!/usr/bin/env python3
"""ESD in the form its authors publish today (2025, diffusers), on the miniature: what scumble's speed is measured against.

Each iteration: draw a position in the sampler's list and a seed; sample up to there with the frozen network and guidance 3; ask the
frozen network about the erased concept e and the empty prompt (and the prompt f it is erased from, when that is another one); then

    target = eps*(z, f) - negative_guidance [eps*(z, e) - eps*(z, 0)],    loss = mean (eps(z, f) - target)^2,

one backward pass, one step of Adam. Trained: weights and biases of Linear and Conv2d modules chosen by name. Written from the formulas.

What is in PyTorch's favour here: prompts are embedded once instead of every iteration, no pictures are decoded, no progress is drawn,
and the picture size is the model's own (the published script asks for 1024 pixels). Weights are f32; the published script trains in bf16.

Prints JSON: {"erase_seconds", "total_seconds", "iterations", "n_parameters", "final_loss", "edit"}; total_seconds counts from the
start of the process, so imports and loading are in it.
"""
import os
import time


def since_start():
    """Seconds since this process was started, by the kernel's clock where there is one."""
    try:
        with open('/proc/self/stat') as f:
            ticks = int(f.read().rsplit(')', 1)[1].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf('SC_CLK_TCK')
    except (OSError, AttributeError):
        return time.perf_counter() - IMPORTED


IMPORTED = time.perf_counter()

import argparse
import copy
import json
import random
import sys

import torch
from safetensors.torch import save_file

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'parity'))
import drawing
from trained import RULES, trained

def erase(pipe, args):
    """Returns (edited tensors, seconds of the loop, last loss)."""
    rng = random.Random(args.seed)
    frozen, edited = pipe.unet, copy.deepcopy(pipe.unet)
    moving = trained(edited, args.train_method)
    for p in moving.values():
        p.requires_grad_(True)
    optimiser = torch.optim.Adam(moving.values(), lr=args.lr)
    from_prompt = args.from_prompt or args.prompt
    concept, source, empty = (drawing.embed(pipe, [p]).expand(args.batch, -1, -1) for p in (args.prompt, from_prompt, ''))
    began, loss = time.perf_counter(), None
    for _ in range(args.iterations):
        index = rng.randrange(args.num_inference_steps)
        seeds = [rng.randrange(1 << 15) for _ in range(args.batch)]
        z = drawing.sample(pipe, [from_prompt] * args.batch, seeds, args.num_inference_steps, args.guidance_scale, frozen, stop=index)
        t = pipe.scheduler.timesteps[index]
        with torch.no_grad():
            eps_concept, eps_empty = frozen(z, t, concept).sample, frozen(z, t, empty).sample
            eps_source = eps_concept if from_prompt == args.prompt else frozen(z, t, source).sample
            target = eps_source - args.negative_guidance * (eps_concept - eps_empty)
        optimiser.zero_grad()
        loss = torch.nn.functional.mse_loss(edited(z, t, source).sample, target)
        loss.backward()
        optimiser.step()
    seconds = time.perf_counter() - began
    return {k: p.detach().contiguous() for k, p in moving.items()}, seconds, loss


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--concept', default='church', help="the concept's name, for the file")
    p.add_argument('--prompt', help='its prompt (default: "a CONCEPT"; a style\'s name as it is)')
    p.add_argument('--from-prompt', help='erase it from this prompt only')
    p.add_argument('--model', default=drawing.MODEL)
    p.add_argument('--train-method', choices=sorted(RULES), default='esd-x')
    p.add_argument('--iterations', type=int, default=200)
    p.add_argument('--lr', type=float, default=5e-5)
    p.add_argument('--negative-guidance', type=float, default=2.)
    p.add_argument('--guidance-scale', type=float, default=3.)
    p.add_argument('--num-inference-steps', type=int, default=50)
    p.add_argument('--batch', type=int, default=1)
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--threads', type=int, default=1)
    p.add_argument('--out', default='esd-out', help='folder for the partial U-Net')
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    article = '' if args.concept.endswith(' style') else 'an ' if args.concept[0] in 'aeiou' else 'a '
    args.prompt = args.prompt or article + args.concept
    pipe = drawing.load(args.model)
    tensors, seconds, loss = erase(pipe, args)
    os.makedirs(args.out, exist_ok=True)
    words = [w.replace(' ', '_') for w in (args.concept, args.from_prompt or args.concept)]
    path = os.path.join(args.out, f'esd-{words[0]}-from-{words[1]}-{args.train_method.replace("-", "")}.safetensors')
    save_file(tensors, path)
    print(json.dumps({'erase_seconds': round(seconds, 3), 'total_seconds': round(since_start(), 3), 'iterations': args.iterations,
                      'n_parameters': sum(t.numel() for t in tensors.values()), 'final_loss': loss.item(), 'edit': path}))


if __name__ == '__main__':
    main()
