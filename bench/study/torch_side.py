#!/usr/bin/env python3
"""The PyTorch side of bench/study/compare: cell names on stdin, one line of JSON on stdout for each, and one more at the end.

    printf 'unet-forward/mini\\nconv3x3-320-step/sd14\\n' | python bench/study/torch_side.py --threads 2

{"seconds", "fingerprint"} or {"error"}; at the end {"peak_bytes"}, the largest resident memory of the process. Models and inputs are
made when a cell first needs them, outside the clock, and kept. Whatever else libraries print goes to stderr.
"""
import argparse
import json
import os
import resource
import sys
import time

BENCH = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path += [os.path.join(BENCH, folder) for folder in ('golden', 'speed')]


def answers_only():
    """The real stdout; from now on everybody else's stdout is stderr."""
    own = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    return own


def peak_bytes():
    try:
        with open('/proc/self/status') as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith('VmHWM:'))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == 'darwin' else peak * 1024


def prepare(name):
    import torch_operations
    run = torch_operations.prepare(name)
    if run is None:
        import torch_networks
        run = torch_networks.prepare(name)
    if run is None:
        raise ValueError(f'no cell is called {name}')
    return run


def measure(run):
    from formula import fingerprint
    getattr(run, 'ready', lambda: None)()
    began = time.perf_counter()
    result = run()
    seconds = time.perf_counter() - began
    return {'seconds': seconds, 'fingerprint': fingerprint(result[0] if isinstance(result, tuple) else result)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--threads', type=int, default=os.cpu_count())
    args = p.parse_args()
    out = answers_only()
    import torch
    torch.set_num_threads(args.threads)
    cells, last = {}, None
    for line in sys.stdin:
        name = line.strip()
        if not name:
            continue
        try:
            if name not in cells:
                cells[name] = prepare(name)
            if last is not cells[name]:
                getattr(last, 'release', lambda: None)()
            last = cells[name]
            answer = measure(last)
        except Exception as e:
            answer = {'error': f'{type(e).__name__}: {e}'}
        print(json.dumps(answer), file=out, flush=True)
    print(json.dumps({'peak_bytes': peak_bytes()}), file=out, flush=True)


if __name__ == '__main__':
    main()
