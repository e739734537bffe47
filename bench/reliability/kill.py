#!/usr/bin/env python3
"""Two hundred times `kill -9` at a random moment: what is run again ends with the same bits, and nothing is lost.

    bench/reliability/kill.py --scumble target/release/scumble [--kills 200] [--seed 0] [--budget MINUTES]

An erasure, an attack, an evaluation and a training of a whole tiny model are each killed up to four times at random moments,
then left to end, and compared with a run that nobody disturbed. Prints a table for docs/reliability.md. Standard library only.
"""
import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), '..', '..'))
# What tells how long something took, or where it lies.
TIMES = {'seconds', 'created', 'at', 'memory', 'cost', 'edit', 'estimate'}


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(of) for key, of in value.items() if key not in TIMES}
    if isinstance(value, list):
        return [without_times(of) for of in value]
    return value


def fingerprint(folder, ends):
    """A hash of the files that a run leaves, by their names."""
    hashed = hashlib.sha256()
    for at, folders, files in sorted(os.walk(folder)):
        folders[:] = sorted(f for f in folders if f not in ('state', 'shards'))
        for file in sorted(files):
            if not file.endswith(ends):
                continue
            path = os.path.join(at, file)
            with open(path, 'rb') as f:
                data = f.read()
            if file.endswith('.jsonl'):
                lines = [json.dumps(without_times(json.loads(line)), sort_keys=True) for line in data.splitlines()]
                data = '\n'.join(lines).encode()
            hashed.update(os.path.relpath(path, folder).encode() + b'\0' + data + b'\0')
    return hashed.hexdigest()


class Work:
    def __init__(self, name, words, ends):
        self.name, self.words, self.ends = name, words, ends
        self.kills = self.trials = self.apart = self.lost = 0

    def start(self, scumble, folder):
        env = dict(os.environ, SCUMBLE_CACHE=os.path.join(folder, 'cache'), RAYON_NUM_THREADS='2')
        words = [word.replace('OUT', os.path.join(folder, 'out')) for word in self.words]
        return subprocess.Popen([scumble, *words], cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def undisturbed(self, scumble):
        with tempfile.TemporaryDirectory() as folder:
            began = time.time()
            process = self.start(scumble, folder)
            said = process.communicate()[1].decode()
            assert process.returncode == 0, (self.name, said)
            self.seconds = time.time() - began
            self.whole = fingerprint(os.path.join(folder, 'out'), self.ends)

    def trial(self, scumble, dice):
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(dice.randint(1, 4)):
                process = self.start(scumble, folder)
                time.sleep(dice.uniform(0.02, 0.6) * self.seconds)
                if process.poll() is None:
                    process.kill()
                    self.kills += 1
                process.communicate()
            process = self.start(scumble, folder)
            said = process.communicate()[1].decode()
            self.trials += 1
            if process.returncode != 0:
                self.lost += 1
                print(f'{self.name}: does not go on: {said.strip()[-400:]}', file=sys.stderr)
            elif fingerprint(os.path.join(folder, 'out'), self.ends) != self.whole:
                self.apart += 1
                print(f'{self.name}: ends otherwise', file=sys.stderr)


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument('--scumble', required=True)
    args.add_argument('--kills', type=int, default=200)
    args.add_argument('--seed', type=int, default=0)
    args.add_argument('--budget', type=float, default=1e9, help='minutes')
    args = args.parse_args()
    scumble = os.path.realpath(args.scumble)
    dice, began = random.Random(args.seed), time.time()
    with tempfile.TemporaryDirectory() as home:
        edit = os.path.join(home, 'edit')
        made = ['erase', 'church', '--method', 'uce', '--output-dir', edit, '--quiet', '--no-judge']
        subprocess.run([scumble, *made], check=True, cwd=home, stdout=subprocess.DEVNULL)
        recipe = os.path.join(home, 'longer.toml')
        with open(os.path.join(ROOT, 'crates/train/tests/tiny.toml')) as f:
            text = f.read()
        with open(recipe, 'w') as f:
            f.write(text.replace('steps = 3', 'steps = 120').replace('steps = 4', 'steps = 200'))
        all_of_them = [
            Work('erase', ['erase', 'church', '--method', 'esd', '--set', 'iterations=30', '--output-dir', 'OUT', '--quiet', '--no-judge'], ('edit.safetensors',)),
            Work('attack', ['attack', 'concept-inversion', '--edit', edit, '--budget', '60', '--n', '8', '--output-dir', 'OUT', '--quiet'], ('.jsonl', '.safetensors')),
            Work('evaluate', ['evaluate', '--edit', edit, '--sets', 'target', '--steps', '8', '--output-dir', 'OUT', '--quiet'], ('.jsonl',)),
            Work('train', ['train', recipe, '--output-dir', 'OUT', '--quiet'], ('.safetensors', 'config.json')),
        ]
        for work in all_of_them:
            work.undisturbed(scumble)
            print(f'{work.name}: {work.seconds:.1f} s undisturbed', file=sys.stderr)
        turn = 0
        while sum(work.kills for work in all_of_them) < args.kills and time.time() - began < 60 * args.budget:
            all_of_them[turn % len(all_of_them)].trial(scumble, dice)
            turn += 1
    print('| what was killed | runs | times | would not go on | ended otherwise |')
    print('|---|---|---|---|---|')
    for work in all_of_them:
        print(f'| `{work.name}` | {work.trials} | {work.kills} | {work.lost} | {work.apart} |')
    sum_of = lambda what: sum(getattr(work, what) for work in all_of_them)
    print(f'| all | {sum_of("trials")} | {sum_of("kills")} | {sum_of("lost")} | {sum_of("apart")} |')
    sys.exit(sum_of('lost') + sum_of('apart') > 0)


if __name__ == '__main__':
    main()
