"""Runs the program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any, Callable

from ._binary import find_binary
from ._error import Error


@dataclass(frozen=True)
class Result:
    """What a run of the program came to.

    `output` is what it printed on stdout: the parsed JSON if `--json` was among the arguments (None if nothing was
    printed), else the text. `status` is its exit status.
    """

    output: Any
    status: int


def run(
    args: Sequence[str | os.PathLike[str]], *, progress: Callable[[str], object] | None = None, check: bool = True
) -> Result:
    """Runs the program with these arguments and waits for it.

    `run(["erase", "church", "--json"]).output["edit"]` is the path of an edit.

    `progress` is called with every line of stderr (notes and errors, without the line's end) as it comes, in the
    caller's thread; without one the lines go to `sys.stderr`. Ctrl-C (KeyboardInterrupt) sends the program one
    SIGINT and waits: it stops after its present step and keeps its state, so that the same call continues; a second
    Ctrl-C stops it at once. Whatever `progress` raises stops it in the same way.

    Raises `Error` with the program's own message, hint and exit status if `check` is true and the status is not 0;
    if there is no program; and if it prints no JSON where JSON was asked for.
    """
    if isinstance(args, (str, bytes)):
        raise TypeError('the arguments are a list of words, such as ["erase", "church"], not one text')
    words = [os.fspath(arg) for arg in args]
    text, said, status = _follow(_start([str(find_binary()), *words]), progress or _show)
    output, broken = _parsed(text) if "--json" in words else (text, None)
    if check and status != 0:
        message, hint = _problem(said, status)
        raise Error(message, hint, status=status, output=output)
    if broken is not None and status == 0:
        raise Error(f"the program's answer is no JSON: {broken}", status=status, output=output)
    return Result(output, status)


def _start(command: list[str]) -> subprocess.Popen[str]:
    # A process group of its own: a terminal sends Ctrl-C to all of its group, and ours on top would be the second one.
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            creationflags=flags,
        )
    except OSError as problem:
        raise Error(f"{command[0]} cannot be run: {problem}") from problem


def _follow(process: subprocess.Popen[str], progress: Callable[[str], object]) -> tuple[str, list[str], int]:
    """stdout, the lines of stderr and the exit status, once the program has ended."""
    assert process.stdout is not None and process.stderr is not None
    printed: list[str] = []
    # Read beside stderr: a full pipe would hold the program up.
    reader = threading.Thread(target=_keep, args=(process.stdout, printed), daemon=True)
    reader.start()
    said: list[str] = []
    with process.stderr:
        try:
            for line in process.stderr:
                said.append(line.rstrip("\r\n"))
                progress(said[-1])
            status = process.wait()
        except KeyboardInterrupt:
            _stop(process, process.stderr, progress)
            raise
        except BaseException:
            _stop(process, process.stderr, lambda line: None)
            raise
        finally:
            reader.join()
    return "".join(printed), said, status


def _keep(stream: IO[str], printed: list[str]) -> None:
    with stream:
        printed.append(stream.read())


def _stop(process: subprocess.Popen[str], stderr: IO[str], progress: Callable[[str], object]) -> None:
    """Asks the program to stop and waits for it, and asks again at Ctrl-C; what it still says goes to `progress`."""
    while True:
        try:
            if process.poll() is None:
                if sys.platform == "win32":
                    process.send_signal(signal.CTRL_BREAK_EVENT)
                else:
                    process.send_signal(signal.SIGINT)
            for line in stderr:
                progress(line.rstrip("\r\n"))
            process.wait()
            return
        except KeyboardInterrupt:
            continue


def _show(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parsed(text: str) -> tuple[Any, ValueError | None]:
    """The JSON in a text, None in an empty one; the text itself, and why, if it is none."""
    try:
        return (json.loads(text) if text.strip() else None), None
    except ValueError as problem:
        return text, problem


def _problem(said: list[str], status: int) -> tuple[str, str | None]:
    """What the program said was wrong, which begins at the last `error: `, and its hint."""
    starts = [i for i, line in enumerate(said) if line.startswith("error: ")]
    if not starts:
        why = f"signal {-status} ended the program" if status < 0 else f"the program ended with status {status}"
        last = "\n".join(said[-3:]).strip()
        return (f"{why}; its last words: {last}" if last else why), None
    lines = said[starts[-1] :]
    end = next((i for i, line in enumerate(lines) if line.startswith("hint: ")), len(lines))
    message = "\n".join(lines[:end])[len("error: ") :].strip()
    hint = "\n".join(lines[end:])[len("hint: ") :].strip()
    return message, hint or None
