"""One process that gives broken inputs to readers and watches time, memory, messages and what else they do.

Started by tests/fuzz/run.py: `python -m tests.fuzz.worker <report> <inputs> <seed> <loader> ...` in an empty folder.
"""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.configuration import set_hypothesis_home_dir

from common.errors import UserError
from tests.fuzz.folders import SUBJECT, Changes, write_folders
from tests.fuzz.loaders import MAKERS, Loader

MAX_SECONDS = 5.0
STUCK_SECONDS = 60  # a reader that takes so long is ended with its process
NOISE_BYTES = 24 * 2**20  # what allocators and caches may take besides
VIRTUAL_BYTES = 256 * 2**20  # reserved memory that may never be touched
CURRENT = "current_input"  # holds the input that is being read, in case the process dies
MAX_CHARS = 1500
_MAX_KEPT = 20
_WRITING = "wax+"
_FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "subprocess.Popen", "socket.connect",
    "os.remove",
    "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.truncate", "shutil.rmtree",
    "webbrowser.open",
)  # fmt: skip


@dataclass
class Report:
    """What happened to the inputs of one loader."""

    loader: str
    tried: int = 0
    loaded: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    peak_bytes: int = 0
    cpu_s: float = 0.0  # all of the process, strategies included
    memory_per_byte: float = 0.0  # of an honest file
    findings: list[str] = field(default_factory=list)


class Watch:
    """Notes what a reader does besides reading its input, through Python's audit events."""

    def __init__(self, box: Path) -> None:
        self.allowed = [
            str(box),
            sys.prefix,
            sys.base_prefix,
            str(Path(__file__).resolve().parents[2]),
            "/proc",
            "/sys",
        ]
        self.is_on = False
        self.seen: list[str] = []
        sys.addaudithook(self._note)

    def _note(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        if event in _FORBIDDEN:
            self.seen.append(f"{event}{args!r:.200}")
        elif event == "open" and isinstance(args[0], str | bytes):
            path, mode = os.path.realpath(os.fsdecode(args[0])), args[1]
            is_writing = isinstance(mode, str) and any(letter in mode for letter in _WRITING)
            if is_writing or not path.startswith(tuple(self.allowed)):
                self.seen.append(f"open({path!r}, {mode!r})")


class Measured:
    """Processor `seconds` of a block, `peak` memory over its start and newly `reserved` address space in bytes."""

    def __enter__(self) -> Measured:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        self._before = _status()
        self._start = time.process_time()  # the machine may be busy with other things
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.process_time() - self._start
        after = _status()
        self.peak = max(0, after["VmHWM"] - self._before["VmRSS"])
        self.reserved = max(0, after["VmPeak"] - self._before["VmPeak"])


def _listing() -> list[str]:
    return sorted(entry.name for entry in Path().iterdir())


def _status() -> dict[str, int]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith("Vm")}


