#!/usr/bin/env python3
"""Proof that SDXL draws as in diffusers: `scumble generate` against StableDiffusionXLPipeline on small random models, PNG against PNG.

    sdxl.py --make-only                              models and diffusers' pictures, into /tmp/sdxl-parity
    sdxl.py --scumble target/release/scumble         makes what is missing, draws with scumble, compares
    sdxl.py --case zero-snr --only size              some of it; patterns, may repeat
    sdxl.py --floor                                  how far diffusers in f32 is from diffusers in f64
    sdxl.py --scumble FILE --exact                   compares with diffusers in f64: what is right where f32 itself is far off
    sdxl.py --list

For every model of sdxl_models.py: five samplers and the checkpoint's own, two pictures a prompt (in diffusers: a list of generators), a negative
prompt, guidance off, three pictures in uneven batches, a picture that is not square, a size condition with a crop, a prompt longer than the
encoders read; and one drawing from the model as a single file. All in f32 on the CPU.

FOLDER/CASE has model/ and model.safetensors, and pictures/DRAWING-I.png. `moved` is how far a drawing's reference is from the plain one: a
drawing that moves nothing would prove nothing. Exit 1 if any number of a picture is more than 2/255 off (--most), 2 if a reference did not
move, or with --floor if f32 itself is more than 1/255 off: then rounding decides what is drawn, and the bound would not be fair.
"""
import argparse
import fnmatch
import json
import os
import subprocess
import sys
import tempfile

import drawing                                                           # keeps the libraries quiet and off the network
import diffusers
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from safetensors.torch import save_file

import sdxl_models

STEPS, GUIDANCE, SEED = 8, 5., 7
PROMPT = 'a church in ink style'
LONG = ' '.join(f'{colour} {what}' for colour in ('red', 'green', 'blue', 'white', 'black', 'yellow') for what in
                ('houses', 'trees', 'boats', 'birds', 'clouds', 'towers', 'fields', 'lamps'))
SCHEDULERS = {'euler': ('EulerDiscreteScheduler', {}), 'euler-a': ('EulerAncestralDiscreteScheduler', {}), 'ddim': ('DDIMScheduler', {}),
              'dpm++2m': ('DPMSolverMultistepScheduler', {}), 'unipc': ('UniPCMultistepScheduler', {})}
PLAIN = 'own-sampler'


class Drawing:
    """What is asked of both sides: the prompt and options of `scumble generate`, and those of diffusers' pipeline."""

    def __init__(self, *words, prompt=PROMPT, sampler=None, n=2, single=False, guidance=GUIDANCE, **options):
        self.prompt, self.sampler, self.seeds, self.single, self.options = prompt, sampler, range(SEED, SEED + n), single, options
        self.options['guidance_scale'] = guidance
        self.words = [prompt, '--steps', str(STEPS), '--guidance-scale', f'{guidance:g}', '--seed', str(SEED), '--n', str(n), *words]
        self.words += ['--sampler', sampler] if sampler else []


def drawings(spec):
    """By name. Sizes are multiples of what the model can draw, near its own."""
    side = spec['unet']['sample_size'] * 2 ** (len(spec['vae']['block_out_channels']) - 1)
    wide = side * 3 // 2
    out = {PLAIN: Drawing()}
    out |= {name: Drawing(sampler=name) for name in SCHEDULERS}
    negative = 'a blurred photograph of boats'
    return out | {
        'negative-prompt': Drawing('--negative-prompt', negative, negative_prompt=negative),
        'guidance-1': Drawing(guidance=1.),
        'three-in-twos': Drawing('--batch', '2', n=3),
        'not-square': Drawing('--width', str(wide), '--height', str(side), width=wide, height=side),
        'size': Drawing('--size-condition', f'{2 * side}x{3 * side}', original_size=(2 * side, 3 * side)),
        'size-crop': Drawing('--size-condition', f'{3 * side}x{2 * side}+16+40', original_size=(3 * side, 2 * side), crops_coords_top_left=(16, 40)),
        'long-prompt': Drawing(prompt=LONG, guidance=2.),                # at 5 some models amplify rounding beyond any bound
        'single-file': Drawing(single=True),
    }


