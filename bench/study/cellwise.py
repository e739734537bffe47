"""What bench/study/methods and bench/study/attacks share: cells that are run one by one, each once, within a budget, and their files."""
import argparse
import fnmatch
import functools
import json
import os
import subprocess
import time

import clustered

# What a cell says of this machine's files.
NOT_KEPT = ('edit', 'grid', 'images', 'run', 'files', 'folder')

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def load(path):
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def store(path, value):
    with open(path + '.part', 'w') as file:
        json.dump(value, file)
    os.replace(path + '.part', path)


def file_of(folder, name):
    return os.path.join(folder, 'cells', name + '.json')


def results_of(folder):
    """The committed file that keeps what cells came to: a folder of runs is gone with its machine, its numbers are not."""
    return os.path.join(ROOT, 'bench', 'study', 'results', os.path.basename(os.path.normpath(folder)) + '.jsonl')


@functools.cache
def kept(path):
    """The cells of a committed file, by name."""
    try:
        with open(path) as file:
            return {cell.pop('cell'): cell for cell in map(json.loads, file)}
    except OSError:
        return {}


def done(folder, name):
    """What a finished cell came to, here or on the machine that committed it; None if it has not run."""
    return load(file_of(folder, name)) or kept(results_of(folder)).get(name)


def keep(folder):
    """Adds the cells that have run here to the committed file, a line each, in the order of their names."""
    path = results_of(folder)
    cells = dict(kept(path))
    for name in os.listdir(os.path.join(folder, 'cells')):
        cell = load(os.path.join(folder, 'cells', name)) if name.endswith('.json') else None
        if cell and 'error' not in cell:
            cells[name.removesuffix('.json')] = {key: value for key, value in cell.items() if key not in NOT_KEPT}
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + '.part', 'w') as file:
        for name in sorted(cells):
            file.write(json.dumps({'cell': name} | cells[name], separators=(',', ':')) + '\n')
    os.replace(path + '.part', path)


def commit():
    """The commit that lies here, with `+` where the program's sources differ from it."""
    git = lambda *words: subprocess.run(['git', '-C', ROOT, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.strip()
    return (git('rev-parse', '--short=7', 'HEAD') or 'unknown') + ('+' if git('status', '--porcelain', '--', 'crates', 'models', 'Cargo.toml') else '')


def elsewhere(cells):
    """What a row says of cells that another commit than the present one has measured; empty if none has."""
    here = commit().rstrip('+')
    others = sorted({(cell.get('commit') or 'an older commit').rstrip('+') for cell in cells} - {here})
    return ' (of ' + ', '.join(others) + ')' if others else ''


def distinct_edits(cells):
    """Cells of `scumble erase`, an edit that came out the same again once: closed forms draw nothing at random, so three seeds of one say no more than
    one. A drift of 0 is no mark of an edit: SPM's closed gate gives it to all of them."""
    out = []
    for cell in cells:
        alike = lambda other: cell['uncond_drift'] and (cell['rates'], cell['uncond_drift']) == (other['rates'], other['uncond_drift'])
        if not any(map(alike, out)):
            out.append(cell)
    return out


def hits_of(cells, what):
    """Clusters of 0s and 1s over different edits: for `target` the pictures of one prompt and noise, for `others` those of one object (all styles, all
    edits). None where a cell was measured before pictures were kept one by one."""
    groups = {}
    for cell in cells:
        after = (cell.get('shown') or {}).get('after')
        if after is None:
            return None
        for concept, side in enumerate(after):
            for name, bits in ((side or {}).get(what) or {}).items():
                for place, bit in enumerate(bits):
                    groups.setdefault((concept, name, place if what == 'target' else 0), []).append(int(bit))
    return list(groups.values())


def rate_of(cells, what, side='after'):
    """(share, low, high, pictures, exact) of different edits. `exact` is whether single pictures are known; otherwise the interval takes all edits' pictures
    of a prompt and noise as one, which is the widest that it can be."""
    published = [cell['intervals'][what] for cell in cells if side == 'after' and what in (cell.get('intervals') or {})]
    if len(cells) == len(published) == 1:
        # A cell whose pictures are gone with their machine, and whose table is not.
        counts = [part[what] for part in cells[0]['rates']['after']]
        hits, n = sum(c['hits'] for c in counts), sum(c['n'] for c in counts)
        return hits / n, *published[0], n, True
    counts = [part[what] for cell in (cells if side == 'after' else cells[:1]) for part in cell['rates'][side] if part]
    hits, n = sum(c['hits'] for c in counts), sum(c['n'] for c in counts)
    groups = hits_of(cells, what) if side == 'after' and what in ('target', 'others') else None
    if groups and sum(map(len, groups)) == n:
        p, low, high, _, _ = clustered.rate(groups)
        return p, low, high, n, True
    once = n / len(cells) if side == 'after' and cells else n
    return (hits / n if n else 0., *clustered.wilson(hits / n if n else 0., once), n, len(cells) < 2 or side != 'after')


def arguments(name, doc, example, threads):
    """The command line; `name` is that of the script and of its folder."""
    p = argparse.ArgumentParser(prog=f'bench/study/{name}', description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--budget', type=float, default=120, metavar='MINUTES', help='time to spend (120); a cell that has begun is finished')
    p.add_argument('--only', action='append', metavar='PATTERN', help=f'cells whose name matches, such as {example}; may repeat')
    p.add_argument('--folder', default=os.path.join(ROOT, 'scumble-out', name), help='where runs and finished cells lie')
    p.add_argument('--scumble', default=os.path.join(ROOT, 'target', 'release', 'scumble'), metavar='FILE', help='the program')
    p.add_argument('--threads', type=int, metavar='N', help=threads)
    p.add_argument('--out', default=os.path.join(ROOT, 'bench', 'study', name.upper() + '.md'), metavar='FILE', help='the table')
    p.add_argument('--table', action='store_true', help='only write the table')
    p.add_argument('--list', action='store_true', help='print the names of the cells and whether they have run')
    return p.parse_args()


def carry_out(args, cells, run, said, table):
    """Runs the cells that are asked for and have not run, in their order; the exit status. A cell is a tuple that begins with its name,
    `run(*cell)` gives its result, `said(cell, result)` the line that is printed, `table()` writes the table."""
    wanted = list(cells)
    if args.only:
        wanted = [cell for cell in wanted if any(fnmatch.fnmatch(cell[0], pattern) for pattern in args.only)]
    os.makedirs(os.path.join(args.folder, 'cells'), exist_ok=True)
    if args.list:
        for name, *_ in wanted:
            print(name, '' if done(args.folder, name) is None else 'done')
        return 0
    began, status, here = time.monotonic(), 0, commit()
    clustered.self_test()
    try:
        for cell in [] if args.table else wanted:
            name = cell[0]
            found = done(args.folder, name)
            if found is not None and 'error' not in found:
                continue
            if time.monotonic() - began > 60 * args.budget:
                status = 1
                break
            try:
                result = run(*cell)
            except (RuntimeError, ValueError, OSError, LookupError) as error:
                result, status = {'error': str(error).replace('\n', ' ').replace('|', '/')}, 1
            store(file_of(args.folder, name), result | {'commit': here})
            print(f"{name}: {result['error'] if 'error' in result else said(cell, result)}", flush=True)
    except KeyboardInterrupt:
        status = 130
    keep(args.folder)
    table()
    return status
