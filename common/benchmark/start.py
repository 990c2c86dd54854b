"""Start-up time, and the time to prepare the skinning field."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from common.body_model.body import BodyModel
from common.errors import UserError
from common.skinning_field import build_skinning_field
from main.config import FieldConfig

ROOT = Path(__file__).resolve().parents[2]
DRIVER = "import sys; sys.path.insert(0, {root!r}); from common.benchmark.first_step import main; main()"


@dataclass(frozen=True)
class StartTimes:
    """Seconds from starting Python until each stage was done."""

    cold: dict[str, float]  # the first time: kernels may have to be compiled
    warm: dict[str, float] | None  # again, in a new process


def measure_start(options: list[str], is_once: bool = False) -> StartTimes:
    """Twice or once: a new process, up to its first training step; `options` are those of main/train.py."""
    return StartTimes(_start(options), None if is_once else _start(options))


def _start(options: list[str]) -> dict[str, float]:
    command = [sys.executable, "-c", DRIVER.format(root=str(ROOT)), str(time.time()), *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = result.stdout.strip().splitlines()
    if result.returncode != 0 or not lines:
        raise UserError(f"the first step failed: {result.stderr.strip()[-500:]}")
    times: dict[str, float] = json.loads(lines[-1])
    return times


def measure_field(body: BodyModel, settings: FieldConfig, device: torch.device) -> float:
    """Seconds to compute the field of a body on a device, in memory, after a warm-up at a low resolution."""
    vertices = body.neutral_vertices(None, jaw_open=False).to(device)
    weights = body.skinning_weights.to(device)
    build_skinning_field(vertices, weights, FieldConfig(resolution=8, n_iterations=2), progress=False)
    start = time.perf_counter()
    field = build_skinning_field(vertices, weights, settings, progress=False)
    float(field.weights[0, 0, 0, 0])  # waits for the device
    return time.perf_counter() - start
