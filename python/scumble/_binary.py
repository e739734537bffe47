"""Where the program lies."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from ._error import Error

VARIABLE = "SCUMBLE_BIN"


def find_binary() -> Path:
    """The program `scumble`: what the environment variable SCUMBLE_BIN names, else what was installed with this
    module, else the first on PATH.

    Raises `Error` if there is none, or SCUMBLE_BIN names no file.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        if not Path(chosen).is_file():
            raise Error(f"{VARIABLE} is {chosen}, and there is no such file")
        return Path(chosen)
    name = "scumble" + (sysconfig.get_config_var("EXE") or "")
    folders = list(_folders())
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    on_path = shutil.which("scumble")
    if on_path is not None:
        return Path(on_path)
    listed = ", ".join(str(folder) for folder in folders)
    raise Error(
        f"the program scumble is neither in {listed} nor on PATH",
        f"`pip install scumble` brings it; {VARIABLE} can name another one",
    )


def _folders() -> Iterator[Path]:
    """Where pip puts programs: of this environment, of this user, and with `--target`, beside the packages."""
    yield Path(sysconfig.get_path("scripts"))
    yield Path(sysconfig.get_path("scripts", f"{os.name}_user"))
    yield Path(__file__).resolve().parent.parent / "bin"
