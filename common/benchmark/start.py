"""Start-up time, and the time to prepare the skinning field."""

from __future__ import annotations

import time
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import torch

from common.benchmark.many_frames import options_of, options_with_many_frames
from common.benchmark.own_process import run_alone
from common.body_model.body import BodyModel
from common.skinning_field import build_skinning_field
from data.files_state import NEW_NS
from main.config import FieldConfig
from main.train_options import TrainArgs


@dataclass(frozen=True)
class StartTimes:
    """Seconds from starting Python until each stage was done; each start is a new process."""

    cold: dict[str, float]  # the first time: kernels may have to be compiled
    warm: list[dict[str, float]]  # again
    with_lpips: list[dict[str, float]]  # VGG16 with random weights; the first as in `cold`
    n_frames: int
    many_frames: list[dict[str, float]]  # of so many generated frames; the first reads and checks all files
    torch_alone: dict[str, float]  # a process with nothing but PyTorch, after those


def measure_start(train: TrainArgs, n_frames: int, n_more: int) -> StartTimes:
    """Processes of main/train.py up to their first training step; the subject and the field are there before."""
    options = options_of(train)
    cold, warm = _start("no_lpips", options), [_start("no_lpips", options) for _ in range(n_more)]
    with_lpips = [_start("lpips", options) for _ in range(n_more)]
    with options_with_many_frames(train, n_frames) as moved:
        time.sleep(NEW_NS / 1e9)  # nothing is kept of newer files
        many_frames = [_start("no_lpips", moved) for _ in range(1 + n_more)]
    alone = run_alone("common.benchmark.torch_alone", [str(time.time()), train.device], "PyTorch alone")
    return StartTimes(cold, warm, with_lpips, n_frames, many_frames, alone)


def _start(lpips: str, options: list[str]) -> dict[str, float]:
    with TemporaryDirectory() as output:
        arguments = [str(time.time()), lpips, *options, "--paths.output", output]
        return run_alone("common.benchmark.first_step", arguments, "the first step")


def measure_field(body: BodyModel, settings: FieldConfig, device: torch.device) -> float:
    """Seconds to compute the field of a body on a device, in memory, after a warm-up at a low resolution."""
    vertices = body.neutral_vertices(None, jaw_open=False).to(device)
    weights = body.skinning_weights.to(device)
    build_skinning_field(vertices, weights, FieldConfig(resolution=8, n_iterations=2), progress=False)
    start = time.perf_counter()
    field = build_skinning_field(vertices, weights, settings, progress=False)
    float(field.weights[0, 0, 0, 0])  # waits for the device
    return time.perf_counter() - start
