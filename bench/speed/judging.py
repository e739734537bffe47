#!/usr/bin/env python3
"""1,000 pictures of the miniature drawn and judged: `scumble evaluate` beside diffusers, transformers and torch.

    cargo build --release
    python bench/speed/judging.py [--pictures 1000] [--threads 2] [--scumble FILE]

Both sides load the miniature, its two judges and its CLIP from disk, draw the same prompts (20 DDIM steps, guidance 4, batches of 32, one generator for
each picture), name object and style of every picture, and compute the cosine to its prompt; both write every picture as PNG. One side runs after the other in
one call, with an empty cache; what is compared is the time from process start to end. The judges' counts of both sides are printed: they differ by the pictures
that rounding changes. Needs bench/requirements.txt.
"""
import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
STYLES = ['noto', 'blob', 'twemoji', 'fluent', 'ink', 'emojione']
STEPS, GUIDANCE, BATCH = 20, 4., 32


def rows(n):
    sys.path.insert(0, os.path.join(ROOT, 'assets', 'emoji-world'))
    objects = json.load(open(os.path.join(ROOT, 'models', 'emoji-judges', 'object', 'config.json')))['id2label']
    objects = [objects[str(i)] for i in range(len(objects))]
    article = lambda noun: ('an ' if noun[0] in 'aeiou' else 'a ') + noun
    grid = [(o, s) for s in STYLES for o in objects]
    return [(i, f'{article(grid[i % len(grid)][0])} in {grid[i % len(grid)][1]} style', 1000 + i, *grid[i % len(grid)]) for i in range(n)]


def ours(args, table, folder):
    env = dict(os.environ, SCUMBLE_CACHE=os.path.join(folder, 'cache'))
    command = [args.scumble, 'evaluate', '--prompts', table, '--sets', 'prompts', '--json', '--quiet', '--threads', str(args.threads), '--output-dir',
               os.path.join(folder, 'out')]
    began = time.monotonic()
    lines = subprocess.check_output(command, env=env, text=True).splitlines()
    seconds = time.monotonic() - began
    # Judging alone: the pictures stay, what was seen of them goes.
    subprocess.run(['rm', '-rf', os.path.join(folder, 'out', 'facts'), os.path.join(folder, 'cache', 'evaluated', 'facts')], check=True)
    began = time.monotonic()
    subprocess.check_output([*command, '--overwrite'], env=env)
    found = {row['metric']: row['value'] for row in map(json.loads, lines)}
    return {'seconds': seconds, 'judging': time.monotonic() - began, 'object': found['prompts:object'], 'style': found['prompts:style'],
            'clip': found['clip-score-emoji:prompts']}


THEIRS = r'''
import csv, json, os, sys, time
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from transformers import CLIPModel, ViTForImageClassification, ViTImageProcessor, CLIPImageProcessor
root, table, folder, threads, steps, guidance, batch = sys.argv[1:]
torch.set_num_threads(int(threads))
steps, guidance, batch = int(steps), float(guidance), int(batch)
models = os.path.join(root, 'models')
pipe = StableDiffusionPipeline.from_pretrained(os.path.join(models, 'emoji-sd'), torch_dtype=torch.float32, safety_checker=None)
pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
pipe.set_progress_bar_config(disable=True)
judges = {k: (ViTForImageClassification.from_pretrained(os.path.join(models, 'emoji-judges', k)).eval(),
              ViTImageProcessor.from_pretrained(os.path.join(models, 'emoji-judges', k))) for k in ('object', 'style')}
clip = CLIPModel.from_pretrained(os.path.join(models, 'emoji-clip')).eval()
see = CLIPImageProcessor.from_pretrained(os.path.join(models, 'emoji-clip'))
os.makedirs(folder, exist_ok=True)
rows = list(csv.DictReader(open(table)))
hits, near, judging = {'object': 0, 'style': 0}, 0., 0.
with torch.no_grad():
    for start in range(0, len(rows), batch):
        part = rows[start:start + batch]
        prompts = [row['prompt'] for row in part]
        generators = [torch.Generator().manual_seed(int(row['evaluation_seed'])) for row in part]
        pictures = pipe(prompts, num_inference_steps=steps, guidance_scale=guidance, generator=generators).images
        for row, picture in zip(part, pictures):
            picture.save(os.path.join(folder, row['case_number'] + '.png'))
        began = time.monotonic()
        for kind, (judge, processor) in judges.items():
            best = judge(**processor(pictures, return_tensors='pt')).logits.argmax(-1)
            hits[kind] += sum(judge.config.id2label[int(i)] == row[kind] for i, row in zip(best, part))
        ids = pipe.tokenizer(prompts, padding='max_length', max_length=pipe.tokenizer.model_max_length, truncation=True, return_tensors='pt').input_ids
        out = clip(input_ids=ids, pixel_values=see(pictures, return_tensors='pt')['pixel_values'])
        near += float((out.image_embeds * out.text_embeds).sum(-1).sum())
        judging += time.monotonic() - began
n = len(rows)
print(json.dumps({'object': hits['object'] / n, 'style': hits['style'] / n, 'clip': near / n, 'judging': judging}))
'''


def theirs(args, table, folder):
    began = time.monotonic()
    out = subprocess.check_output([sys.executable, '-c', THEIRS, ROOT, table, os.path.join(folder, 'theirs'), str(args.threads), str(STEPS), str(GUIDANCE), str(BATCH)],
                                  text=True, stderr=subprocess.DEVNULL, env=dict(os.environ, OMP_NUM_THREADS=str(args.threads)))
    return {'seconds': time.monotonic() - began, **json.loads(out.splitlines()[-1])}


def main():
    p = argparse.ArgumentParser(prog='bench/speed/judging.py', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--pictures', type=int, default=1000, metavar='N')
    p.add_argument('--threads', type=int, default=os.cpu_count(), metavar='N', help='of both sides')
    p.add_argument('--scumble', default=os.path.join(ROOT, 'target', 'release', 'scumble'), metavar='FILE')
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = os.path.join(folder, 'prompts.csv')
        with open(table, 'w', newline='') as file:
            csv.writer(file).writerows([('case_number', 'prompt', 'evaluation_seed', 'object', 'style'), *rows(args.pictures)])
        sides = {'scumble': ours(args, table, folder), 'torch': theirs(args, table, folder)}
    for name, side in sides.items():
        print(f"{name:8} {side['seconds']:7.1f} s, of it judging {side['judging']:6.1f} s · object {100 * side['object']:.1f}%, style {100 * side['style']:.1f}%, "
              f"CLIP score {side['clip']:.4f}")
    print(f"ratio    {sides['torch']['seconds'] / sides['scumble']['seconds']:.2f}")


if __name__ == '__main__':
    main()
