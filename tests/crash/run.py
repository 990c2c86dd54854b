"""Kill training with SIGKILL at random moments, go on each time, and compare the end with a run never killed."""

from __future__ import annotations

import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch
import torch._dynamo  # by the optimizer, and tensorboard by the log: here once, not in every process
import torch.utils.tensorboard
import tyro

from common.checkpoint import read_snapshot
from common.errors import UserError, run_command
from common.snapshot_folder import available_steps
from main import setup, train
from main.train_options import TrainArgs

N_EPOCHS = 2
SMALL = {  # options that make a step quick
    "optim.n_epochs": str(N_EPOCHS),
    "body.n_subdivisions": "0",
    "avatar.triplane_resolution": "64",
    "field.resolution": "24",
    "save_every": "2",
}
# What the kills are aimed at: their share, and the longest delay after that has begun, in seconds.
AIMS = {"saving": (0.5, 0.03), "training": (0.4, 3.0), "loading": (0.1, 3.0)}
MAX_RUN_S = 600.0
_IN_EPOCH = re.compile(r"epoch \d+/\d+")  # the progress bar


@dataclass(frozen=True)
class Args:
    """Options of the crash test."""

    kills: int = 50
    """How often to kill."""
    subject_id: Literal["demo_tiny", "demo"] = "demo_tiny"
    """The subject; it is made if it is not there."""
    seed: int = 0
    """Seed of the moments."""
    output: Path | None = None
    """Folder for everything (default: a temporary one, removed at the end)."""


@dataclass
class CrashTest:
    """Runs of one training in processes of their own, all with the same end."""

    args: Args
    root: Path
    moments: random.Random
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def folder(self) -> Path:
        """Snapshots of the run that is killed."""
        return self.root / "killed" / "model_dump" / self.args.subject_id

    def options(self, output: str) -> list[str]:
        """The training's options."""
        places = {
            "subject_id": self.args.subject_id,
            "device": "cpu",
            "paths.subjects": str(self.root / "subjects"),
            "paths.output": str(self.root / output),
            "skinning_field_path": str(self.root / "field"),
        }
        given = [word for name, value in {**places, **SMALL}.items() for word in (f"--{name}", value)]
        return [*given, "--no_report"]

    def reference(self) -> Path:
        """The final snapshot of a run that is left alone, started as a user does."""
        command = [sys.executable, str(ROOT / "main/train.py"), *self.options("whole")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise UserError(f"training fails without being killed: {done.stderr[-500:]}")
        return self.root / "whole" / "model_dump" / self.args.subject_id / f"snapshot_{N_EPOCHS - 1}.pth"

    def run(self) -> None:
        """All kills; whenever the training comes to its end, it is compared and started again."""
        expected = self.reference()
        while self.counts["kills"] < self.args.kills:
            if self._start(is_killed=True):
                self._compare(expected)
        while not self._start(is_killed=False):
            pass
        self._compare(expected)

    def _start(self, is_killed: bool) -> bool:
        """Start or go on in a process of its own, and perhaps kill it; whether it came to its end."""
        has_snapshots = any(self.folder.glob("snapshot_*.pth")) or available_steps(self.folder) != []
        log = self.root / "log.txt"
        log.write_text("")
        process = self._fork(log, ["--continue"] if has_snapshots else [])
        self.counts["continued" if has_snapshots else "started afresh"] += 1
        status = self._kill(process, log) if is_killed else os.waitpid(process, 0)[1]
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status) != 0:
                raise UserError(f"training ended with {os.WEXITSTATUS(status)}: {log.read_text()[-500:]}")
            return True
        self._check_files()
        return False

    def _fork(self, log: Path, more: list[str]) -> int:
        """A copy of this process, in which everything is imported but nothing has run, that trains."""
        process = os.fork()
        if process:
            return process
        code = 1
        try:
            handle = os.open(log, os.O_WRONLY | os.O_APPEND)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            sys.argv = ["main/train.py", *self.options("killed"), *more]
            setup.run(TrainArgs, train.main, train.__doc__ or "")
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        finally:
            logging.shutdown()
            os._exit(code)

    def _kill(self, process: int, log: Path) -> int:
        """Kill at a random moment, unless the process ends before it; its exit status."""
        status = self._wait(process, log)
        if status is not None:
            return status
        os.kill(process, signal.SIGKILL)
        status = os.waitpid(process, 0)[1]
        if os.WIFSIGNALED(status):
            at_other_times = "between saves" if _is_training(log) else "while loading"
            self.counts["kills"] += 1
            self.counts["while saving" if any(self._unfinished()) else at_other_times] += 1
        return status

    def _wait(self, process: int, log: Path) -> int | None:
        """Wait for the moment to kill; the exit status of a process that ended before it."""
        aim = self.moments.choices(list(AIMS), [share for share, _ in AIMS.values()])[0]
        delay_s = self.moments.random() * AIMS[aim][1]
        n_saves = self.moments.randrange(1, 4)  # which of the coming saves
        deadline = time.monotonic() + MAX_RUN_S
        due: float | None = None
        seen: set[Path] = set()
        while due is None or time.monotonic() < due:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                return status
            if time.monotonic() > deadline:
                raise UserError(f"training takes more than {MAX_RUN_S:.0f} s")
            if due is None:
                seen |= set(self._unfinished())
                has_begun = aim == "loading" or (
                    len(seen) >= n_saves if aim == "saving" else _is_training(log)
                )
                due = time.monotonic() + delay_s if has_begun else None
            time.sleep(0.001)
        return None

    def _unfinished(self) -> Iterator[Path]:
        for folder in (self.folder, self.folder / "steps"):
            yield from folder.glob(".snapshot_*.tmp.pth")

    def _check_files(self) -> None:
        """Every file under a final name is complete."""
        for path in self.folder.rglob("*"):
            if path.is_file() and not path.name.startswith("."):
                read_snapshot(path)
                self.counts["snapshots read"] += 1

    def _compare(self, expected: Path) -> None:
        """The end must be the same bit by bit; then the run is cleared away."""
        found, wanted = (torch.load(p, weights_only=True) for p in (self.folder / expected.name, expected))
        for key in ("epoch", "network", "optimizer"):
            difference = next(differing(found[key], wanted[key], key), None)
            if difference is not None:
                raise UserError(f"the run that was killed ends with another {difference}; see {self.root}")
        for key in ("position", "random", "config", "initial_rgb"):
            difference = next(differing(found["run"][key], wanted["run"][key], key), None)
            if difference is not None:
                raise UserError(
                    f"the run that was killed ends with another run.{difference}; see {self.root}"
                )
        self.counts["runs with the very same end"] += 1
        shutil.rmtree(self.folder)


