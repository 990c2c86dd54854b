"""Whole trainings on a GPU: one that goes on ends as one left alone, repeated ones end in the same bits, and
too little memory ends in one line. With TEST_DEVICE=cpu the first two run on a CPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from common.checkpoint import snapshot_path
from common.snapshot_folder import STEPS_FOLDER, available_steps, step_snapshot_path
from tests.crash.run import SMALL, differing

DEVICE = os.environ.get("TEST_DEVICE", "cuda")
if DEVICE == "cuda" and not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
SUBJECT = "demo_tiny"
SAVED = ("epoch", "network", "optimizer")  # of a snapshot, and of its entry "run":
SAVED_OF_RUN = ("position", "random", "config", "initial_rgb")
LIMITED = """
import runpy, sys, torch
torch.cuda.set_per_process_memory_fraction({mib} * 2**20 / torch.cuda.get_device_properties(0).total_memory)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

WITHOUT_TRITON = """
import runpy, sys
sys.modules["triton"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True)
class Place:
    """Where trainings of one subject go."""

    root: Path

    def folder(self, name: str) -> Path:
        """Snapshots of one training."""
        return self.root / name / "model_dump" / SUBJECT

    def places(self, name: str) -> list[str]:
        """Words of a command about this subject and a training of it."""
        options = {
            "subject_id": SUBJECT,
            "device": DEVICE,
            "paths.subjects": str(self.root / "subjects"),
            "paths.output": str(self.root / name),
            "skinning_field_path": str(self.root / "field"),
        }
        return [word for option, value in options.items() for word in (f"--{option}", value)]

    def command(self, name: str, *more: str) -> list[str]:
        """Words of main/train.py: one epoch, snapshots between."""
        options = {**SMALL, "optim.n_epochs": "1", "save_every": "3"}
        words = [word for option, value in options.items() for word in (f"--{option}", value)]
        return [str(ROOT / "main/train.py"), *self.places(name), *words, "--no_report", *more]

    def train(self, name: str, *more: str) -> dict[str, Any]:
        """A training in a process of its own; its last snapshot."""
        command = [sys.executable, *self.command(name, *more)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "do not work here" not in done.stderr, done.stderr[-2000:]
        snapshot: dict[str, Any] = torch.load(snapshot_path(self.folder(name), 0), weights_only=True)
        return snapshot

    def interrupt(self, name: str, after: str) -> None:
        """A training that has come as far as the earliest step of `after` that is still there."""
        step = available_steps(self.folder(after))[0]
        (self.folder(name) / STEPS_FOLDER).mkdir(parents=True)
        shutil.copy(step_snapshot_path(self.folder(after), step), step_snapshot_path(self.folder(name), step))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A folder for all trainings of this module."""
    return Place(tmp_path_factory.mktemp("runs"))


def distance(a: dict[str, Any], b: dict[str, Any]) -> float:
    """Largest relative distance of a parameter of two snapshots."""
    return max(
        float((x.double() - b["network"][name].double()).norm() / x.double().norm().clamp(min=1e-30))
        for name, x in a["network"].items()
        if x.is_floating_point()
    )


def first_difference(a: dict[str, Any], b: dict[str, Any]) -> str | None:
    """The first entry of two snapshots that is not the same bit by bit."""
    pairs = [(a[key], b[key], key) for key in SAVED]
    pairs += [(a["run"][key], b["run"][key], f"run.{key}") for key in SAVED_OF_RUN]
    return next((name for x, y, key in pairs for name in differing(x, y, key)), None)


def test_a_training_that_goes_on_ends_where_one_left_alone_does(place: Place) -> None:
    """Within 1e-6, or no farther from it than the same training repeated: sums come in changing order on a GPU."""
    whole, again = place.train("whole"), place.train("again")
    place.interrupt("continued", after="whole")
    continued = place.train("continued", "--continue")
    apart, spread = distance(whole, continued), distance(whole, again)
    print(f"\nrelative distance of parameters: {apart:.2e} after going on, {spread:.2e} of two whole runs")
    assert apart <= max(1e-6, spread)
    assert continued["run"]["position"] == whole["run"]["position"]


def test_deterministic_trainings_end_in_the_same_bits(place: Place) -> None:
    first, second = (place.train(name, "--deterministic") for name in ("first", "second"))
    assert first_difference(first, second) is None
    place.interrupt("first_continued", after="first")
    continued = place.train("first_continued", "--deterministic", "--continue")
    assert first_difference(first, continued) is None


@pytest.mark.skipif(DEVICE != "cuda", reason="memory of GPUs")
@pytest.mark.parametrize("options", [(), ("--plain_step",)])
def test_too_little_memory_ends_in_one_line(place: Place, options: tuple[str, ...]) -> None:
    name = "_".join(["limited", *options])
    command = [sys.executable, "-c", LIMITED.format(mib=24), *place.command(name, *options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr[-2000:]
    last = done.stderr.strip().splitlines()[-1]
    assert "out of GPU memory" in last and "--low_memory" in last
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(DEVICE != "cuda", reason="without a GPU, nothing needs Triton")
def test_without_triton_training_and_animation_go_on_with_a_warning(place: Place) -> None:
    """As with a PyTorch that came without it; steps and frames are drawn by torch functions."""
    places = place.places("no_triton")
    small = [
        word for name in SMALL if "avatar" in name or "field" in name for word in (f"--{name}", SMALL[name])
    ]
    animation = [str(ROOT / "main/animation.py"), *places, *small, "--output", str(place.root / "video")]
    for command in (place.command("no_triton", "--save_every", "0"), animation):
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_TRITON, *command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert "triton" in done.stderr and "slower" in done.stderr and "Traceback" not in done.stderr
    assert (place.root / "video" / SUBJECT / "motion.mp4").stat().st_size > 0
