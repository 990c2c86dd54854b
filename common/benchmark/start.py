"""Start-up time, and the time to prepare the skinning field."""

from __future__ import annotations

import time
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import torch

from common.benchmark.own_process import run_alone
from common.body_model.body import BodyModel
from common.skinning_field import build_skinning_field
from main.config import FieldConfig


@dataclass(frozen=True)
class StartTimes:
    """Seconds from starting Python until each stage was done."""

    cold: dict[str, float]  # the first time: kernels may have to be compiled
    warm: list[dict[str, float]]  # again, each in a new process
    torch_alone: dict[str, float]  # a process with nothing but PyTorch, after those


def measure_start(options: list[str], device: str, n_more: int) -> StartTimes:
    """New processes, up to their first training step; `options` are those of main/train.py."""
    cold, warm = _start(options), [_start(options) for _ in range(n_more)]
    alone = [str(time.time()), device]
    return StartTimes(cold, warm, run_alone("common.benchmark.torch_alone", alone, "PyTorch alone"))


def _start(options: list[str]) -> dict[str, float]:
    with TemporaryDirectory() as output:
        places = ["--paths.output", output]
        return run_alone(
            "common.benchmark.first_step", [str(time.time()), *options, *places], "the first step"
        )


def measure_field(body: BodyModel, settings: FieldConfig, device: torch.device) -> float:
    """Seconds to compute the field of a body on a device, in memory, after a warm-up at a low resolution."""
    vertices = body.neutral_vertices(None, jaw_open=False).to(device)
    weights = body.skinning_weights.to(device)
    build_skinning_field(vertices, weights, FieldConfig(resolution=8, n_iterations=2), progress=False)
    start = time.perf_counter()
    field = build_skinning_field(vertices, weights, settings, progress=False)
    float(field.weights[0, 0, 0, 0])  # waits for the device
    return time.perf_counter() - start
