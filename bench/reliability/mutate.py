#!/usr/bin/env python3
"""Ten thousand damaged inputs over everything that scumble reads: none may end in a panic, a signal, a hang or more than 4 GiB.

    bench/reliability/mutate.py --scumble target/release/scumble [--count 10000] [--seed 0] [--budget MINUTES] [--out FOLDER]

Whole files are made by scumble itself and by the tree's tests; each case damages one of them (bytes, lengths, numbers of
JSON, keys, cuts, repeats) and runs the command that reads it. What ended badly is kept in FOLDER. Prints a table for
docs/reliability.md. Standard library only.
"""
import argparse
import json
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), '..', '..'))
SECONDS, BYTES = 60, 4 << 30
NUMBERS = [0, -1, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, 1e308, -1e308, 1e-320, float('nan'), float('inf'), 0.5]


def limits():
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run(scumble, words, folder, seconds=SECONDS):
    env = dict(os.environ, SCUMBLE_CACHE=os.path.join(folder, 'cache'), RAYON_NUM_THREADS='1', NO_COLOR='1')
    return subprocess.run([scumble, *words], cwd=folder, env=env, capture_output=True, timeout=seconds, preexec_fn=limits)


def damaged_bytes(data, dice):
    data = bytearray(data)
    kind = dice.randrange(7)
    if not data:
        return bytes([dice.randrange(256)])
    # The beginning says how the rest is read: half of the damage is there.
    near = min(len(data), 4096) if dice.random() < 0.5 else len(data)
    at = dice.randrange(near)
    if kind == 0:
        for _ in range(dice.randint(1, 8)):
            data[dice.randrange(near)] ^= 1 << dice.randrange(8)
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        size = dice.choice([1, 2, 4, 8, 64, 4096])
        data[at:at + size] = dice.choice([b'\0', b'\xff', b'{', b'9'])[:1] * min(size, len(data) - at)
    elif kind == 3:
        data[at:at] = data[at:at + dice.choice([1, 16, 1024])]
    elif kind == 4:
        number = dice.choice([0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1])
        packed = struct.pack('<Q', number)[:dice.choice([1, 2, 4, 8])]
        data[at:at + len(packed)] = packed
    elif kind == 5:
        del data[at:at + dice.choice([1, 8, 512])]
    else:
        for _ in range(dice.randint(1, 64)):
            data[dice.randrange(near)] = dice.randrange(256)
    return bytes(data)


def places(value, path=()):
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], path + (key,))
    elif isinstance(value, list):
        for i in range(min(len(value), 40)):
            yield from places(value[i], path + (i,))


def damaged_json(value, dice):
    """One place of a document is another thing."""
    value = json.loads(json.dumps(value))
    path = dice.choice(list(places(value)))
    new = dice.choice([None, True, '', 'x' * 100000, '\u0000', '../../etc/passwd', [], {}, [[[[]]]], {'a': {'b': []}}, *NUMBERS])
    if not path:
        return new
    at = value
    for key in path[:-1]:
        at = at[key]
    kind = dice.random()
    if kind < 0.15 and isinstance(at, dict):
        del at[path[-1]]
    elif kind < 0.3 and isinstance(at[path[-1]], list):
        at[path[-1]] = at[path[-1]] * dice.choice([0, 2, 1000])
    elif kind < 0.4 and isinstance(at, dict):
        at[dice.choice(['', 'zzz', path[-1] + 'x'])] = new
    else:
        at[path[-1]] = new
    return value


def header(data):
    """The length of a safetensors file's header, if it is one."""
    if len(data) < 8:
        return None
    n = struct.unpack('<Q', data[:8])[0]
    return n if 0 < n <= len(data) - 8 else None


def damaged(name, data, dice):
    try:
        if name.endswith('.json') and dice.random() < 0.7:
            return json.dumps(damaged_json(json.loads(data), dice)).encode()
        if name.endswith('.jsonl') and dice.random() < 0.6:
            lines = data.splitlines()
            at = dice.randrange(len(lines))
            lines[at] = json.dumps(damaged_json(json.loads(lines[at]), dice)).encode()
            return b'\n'.join(lines)
        n = header(data) if name.endswith('.safetensors') else None
        if n and dice.random() < 0.5:
            text = json.dumps(damaged_json(json.loads(data[8:8 + n]), dice)).encode()
            return struct.pack('<Q', len(text)) + text + data[8 + n:]
    except (ValueError, KeyError, IndexError, RecursionError):
        pass
    return damaged_bytes(data, dice)


