"""Numbers that a name alone determines, the same on both sides of bench/study/compare, so that neither needs the other's files.

    hash = FNV-1a, 32 bits, of the name; for element i, in the tensor's row-major order and modulo 2^32 throughout:
    x = i * 2654435761 + hash; x ^= x >> 16; x *= 0x7feb352d; x ^= x >> 15; x *= 0x846ca68b; x ^= x >> 16; r = 2 (x >> 8) 2^-24 - 1.

r is uniform in [-1, 1) and exact in f32. Large tensors are filled in place, in pieces that stay in the cache, on several threads.
"""
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

STEP = np.uint32(2654435761)
PIECE = 1 << 16                                                          # elements; three buffers of it fit a core's cache
STRETCH = 1 << 22                                                        # elements that one thread takes at a time


def fnv(name):
    h = 0x811c9dc5
    for byte in name.encode():
        h = (h ^ byte) * 0x01000193 & 0xffffffff
    return h


def stretch(out, seed, first, scale, offset):
    """Writes scale * r + offset of the elements from `first` on into `out` (one-dimensional f32); None leaves a part out."""
    steps = np.arange(min(PIECE, out.size), dtype=np.uint32) * STEP
    x, shifted = np.empty_like(steps), np.empty_like(steps)
    for at in range(0, out.size, PIECE):
        part = out[at:at + PIECE]
        y, s = x[:part.size], shifted[:part.size]
        np.add(steps[:part.size], np.uint32(((first + at) * int(STEP) + seed) & 0xffffffff), out=y)
        for shift, factor in ((16, 0x7feb352d), (15, 0x846ca68b), (16, None)):
            np.right_shift(y, np.uint32(shift), out=s)
            np.bitwise_xor(y, s, out=y)
            if factor:
                np.multiply(y, np.uint32(factor), out=y)
        np.right_shift(y, np.uint32(8), out=y)
        np.multiply(y.view(np.int32), np.float32(2 ** -23), out=part, casting='unsafe', dtype=np.float32)
        part -= np.float32(1)
        if scale is not None:
            part *= np.float32(scale)
        if offset is not None:
            part += np.float32(offset)


def fill(tensor, name, scale=None, offset=None):
    """Fills a contiguous f32 CPU tensor in place."""
    flat, seed = tensor.detach().numpy().reshape(-1), fnv(name)
    starts = range(0, flat.size, STRETCH)
    if len(starts) < 2:
        stretch(flat, seed, 0, scale, offset)
    else:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(lambda at: stretch(flat[at:at + STRETCH], seed, at, scale, offset), starts))
    return tensor


def fill_weight(tensor, name):
    """Weights that keep variances near one: uniform, scaled by fan-in; norms around one; biases small."""
    if tensor.ndim < 2:
        return fill(tensor, name, .1, 1. if name.endswith('.weight') else None)
    if name.endswith(('token_embedding.weight', 'position_embedding.weight')):
        return fill(tensor, name, .02)
    return fill(tensor, name, math.sqrt(3 / math.prod(tensor.shape[1:])))


def activation(name, *shape, scale=None):
    """The input of that name: r, times `scale`."""
    return fill(torch.empty(shape), f'input.{name}', scale)


def weight(name, *shape):
    """A single operation's weight of that name."""
    return fill_weight(torch.empty(shape), f'input.{name}')


def ids(rows, positions, vocabulary):
    """Token ids, (rows, positions)."""
    first = fnv('input.ids')
    return torch.tensor([[(first + 31 * j + 7 * p) % vocabulary for p in range(positions)] for j in range(rows)])


def fingerprint(result):
    """Mean, mean of absolute values, and six elements evenly spread from the first to the last."""
    flat = result.detach().reshape(-1).numpy()
    ends = [flat[k * (flat.size - 1) // 5] for k in range(6)]
    return [float(v) for v in (flat.mean(dtype=np.float64), np.abs(flat).mean(dtype=np.float64), *ends)]
