"""What is raised."""

from __future__ import annotations

from typing import Any


class Error(Exception):
    """Something that cannot be done: what is wrong, and what to try.

    `message` is what is wrong, and `hint` what to try, where something is known. Where the program said so,
    `status` is its exit status (1: it ran and the answer is no; 2: bad input; 130: interrupted; below 0: a signal
    ended it) and `output` is what it had printed on stdout, as in `Result`.
    """

    def __init__(self, message: str, hint: str | None = None, *, status: int | None = None, output: Any = None) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint
        self.status = status
        self.output = output

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n\nhint: {self.hint}"
