"""No broken or hostile input does anything but load or be refused in one line (tests/fuzz/run.py).

Fewer inputs than that command gives, to save time; FUZZ_INPUTS and FUZZ_SEED ask for more or other ones.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from common.errors import UserError
from tests.fuzz.payloads import MARKER, malicious_pickles
from tests.fuzz.run import LOADERS, ROOT, run, table

N_INPUTS = int(os.environ.get("FUZZ_INPUTS", "200"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")


@pytest.fixture(scope="module")
def reports() -> dict[str, dict[str, Any]]:
    """Reports of all loaders."""
    found = run(N_INPUTS, SEED, LOADERS)
    print(table(found))
    return {report["loader"]: report for report in found}


@pytest.mark.parametrize("loader", LOADERS)
def test_every_input_is_loaded_or_refused_in_one_line(reports, loader):
    report = reports[loader]
    assert report["findings"] == []
    assert report["tried"] == N_INPUTS == report["loaded"] + report["refused"]
    assert min(report["loaded"], report["refused"]) > N_INPUTS // 200, (
        "inputs must be neither all broken nor all valid"
    )


def _unpickle(path: Path) -> None:
    with path.open("rb") as file:
        pickle.load(file)


def _chatty(_: Path) -> None:
    raise UserError("not this one\nsecond line \x1b[2J")


class _RawError(UserError):
    __str__ = Exception.__str__


def _raw(path: Path) -> None:
    raise _RawError(f"{path}: two\nlines")


def _slow(_: Path) -> None:
    end = time.process_time() + 0.4
    while time.process_time() < end:
        pass


CARELESS = {
    "another exception": (lambda path: path.read_bytes()[10**6], "IndexError"),
    "memory": (lambda _: b"x" * 2**27, "MiB"),
    "reserved memory": (lambda _: bytearray(2**31), "MiB"),
    "time": (_slow, "took"),
    "another file": (lambda _: Path("/etc/hostname").read_text(), "/etc/hostname"),
    "code": (_unpickle, "os.system"),
    "two lines": (_raw, "not one clean line"),
    "other name": (_chatty, "does not name"),
}  # fmt: skip


@pytest.mark.parametrize("name", CARELESS)
def test_the_suite_sees_careless_readers(name, tmp_path, monkeypatch):
    from tests.fuzz import worker
    from tests.fuzz.loaders import Loader
    from tests.fuzz.worker import Runner, Watch

    monkeypatch.setattr(worker, "MAX_SECONDS", 0.3)
    read, expected = CARELESS[name]
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    runner = Runner(Loader("careless", "x.bin", (read,), st.nothing(), b""), tmp_path, Watch(tmp_path))
    runner.try_input(malicious_pickles((2,))[0])
    assert any(expected in finding for finding in runner.report.findings), runner.report
    if name == "code":
        assert any(MARKER in finding for finding in runner.report.findings)


def test_payloads_are_dangerous_to_pythons_own_unpickler(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content in malicious_pickles((2,)):
        pickle.loads(content)
        marker = tmp_path / MARKER
        assert marker.exists()
        marker.rmdir() if marker.is_dir() else marker.unlink()


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python"
)
@pytest.mark.parametrize("loader", ["npy", "npz", "json", "obj", "frame list"])
def test_inputs_guided_by_branches_break_no_byte_level_reader(loader, tmp_path):
    command = [
        sys.executable,
        str(ROOT / "tests/fuzz/atheris_run.py"),
        "--loader",
        loader,
        "--inputs",
        "1000",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and "Done 1000 runs" in done.stderr, done.stderr[-3000:]
    assert not list(tmp_path.iterdir())
