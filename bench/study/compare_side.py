"""One side of bench/study/compare: a process that answers cell names with JSON lines. It may die, hang or talk nonsense; the driver goes on."""
import json
import os
import queue
import subprocess
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def environment(threads, **more):
    """The same number of threads for every runtime on either side."""
    return dict(os.environ, OMP_NUM_THREADS=str(threads), RAYON_NUM_THREADS=str(threads), PYTHONWARNINGS='ignore',
                TRANSFORMERS_VERBOSITY='error', **more)


class Side:
    """Started by the first question, and again after a death; after two deaths without an answer between them it stays dead."""

    def __init__(self, name, command, threads, timeout):
        self.name, self.command, self.threads, self.timeout = name, [*command, '--threads', str(threads)], threads, timeout
        self.process, self.deaths = None, 0

    def start(self):
        self.log = tempfile.TemporaryFile('w+', errors='replace')
        # A group of its own: an interrupt from the keyboard is for the driver, which then ends its sides.
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
                                        env=environment(self.threads), cwd=ROOT, start_new_session=True)
        self.lines = queue.Queue()
        threading.Thread(target=self.read, args=(self.process.stdout, self.lines), daemon=True).start()

    @staticmethod
    def read(stream, lines):
        for line in stream:
            lines.put(line)
        lines.put(None)

    def ask(self, cell):
        """{"seconds", "fingerprint"} or {"error"}; never raises, never waits longer than the timeout."""
        if self.deaths >= 2:
            return {'error': f'{self.name} died twice in a row'}
        try:
            if self.process is None:
                self.start()
            self.process.stdin.write(cell + '\n')
            self.process.stdin.flush()
            line = self.lines.get(timeout=self.timeout)
        except queue.Empty:
            return self.died(f'no answer in {self.timeout:g} s')
        except OSError as e:
            return self.died(f'{type(e).__name__}: {e}')
        if line is None:
            return self.died('ended')
        try:
            answer = json.loads(line)
            if 'error' not in answer:
                answer['seconds'], answer['fingerprint'] = float(answer['seconds']), [float(v) for v in answer.get('fingerprint') or []]
        except (ValueError, TypeError, KeyError):
            return self.died(f'answered {line.strip()[:200]!r}')
        self.deaths = 0
        return answer

    def died(self, how):
        self.deaths += 1
        last = ''
        if self.process is not None:
            self.process.kill()
            status = self.process.wait()
            self.log.seek(0)
            last = ' '.join(self.log.read()[-2000:].split())[-300:]
            how += f' (exit status {status})' if how == 'ended' else ''
            self.process = None
        return {'error': f'{self.name} {how}' + (f': {last}' if last else '')}

    def close(self):
        """Ends the process; its peak_bytes, None if it does not say."""
        if self.process is None:
            return None
        peak, until = None, time.monotonic() + 30
        try:
            self.process.stdin.close()
            while (line := self.lines.get(timeout=max(.1, until - time.monotonic()))) is not None:
                peak = json.loads(line).get('peak_bytes', peak)
            self.process.wait(timeout=30)
        except (OSError, ValueError, AttributeError, queue.Empty, subprocess.TimeoutExpired):
            pass
        finally:
            self.kill()
        return peak

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
