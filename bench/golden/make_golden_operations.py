#!/usr/bin/env python3
"""Writes crates/kernels/tests/golden/operations.safetensors: inputs, results and gradients of single operations, by PyTorch in f64.

    python bench/golden/make_golden_operations.py

Maps are stored channels last, as scumble's kernels have them. Shapes are drawn from a fixed seed: odd sizes, one picture, one
group, maps of one place among them. A case is named OPERATION.NUMBER; its tensors are CASE/x, CASE/w ..., CASE/dy, CASE/y and
CASE/d_x ...; what is not a tensor stands in the metadata as JSON.
"""
import json
import os
import random

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

OUT = os.path.join(os.path.dirname(__file__), '..', '..', 'crates', 'kernels', 'tests', 'golden', 'operations.safetensors')
CASES = 6


def last(x):
    return x.permute(0, 2, 3, 1)


def first(x):
    return x.permute(0, 3, 1, 2)


def conv(t, s):
    x = first(t['x'])
    if s['size']:
        x = F.interpolate(x, size=s['size'], mode='nearest')
    x = F.pad(x, (0, 1, 0, 1)) if s['below_right'] else F.pad(x, (1, 1, 1, 1))
    return last(F.conv2d(x, t['w'], t['b'], stride=s['stride']))


def attention(t, s):
    def split(x):
        return x.unflatten(2, (s['heads'], -1)).transpose(1, 2)
    y = F.scaled_dot_product_attention(split(t['q']), split(t['k']), split(t['v']), is_causal=s['causal'])
    return y.transpose(1, 2).flatten(2)


def group_norm(t, s):
    y = last(F.group_norm(first(t['x']), s['groups'], t['gamma'], t['beta'], s['eps']))
    return F.silu(y) if s['silu'] else y


def geglu(t, s):
    value, gate = t['x'].chunk(2, dim=2)
    return value * F.gelu(gate)


RULES = {
    'linear': lambda t, s: F.linear(t['x'], t['w'], t.get('b')),
    'conv3x3': conv,
    'attention': attention,
    'group_norm': group_norm,
    'layer_norm': lambda t, s: F.layer_norm(t['x'], t['gamma'].shape, t['gamma'], t['beta'], s['eps']),
    'geglu': geglu,
    'silu': lambda t, s: F.silu(t['x']),
    'gelu': lambda t, s: F.gelu(t['x']),
    'quick_gelu': lambda t, s: t['x'] * torch.sigmoid(1.702 * t['x']),
}


def draw(operation, i, rng):
    """Shapes and settings of one case."""
    n, tokens, c, out = rng.randint(1, 3), rng.randint(1, 19), rng.randint(1, 21), rng.randint(1, 23)
    if operation == 'linear':
        shapes = {'x': (n, tokens, c), 'w': (out, c)}
        return shapes | ({'b': (out,)} if i % 2 else {}), {}
    if operation == 'conv3x3':
        h, w = (1, 1) if i == 0 else (rng.randint(1, 9), rng.randint(1, 9))
        stride, below_right = rng.choice([(1, False), (1, False), (2, False), (2, True)]) if min(h, w) > 1 else (1, False)
        size = rng.choice([None, [2 * h, 2 * w], [2 * h - 1, 2 * w + 1]]) if stride == 1 else None
        if i == CASES - 1:  # Wide enough for Winograd's way where the kernel is kept.
            h, w, c, out, stride, below_right, size = 9, 11, 16, 32, 1, False, None
        return {'x': (n, h, w, c), 'w': (out, c, 3, 3), 'b': (out,)}, {'stride': stride, 'below_right': below_right, 'size': size}
    if operation == 'attention':
        heads, causal = rng.randint(1, 3), i % 3 == 2
        keys = tokens if causal else rng.randint(1, 17)
        width = heads * rng.randint(1, 9)
        return {'q': (n, tokens, width), 'k': (n, keys, width), 'v': (n, keys, width)}, {'heads': heads, 'causal': causal}
    if operation == 'group_norm':
        groups = 1 if i == 1 else rng.randint(1, 5)
        h, w = (1, 1) if i == 0 else (rng.randint(1, 7), rng.randint(1, 7))
        width = groups * rng.randint(2, 7)
        return {'x': (n, h, w, width), 'gamma': (width,), 'beta': (width,)}, {'groups': groups, 'eps': 1e-5, 'silu': bool(i % 2)}
    if operation == 'layer_norm':
        return {'x': (n, tokens, c + 1), 'gamma': (c + 1,), 'beta': (c + 1,)}, {'eps': 1e-5}
    return {'x': (n, tokens, 2 * c)}, {}


def main():
    torch.manual_seed(0)
    rng = random.Random(0)
    tensors, settings = {}, {}
    for operation, rule in RULES.items():
        for i in range(CASES):
            shapes, s = draw(operation, i, rng)
            case = f'{operation}.{i}'
            # The numbers are f32, so that both sides start from the same; sums are f64.
            t = {name: torch.randn(shape, dtype=torch.float32).double().requires_grad_() for name, shape in shapes.items()}
            y = rule(t, s)
            dy = torch.randn(y.shape, dtype=torch.float32).double()
            y.backward(dy)
            settings[case] = s
            found = {'dy': dy, 'y': y.detach()} | {name: x.detach() for name, x in t.items()} | {f'd_{name}': x.grad for name, x in t.items()}
            tensors.update({f'{case}/{name}': x.float().contiguous() for name, x in found.items()})
    os.makedirs(os.path.dirname(OUT), exist_ok=True)
    save_file(tensors, OUT, metadata={'settings': json.dumps(settings), 'made_by': 'bench/golden/make_golden_operations.py', 'torch': torch.__version__})


if __name__ == '__main__':
    main()
