#!/usr/bin/env python3
"""Everything against PyTorch: every cell of cells.py on both sides, alternately, medians of several rounds.

bench/study/compare builds scumble and starts this. stdout gets a table as it goes; bench/study/RESULTS.md is rewritten at the end (with --only just
where --results says so). Interrupted or out of time, it still writes what has been measured.

Exit status: 0 every row that ran agrees · 1 results differ or a side failed · 2 usage · 130 interrupted.
"""
import argparse
import fnmatch
import json
import os
import shlex
import signal
import statistics
import sys
import time

from cells import END_TO_END, everything
from compare_results import line, results
from compare_runs import Failed, Runs
from compare_side import ROOT, Side

TOLERANCE = 1e-3                                                         # of fingerprints, relative to their largest number
PAUSE = .2                                                               # s: idle OpenMP threads spin for a while
ROUNDS, MOST_ROUNDS, LONG = 3, 25, 60                                    # counted rounds, at least and at most; s of a long round
BURST, BURST_TIME = 10, .1                                               # a short cell is asked up to so often, or so long (s), in a turn


def arguments():
    p = argparse.ArgumentParser(prog='bench/study/compare', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--budget', type=float, default=40, metavar='MINUTES', help='time to spend (40); each cell is covered once before any '
                   'gets more rounds, and what no time is left for is "not run"')
    p.add_argument('--only', action='append', metavar='PATTERN', help="cells whose name matches, such as 'unet-*/mini'; may repeat")
    p.add_argument('--threads', type=int, default=len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
                   metavar='N', help='of either side (all cores)')
    p.add_argument('--no-judge', action='store_true', help='do not judge the edits of the end-to-end run')
    p.add_argument('--results', metavar='FILE', help='default bench/study/RESULTS.md; with --only, none')
    p.add_argument('--json', metavar='FILE', help='write the comparisons as one array of {"name", "ours", "torch", "ratio", "unit"}')
    p.add_argument('--list', action='store_true', help='print the names of the cells and end')
    p.add_argument('--timeout', type=float, default=900, metavar='SECONDS', help='longest wait for one answer or run (900)')
    p.add_argument('--ours', metavar='COMMAND', help='another program in the place of target/release/scumble-bench. Self-test: with '
                   '"python3 bench/study/torch_side.py" every ratio is near 1')
    p.add_argument('--scumble', metavar='FILE', default=os.path.join(ROOT, 'target/release/scumble'), help='the program of whole runs')
    args = p.parse_args()
    if args.threads < 1 or args.budget <= 0 or args.timeout <= 0:
        p.error('--threads, --budget and --timeout must be above 0')
    return args


def distance(a, b):
    """Of two fingerprints: largest difference relative to the largest number; infinite where they cannot be compared."""
    if len(a) != 8 or len(b) != 8:
        return float('inf')
    largest = max(map(abs, a + b))
    off = max(abs(x - y) for x, y in zip(a, b)) / largest if largest else 0.
    return off if off == off else float('inf')


