"""The one error class for users' mistakes, and how a command ends on it."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can mend: one line saying what is wrong, where, and what to do."""


def run_command(command: Callable[[], None]) -> None:
    """Run a command line program; a UserError becomes one line on stderr and exit code 2 (SPEC 17)."""
    try:
        command()
    except UserError as error:
        line = " ".join(str(error).split())
        sys.stderr.write(f"error: {line}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