def make_model(case, folder, again):
    """FOLDER/CASE/model and, with the same tensors, model.safetensors."""
    path, spec = os.path.join(folder, case, 'model'), sdxl_models.configuration(case)
    single = f'{path}.safetensors'
    if again or not os.path.exists(single):
        seed = 1 + list(sdxl_models.CASES).index(case)
        tensors = sdxl_models.write(sdxl_models.build(spec, seed), spec, path)
        save_file(sdxl_models.single_file(tensors, spec), single, metadata={'format': 'pt'})
    return path


def load(path, dtype=torch.float32):
    pipe = StableDiffusionXLPipeline.from_pretrained(path, dtype=dtype, local_files_only=True, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, config, asked, **more):
    if asked.sampler:
        name, extra = SCHEDULERS[asked.sampler]
        pipe.scheduler = getattr(diffusers, name).from_config(config, **extra)
    else:
        pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(config)
    more.setdefault('generator', [torch.Generator().manual_seed(seed) for seed in asked.seeds])
    return pipe(asked.prompt, num_images_per_prompt=len(asked.seeds), num_inference_steps=STEPS, **asked.options, **more).images


def make_references(case, folder, path, wanted, again):
    """{drawing: its pictures' files}; drawn by diffusers where they are missing."""
    pipe, out = None, {}
    os.makedirs(os.path.join(folder, case, 'pictures'), exist_ok=True)
    for name, asked in wanted.items():
        out[name] = [os.path.join(folder, case, 'pictures', f'{name}-{i}.png') for i in range(len(asked.seeds))]
        if not again and all(map(os.path.exists, out[name])):
            continue
        pipe = pipe or load(path)
        config = sdxl_models.read_json(path, 'scheduler', 'scheduler_config.json')
        for picture, file in zip(draw(pipe, config, asked), out[name], strict=True):
            picture.save(file)
    return out


def noise_of_f32():
    """Lets ancestral samplers draw in f64 the very numbers that they draw in f32."""
    module = diffusers.schedulers.scheduling_euler_ancestral_discrete
    plain = module.randn_tensor
    module.randn_tensor = lambda shape, *args, dtype=None, **more: plain(shape, *args, dtype=torch.float32, **more).to(dtype or torch.float32)


def exact(case, folder, path, wanted):
    """{drawing: its pictures' files}, computed by diffusers in f64 from the same noise."""
    pipe, config, out = load(path, torch.float64), sdxl_models.read_json(path, 'scheduler', 'scheduler_config.json'), {}
    for name, asked in wanted.items():
        side, factor = pipe.default_sample_size, pipe.vae_scale_factor
        shape = (1, 4, asked.options.get('height', side * factor) // factor, asked.options.get('width', side * factor) // factor)
        # Each picture's own generator, which an ancestral sampler goes on to draw from.
        generators = [torch.Generator().manual_seed(seed) for seed in asked.seeds]
        noise = torch.cat([torch.randn(shape, generator=generator) for generator in generators])
        out[name] = [os.path.join(folder, case, 'pictures', f'{name}-{i}-f64.png') for i in range(len(asked.seeds))]
        for picture, file in zip(draw(pipe, config, asked, latents=noise.double(), generator=generators), out[name], strict=True):
            picture.save(file)
    return out


def bytes_of(picture):
    picture = picture.convert('RGB')
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).reshape(picture.height, picture.width, 3).int()


def numbers(file):
    return bytes_of(Image.open(file))


def generate(program, words, folder, cache):
    """The files that `scumble generate` wrote. Raises RuntimeError with what it complained of."""
    command = [program, 'generate', *words, '--output-dir', folder, '--json', '--quiet']
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, SCUMBLE_CACHE=cache))
    if done.returncode:
        raise RuntimeError(f'exit {done.returncode}: {done.stderr.strip() or done.stdout.strip()}\n  {" ".join(map(repr, command))}')
    return [picture['file'] for picture in json.loads(done.stdout)['pictures']]


