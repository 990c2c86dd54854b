"""Start-up time, and the time to prepare the skinning field."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from common.benchmark.own_process import run_alone
from common.body_model.body import BodyModel
from common.skinning_field import build_skinning_field
from main.config import FieldConfig


@dataclass(frozen=True)
class StartTimes:
    """Seconds from starting Python until each stage was done."""

    cold: dict[str, float]  # the first time: kernels may have to be compiled
    warm: dict[str, float] | None  # again, in a new process


def measure_start(options: list[str], is_once: bool = False) -> StartTimes:
    """Twice or once: a new process, up to its first training step; `options` are those of main/train.py."""
    return StartTimes(_start(options), None if is_once else _start(options))


def _start(options: list[str]) -> dict[str, float]:
    return run_alone("common.benchmark.first_step", [str(time.time()), *options], "the first step")


def measure_field(body: BodyModel, settings: FieldConfig, device: torch.device) -> float:
    """Seconds to compute the field of a body on a device, in memory, after a warm-up at a low resolution."""
    vertices = body.neutral_vertices(None, jaw_open=False).to(device)
    weights = body.skinning_weights.to(device)
    build_skinning_field(vertices, weights, FieldConfig(resolution=8, n_iterations=2), progress=False)
    start = time.perf_counter()
    field = build_skinning_field(vertices, weights, settings, progress=False)
    float(field.weights[0, 0, 0, 0])  # waits for the device
    return time.perf_counter() - start
