#!/usr/bin/env python3
"""A diffusers folder of SDXL base 1.0's size with random weights, for tests of speed and memory.

    make_sdxl.py FOLDER [--dtype f16|f32] [--seed N]          6.9 GB in f16, 13.9 GB in f32
    make_sdxl.py FOLDER --single-file FILE.safetensors        the same tensors in Stability AI's layout too, as much again

Configurations are those of stabilityai/stable-diffusion-xl-base-1.0; the vocabulary is CLIP's, from the list that scumble is compiled with.
Nothing is downloaded. Tensors are made and written one after the other, so that 1 GB of memory is enough (2 GB with a single file): each is a stretch of one list of
16 million normal numbers, at a place of its own, scaled to keep variances. Norms lie around one, biases around zero. Pictures of it are
noise. FOLDER should lie outside of the repository.
"""
import argparse
import json
import math
import os
import shutil
import struct
import zlib

import drawing  # noqa: F401 (keeps the libraries quiet)
import torch
from safetensors.torch import load_file

import sdxl_models

POOL = 1 << 24
DTYPES = {'f16': (torch.float16, 'F16'), 'f32': (torch.float32, 'F32')}

SPEC = dict(
    unet=sdxl_models.unet_of([320, 640, 1280], [5, 10, 20], [0, 2, 10], 2048, 1280, 256, 32, sample_size=128, ones=True),
    vae=dict(in_channels=3, out_channels=3, latent_channels=4, layers_per_block=2, block_out_channels=[128, 256, 512, 512], norm_num_groups=32,
             sample_size=1024, scaling_factor=.13025, force_upcast=True, down_block_types=['DownEncoderBlock2D'] * 4,
             up_block_types=['UpDecoderBlock2D'] * 4),
    text_encoder=sdxl_models.text_of(768, 12, 12, 'quick_gelu'),
    text_encoder_2=sdxl_models.text_of(1280, 20, 32, 'gelu'),
    zeros=True, scheduler=sdxl_models.EULER)


class Numbers:
    """Random tensors by their names: the same name and seed, the same numbers."""

    def __init__(self, seed, dtype):
        self.dtype = dtype
        self.pool = torch.randn(POOL, generator=torch.Generator().manual_seed(seed))

    def stretch(self, name, count):
        start = zlib.crc32(name.encode()) % POOL
        first = self.pool[start:start + count]
        whole = [self.pool] * ((count - len(first)) // POOL)
        rest = count - len(first) - len(whole) * POOL
        return torch.cat([first, *whole, self.pool[:rest]])

    def tensor(self, component, name, shape):
        x = self.stretch(f'{component}.{name}', math.prod(shape)).reshape(shape)
        if 'norm' in name:
            x = 1 + .1 * x if name.endswith('weight') else .02 * x
        elif name.endswith('bias'):
            x = .02 * x
        elif 'embeddings' in name:
            x = .1 * x
        else:
            x = x / math.sqrt(math.prod(shape[1:]))
        return x.to(self.dtype)


def stream(path, tensors, dtype):
    """A safetensors file, one tensor in memory at a time. `tensors`: (name, shape, function that makes it)."""
    size, label = torch.tensor([], dtype=DTYPES[dtype][0]).element_size(), DTYPES[dtype][1]
    header, at = {'__metadata__': {'format': 'pt'}}, 0
    for name, shape, _ in tensors:
        end = at + math.prod(shape) * size
        header[name] = {'dtype': label, 'shape': list(shape), 'data_offsets': [at, end]}
        at = end
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    part = f'{path}.part'
    with open(part, 'wb') as file:
        file.write(struct.pack('<Q', len(text)) + text)
        for name, shape, make in tensors:
            tensor = make().contiguous()
            if tuple(tensor.shape) != tuple(shape):
                raise SystemExit(f'{name}: made {tuple(tensor.shape)}, expected {tuple(shape)}')
            file.write(tensor.numpy().data)
    os.replace(part, path)


def room_for(folder, needed):
    free = shutil.disk_usage(folder).free
    if free < needed * 1.2:
        raise SystemExit(f'{folder}: {free / 1e9:.1f} GB are free, {needed * 1.2 / 1e9:.1f} GB are needed')


def weights_of(folder, component):
    stem = 'model' if component.startswith('text') else 'diffusion_pytorch_model'
    return os.path.join(folder, component, f'{stem}.safetensors')


def write_single(path, folder, components, dtype):
    """Takes the folder's tensors, which stay in their mapped files but for those that the layout fuses or transposes."""
    flat = sdxl_models.single_file({component: load_file(weights_of(folder, component)) for component in components}, SPEC)
    stream(path, [(name, value.shape, lambda value=value: value) for name, value in flat.items()], dtype)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder')
    p.add_argument('--dtype', choices=DTYPES, default='f16')
    p.add_argument('--single-file', metavar='FILE')
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--threads', type=int, default=1)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    with torch.device('meta'):
        parts = sdxl_models.modules(SPEC)
    shapes = {component: {sdxl_models.public_name(component, name): tuple(t.shape) for name, t in part.state_dict().items()
                          if not name.endswith('position_ids')} for component, part in parts.items()}
    count = sum(math.prod(shape) for names in shapes.values() for shape in names.values())
    os.makedirs(args.folder, exist_ok=True)
    size = torch.tensor([], dtype=DTYPES[args.dtype][0]).element_size()
    room_for(args.folder, count * size * (2 if args.single_file else 1))
    numbers = Numbers(args.seed, DTYPES[args.dtype][0])
    for component, names in shapes.items():
        path = weights_of(args.folder, component)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        stream(path, [(name, shape, lambda c=component, n=name, s=shape: numbers.tensor(c, n, s)) for name, shape in names.items()], args.dtype)
        print(f'{component}: {len(names)} tensors, {sum(map(math.prod, names.values())) / 1e6:.1f} M numbers', flush=True)
    sdxl_models.write_rest(parts, SPEC, args.folder)
    if args.single_file:
        write_single(args.single_file, args.folder, shapes, args.dtype)
        print(f'{args.single_file}: {os.path.getsize(args.single_file) / 1e9:.1f} GB', flush=True)


if __name__ == '__main__':
    main()