def _is_training(log: Path) -> bool:
    return _IN_EPOCH.search(log.read_text()) is not None


def differing(found: Any, wanted: Any, name: str) -> Iterator[str]:
    """Names of the entries that are not the same bit by bit."""
    if type(found) is not type(wanted):
        yield name
    elif isinstance(found, torch.Tensor):
        if found.dtype != wanted.dtype or found.shape != wanted.shape or not _same_bits(found, wanted):
            yield name
    elif isinstance(found, dict):
        if found.keys() != wanted.keys():
            yield name
        for key in found.keys() & wanted.keys():
            yield from differing(found[key], wanted[key], f"{name}.{key}")
    elif isinstance(found, list | tuple):
        if len(found) != len(wanted):
            yield name
        for i, (a, b) in enumerate(zip(found, wanted, strict=False)):
            yield from differing(a, b, f"{name}.{i}")
    elif found != wanted:
        yield name


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.contiguous().cpu().numpy().tobytes() == b.contiguous().cpu().numpy().tobytes()


def table(counts: Counter[str]) -> str:
    """What happened, as a Markdown table."""
    rows = (
        "kills", "while loading", "between saves", "while saving", "continued", "started afresh",
        "snapshots read", "runs with the very same end",
    )  # fmt: skip
    return "\n".join(["| event | times |", "|---|---:|", *(f"| {row} | {counts[row]} |" for row in rows)])


def main() -> None:
    """Print what happened; exit code 2 if anything was lost."""
    args = tyro.cli(Args, description=__doc__, use_underscores=True)
    if args.kills < 1:
        raise UserError(f"--kills {args.kills}: give 1 or more")
    torch.set_num_threads(1)  # no threads before the forks
    os.environ["OMP_NUM_THREADS"] = "1"
    root = args.output or Path(tempfile.mkdtemp(prefix="crash_test_"))
    root.mkdir(parents=True, exist_ok=True)
    test = CrashTest(args, root, random.Random(args.seed))
    test.run()
    print(table(test.counts))
    if args.output is None:
        shutil.rmtree(root)


if __name__ == "__main__":
    run_command(main)