class Driver:
    def __init__(self, args, cells):
        self.args, self.cells = args, cells
        self.commands = {'ours': shlex.split(args.ours) if args.ours else [os.path.join(ROOT, 'target/release/scumble-bench')],
                         'theirs': [sys.executable, os.path.join(ROOT, 'bench', 'study', 'torch_side.py')]}
        self.runs = Runs(args.scumble, args.threads, args.timeout)
        self.pair, self.group = {}, None
        self.began, self.edits, self.rates, self.floor = time.monotonic(), {}, None, {}
        self.deadline = self.began + 60 * args.budget
        self.load = f'{os.getloadavg()[0]:.1f}' if hasattr(os, 'getloadavg') else 'unknown'

    def side(self, who):
        return Side({'ours': 'scumble-bench', 'theirs': 'torch_side.py'}[who], self.commands[who], self.args.threads, self.args.timeout)

    def open(self, group):
        """The pair of sides of a group; another group's is closed first."""
        if self.group != group:
            self.close()
            self.pair, self.group = {who: self.side(who) for who in self.commands}, group
        return self.pair

    def close(self):
        for side in self.pair.values():
            side.kill()
        self.pair, self.group = {}, None

    def turn(self, cell, who, warm):
        """(seconds, fingerprint) of one side's turn: the median of a burst where the cell is short."""
        time.sleep(PAUSE)
        taken, began = [], time.monotonic()
        while True:
            answer = self.open(cell.group)[who].ask(cell.asks or cell.name)
            if 'error' in answer:
                raise Failed(answer['error'])
            taken.append(answer['seconds'])
            if not warm or len(taken) >= BURST or time.monotonic() - began + taken[-1] > BURST_TIME:
                return statistics.median(taken), answer['fingerprint']

    def round(self, cell, warm=True):
        """Seconds of each side; what has been measured is kept in the cell only where it counts (`warm`)."""
        if cell.kind == 'concepts':
            taken = {'ours': self.runs.concepts(int(cell.name.split('=')[1]))}
        elif cell.kind == 'run':
            # A first round of one iteration: programs and libraries are then in the page cache on both sides.
            given = [] if warm else [1]
            taken = {'ours': self.runs.esd_ours(*given), 'theirs': self.runs.esd_theirs(*given)}
            self.edits = dict(self.runs.edits)
        else:
            ours, theirs = self.turn(cell, 'ours', warm), self.turn(cell, 'theirs', warm)
            off = distance(ours[1], theirs[1])
            if off >= TOLERANCE:
                cell.differs = True
                raise Failed(f'results differ: {off:.1e} of the largest number')
            taken = {'ours': ours[0], 'theirs': theirs[0]}
        if warm:
            for who, seconds in taken.items():
                getattr(cell, who).append(seconds)
        return sum(taken.values())

    def memory(self, cell):
        """Peak memory of fresh processes, one after the other, each after three runs of the cell."""
        prints = {}
        if not self.floor:
            self.floor = {who: self.nothing(who) for who in self.commands}
        for who in self.commands:
            side = self.side(who)
            try:
                for _ in range(3):
                    answer = side.ask(cell.asks)
                    if 'error' in answer:
                        raise Failed(answer['error'])
                prints[who], peak = answer['fingerprint'], side.close()
                if peak is None:
                    raise Failed(f'{side.name} did not say its peak_bytes')
                getattr(cell, who).append(peak)
            finally:
                side.kill()
        if distance(*prints.values()) >= TOLERANCE:
            cell.differs = True
            raise Failed('results differ')

    def nothing(self, who):
        """Peak memory of a process that was asked for a cell that does not exist: program and libraries alone."""
        side = self.side(who)
        try:
            side.ask('nothing/mini')
            return side.close()
        finally:
            side.kill()

    def cover(self, cell):
        """The rounds that every cell gets."""
        if cell.kind != 'cell':
            self.close()
        if cell.kind == 'memory':
            return self.memory(cell)
        if cell.kind == 'concepts':
            return self.round(cell)
        first = self.round(cell, warm=False)
        if cell.kind == 'run':
            first = self.round(cell)
        while len(cell.ours) < (1 if first > LONG else ROUNDS):
            self.round(cell)

    def more(self, cell, cells):
        """Further rounds of a cell that has been covered, while they fit its share of the time, one of `cells`; again the first
        is not counted."""
        expected = cell.median('ours') + cell.median('theirs')
        if cell.kind == 'cell':
            self.round(cell, warm=False)
        until = time.monotonic() + (self.deadline - time.monotonic()) / cells
        while len(cell.ours) < MOST_ROUNDS and time.monotonic() + 1.2 * expected + 2 * PAUSE < until:
            self.round(cell)

    def guarded(self, cell, work, *args):
        try:
            work(cell, *args)
        except Failed as e:
            cell.problem = str(e)

    def everything(self):
        for cell in self.cells:
            if time.monotonic() > self.deadline:
                break
            print(f'{cell.name} ...', file=sys.stderr, flush=True)
            self.guarded(cell, self.cover)
            print(line(cell), flush=True)
            if cell.name == END_TO_END and not cell.problem and not self.args.no_judge:
                self.judge(cell)
        again = [c for c in self.cells if c.compared and c.kind in ('cell', 'run') and c.ours and not c.problem]
        for i, cell in enumerate(again):
            if time.monotonic() > self.deadline:
                break
            before = len(cell.ours)
            self.guarded(cell, self.more, len(again) - i)
            if len(cell.ours) > before or cell.problem:
                print(line(cell), flush=True)

    def judge(self, cell):
        print('judging the edits of both sides ...', file=sys.stderr, flush=True)
        try:
            self.rates = self.runs.rates(self.edits)
        except Failed as e:
            self.rates = {'problem': str(e)}


def write_json(path, cells):
    rows = [{'name': c.name, 'ours': c.median('ours'), 'torch': c.median('theirs'), 'ratio': c.ratio, 'unit': c.unit}
            for c in cells if c.compared and c.ratio is not None and not c.problem]
    with open(path, 'w') as f:
        json.dump(rows, f, indent=1)
        f.write('\n')


def main():
    args = arguments()
    cells = [c for c in everything() if not args.only or any(fnmatch.fnmatchcase(c.name, p) for p in args.only)]
    if args.list:
        print('\n'.join(c.name for c in cells))
        return 0
    if not cells:
        print(f'no cell matches {" ".join(args.only)}; --list prints the names', file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    driver, interrupted = Driver(args, cells), False
    print(f'load before: {driver.load}; let nothing else run meanwhile', file=sys.stderr)
    print(line(None), flush=True)
    try:
        driver.everything()
    except KeyboardInterrupt:
        interrupted = True
        print('interrupted: writing what has been measured', file=sys.stderr)
    finally:
        driver.close()
    path = args.results or (None if args.only else os.path.join(ROOT, 'bench', 'study', 'RESULTS.md'))
    if path:
        with open(path, 'w') as f:
            f.write(results(cells, args, driver, interrupted))
    if args.json:
        write_json(args.json, cells)
    failed = [c for c in cells if c.problem]
    if left := [c for c in cells if not c.ours and not c.problem]:
        print(f'not run: {len(left)} of {len(cells)} cells, from {left[0].name} on; --budget gives more time', file=sys.stderr)
    for cell in failed:
        print(f'{cell.name}: {cell.problem}', file=sys.stderr)
    return 130 if interrupted else 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
