"""How bench/study/compare says what it measured: a line for each cell as it goes, and RESULTS.md."""
import datetime
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import time

from cells import PEAK_PRODUCT, everything
from compare_runs import CONCEPT, GROWTH, GROWTH_ITERATIONS, ITERATIONS, LR
from compare_side import ROOT

HOW_TO_READ = """\
- **ratio** is scumble's median over PyTorch's: below 1 scumble is faster (or smaller), 0.5 is twice as fast. **target** is the ratio that was
  aimed at, and whether it was met.
- Both sides do the same work on the same numbers with the same threads in f32. Weights and inputs are computed from names
  (`bench/golden/formula.py`), or are the built-in miniature's; eight numbers of every result must agree to 1e-3 of the largest, or the row says *results
  differ*. PyTorch runs eagerly, as diffusers calls it: its own modules, its default attention (SDPA), inference mode where there is no backward
  pass. Loading, filling and converting layouts of inputs are outside the clock.
- The sides are asked alternately. The first **round** is not counted; a round of a cell of a few milliseconds is the median of up to ten
  runs. A cell takes at least three rounds, one if a round takes more than a minute.
- `mini` is the built-in miniature (32 x 32 pixels), `sd14` has Stable Diffusion 1.4's shapes at 256 x 256 pixels, with weights that mean nothing: they
  cost what real ones cost. `unet-step-*` is one training step without the optimiser: forward, loss, backward to the tensors that ESD's
  variant trains. `picture-30` and `picture-3` go from prompt to picture in that many steps, with guidance.
- `-step` of a single operation is its forward pass and the backward pass to all its inputs."""


def seconds(value):
    return f'{value * 1e3:.3g} ms' if value < .9995 else f'{value:.3g} s' if value < 99.95 else f'{value:.0f} s'


def size(value):
    return f'{value / 2 ** 20:.0f} MiB' if value < 2 ** 30 else f'{value / 2 ** 30:.2f} GiB'


def amount(cell, who):
    value = cell.median(who)
    return '' if value is None else (size if cell.unit == 'bytes' else seconds)(value)


def ratio(cell):
    return '' if cell.ratio is None or cell.problem else f'{cell.ratio:.2f}' if cell.ratio >= .0995 else f'{cell.ratio:.3f}'


def target(cell):
    if cell.target is None:
        return ''
    return f'{cell.target:g}' + ('' if not ratio(cell) else ', met' if cell.ratio <= cell.target else ', missed')


def line(cell):
    """A row of the table on stdout; the head of it for None."""
    row = ('cell', 'scumble', 'PyTorch', 'ratio', 'target', 'rounds') if cell is None else (
        cell.name, amount(cell, 'ours'), amount(cell, 'theirs'), ratio(cell), target(cell), str(len(cell.ours)))
    text = '{:36} {:>10} {:>10} {:>7}  {:12} {:>6}'.format(*row).rstrip()
    return text if cell is None or not cell.problem else f'{cell.name:36} {short(cell)}'


def short(cell):
    return 'results differ' if cell.differs else f'error: {cell.problem}'


def table(head, rows):
    """Markdown; the first column to the left, the others to the right."""
    rule = ['---'] + ['---:'] * (len(head) - 1)
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in (head, rule, *rows))


def state(cell):
    """What stands in the last column: the number of rounds, or why there is none."""
    return short(cell).replace('|', '/') if cell.problem else str(len(cell.ours)) if cell.ours else 'not run'


def comparisons(cells):
    return table(['cell', 'scumble', 'PyTorch', 'ratio', 'target', 'rounds'],
                 [[f'`{c.name}`', amount(c, 'ours'), amount(c, 'theirs'), ratio(c), target(c), state(c)] for c in cells])


def operations(cells, peak):
    def speed(cell, who):
        taken = cell.median(who)
        return cell.flops / taken / 1e9 if cell.flops and taken else None

    def gflops(value):
        return '' if value is None else f'{value:.0f}'

    def share(value):
        return '' if value is None or not peak else f'{100 * value / peak:.0f}%'

    rows = []
    for c in cells:
        ours, theirs = speed(c, 'ours'), speed(c, 'theirs')
        rows.append([f'`{c.name}`', amount(c, 'ours'), amount(c, 'theirs'), ratio(c), gflops(ours), gflops(theirs), share(ours), state(c)])
    return table(['cell', 'scumble', 'PyTorch', 'ratio', 'Gflop/s', 'PyTorch Gflop/s', 'of peak', 'rounds'], rows)


def said(command, default=''):
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20).stdout.strip() or default
    except (OSError, subprocess.TimeoutExpired):
        return default


def machine():
    """Processor, cores, memory, system."""
    facts = dict(l.split(':', 1) for l in said(['lscpu']).splitlines() if ':' in l)
    name = facts.get('Model name', platform.processor() or platform.machine()).strip()
    vectors = [f for f in ('avx2', 'avx512f', 'asimd') if f in facts.get('Flags', '').split()]
    try:
        with open('/proc/meminfo') as f:
            memory = size(int(f.readline().split()[1]) * 1024)
    except (OSError, ValueError, IndexError):
        memory = 'unknown'
    return f'{name}, {os.cpu_count()} cores{", " + vectors[-1] if vectors else ""}, {memory} of memory, {platform.system()} {platform.release()}'


