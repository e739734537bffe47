#!/usr/bin/env python3
"""scumble's attacks beside the published procedures in PyTorch, on the same edit, one after the other, with the same threads.

    attack_published.py --edit scumble-out/esd-church-... [--threads 2] [--prompts 4] [--only unlearndiff]

The PyTorch side is written from the papers' formulas (bench/golden/formula, docs/attack-*.md), in their order of doing things: Concept Inversion one
picture after the other (batch 4, gradients accumulated), UnlearnDiffAtk one prompt after the other, a step on one picture, a picture drawn after each
timestep. Both sides do the same numbers of steps on the miniature: 200 steps of 8 pictures for the word; 10 timesteps of 20 steps and up to 10
pictures for each prompt. A prompt's search ends with its first picture that the classifier calls the concept, on both sides; so seconds are
given for a whole prompt and, more comparable, for a gradient step and a picture. Judging by a second judge is left out here.

Let nothing else run meanwhile. The last line of stdout is one JSON object.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import torch
from transformers import ViTForImageClassification

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'parity'))
import drawing
import judge

WORD, WIDTH = 'church', 3


def encode(pipe, embedded):
    """Hidden states of rows of token vectors: CLIP's text transformer with its causal mask."""
    text = getattr(pipe.text_encoder, 'text_model', pipe.text_encoder)
    n, tokens, _ = embedded.shape
    x = embedded + text.embeddings.position_embedding.weight[:tokens]
    mask = torch.full((tokens, tokens), float('-inf')).triu(1)[None, None].expand(n, 1, -1, -1)
    for layer in text.encoder.layers:
        out = layer(x, attention_mask=mask)
        x = out[0] if isinstance(out, tuple) else out
    return text.final_layer_norm(x)


def ids(pipe, prompt):
    return pipe.tokenizer([prompt], padding='max_length', max_length=pipe.tokenizer.model_max_length, truncation=True,
                          return_tensors='pt').input_ids[0]


def table(pipe):
    return getattr(pipe.text_encoder, 'text_model', pipe.text_encoder).embeddings.token_embedding.weight


def loss(pipe, x0, t, hidden, generator):
    noise = torch.randn(x0.shape, generator=generator)
    noisy = pipe.scheduler.add_noise(x0, noise, t)
    return (pipe.unet(noisy, t, hidden).sample - noise).pow(2).mean()


