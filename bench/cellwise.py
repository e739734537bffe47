"""What bench/methods and bench/attacks share: cells that are run one by one, each once, within a budget, and their files."""
import argparse
import fnmatch
import json
import math
import os
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


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


def done(folder, name):
    """What a finished cell came to; None if it has not run."""
    return load(file_of(folder, name))


def wilson(hits, n, z=1.96):
    if not n:
        return 0., 1.
    p, d = hits / n, 1 + z * z / n
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0., (p + z * z / (2 * n) - half) / d), min(1., (p + z * z / (2 * n) + half) / d)


def arguments(name, doc, example, threads):
    """The command line; `name` is that of the script and of its folder."""
    p = argparse.ArgumentParser(prog=f'bench/{name}', description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--budget', type=float, default=120, metavar='MINUTES', help='time to spend (120); a cell that has begun is finished')
    p.add_argument('--only', action='append', metavar='PATTERN', help=f'cells whose name matches, such as {example}; may repeat')
    p.add_argument('--folder', default=os.path.join(ROOT, 'scumble-out', name), help='where runs and finished cells lie')
    p.add_argument('--scumble', default=os.path.join(ROOT, 'target', 'release', 'scumble'), metavar='FILE', help='the program')
    p.add_argument('--threads', type=int, metavar='N', help=threads)
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
    began, status = time.monotonic(), 0
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
            store(file_of(args.folder, name), result)
            print(f"{name}: {result['error'] if 'error' in result else said(cell, result)}", flush=True)
    except KeyboardInterrupt:
        status = 130
    table()
    return status
