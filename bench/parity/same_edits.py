#!/usr/bin/env python3
"""Proof that a redesign changed nothing on the miniature: two programs make the same edits and draw the same pictures.

    same_edits.py OLD NEW [--only 'esd*'] [--most 1e-6]

Erases church with every method that both know, a few steps each, and draws a picture with each edit. Prints, for every method, the largest
difference of a number of the edit (0 is to the bit) and of a pixel. Exit 1 if one is above --most or a pixel differs, 2 if a run fails.
Needs nothing but Python.
"""
import argparse
import fnmatch
import json
import os
import struct
import subprocess
import sys
import tempfile

# Few of everything; a program refuses what a method has not, by name, and then it is left out.
SMALL = {'iterations': 3, 'lora_iterations': 2, 'trajectories': 2, 'anchor_trajectories': 2, 'keep_trajectories': 2, 'retain_trajectories': 2,
         'sampling_steps': 3, 'pictures': 2, 'retain_pictures': 2, 'reg_captions': 2, 'prior_captions': 2, 'rounds': 1, 'round_iterations': 2,
         'attack_steps': 1, 'draws': 1, 'draw_batch': 1, 'ti_iterations': 1, 'salience_examples': 2, 'warm_up': 0}


def tensors(path):
    """Names and f32 values of a safetensors file; other dtypes as bytes."""
    with open(path, 'rb') as file:
        size, = struct.unpack('<Q', file.read(8))
        header = json.loads(file.read(size))
        data = file.read()
    out = {}
    for name, about in header.items():
        if name != '__metadata__':
            start, end = about['data_offsets']
            raw = data[start:end]
            out[name] = struct.unpack(f'<{len(raw) // 4}f', raw) if about['dtype'] == 'F32' else tuple(raw)
    return out


def erased(program, method, folder):
    """Erases with as few steps as the method lets; the folder, or None with the problem."""
    options = dict(SMALL)
    while True:
        command = [program, 'erase', 'church', '--method', method, '--no-judge', '--quiet', '--overwrite', '--output-dir', folder]
        for key, value in options.items():
            command += ['--set', f'{key}={value}']
        run = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if run.returncode == 0:
            return None
        named = [key for key in options if f'`{key}`' in run.stderr or f' {key} ' in run.stderr.split('\n')[0]]
        if not named:
            return run.stderr.strip()[-300:]
        for key in named:
            del options[key]


def pixels(program, edit, folder):
    command = [program, 'generate', 'a church', '--steps', '5', '--quiet', '--overwrite', '--output-dir', folder, '--edit', edit]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with open(os.path.join(folder, '00000.png'), 'rb') as file:
        # The pixels alone: what the picture says of its program may differ.
        content = file.read()
    chunks, at = [], 8
    while at < len(content):
        length, = struct.unpack('>I', content[at:at + 4])
        if content[at + 4:at + 8] == b'IDAT':
            chunks.append(content[at + 8:at + 8 + length])
        at += 12 + length
    return b''.join(chunks)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('old')
    parser.add_argument('new')
    parser.add_argument('--only', action='append', help='methods, such as \'esd*\'; may repeat')
    parser.add_argument('--most', type=float, default=0., help='the largest difference of a number that passes (0)')
    args = parser.parse_args()
    known = [{m['id'] for m in json.loads(subprocess.check_output([p, 'methods', '--json']))} for p in (args.old, args.new)]
    methods = sorted(known[0] & known[1])
    status = 0
    with tempfile.TemporaryDirectory() as here:
        for method in methods:
            if args.only and not any(fnmatch.fnmatch(method, pattern) for pattern in args.only):
                continue
            sides = []
            for name, program in (('old', args.old), ('new', args.new)):
                folder = os.path.join(here, name)
                # Each program has a cache of its own: what one recorded must not help the other.
                os.environ['SCUMBLE_CACHE'] = os.path.join(here, f'cache-{name}')
                problem = erased(os.path.abspath(program), method, folder)
                if problem:
                    print(f'{method:14} {name} failed: {problem}', flush=True)
                    status = 2
                    break
                edit = os.path.join(folder, 'edit.safetensors')
                sides.append((tensors(edit), pixels(os.path.abspath(program), edit, os.path.join(here, f'{name}-picture'))))
            if len(sides) < 2:
                continue
            (old, seen), (new, shown) = sides
            if old.keys() != new.keys():
                print(f'{method:14} changes other tensors', flush=True)
                status = max(status, 1)
                continue
            apart = max((abs(a - b) for name in old for a, b in zip(old[name], new[name])), default=0.)
            print(f"{method:14} {len(old):4} tensors, numbers {apart:.2g} apart, picture {'the same' if seen == shown else 'ANOTHER'}", flush=True)
            if apart > args.most or seen != shown:
                status = max(status, 1)
    return status


if __name__ == '__main__':
    sys.exit(main())
