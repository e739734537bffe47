"""The single operations of bench/study/compare in PyTorch: one call each, as diffusers' modules make it, eager, in PyTorch's own layouts."""
import torch
import torch.nn.functional as F

from cells import OPERATIONS, PEAK_PRODUCT
from formula import activation, weight


def conv(s):
    x = activation('x', s['n'], s['c'], s['side'], s['side'])
    w, b = weight('weight', s['c'], s['c'], 3, 3), weight('bias', s['c'])

    def forward(x, w, b):
        if s['up'] > 1:
            x = F.interpolate(x, scale_factor=float(s['up']), mode='nearest')
        return F.conv2d(x, w, b, stride=s['stride'], padding=1)
    return forward, (x, w, b)


def attention(s):
    n, c, heads = s['n'], s['c'], s['heads']
    q, k, v = activation('q', n, s['tokens'], c), activation('k', n, s['keys'], c), activation('v', n, s['keys'], c)

    def forward(q, k, v):
        q, k, v = (t.view(n, -1, heads, c // heads).transpose(1, 2) for t in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, -1, c)
    return forward, (q, k, v)


def group_norm(s):
    x = activation('x', s['n'], s['c'], s['side'], s['side'])
    return lambda x, gamma, beta: F.silu(F.group_norm(x, 32, gamma, beta, 1e-5)), (x, weight('gamma', s['c']), weight('beta', s['c']))


def layer_norm(s):
    inputs = activation('x', 1, s['rows'], s['c']), weight('gamma', s['c']), weight('beta', s['c'])
    return lambda x, gamma, beta: F.layer_norm(x, (s['c'],), gamma, beta, 1e-5), inputs


def geglu(s):
    def forward(x):
        value, gate = x.chunk(2, dim=-1)
        return value * F.gelu(gate)
    return forward, (activation('x', 1, s['rows'], 8 * s['c']),)


def linear(s):
    return F.linear, (activation('x', 1, s['rows'], s['c']), weight('weight', s['d'], s['c']), weight('bias', s['d']))


MAKERS = {'conv': conv, 'attention': attention, 'group-norm': group_norm, 'layer-norm': layer_norm, 'geglu': geglu, 'linear': linear}


def prepare(name):
    """A function without arguments that computes the cell once; None if it is no single operation. With a backward pass it returns the
    gradients of all inputs, the first input's first."""
    if name == PEAK_PRODUCT:
        x, w = activation('x', 2048, 2048), activation('weight', 2048, 2048)
        return torch.inference_mode()(lambda: torch.mm(x, w.t()))
    shape = OPERATIONS.get(name)
    if shape is None:
        return None
    forward, inputs = MAKERS[shape['op']](shape)
    if not shape.get('step'):
        return torch.inference_mode()(lambda: forward(*inputs))
    for tensor in inputs:
        tensor.requires_grad_(True)
    with torch.no_grad():
        dy = activation('dy', *forward(*inputs).shape)
    return lambda: torch.autograd.grad(forward(*inputs), inputs, dy)
