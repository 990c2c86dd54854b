"""Training steps a second, and what a step's time goes into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common import gpu
from common.benchmark.timing import Timer
from common.objective import Objective
from common.trainer import Trainer
from data.dataset import Frame


@dataclass(frozen=True)
class StepTimes:
    """One kind of frame; milliseconds. The stages are differences of ever longer prefixes of a step."""

    kind: str  # captured or generated
    path: str  # plain or fast
    step: float
    avatar: float | None  # posing, forward
    renders: float | None
    losses: float | None
    backward: float | None
    optimizer: float | None  # and all else of a step


def measure_step(
    trainer: Trainer, objective: Objective, frame: Frame, path: str, timer: Timer, has_stages: bool = True
) -> StepTimes:
    """Time whole steps on one frame again and again, and their stages; the model goes on learning meanwhile."""
    on_device = frame.to(timer.device)
    fed: Any = frame if trainer.store is None else trainer.store.frames([(frame.split, frame.index)])
    fed = fed if isinstance(fed, Frame) else next(iter(fed))
    step = timer.median_ms(lambda: trainer.step(fed, 0))
    trainer.settle()
    kind = "captured" if frame.is_captured else "generated"
    if not has_stages:
        return StepTimes(kind, path, step, None, None, None, None, None)
    is_fast = trainer.fast is not None
    shown = trainer.fast.objective if trainer.fast is not None else objective
    prefixes = [_prefix_ms(call, timer, is_fast) for call in _prefixes(shown, on_device)]
    avatar, renders, losses, backward = prefixes
    return StepTimes(
        kind,
        path,
        step,
        avatar=avatar,
        renders=renders - avatar,
        losses=losses - renders,
        backward=backward - losses,
        optimizer=step - backward,
    )


def _prefixes(objective: Objective, frame: Frame) -> list[Callable[[], object]]:
    """A step up to posing, up to the renders, up to the losses and up to the gradients."""
    table = objective.model.smplx_param_dict
    leaves = [p for p in objective.avatar.parameters() if p.requires_grad]

    def avatar() -> Any:
        pose = table.pose(frame.split, frame.index)
        return pose, objective.avatar(pose, frame.camera)

    def renders() -> object:
        pose, posed = avatar()
        return objective.renders(posed, pose, frame)

    def losses() -> Tensor:
        return torch.stack(list(objective.training(frame).values())).sum()

    def backward() -> object:
        return torch.autograd.grad(losses(), leaves, allow_unused=True)

    return [avatar, renders, losses, backward]


def _prefix_ms(call: Callable[[], object], timer: Timer, is_fast: bool) -> float:
    """Time of a prefix: as a graph with the fast step's kernels, or as it is."""
    if not is_fast:
        return timer.median_ms(call)

    def with_kernels() -> object:
        with gpu.kernels():  # each time anew: it holds on to what crosses streams
            return call()

    captured = timer.captured_ms(with_kernels)
    return timer.median_ms(with_kernels) if captured is None else captured


def profile(call: Callable[[], object], timer: Timer, file: str, n_calls: int = 3) -> None:
    """Write a trace of a few calls by torch's profiler, for chrome://tracing or Perfetto."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if timer.is_cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    call()
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(n_calls):
            call()
        if timer.is_cuda:
            torch.cuda.synchronize(timer.device)
    profiler.export_chrome_trace(file)