def torch_build():
    """The version with its build, such as 2.15.0+cpu: the builds differ in size."""
    return said([sys.executable, '-c', 'import torch; print(torch.__version__)'], importlib.metadata.version('torch'))


def versions():
    packages = ', '.join(f'{p} {importlib.metadata.version(p)}' for p in ('diffusers', 'transformers', 'numpy'))
    commit = said(['git', 'rev-parse', '--short', 'HEAD'], 'unknown') + ('-changed' if said(['git', 'status', '--porcelain', '-uno']) else '')
    return f'scumble {commit}, {said(["rustc", "--version"], "rustc unknown").split(" (")[0]}; torch {torch_build()}, {packages}, Python {platform.python_version()}'


def rates(found):
    if not found:
        return ''
    if 'problem' in found:
        return f'\nThe edits of `esd-end-to-end` could not be judged: {found["problem"]}\n'
    rows = [[who, *(f'{r[k]:.1%} [{r[k + "_interval"][0]:.1%}, {r[k + "_interval"][1]:.1%}]' for k in ('target', 'others'))]
            for who, r in found.items()]
    return (f'\nWhat the edits of `esd-end-to-end` do, judged by `bench/parity/judge.py` (not timed; 95% intervals):\n\n'
            + table(['model', f'prompts of {CONCEPT} that show it', 'other prompts that show what they name'], rows) + '\n')


def results(cells, args, driver, interrupted):
    """The text of RESULTS.md."""
    ran = {c.name: c for c in cells}
    every = [ran.get(c.name, c) for c in everything()]
    of = {s: [c for c in every if c.section == s] for s in ('networks', 'operations', 'growth')}
    product = next(c for c in every if c.name == PEAK_PRODUCT)
    peak, theirs = (product.flops / t / 1e9 if (t := product.median(w)) else None for w in ('ours', 'theirs'))
    met = [c for c in of['networks'] if c.target and ratio(c) and c.ratio <= c.target]
    with_target = [c for c in of['networks'] if c.target and ratio(c)]
    command = ' '.join(['bench/study/compare', *map(shlex.quote, sys.argv[1:])])
    floor = {who: size(b) for who, b in driver.floor.items() if b}
    text = f"""# scumble against PyTorch

Written by `bench/study/compare`; do not edit. {'Interrupted: rows after the last measured one are missing. ' if interrupted else ''}\
Of {len(with_target)} measured comparisons that have a target, {len(met)} met it.

| | |
|---|---|
| machine | {machine()} |
| threads | {args.threads} on either side |
| load before | {driver.load} |
| date | {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC |
| versions | {versions()} |
| command | `{command}` |
| time taken | {(time.monotonic() - driver.began) / 60:.0f} minutes |
"""
    if args.ours:
        text += f"\n**Not scumble:** `{args.ours}` stood in its place (self-test).\n"
    text += f"""
## How to read this

{HOW_TO_READ}

## Networks and whole runs

{comparisons(of['networks'])}

`esd-end-to-end` is `scumble erase {CONCEPT} --method esd --variant reference --train-method esd-x --iterations {ITERATIONS} --lr {LR} --no-judge` with
an empty cache against the published procedure (`bench/speed/esd.py`) with the same setting, from process start to end.
`peak-memory` is the largest resident memory (VmHWM) of a fresh process after three runs of `unet-step-esd-x` or `picture-30`.
"""
    if floor:
        text += (f"Program and libraries alone take {floor.get('ours', '?')} (scumble) and {floor.get('theirs', '?')} (PyTorch, diffusers,\n"
                 'transformers) of it. PyTorch\'s build for CUDA (+cu in its version) takes more than its build for the CPU alone.\n')
    text += rates(driver.rates)
    text += f"""
## Single operations

{operations(of['operations'], peak)}

Floating-point operations are counted where they are matrix products: convolutions, attention, linear layers; a `-step` counts three times its
forward pass. *of peak* is scumble's rate as a share of scumble's own large product, below.

## Peak

One product of two 2048 x 2048 matrices, f32: scumble {f'{peak:.0f} Gflop/s' if peak else 'not run'}, PyTorch \
{f'{theirs:.0f} Gflop/s' if theirs else 'not run'}{f', rounds: {len(product.ours)}' if peak else ''}{f'; {short(product)}' if product.problem else ''}.

## Growth

Not targets: how the U-Net's forward pass grows with batch and picture (the side is the latents'; the picture's is four times it; batch 1), and how an
erasure grows with the number of concepts (`scumble erase {GROWTH[0]} {GROWTH[1]} ... --no-judge --iterations {GROWTH_ITERATIONS}`, whole run, empty cache).

{table(['cell', 'scumble', 'PyTorch', 'ratio', 'rounds'],
       [[f'`{c.name}`', amount(c, 'ours'), amount(c, 'theirs') or ('' if not c.ours else 'no counterpart'), ratio(c), state(c)] for c in of['growth']])}
"""
    return text
