#!/usr/bin/env python3
"""Writes gradients.safetensors (read by ../gradients.rs) and clip.safetensors (read by ../parity.rs), both beside this file.

Inputs come from a formula that the tests repeat, so that only results are stored. f32 on the CPU; the weights are the files' own.
torch 2.15.0, diffusers 0.42.1, transformers 5.23.0:  OMP_NUM_THREADS=1 python crates/nn/tests/golden/gradients.py
"""
import os

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPModel, CLIPTextModel, ViTForImageClassification

HERE = os.path.dirname(os.path.abspath(__file__))
MODELS = os.path.join(HERE, '..', '..', '..', '..', 'models')


def numbers(shape, stream):
    """Numbers in [-1, 1] that look random and are the same in every language."""
    i = torch.arange(torch.Size(shape).numel(), dtype=torch.int64)
    return (((i * i + i * 7919 + stream * 104729) % 1009).double() / 504 - 1).float().reshape(shape)


def unet(name, size, out):
    """loss = mean of (net(z, t, c) - target)^2; gradients of some tensors of each kind, of z and of c."""
    net = UNet2DConditionModel.from_pretrained(os.path.join(HERE, 'networks', name, 'model', 'unet'), torch_dtype=torch.float32).eval()
    z = numbers([2, 4, *size], 1).requires_grad_()
    c = numbers([2, 7, net.config.cross_attention_dim], 2).requires_grad_()
    prediction = net(z, torch.tensor([17., 803.]), c).sample
    loss = ((prediction - numbers(prediction.shape, 3)) ** 2).mean()
    loss.backward()
    out[f'{name}.loss'] = loss.detach().reshape(1)
    out[f'{name}.z'], out[f'{name}.c'] = z.grad, c.grad
    kinds = ['conv_in.', 'conv_out.', 'conv_norm_out.', 'time_embedding.linear_1.', 'time_embedding.linear_2.', 'down_blocks.0.resnets.0.',
             'down_blocks.0.downsamplers.', 'down_blocks.0.attentions.0.', 'mid_block.attentions.0.', 'up_blocks.0.upsamplers.',
             'up_blocks.1.resnets.0.conv_shortcut.']
    for key, p in net.named_parameters():
        assert p.grad is not None, key
        if any(key.startswith(kind) for kind in kinds) and (name == 'odd' or 'attentions' in key):
            out[f'{name}.unet.{key}'] = p.grad


def text(out):
    """loss = sum of hidden * numbers, for two prompts of the small text encoder."""
    net = CLIPTextModel.from_pretrained(os.path.join(HERE, 'networks', 'odd', 'model', 'text_encoder'), dtype=torch.float32).eval()
    ids = torch.tensor([[724, 300, 41, 300, 725, 725, 725], [724, 5, 6, 7, 8, 9, 725]])
    hidden = net(ids).last_hidden_state
    (hidden * numbers(hidden.shape, 4)).sum().backward()
    for key, p in net.named_parameters():
        key = key if key.startswith('text_model.') else f'text_model.{key}'
        # Of the table only the rows of the prompts have a gradient.
        if 'token_embedding' in key:
            rows = torch.unique(ids)
            assert p.grad[[r for r in range(len(p)) if r not in rows.tolist()]].abs().max() == 0
            out['text.rows'], out['text.rows.gradient'] = rows, p.grad[rows]
        else:
            out[f'text.{key}'] = p.grad


def vit(out):
    net = ViTForImageClassification.from_pretrained(os.path.join(MODELS, 'emoji-judges', 'style'), dtype=torch.float32).eval()
    x = numbers([1, 3, 32, 32], 5).requires_grad_()
    logits = net(x).logits
    torch.nn.functional.cross_entropy(logits, torch.tensor([2])).backward()
    out['vit.logits'], out['vit.x'] = logits.detach(), x.grad


def clip(out):
    net = CLIPModel.from_pretrained(os.path.join(MODELS, 'emoji-clip'), dtype=torch.float32).eval()
    ids = torch.tensor([[724, 320, 500, 271, 600, 725, 725, 725], [724, 5, 6, 725, 725, 725, 725, 725]])
    with torch.no_grad():
        made = net(input_ids=ids, pixel_values=numbers([2, 3, 64, 64], 6) * 2)
    # The towers' projections, divided by their lengths, as CLIPModel itself does before it compares them.
    out['text_features'], out['image_features'] = made.text_embeds, made.image_embeds


def write(name, *makers):
    out = {}
    for make in makers:
        make(out)
    save_file({k: v.contiguous() for k, v in out.items()}, os.path.join(HERE, name))
    print(name, len(out), os.path.getsize(os.path.join(HERE, name)))


write('gradients.safetensors', lambda out: unet('odd', [6, 5], out), lambda out: unet('sd2', [12, 9], out), text, vit)
write('clip.safetensors', clip)
