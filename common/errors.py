"""The one error class for users' mistakes, and how a command ends on it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

_MAX_CHARS = 1200
_END_CHARS = 300  # of a longer message: what to do stands at its end


class UserError(Exception):
    """Something the user can mend: one line saying what is wrong, where, and what to do.

    Its text is one printable line of bounded length, whatever it quotes from a file.
    """

    def __str__(self) -> str:
        line = " ".join(super().__str__().split())
        if not line.isprintable():  # control characters could do things to a terminal
            line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
        if len(line) > _MAX_CHARS:
            line = f"{line[: _MAX_CHARS - _END_CHARS]} ... {line[-_END_CHARS:]}"
        return line


class Stopped(Exception):
    """The user or the system ended the run with a signal."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(f"stopped by {number.name}")
        self.exit_code = 128 + number


def run_command(command: Callable[[], None]) -> None:
    """Run a command line program; a UserError becomes one line on stderr and exit code 2 (SPEC 17)."""
    try:
        command()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except Stopped as stop:
        sys.stderr.write(f"{stop}\n")
        sys.exit(stop.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(128 + signal.SIGINT)