def ours(args, path, asked, folder):
    model = ['--model', f'{path}.safetensors', '--config', path] if asked.single else ['--model', path]
    return generate(args.scumble, [*asked.words, *model], folder, os.path.join(args.folder, 'cache'))


def difference(a, b):
    """(largest, share over 1) of two pictures' numbers; a size of its own is as far as can be."""
    a, b = numbers(a), numbers(b)
    if a.shape != b.shape:
        return 255, 1.
    apart = (a - b).abs()
    return apart.max().item(), (apart > 1).double().mean().item()


def compare(args, case, path, wanted, references):
    """One line for each drawing. Returns the worst exit status of them."""
    status = 0
    in_f64 = exact(case, args.folder, path, wanted) if args.floor or args.exact else {}
    floor = {name: max(difference(a, b)[0] for a, b in zip(files, references[name], strict=True)) for name, files in in_f64.items()}
    for name, asked in wanted.items():
        moved = '-'
        # Euler is the checkpoint's own, and DDIM takes the same steps in other variables.
        if name not in (PLAIN, 'euler', 'ddim', 'three-in-twos', 'single-file', 'not-square'):
            most = difference(references[name][0], os.path.join(args.folder, case, 'pictures', f'{PLAIN}-0.png'))[0]
            moved = str(most)
            if most <= 2 * args.most:
                status = max(status, 2)
        line = f'{case:14} {name:16} {len(asked.seeds)}  moved {moved:>3}'
        if args.floor:
            print(f'{line}  f64 {floor[name]}/255', flush=True)
            status = max(status, 2 if floor[name] > 1 else 0)
            continue
        if args.make_only:
            print(line, flush=True)
            continue
        with tempfile.TemporaryDirectory() as work:
            try:
                found = [difference(a, b) for a, b in zip(ours(args, path, asked, f'{work}/out'), in_f64.get(name, references[name]), strict=True)]
            except (RuntimeError, ValueError, KeyError, OSError) as problem:
                print(f'{line}  FAILED {problem}', flush=True)
                status = 1
                continue
        most, over = max(a for a, _ in found), max(b for _, b in found)
        if most > args.most:
            status = 1
        print(f'{line}  largest difference {most:3}/255  over 1/255: {over:.2%}  {"ok" if most <= args.most else "TOO FAR"}', flush=True)
    return status


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--scumble', default=os.path.join(drawing.ROOT, 'target', 'release', 'scumble'), metavar='FILE')
    p.add_argument('--folder', default='/tmp/sdxl-parity', metavar='DIR', help='where models and references lie (/tmp/sdxl-parity)')
    p.add_argument('--case', action='append', metavar='PATTERN', help='models')
    p.add_argument('--only', action='append', metavar='PATTERN', help='drawings')
    p.add_argument('--make-only', action='store_true', help='no scumble')
    p.add_argument('--floor', action='store_true', help='no scumble; the references again in f64')
    p.add_argument('--exact', action='store_true', help='compares with the references in f64')
    p.add_argument('--again', action='store_true', help='make models and references anew')
    p.add_argument('--list', action='store_true', help='print the names of models and drawings, and the words that scumble gets')
    p.add_argument('--most', type=int, default=2, metavar='N', help='largest difference allowed, of 255 (2)')
    p.add_argument('--threads', type=int, default=1)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    if args.floor or args.exact:
        noise_of_f32()
    chosen = lambda name, patterns: not patterns or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    status, seen = 0, 0
    for case in sdxl_models.CASES:
        if not chosen(case, args.case):
            continue
        everything = drawings(sdxl_models.configuration(case))
        wanted = {name: asked for name, asked in everything.items() if chosen(name, args.only)}
        seen += len(wanted)
        if args.list:
            print('\n'.join(f'{case} {name}: {" ".join(asked.words)}' for name, asked in wanted.items()))
            continue
        path = make_model(case, args.folder, args.again)
        references = make_references(case, args.folder, path, {PLAIN: everything[PLAIN]} | wanted, args.again)
        status = max(status, compare(args, case, path, wanted, references), key=lambda s: (s == 1, s))
    if not seen:
        sys.exit('no drawing has such a name')
    raise SystemExit(status)


if __name__ == '__main__':
    main()
