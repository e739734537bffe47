#!/usr/bin/env python3
"""An independent check of scumble's judging: diffusers draws the judging pictures, transformers judges them.

    judge.py --concept church                                        the untouched miniature
    judge.py --concept church --edit esd-church.safetensors          a partial U-Net on it (repeatable, in order)
    judge.py --concept "ink style" --model exported-folder           any pipeline folder

48 pictures of the target and, of the rest, an object's 31 others x 6 styles or a style's 32 objects x 5 other styles; 20 DDIM steps,
guidance 4, one noise for each picture whatever the model. `target` is the fraction that shows the concept, `others` the fraction that
shows what its prompt names. Prints JSON with the keys of `scumble erase --json` and Wilson intervals. The noise is this script's own
(seeds from --seed), so its rates agree with scumble's within the intervals, not digit for digit.
"""
import argparse
import importlib.util
import json
import os
import time

import torch
from transformers import ViTForImageClassification

import drawing

spec = importlib.util.spec_from_file_location('world', os.path.join(drawing.ROOT, 'assets', 'emoji-world', 'world.py'))
world = importlib.util.module_from_spec(spec)
spec.loader.exec_module(world)


def plan(concept):
    """(target rows, other rows, judge's name); a row is (prompt, set of labels that count as right)."""
    name = concept.removesuffix(' style').strip()
    if name in world.STYLES:
        def row(obj, style):
            return f'{world.article(obj)} in {style} style', {style}
        objects = [world.OBJECTS[i % len(world.OBJECTS)] for i in range(48)]
        return ([row(o, name) for o in objects], [row(o, s) for o in world.OBJECTS for s in world.STYLES if s != name], 'style')
    members = {name} if name in world.OBJECTS else {o for o, c in world.CATEGORY.items() if c == name}
    if not members:
        raise SystemExit(f'{concept}: neither an object, a category nor a style of the miniature')
    target = [(f'{world.article(name)} in {s} style', members) for s in world.STYLES for _ in range(8)]
    others = [(f'{world.article(o)} in {s} style', {o}) for o in world.OBJECTS if o not in members for s in world.STYLES]
    return target, others, 'object'


def judge(pictures, which):
    """The label of each picture in [-1, 1]; what the judge sees went through 8 bits, as in a file."""
    vit = ViTForImageClassification.from_pretrained(os.path.join(drawing.ROOT, 'models', 'emoji-judges', which), dtype=torch.float32).eval()
    seen = drawing.to_bytes(pictures).permute(0, 3, 1, 2).float() / 255 * 2 - 1
    with torch.no_grad():
        best = vit(seen).logits.argmax(1).tolist()
    return [vit.config.id2label[i] for i in best]


def wilson(hits, n, z=1.959964):
    p, d = hits / n, 1 + z * z / n
    middle, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** .5
    return [round((middle - half) / d, 4), round((middle + half) / d, 4)]


def rates(pipe, concept, seed=90_000, batch=16):
    target, others, which = plan(concept)
    rows = target + others
    pictures = drawing.draw(pipe, [p for p, _ in rows], [seed + i for i in range(len(rows))], 20, 4., batch)
    right = [label in wanted for label, (_, wanted) in zip(judge(pictures, which), rows)]
    out = {}
    for name, part in (('target', right[:len(target)]), ('others', right[len(target):])):
        out[name] = round(sum(part) / len(part), 4)
        out[f'{name}_interval'] = wilson(sum(part), len(part))
    return out, {'target': len(target), 'others': len(others)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--concept', required=True)
    p.add_argument('--model', default=drawing.MODEL, help='a pipeline folder (default: the miniature)')
    p.add_argument('--edit', action='append', default=[], help='a partial file with diffusers names')
    p.add_argument('--seed', type=int, default=90_000, help='picture i is drawn from seed + i')
    p.add_argument('--threads', type=int, default=1)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    began, pipe = time.perf_counter(), drawing.load(args.model)
    tensors = sum(drawing.put(pipe, e) for e in args.edit)
    after, n = rates(pipe, args.concept, args.seed)
    print(json.dumps({'concept': args.concept, 'model': args.model, 'edit': args.edit, 'tensors': tensors, 'rates': after, 'n': n,
                      'seconds': round(time.perf_counter() - began, 1)}))


if __name__ == '__main__':
    main()