class Runner:
    """Gives inputs to one loader."""

    def __init__(self, loader: Loader, box: Path, watch: Watch) -> None:
        self.loader, self.box, self.watch = loader, box, watch
        self.report = Report(loader.name)
        self.folder = box / "folder"
        self.folder.mkdir()
        if loader.prepare is not None:
            loader.prepare(self.folder)
        self.file = self.folder / loader.place
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if not loader.place:
            write_folders(self.folder)
            shutil.copytree(self.folder / SUBJECT, box / "original")
        self.is_listed = _listing()
        self.memory_per_byte = self._honest_need()

    def _honest_need(self) -> float:
        """Bytes of memory for each byte of a large valid file."""
        if not self.loader.large:
            return 0.0
        self.file.write_bytes(self.loader.large)
        for _ in range(2):  # the first time also imports what is imported late
            with Measured() as measured:
                outcomes = [_outcome(read, self.file) for read in self.loader.readers]
        if not any(error is None for error in outcomes):
            raise ValueError(f"the large file of {self.loader.name} is not valid: {outcomes}")
        return measured.peak / len(self.loader.large)

    def try_input(self, value: bytes | Changes) -> None:
        """Give one input to every reader."""
        path = self._place(value)
        self.report.tried += 1
        faulthandler.dump_traceback_later(STUCK_SECONDS, exit=True)
        self.watch.seen.clear()
        with warnings.catch_warnings(record=True) as warned, Measured() as measured:
            self.watch.is_on = True
            outcomes = [_outcome(read, path) for read in self.loader.readers]
            self.watch.is_on = False
        faulthandler.cancel_dump_traceback_later()
        faults = [error for error in outcomes if isinstance(error, str)]
        faults += [
            _fault(str(error), path, self.folder) for error in outcomes if isinstance(error, UserError)
        ]
        faults += [
            *self.watch.seen,
            *(f"warning: {entry.message}" for entry in warned),
            *self._excesses(measured, path),
        ]
        self._keep([fault for fault in faults if fault])
        is_loaded = any(error is None for error in outcomes)
        self.report.loaded += is_loaded
        self.report.refused += not is_loaded

    def _place(self, value: bytes | Changes) -> Path:
        if isinstance(value, bytes):
            self.file.write_bytes(value)
            return self.file
        subject = self.folder / SUBJECT
        shutil.rmtree(subject)
        shutil.copytree(self.box / "original", subject, copy_function=os.link)
        value.apply(subject)
        return subject

    def _excesses(self, measured: Measured, path: Path) -> list[str]:
        """Too much time or memory, and files that were not there before."""
        size = path.stat().st_size if path.is_file() else 0
        limit = 2 * self.memory_per_byte * size + NOISE_BYTES
        faults = []
        if measured.seconds > MAX_SECONDS:
            faults.append(f"took {measured.seconds:.1f} s")
        if measured.peak > limit or measured.reserved > limit + VIRTUAL_BYTES:
            faults.append(
                f"took {measured.peak >> 20} MiB, reserved {measured.reserved >> 20} MiB for {size} bytes"
            )
        listing = _listing()
        if listing != self.is_listed:
            faults.append(f"files appeared: {listing}")
            self.is_listed = listing
        self.report.slowest_s = max(self.report.slowest_s, measured.seconds)
        self.report.peak_bytes = max(self.report.peak_bytes, measured.peak)
        return faults

    def _keep(self, faults: list[str]) -> None:
        for fault in faults:
            if len(self.report.findings) < _MAX_KEPT:
                self.report.findings.append(f"input {self.report.tried}: {fault}")


def _outcome(read: Callable[[Path], Any], path: Path) -> UserError | str | None:
    """None if the reader loaded it, the refusal, or what else came."""
    try:
        read(path)
    except UserError as error:
        return error
    except BaseException as error:  # noqa: BLE001 - whatever else comes is what is looked for
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:300]} ({Path(where.filename).name}:{where.lineno})"
    return None


def _fault(message: str, path: Path, folder: Path) -> str:
    """What is wrong with a refusal: it must be one clean line and name the file, or one that it does not fit."""
    if "\n" in message or not message.isprintable() or len(message) > MAX_CHARS:
        return f"message is not one clean line: {message[:300]!r}"
    is_named = path.name in message or str(folder) in message
    return "" if is_named else f"message does not name the file: {message[:300]}"


def fuzz(name: str, n_inputs: int, first_seed: int, watch: Watch, box: Path) -> Report:
    """Try `n_inputs` inputs of one loader."""
    start = time.process_time()
    (box / "seeds").mkdir()
    runner = Runner(MAKERS[name](box / "seeds"), box, watch)

    number = first_seed
    while runner.report.tried < n_inputs:  # a strategy may run out of new examples early
        left = n_inputs - runner.report.tried

        @seed(number)
        @settings(
            max_examples=left, database=None, deadline=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(runner.loader.inputs)
        def run(value: bytes | Changes) -> None:
            if runner.report.tried < n_inputs:
                runner.try_input(value)

        run()
        number += 1_000_003
    runner.report.cpu_s = time.process_time() - start
    runner.report.memory_per_byte = runner.memory_per_byte
    return runner.report


def main() -> None:
    """Write one line of JSON a loader."""
    report_file, n_inputs, first_seed, *names = sys.argv[1:]
    torch.set_num_threads(1)
    memory = Path("/dev/shm")  # a file system without a disk is much faster
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        set_hypothesis_home_dir(Path(folder) / "hypothesis")
        watch = Watch(Path(folder))
        for i, name in enumerate(names):
            box = Path(folder) / str(i)
            box.mkdir()
            report = fuzz(name, int(n_inputs), int(first_seed), watch, box)
            with Path(report_file).open("a") as file:
                file.write(json.dumps(asdict(report)) + "\n")


if __name__ == "__main__":
    main()
