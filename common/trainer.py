"""One optimisation loop for training an avatar and for fitting poses (SPEC 13, 14)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from tqdm import tqdm

from common.avatar import Avatar
from common.finite_guard import FiniteGuard
from common.optimizer import PersonAdam
from common.pose_table import PoseTable
from data.dataset import Frame, Subject
from data.frame import FrameKey
from data.packed_frame import FrameStore, PackedFrame
from main.config import OptimConfig

if TYPE_CHECKING:
    from common.fast_step import FastStep

SHOWN_EVERY_S = 1.0  # the terms in the progress bar
Losses = dict[str, Tensor]  # term -> scalar


class PersonModel(nn.Module):
    """Avatar and poses together; `state_dict` has the key prefixes of a snapshot's `network` (SPEC 5)."""

    def __init__(self, avatar: Avatar, poses: PoseTable) -> None:
        super().__init__()
        self.persona = avatar
        self.smplx_param_dict = poses


@dataclass(frozen=True)
class Schedule:
    """Position in the run: Adam's learning rates are divided once, at a fixed iteration."""

    n_epochs: int
    n_steps_per_epoch: int
    lr_drop_at: float
    lr_drop: float

    def factor(self, iteration: int) -> float:
        """Learning rate factor at an iteration counted from the first epoch's first step."""
        drop_iteration = int(self.lr_drop_at * self.n_epochs * self.n_steps_per_epoch)
        return self.lr_drop if iteration >= drop_iteration else 1.0


def avatar_parameter_groups(avatar: Avatar, optim: OptimConfig) -> list[dict]:
    """Adam's parameter groups of the avatar in the published order, each with its name and base rate."""
    appearance = {"scale": avatar.scale, "rgb": avatar.rgb, "rgb_aux": avatar.rgb_aux, "seg": avatar.seg}
    groups = [_group("mean_offset", [avatar.mean_offset], optim.lr)]
    groups += [_group(name, [parameter], optim.lr_appearance) for name, parameter in appearance.items()]
    groups.append(_group("triplane", [avatar.triplane], optim.lr))
    net = list(avatar.mean_offset_offset_net.parameters())
    groups.append(_group("mean_offset_offset_net", net, optim.lr))
    return groups


def _group(name: str, parameters: list[nn.Parameter], lr: float) -> dict:
    return {"name": name, "params": parameters, "lr": lr}


def make_optimizer(groups: list[dict], optim: OptimConfig) -> PersonAdam:
    """Adam as published; parameters without a gradient in a step are left alone, moments included."""
    return PersonAdam(groups, lr=0.0, eps=optim.eps)


def shuffled(keys: Sequence[FrameKey], seed: int, epoch: int) -> list[FrameKey]:
    """The frames of an epoch in an order that depends on seed and epoch alone."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return [keys[i] for i in torch.randperm(len(keys), generator=generator).tolist()]


def load_ahead(subject: Subject, keys: Sequence[FrameKey]) -> Iterator[Frame]:
    """The frames in order, the next one read from disk while the current one is used."""
    if not keys:
        return
    with ThreadPoolExecutor(1) as reader:
        upcoming: Future[Frame] | None = reader.submit(subject.load, *keys[0])
        for following in [*keys[1:], None]:
            assert upcoming is not None
            frame = upcoming.result()
            upcoming = reader.submit(subject.load, *following) if following is not None else None
            yield frame


@dataclass
class Trainer:
    """Runs epochs of one-frame steps; what a step computes is the caller's `losses` function."""

    model: PersonModel
    optimizer: PersonAdam
    base_lr: dict[str, float]  # learning rate of each parameter group by name, before the schedule's factor
    schedule: Schedule
    subject: Subject
    keys: Sequence[FrameKey]  # the frames of one epoch, repeats included
    losses: Callable[[Frame], Losses]
    device: torch.device
    seed: int
    on_step: Callable[[int, Losses], None]  # iteration, detached terms
    guard: FiniteGuard | None = None  # decides about each update
    fast: FastStep | None = None  # makes the steps, if it is there
    store: FrameStore | None = None  # hands out the frames for `fast`

    def run_epoch(self, epoch: int, first_step: int = 0) -> None:
        """One pass over the epoch's frames, or over those from a step on, with a progress bar of the terms."""
        order = shuffled(self.keys, self.seed, epoch)
        frames = tqdm(
            self.frames(order[first_step:]),
            initial=first_step,
            total=len(order),
            desc=f"epoch {epoch}/{self.schedule.n_epochs - 1}",
            dynamic_ncols=True,
        )
        next_shown_s = 0.0
        with frames:  # however it ends, what is printed next starts on a line of its own
            for step, frame in enumerate(frames, start=first_step):
                iteration = epoch * len(order) + step
                terms = self.step(frame, iteration)
                self.on_step(iteration, terms)
                if time.monotonic() >= next_shown_s:  # on a GPU the host waits for the values here
                    frames.set_postfix_str(describe(terms), refresh=False)
                    next_shown_s = time.monotonic() + SHOWN_EVERY_S
        self.settle()

    def settle(self) -> None:
        """Wait until every step so far has been made; before parameters or optimiser are looked at."""
        if self.fast is not None:
            self.fast.settle()

    def frames(self, keys: list[FrameKey]) -> Iterator[Frame | PackedFrame]:
        """The frames in order, as `step` takes them; the next ones are read while one is used."""
        return load_ahead(self.subject, keys) if self.store is None else self.store.frames(keys)

    def step(self, frame: Frame | PackedFrame, iteration: int) -> Losses:
        """One optimisation step on one frame; returns the detached terms."""
        factor = self.schedule.factor(iteration)
        if self.fast is not None:
            terms = self.fast(frame, factor)
            if terms is not None:
                if self.guard is not None:
                    self.guard.accepts(frame, iteration, terms)
                return terms
            self.fast = None  # it does not work here, and has said so
        if isinstance(frame, PackedFrame):
            frame = frame.unpacked(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.base_lr[group["name"]] * factor
        self.optimizer.zero_grad(set_to_none=True)
        terms = self.losses(frame.to(self.device))
        torch.stack(list(terms.values())).sum().backward()
        if self.guard is None or self.guard.accepts(frame, iteration, terms):
            self.optimizer.step()
        return {name: value.detach() for name, value in terms.items()}


def describe(terms: Losses) -> str:
    """The terms in one line for the progress bar: total first, then the largest ones."""
    values = {name: float(value) for name, value in terms.items()}
    largest = sorted(values.items(), key=lambda item: -abs(item[1]))[:5]
    shown = [f"total={sum(values.values()):.3g}", *(f"{name}={value:.3g}" for name, value in largest)]
    return " ".join(shown)
