#!/usr/bin/env python3
"""Proof that other software loads the word that `scumble attack concept-inversion` found, and draws the same picture with it.

    word_elsewhere.py --word scumble-out/attack-.../church.safetensors [--scumble target/release/scumble]

diffusers: `load_textual_inversion`, the same noise (DDIM), compared with the PNG of `scumble generate --embedding FILE`; exit 1 under 40 dB.
A1111: its loader takes a safetensors file whose single tensor is `[vectors, width]` (or one named `emb_params`) and the word from the
file's name; the file is checked against that, since the program itself is not installed by a script.
"""
import argparse
import glob
import os
import subprocess
import sys
import tempfile

import torch
from PIL import Image
from safetensors.torch import load_file

import drawing
from loads_elsewhere import psnr


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--word', required=True, metavar='FILE')
    p.add_argument('--scumble', default=os.path.join(drawing.ROOT, 'target', 'release', 'scumble'))
    p.add_argument('--prompt', default='a {} in ink style')
    p.add_argument('--seed', type=int, default=3)
    args = p.parse_args()
    tensors = load_file(args.word)
    (token, vectors), = tensors.items()
    width = drawing.load().text_encoder.config.hidden_size
    name = os.path.splitext(os.path.basename(args.word))[0]
    for_a1111 = vectors.ndim == 2 and vectors.shape[1] == width and vectors.dtype == torch.float32
    print(f'A1111: one tensor, {tuple(vectors.shape)} {vectors.dtype}, loaded as the word `{name}`: {"ok" if for_a1111 else "NO"}')
    prompt = args.prompt.format(token)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([args.scumble, 'generate', prompt, '--embedding', args.word, '--seed', str(args.seed), '--steps', '20', '--guidance-scale', '4',
                        '--sampler', 'ddim', '--quiet', '--output-dir', folder], check=True, stdout=subprocess.DEVNULL)
        picture = Image.open(glob.glob(f'{folder}/*.png')[0]).convert('RGB')
        ours = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).reshape(picture.height, picture.width, 3)
    pipe = drawing.load()
    pipe.load_textual_inversion(os.path.dirname(os.path.abspath(args.word)), weight_name=os.path.basename(args.word))
    # diffusers writes a word of several vectors out as word word_1 word_2 itself.
    theirs = drawing.to_bytes(drawing.draw(pipe, [pipe.maybe_convert_prompt(prompt, pipe.tokenizer)], [args.seed], 20, 4.))[0]
    apart = psnr(theirs, ours, 255)
    print(f'diffusers: `{prompt}` is {apart:.1f} dB from scumble\'s picture')
    return 0 if apart >= 40 and for_a1111 else 1


if __name__ == '__main__':
    sys.exit(main())
