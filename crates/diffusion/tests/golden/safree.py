"""SAFREE's projections and self-validation in numpy, for tests/guards.rs: prints the literals of `SAFREE`.

As in jaehong31/SAFREE (b8b2c3f), models/modified_stable_diffusion_pipeline.py: `projection_matrix`, `projection_and_orthogonal`, `f_beta`
and the block under `if sf["svf"]`.
"""
import math

import numpy as np


def wave(n, width, seed):
    return np.sin(0.37 * np.arange(n * width, dtype=np.float64) ** 2 + seed).astype(np.float32).astype(np.float64).reshape(n, width)


def projection(rows):
    e = rows.T
    return e @ np.linalg.pinv(e.T @ e) @ e.T


def states(tokens, width, words, near, seed):
    """Words' states lie near the masked prompts', which is what a text encoder gives."""
    masked = wave(words, width, seed)
    return masked, near * wave(tokens, words, seed + 0.4) @ masked + 0.3 * wave(tokens, width, seed + 0.9)


def case(tokens, width, words, concepts, near, seed, most=10.0, k=2.5, tau=5.333):
    masked, text = states(tokens, width, words, near, seed)
    concept = wave(concepts, width, seed + 2.3)
    turned = ((np.eye(width) - projection(concept)) @ projection(masked) @ text.T).T
    mask = np.arange(tokens) < words + 2
    a, b = turned[mask], text[mask]
    beta = 1 - ((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).mean()
    steps = round(most / (1 + math.exp(-2.0 * k * (10 * beta - tau)))) + 1
    return beta, steps, turned[0, :3]


for args in [(8, 24, 3, 1, 0.15, 0.0), (10, 24, 3, 5, 0.04, 1.0), (6, 24, 2, 3, 0.06, 2.0)]:
    beta, steps, first = case(*args)
    print(f"    ({args}, {beta:.7f}, {steps}, [{', '.join(f'{x:.6f}' for x in first)}]),")
