"""`python -m scumble ...` is the program `scumble ...`."""

from __future__ import annotations

import os
import subprocess
import sys

from ._binary import find_binary
from ._error import Error


def main() -> int:
    """Becomes the program, with this process's arguments; on Windows runs it and returns its exit status."""
    try:
        command = [str(find_binary()), *sys.argv[1:]]
        if sys.platform == "win32":
            return subprocess.call(command)
        os.execv(command[0], command)
    except (Error, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
