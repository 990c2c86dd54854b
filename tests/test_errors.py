"""How a command ends: one line, the right exit code, everything tidied up."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.errors import Stopped, UserError, run_command

ROOT = Path(__file__).resolve().parents[1]


def raising(error: BaseException):
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("no\nsubject; give one"), 2, "error: no subject; give one"),
        (Stopped(signal.SIGTERM), 143, "stopped by SIGTERM"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            PermissionError(13, "Permission denied", "/x/y"),
            2,
            "error: cannot use /x/y: Permission denied; check",
        ),
        (OSError(28, "No space left on device"), 2, "error: No space left on device; check"),
        (OSError("100 requested and 3 written"), 2, "error: 100 requested and 3 written; check"),
        (MemoryError(), 2, "error: out of memory; end other programs"),
        (torch.OutOfMemoryError("CUDA out of memory."), 2, "error: out of GPU memory; end other programs"),
        (RuntimeError("DefaultCPUAllocator: can't allocate"), 2, "error: out of memory; end other programs"),
    ],
)
def test_what_the_user_can_mend_is_one_line(error, code, said, capsys):
    with pytest.raises(SystemExit) as stop:
        run_command(raising(error))
    assert stop.value.code == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(said)


@pytest.mark.parametrize("error", [ZeroDivisionError(), RuntimeError("a mistake")])
def test_mistakes_of_the_program_are_not_hidden(error):
    with pytest.raises(type(error)):
        run_command(raising(error))


def test_what_catches_any_error_does_not_keep_a_program_from_stopping():
    assert not issubclass(Stopped, Exception)


def test_how_sigterm_was_handled_before_comes_back():
    seen = []
    run_command(lambda: seen.append(signal.getsignal(signal.SIGTERM)))
    assert callable(seen[0]) and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    earlier = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as a parent may want it
    try:
        run_command(lambda: seen.append(signal.getsignal(signal.SIGTERM)))
        assert seen[1] is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, earlier)


WRITING = """
import sys, time
from pathlib import Path
from common.errors import run_command
from common.io.atomic import atomic_path
def command():
    with atomic_path(Path(sys.argv[1])) as temporary:
        temporary.write_text("half")
        print("writing", flush=True)
        time.sleep(60)
run_command(command)
"""


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGTERM, 143, "stopped by SIGTERM\n"), (signal.SIGINT, 130, "interrupted\n")],
)
def test_a_command_that_is_stopped_leaves_no_half_file(tmp_path, number, code, said):
    start = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{WRITING}"
    command = [sys.executable, "-c", start, str(tmp_path / "a.txt")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=-1, stderr=-1, text=True)
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    process.send_signal(number)
    assert process.communicate()[1] == said
    assert process.returncode == code and list(tmp_path.iterdir()) == []


def test_a_reader_that_has_enough_ends_a_command_without_a_word():
    code = """
from common.errors import run_command
def command():
    while True:
        print("x" * 100)
run_command(command)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=-1, stderr=-1)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141
