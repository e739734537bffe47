#!/usr/bin/env python3
"""Proof that a redesign changed nothing under attack: two programs find the same and draw the same pictures.

    same_attacks.py OLD NEW [ATTACK ...]

Erases church from the miniature by UCE, then runs every attack that both know (or those that are named) for four steps on two cases, with each
program. Prints whether the lines of JSON are the same, but for times and places, and how many of the files (pictures, what was found) differ in
a byte. Exit 1 if anything differs, 2 if a run fails. Needs nothing but Python.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

# What a line says of time and of where files lie.
OF_THIS_RUN = {'seconds', 'memory', 'output', 'images', 'found', 'grid'}


def plain(value):
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items() if key not in OF_THIS_RUN}
    return [plain(v) for v in value] if isinstance(value, list) else value


def attacked(program, attack, edit, folder):
    """The lines and the files of an attack; the problem if it failed."""
    command = [program, 'attack', attack, '--edit', edit, '--concept', 'church', '--n', '2', '--budget', '4', '--steps', '4', '--json', '--quiet',
               '--output-dir', folder]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if run.returncode not in (0, 1):
        return run.stderr.strip()[-300:]
    files = {}
    for place, _, names in os.walk(folder):
        for name in names:
            if name.endswith(('.png', '.safetensors')):
                path = os.path.join(place, name)
                with open(path, 'rb') as file:
                    files[os.path.relpath(path, folder)] = file.read()
    return [plain(json.loads(line)) for line in run.stdout.splitlines()], files


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('old')
    p.add_argument('new')
    p.add_argument('attacks', nargs='*', metavar='ATTACK')
    args = p.parse_args()
    known = [{a['id'] for a in json.loads(subprocess.check_output([program, 'attacks', '--json']))} for program in (args.old, args.new)]
    status = 0
    with tempfile.TemporaryDirectory() as folder:
        edit = os.path.join(folder, 'edit')
        subprocess.run([args.old, 'erase', 'church', '--method', 'uce', '--no-judge', '--quiet', '--output-dir', edit], check=True, stdout=subprocess.DEVNULL)
        for attack in args.attacks or sorted(known[0] & known[1]):
            sides = [attacked(program, attack, edit, os.path.join(folder, f'{side}-{attack}'))
                     for side, program in enumerate((args.old, args.new))]
            failed = [side for side in sides if isinstance(side, str)]
            if failed:
                print(f'{attack:18} failed: {failed[0]}', flush=True)
                status = 2
                continue
            (old, files), (new, others) = sides
            apart = sum(files.get(name) != others.get(name) for name in files.keys() | others.keys())
            print(f"{attack:18} lines {'the same' if old == new else 'differ'}, {apart} of {len(files)} files differ", flush=True)
            status = max(status, int(old != new or apart > 0))
    return status


if __name__ == '__main__':
    sys.exit(main())
