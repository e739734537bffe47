#!/usr/bin/env python3
"""UCE as its authors ran it in 2023, on any diffusers folder: what scumble's `--method uce` is held against by bench/speed/closed_form.sh.

Every key and value matrix W of the cross-attention becomes

    (lambda W + sum_e W g_e c_e^T + s_p sum_p W c_p c_p^T) (lambda I + sum_e c_e c_e^T + s_p sum_p c_p c_p^T)^-1

in f32, where c_e and g_e are the rows of the concept's prompt and of the guide from the last word to the end of the padding, and c_p all
rows of the empty prompt. As published, sums and inverse are made anew for each of the matrices. Written from the formula.

In PyTorch's favour: only the tokenizer, the text encoder and the U-Net are loaded, and the edit is written as the changed matrices alone,
where the published script loads and writes the whole U-Net.

    uce_published.py CONCEPT --model FOLDER [--guide TEXT] [--out FILE]

Prints JSON: {"load_seconds", "edit_seconds", "write_seconds", "matrices"}; whole-process time is the caller's to take.
"""
import argparse
import json
import os
import time

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer

LAMBDA, ERASE_SCALE, PRESERVE_SCALE = .5, 1., 1.


def load(folder, kind, part):
    return kind.from_pretrained(os.path.join(folder, part), dtype=torch.float32, local_files_only=True).eval()


def matrices(unet):
    """The modules whose weights are edited, by name."""
    return {name: module for name, module in unet.named_modules() if name.endswith(('attn2.to_k', 'attn2.to_v'))}


def encode(tokenizer, encoder, prompts):
    """Hidden states, [n, 77, width], and each prompt's last word's position."""
    tokens = tokenizer(prompts, padding='max_length', max_length=tokenizer.model_max_length, truncation=True, return_tensors='pt')
    last = [int(mask.sum()) - 2 for mask in tokens.attention_mask]
    return encoder(tokens.input_ids)[0], last


def edit(module, concept, guide, kept):
    """The new matrix. concept and guide: [rows, width]; kept: [tokens, width]."""
    old = module.weight
    width = old.shape[1]
    left, right = LAMBDA * old, LAMBDA * torch.eye(width)
    for rows, targets, weight in [(concept, module(guide), ERASE_SCALE), (kept, module(kept), PRESERVE_SCALE)]:
        left = left + weight * (targets.T @ rows)
        right = right + weight * (rows.T @ rows)
    return left @ torch.inverse(right)


@torch.no_grad()
def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('concept')
    p.add_argument('--model', required=True)
    p.add_argument('--guide', default='')
    p.add_argument('--out', help='where to write the edited matrices')
    args = p.parse_args()

    began = time.perf_counter()
    tokenizer = CLIPTokenizer.from_pretrained(os.path.join(args.model, 'tokenizer'), local_files_only=True)
    encoder, unet = load(args.model, CLIPTextModel, 'text_encoder'), load(args.model, UNet2DConditionModel, 'unet')
    loaded = time.perf_counter()
    hidden, last = encode(tokenizer, encoder, [args.concept, args.guide, ''])
    rows = hidden.shape[1] - max(last[:2])
    concept, guide = (hidden[i, last[i]:last[i] + rows] for i in range(2))
    new = {f'{name}.weight': edit(module, concept, guide, hidden[2]) for name, module in matrices(unet).items()}
    edited = time.perf_counter()
    if args.out:
        save_file({name: value.contiguous() for name, value in new.items()}, args.out)
    written = time.perf_counter()
    print(json.dumps({'load_seconds': loaded - began, 'edit_seconds': edited - loaded, 'write_seconds': written - edited,
                      'matrices': len(new)}))


if __name__ == '__main__':
    main()