class Reader:
    """Something that is read: a file, what lies around it, and the command that reads it."""

    def __init__(self, name, base, files, words):
        self.name, self.base, self.files, self.words = name, base, files, words

    def place(self, folder):
        place = os.path.join(folder, 'in')
        if os.path.isdir(self.base):
            shutil.copytree(self.base, place)
        else:
            os.mkdir(place)
            shutil.copy(self.base, place)
        return place

    def expect_taken(self, scumble):
        """Undamaged it is taken: what is refused afterwards is the damage."""
        with tempfile.TemporaryDirectory() as folder:
            self.place(folder)
            ended = run(scumble, self.words, folder, 10 * SECONDS)
            assert ended.returncode in (0, 1), (self.name, self.words, ended.stderr.decode())

    def case(self, scumble, number, seed, bad):
        dice = random.Random(f'{seed}/{self.name}/{number}')
        folder = tempfile.mkdtemp(prefix='scumble-mutate-')
        try:
            place = self.place(folder)
            file = dice.choice(self.files)
            path = os.path.join(place, file)
            with open(path, 'rb') as f:
                data = f.read()
            with open(path, 'wb') as f:
                f.write(damaged(file, data, dice))
            try:
                ended = run(scumble, self.words, folder)
            except subprocess.TimeoutExpired:
                return self.keep(bad, number, folder, f'more than {SECONDS} s')
            said = ended.stderr.decode(errors='replace')
            if 'bug in scumble' in said or 'panicked' in said:
                return self.keep(bad, number, folder, 'panic: ' + said.strip()[:400])
            if ended.returncode not in (0, 1, 2):
                return self.keep(bad, number, folder, f'ended with {ended.returncode}: {said.strip()[:400]}')
            return 'taken' if ended.returncode == 0 else 'refused'
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep(self, bad, number, folder, why):
        kept = os.path.join(bad, f'{self.name.replace(" ", "-")}-{number}')
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(os.path.join(folder, 'in'), os.path.join(kept, 'in'))
        with open(os.path.join(kept, 'why.txt'), 'w') as f:
            f.write(f'scumble {" ".join(self.words)}\n{why}\n')
        print(f'{self.name} {number}: {why}', file=sys.stderr)
        return 'bad'