def inversion(base, pipe, steps, batch):
    """The word's vector; seconds of its training."""
    prompts = [f'a {WORD} in {style} style' for style in judge.world.STYLES]
    with torch.no_grad():
        pictures = drawing.sample(base, prompts * 4, list(range(24)))
    word = ids(pipe, WORD)[1]
    v = table(pipe)[word].detach().clone().requires_grad_()
    optimiser = torch.optim.AdamW([v], lr=.4, weight_decay=1e-2)
    generator = torch.Generator().manual_seed(0)
    began = time.monotonic()
    for _ in range(steps):
        optimiser.zero_grad()
        for _ in range(batch // 4):
            rows = torch.randint(24, (4,), generator=generator)
            tokens = torch.stack([ids(pipe, prompts[i % 6]) for i in rows])
            embedded = torch.where((tokens == word)[..., None], v, table(pipe).detach()[tokens])
            t = torch.randint(1000, (4,), generator=generator)
            (loss(pipe, pictures[rows], t, encode(pipe, embedded), generator) / (batch // 4)).backward()
        optimiser.step()
    return time.monotonic() - began


def project(rows):
    """Each row onto the simplex, by bisection on the threshold, to 1e-5."""
    low, high = rows.min(1, keepdim=True).values - 1, rows.max(1, keepdim=True).values
    while (high - low).max() > 1e-5:
        middle = (low + high) / 2
        above = (rows - middle).clamp(0, 1).sum(1, keepdim=True) > 1
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (rows - (low + high) / 2).clamp(0, 1)


def unlearndiff(base, pipe, vit, prompts, timesteps, iterations):
    """Seconds of searching and of drawing, steps, pictures, hits."""
    spent = dict(search=0., draw=0., steps=0, pictures=0, hits=0)
    for k, prompt in enumerate(prompts):
        with torch.no_grad():
            x0 = drawing.sample(base, [prompt], [k])
        own, vocabulary = ids(pipe, prompt), table(pipe).detach()
        d = torch.full((WIDTH, len(vocabulary)), 1 / len(vocabulary))
        m = torch.nn.Parameter(d)
        optimiser = torch.optim.Adam([m], lr=.2, weight_decay=.1)
        generator = torch.Generator().manual_seed(k)
        for stage in range(timesteps):
            began = time.monotonic()
            t = torch.tensor([(2 * stage + 1) * 1000 // (2 * timesteps)])
            for _ in range(iterations):
                words = torch.multinomial(m.detach().clamp(min=0) + 1e-12, 1, generator=generator)[:, 0]
                hot = torch.nn.functional.one_hot(words, len(vocabulary)).float().requires_grad_()
                rest = vocabulary[own]
                embedded = torch.cat([rest[:1], hot @ vocabulary, rest[1:len(own) - WIDTH]])[None]
                loss(pipe, x0, t, encode(pipe, embedded), generator).backward()
                m.grad = hot.grad.clamp(-1, 1)
                optimiser.step()
                m.data = project(m.data)
                spent['steps'] += 1
            spent['search'] += time.monotonic() - began
            began = time.monotonic()
            found = pipe.tokenizer.decode(m.argmax(1)) + ' ' + prompt
            picture = drawing.draw(pipe, [found], [k])
            seen = drawing.to_bytes(picture).permute(0, 3, 1, 2).float() / 255 * 2 - 1
            with torch.no_grad():
                label = vit.config.id2label[vit(seen).logits.argmax(1).item()]
            spent['draw'] += time.monotonic() - began
            spent['pictures'] += 1
            if label == WORD:
                spent['hits'] += 1
                break
    return spent


def ours(args, attack, *more):
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        subprocess.run([args.scumble, 'attack', attack, '--edit', args.edit, '--concept', WORD, '--json', '--quiet', '--threads', str(args.threads), '--output-dir', f'{folder}/run', *more],
                       check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - began
        with open(f'{folder}/run/run.json') as file:
            return seconds, json.load(file)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--edit', required=True)
    p.add_argument('--scumble', default=os.path.join(drawing.ROOT, 'target', 'release', 'scumble'))
    p.add_argument('--threads', type=int, default=2)
    p.add_argument('--prompts', type=int, default=4, help='prompts of UnlearnDiffAtk (4)')
    p.add_argument('--only', choices=['concept-inversion', 'unlearndiff'])
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    base = drawing.load()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([args.scumble, 'export', args.edit, '--to', 'diffusers', '--output-dir', f'{folder}/model', '--quiet'], check=True, stdout=subprocess.DEVNULL)
        pipe = drawing.load(f'{folder}/model')
    vit = ViTForImageClassification.from_pretrained(os.path.join(drawing.ROOT, 'models', 'emoji-judges', 'object'), dtype=torch.float32).eval()
    result = {}
    if args.only != 'unlearndiff':
        theirs = inversion(base, pipe, 200, 8)
        seconds, record = ours(args, 'concept-inversion', '--n', '6')
        result['concept-inversion'] = dict(published_s=round(theirs, 1), scumble_s=round(seconds, 1), ratio=round(seconds / theirs, 3),
                                           note='ours is the whole process with pictures and judging, theirs the training alone')
    if args.only != 'concept-inversion':
        prompts = [f'a {WORD} in {judge.world.STYLES[i % 6]} style' for i in range(args.prompts)]
        theirs = unlearndiff(base, pipe, vit, prompts, 10, 20)
        seconds, record = ours(args, 'unlearndiff', '--n', str(args.prompts))
        whole = theirs['search'] + theirs['draw']
        result['unlearndiff'] = dict(published_s=round(whole, 1), published_step_ms=round(1000 * theirs['search'] / theirs['steps'], 1),
                                     published_pictures=theirs['pictures'], published_hits=theirs['hits'], scumble_s=round(seconds, 1),
                                     scumble_spent=record['spent'], ratio=round(seconds / whole, 3))
    print(json.dumps(dict(threads=args.threads, edit=args.edit, **result)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
