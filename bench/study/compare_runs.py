"""Whole runs of bench/study/compare: programs started from the shell's point of view, timed from process start to end."""
import json
import os
import subprocess
import sys
import tempfile
import time

from compare_side import environment

HERE = os.path.dirname(os.path.abspath(__file__))
# Published ESD: `--variant reference` is batch 1, constant step size, 50 sampling steps, guidance 3, as in esd.py. Only the step size is not
# the published 5e-5, which does nothing to the miniature, so that the rates have something to say; it costs no time on either side.
ITERATIONS, LR, CONCEPT = 200, '5e-4', 'church'
GROWTH = ['church', 'truck', 'fish', 'trumpet', 'radio', 'dog', 'guitar', 'rose']
GROWTH_ITERATIONS = 60


class Failed(Exception):
    pass


class Runs:
    def __init__(self, scumble, threads, timeout):
        self.scumble, self.threads, self.timeout = scumble, str(threads), timeout
        self.folder = tempfile.TemporaryDirectory(prefix='scumble-compare-')
        self.serial, self.edits = 0, {}

    def new(self, name):
        self.serial += 1
        return os.path.join(self.folder.name, f'{self.serial}-{name}')

    def run(self, command, cache=None):
        """(seconds, stdout)."""
        more = {'SCUMBLE_CACHE': cache} if cache else {}
        began = time.perf_counter()
        try:
            done = subprocess.run(command, env=environment(self.threads, **more), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  errors='replace', timeout=self.timeout)
        except subprocess.TimeoutExpired:
            raise Failed(f'{os.path.basename(command[0])}: not done in {self.timeout:g} s') from None
        except OSError as e:
            raise Failed(f'{command[0]}: {e.strerror}') from None
        seconds = time.perf_counter() - began
        if done.returncode:
            raise Failed(f'{" ".join(command[:3])}: exit status {done.returncode}: {" ".join(done.stderr.split())[-300:]}')
        return seconds, done.stdout

    def erase_ours(self, concepts, iterations, *more):
        """Cold: an empty cache. The edit's folder is kept for judging."""
        out = self.new('ours')
        seconds, _ = self.run([self.scumble, 'erase', *concepts, '--method', 'esd', '--iterations', str(iterations), '--no-judge', '--quiet',
                               '--json', '--threads', self.threads, '--output-dir', out, *more], cache=self.new('cache'))
        self.edits['ours'] = out
        return seconds

    def esd_ours(self, iterations=ITERATIONS):
        return self.erase_ours([CONCEPT], iterations, '--variant', 'reference', '--train-method', 'esd-x', '--lr', LR,
                               '--negative-guidance', '2', '--seed', '0')

    def esd_theirs(self, iterations=ITERATIONS):
        seconds, stdout = self.run([sys.executable, os.path.join(HERE, '..', 'speed', 'esd.py'), '--concept', CONCEPT, '--train-method', 'esd-x',
                                    '--iterations', str(iterations), '--lr', LR, '--negative-guidance', '2', '--seed', '0',
                                    '--threads', self.threads, '--out', self.new('theirs')])
        self.edits['PyTorch'] = json.loads(stdout.splitlines()[-1])['edit']
        return seconds

    def concepts(self, n):
        return self.erase_ours(GROWTH[:n], GROWTH_ITERATIONS)

    def rates(self, edits):
        """What judge.py says of the untouched miniature and of the edits: {who: rates}."""
        partial = self.new('partial')
        self.run([self.scumble, 'export', edits['ours'], '--to', 'partial', '--quiet', '--output-dir', partial])
        if os.path.isdir(partial):
            partial = next(os.path.join(at, f) for at, _, files in os.walk(partial) for f in files if f.endswith('.safetensors'))
        judge = [sys.executable, os.path.join(HERE, '..', 'parity', 'judge.py'), '--concept', CONCEPT, '--threads', self.threads]
        out = {}
        for who, more in (('before', []), ('scumble', ['--edit', partial]), ('PyTorch', ['--edit', edits['PyTorch']])):
            out[who] = json.loads(self.run([*judge, *more])[1].splitlines()[-1])['rates']
        return out