def readers(scumble, home):
    """Whole files of every kind, made in `home`."""
    def make(*words):
        ended = run(scumble, list(words), home, 10 * SECONDS)
        assert ended.returncode in (0, 1), (words, ended.stderr.decode())

    def write(name, text):
        path = os.path.join(home, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'w') as f:
            f.write(text)
        return path

    golden = os.path.join(ROOT, 'crates/diffusion/tests/golden')
    sd, sdxl = os.path.join(ROOT, 'models/emoji-sd'), os.path.join(golden, 'sdxl/model')
    make('erase', 'church', '--method', 'uce', '--output-dir', 'uce', '--quiet', '--no-judge')
    make('erase', 'church', '--method', 'leco', '--set', 'iterations=2', '--output-dir', 'leco', '--quiet', '--no-judge')
    make('export', 'uce', '--to', 'lora', '--output-dir', 'lora', '--quiet', '--allow-partial')
    make('export', 'uce', '--to', 'single', '--output-dir', 'single', '--quiet')
    make('export', 'uce', '--to', 'esd', '--output-dir', 'esd', '--quiet')
    make('attack', 'concept-inversion', '--edit', 'uce', '--output-dir', 'word', '--budget', '2', '--n', '1', '--quiet')
    make('evaluate', '--edit', 'uce', '--sets', 'target', '--steps', '2', '--output-dir', 'evaluation', '--quiet')
    make('generate', 'a church', '--steps', '1', '--output-dir', 'pictures', '--quiet')
    tiny = open(os.path.join(ROOT, 'crates/train/tests/tiny.toml')).read()
    write('recipe/tiny.toml', tiny)
    make('train', 'recipe/tiny.toml', '--output-dir', 'trained', '--quiet')
    write('prompts/p.csv', 'case_number,prompt,evaluation_seed,evaluation_guidance\n0,"a church, red",7,4.0\n1,a dog,8,3\n')
    write('prompts/p.jsonl', '{"prompt": "a church", "seed": 3}\n{"prompt": "a dog", "seed": 4}\n')
    write('prompts/p.json', '[{"prompt": "a church", "seed": 3}, "a dog"]')
    write('leco-prompts/p.yaml', '- target: "church"\n  positive: "church"\n  unconditional: ""\n  neutral: "house"\n  action: "erase"\n  guidance_scale: 1.0\n  resolution: 32\n  batch_size: 1\n')
    write('leco-prompts/p.toml', '[[prompts]]\ntarget = "church"\nneutral = "house"\naction = "erase"\nguidance_scale = 1.0\nresolution = 32\nbatch_size = 1\n')
    data = os.path.join(home, 'data')
    os.makedirs(data)
    pictures = sorted(f for f in os.listdir(os.path.join(home, 'pictures')) if f.endswith('.png'))
    for i in range(4):
        shutil.copy(os.path.join(home, 'pictures', pictures[0]), os.path.join(data, f'{i}.png'))
    write('data/metadata.jsonl', ''.join(json.dumps({'file_name': f'{i}.png', 'text': 'a church', 'label': 'ab'[i % 2]}) + '\n' for i in range(4)))
    submitted = os.path.join(home, 'submitted')
    os.makedirs(submitted + '/slurm')
    write('submitted/slurm/submission.json', json.dumps({'format': 1, 'jobs': [{'step': 'draw', 'job': '7', 'tasks': 3, 'script': 'x'}]}))
    write('submitted/shards/1-of-3/progress.json', json.dumps({'done': 1, 'total': 3, 'before': 0, 'seconds': 2.0, 'at': 5}))
    onnx = os.path.join(ROOT, 'crates/eval/tests/golden')
    networks = os.path.join(home, 'networks')
    os.makedirs(networks)
    for file in ('yolo.onnx', 'classifier.onnx'):
        shutil.copy(os.path.join(onnx, file), networks)
    write('networks/yolo.json', json.dumps({'name': 'tiny', 'kind': 'yolo', 'file': 'yolo.onnx', 'labels': ['a', 'b'], 'hits': ['b'], 'preprocessing': {'size': 8}, 'threshold': 0.5, 'licence': 'MIT'}))
    write('networks/classifier.json', json.dumps({'name': 'tiny', 'kind': 'classifier', 'file': 'classifier.onnx', 'labels': ['a', 'b', 'c', 'd'], 'hits': ['a'], 'preprocessing': {'size': 8, 'mean': [0.5, 0.5, 0.5], 'std': [0.25, 0.25, 0.25]}, 'licence': 'MIT'}))

    def inside(folder, *ends):
        found = []
        for at, _, files in os.walk(folder):
            found += [os.path.relpath(os.path.join(at, f), folder) for f in files if f.endswith(ends)]
        return sorted(found)

    def of(folder):
        return os.path.join(home, folder)

    draw = ['--steps', '1', '--output-dir', 'out', '--quiet']
    lora = inside(of('lora'), '.safetensors')[0]
    single = inside(of('single'), '.safetensors')[0]
    esd = inside(of('esd'), '.safetensors')[0]
    word = next(f for f in inside(of('word'), '.safetensors'))
    return [
        Reader('edit', of('uce/edit.safetensors'), ['edit.safetensors'], ['generate', 'a church', '--edit', 'in/edit.safetensors', *draw]),
        Reader('edit with factors', of('leco/edit.safetensors'), ['edit.safetensors'], ['export', 'in/edit.safetensors', '--to', 'lora', '--output-dir', 'out', '--quiet']),
        Reader('LoRA', os.path.join(of('lora'), lora), [os.path.basename(lora)], ['generate', 'a church', '--lora', 'in/' + os.path.basename(lora), *draw]),
        Reader('erasing-esd-v2', os.path.join(of('esd'), esd), [os.path.basename(esd)], ['generate', 'a church', '--edit', 'in/' + os.path.basename(esd), *draw]),
        Reader('single file', os.path.join(of('single'), single), [os.path.basename(single)], ['inspect', 'in/' + os.path.basename(single), '--json']),
        Reader('diffusers folder', sd, inside(sd, '.json', '.txt'), ['generate', 'a church', '--model', 'in', *draw]),
        Reader('diffusers folder, weights', sd, inside(sd, '.safetensors'), ['generate', 'a church', '--model', 'in', *draw]),
        Reader('SDXL folder', sdxl, inside(sdxl, '.json', '.txt', '.safetensors'), ['generate', 'a church', '--model', 'in', *draw]),
        Reader('textual inversion', os.path.join(of('word'), word), [os.path.basename(word)], ['generate', 'a church', '--embedding', 'in/' + os.path.basename(word), *draw]),
        Reader('prompts', of('prompts'), ['p.csv', 'p.jsonl', 'p.json'], ['evaluate', '--prompts', 'in/p.csv', '--prompts', 'in/p.jsonl', '--prompts', 'in/p.json', '--plan', '--quiet']),
        Reader('LECO prompts', of('leco-prompts'), ['p.yaml'], ['erase', '--method', 'leco', '--prompts', 'in/p.yaml', '--set', 'iterations=1', '--output-dir', 'out', '--quiet', '--no-judge']),
        Reader('recipe', of('recipe'), ['tiny.toml'], ['train', 'in/tiny.toml', '--output-dir', 'out', '--part', 'tokenizer', '--quiet']),
        Reader('picture folder', of('data'), ['metadata.jsonl', '0.png', '3.png'], ['train', os.path.join(home, 'recipe/tiny.toml'), '--data', 'in', '--output-dir', 'out', '--part', 'tokenizer', '--part', 'vae', '--quiet']),
        Reader('trained model and judges', of('trained'), [f for f in inside(of('trained'), '.json', '.safetensors') if f.startswith(('judges', 'clip', 'model_index'))], ['evaluate', '--model', 'in', '--concept', 'church', '--sets', 'target', '--steps', '1', '--output-dir', 'out', '--quiet']),
        Reader('state of a training', of('trained'), [f for f in inside(of('trained'), '.json', '.safetensors') if f.startswith('train')], ['train', os.path.join(home, 'recipe/tiny.toml'), '--output-dir', 'in', '--quiet']),
        Reader('records', of('evaluation'), inside(of('evaluation'), '.json', '.jsonl'), ['report', 'in', '--quiet']),
        Reader('records of runs', of('uce'), ['run.json'], ['runs', 'in', '--json']),
        Reader('submission', submitted, inside(submitted, '.json'), ['status', 'in', '--json']),
        Reader('detectors', networks, ['yolo.onnx', 'yolo.json'], ['judge', os.path.join(home, 'pictures'), '--detector', 'in/yolo.json', '--json']),
        Reader('classifiers', networks, ['classifier.onnx', 'classifier.json'], ['judge', os.path.join(home, 'pictures'), '--detector', 'in/classifier.json', '--json']),
        Reader('pictures', of('pictures'), pictures, ['judge', 'in', '--detector', os.path.join(ROOT, 'models/emoji-judges/object'), '--label', 'church', '--json']),
    ]


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument('--scumble', required=True)
    args.add_argument('--count', type=int, default=10000)
    args.add_argument('--seed', type=int, default=0)
    args.add_argument('--budget', type=float, default=1e9, help='minutes')
    args.add_argument('--out', default='/tmp/scumble-mutate')
    args.add_argument('--only')
    args = args.parse_args()
    scumble = os.path.realpath(args.scumble)
    os.makedirs(args.out, exist_ok=True)
    began = time.time()
    with tempfile.TemporaryDirectory() as home:
        all_of_them = readers(scumble, home)
        if args.only:
            all_of_them = [r for r in all_of_them if args.only in r.name]
        for reader in all_of_them:
            reader.expect_taken(scumble)
        counts = {reader.name: {'taken': 0, 'refused': 0, 'bad': 0} for reader in all_of_them}

        def case(number):
            if time.time() - began > 60 * args.budget:
                return
            reader = all_of_them[number % len(all_of_them)]
            counts[reader.name][reader.case(scumble, number // len(all_of_them), args.seed, args.out)] += 1

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(case, range(args.count)))
    print('| what is read | damaged | refused | taken | panics, signals, hangs |')
    print('|---|---|---|---|---|')
    for name, of in counts.items():
        print(f'| {name} | {sum(of.values())} | {of["refused"]} | {of["taken"]} | {of["bad"]} |')
    total = {key: sum(of[key] for of in counts.values()) for key in ('taken', 'refused', 'bad')}
    print(f'| all | {sum(total.values())} | {total["refused"]} | {total["taken"]} | {total["bad"]} |')
    print(f'{time.time() - began:.0f} s', file=sys.stderr)
    sys.exit(total['bad'] > 0)


if __name__ == '__main__':
    main()
