"""The one error class for users' mistakes, and how a command ends on it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger(__name__)

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


class Stopped(BaseException):
    """The user or the system ended the run with a signal; no handler of errors may take it for one."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(f"stopped by {number.name}")
        self.exit_code = 128 + number


def run_command(command: Callable[[], None]) -> None:
    """Run a command line program; a UserError becomes one line on stderr and exit code 2 (SPEC 17).

    So does what the operating system refuses and nobody has explained (a path too long, a folder that must not be
    looked into), and memory that is not there. SIGTERM ends the program as Ctrl-C does, through all `finally`.
    """
    try:
        with _sigterm_stops():
            command()
            sys.stdout.flush()
    except UserError as error:
        _fail(error)
    except Stopped as stop:
        sys.stderr.write(f"{stop}\n")
        sys.exit(stop.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # who read the output has enough of it
        nowhere = os.open(os.devnull, os.O_WRONLY)  # for what is still to be written
        os.dup2(nowhere, sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        logger.debug("refused by the system", exc_info=True)
        _fail(UserError(f"{_named(error)}; check the path, who may use it, and the space on the disk"))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        logger.debug("out of memory", exc_info=True)
        kind = "GPU " if is_out_of_gpu_memory(error) else ""
        _fail(UserError(f"out of {kind}memory; end other programs, or ask for less at a time"))


def is_out_of_gpu_memory(error: Exception) -> bool:
    """Whether torch found no memory on a GPU; torch itself need not be there."""
    return type(error).__name__ == "OutOfMemoryError"


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, or torch on a GPU or a CPU, found no memory."""
    return (
        isinstance(error, MemoryError) or is_out_of_gpu_memory(error) or "DefaultCPUAllocator" in str(error)
    )


def _fail(error: UserError) -> None:
    sys.stderr.write(f"error: {error}\n")
    sys.exit(2)


def _named(error: OSError) -> str:
    """`cannot use <file>: <reason>`."""
    reason = error.strerror or str(error) or type(error).__name__
    return reason if error.filename is None else f"cannot use {error.filename}: {reason}"


@contextmanager
def _sigterm_stops() -> Iterator[None]:
    """Within it, SIGTERM raises Stopped in the main thread; nothing is changed where it is handled or ignored."""
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(signal.Signals(number))

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
