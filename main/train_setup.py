"""A training put together from its options: what it depends on, its trainer, and where it starts."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from common.errors import UserError
from common.finite_guard import FiniteGuard
from common.gpu import preparation
from common.objective import Objective
from common.perceptual import Lpips
from common.perceptual_crop import Box, Sight
from common.run_state import Position, RunFacts
from common.snapshot_folder import Found, SnapshotFolder
from common.stop_signal import StopSignals
from common.trainer import FrameKey, Schedule, Trainer, make_optimizer
from common.training_run import TrainingRun, refuse_changed, resume
from data.dataset import TEST, TRAIN_SPLITS, Subject, fitting_list, training_list
from data.fingerprint import subject_fingerprint
from data.frame import CAPTURED
from data.packed_frame import GIB, READERS, FrameStore, pack
from main.jobs import Ahead, Job, fitting_job, training_job
from main.train_options import TrainArgs

if TYPE_CHECKING:
    from common.fast_step import Kind
    from common.gpu.crop import Crop


def epoch_keys(args: TrainArgs, subject: Subject) -> list[FrameKey]:
    """The frames of one epoch, repeats included, in the order of the lists."""
    if args.fit_pose_to_test:
        return fitting_list(subject, args.config.optim.fit_repeats)
    return training_list(subject, not args.config.optim.unbalanced_sampling)


def run_facts(
    args: TrainArgs, subject: Subject, found: Found | None, is_perceptual: bool, device: torch.device
) -> RunFacts:
    """What the run depends on: an earlier run's facts, if it goes on and nothing has changed."""
    data = subject_fingerprint(subject, (TEST,) if args.fit_pose_to_test else TRAIN_SPLITS)
    keys = epoch_keys(args, subject)
    facts = RunFacts.of_new_run(args.result_options(is_perceptual), data, keys, device)
    run = None if found is None else found.snapshot.run
    if found is None or run is None:
        return facts
    refuse_changed(found, facts, args.force)
    return replace(facts, name=run["name"], initial_rgb=run["initial_rgb"])


def make_job(
    args: TrainArgs,
    subject: Subject,
    facts: RunFacts,
    found: Found | None,
    device: torch.device,
    ahead: Ahead | None = None,
) -> tuple[Job, RunFacts]:
    """The model and its frames; the colours of the initialisation are those of the run's start, bit by bit.

    ahead: what `training_job` takes.
    """
    if args.fit_pose_to_test:
        if found is None:
            raise UserError("--fit_pose_to_test needs --continue")
        return fitting_job(args, subject, found, device), facts
    job = training_job(args, subject, device, ahead)
    if facts.initial_rgb is not None:
        shape = tuple(facts.initial_rgb.shape)
        if job.initial_rgb is None or job.initial_rgb.shape != shape:
            raise UserError(f"the snapshot's colours of the start have shape {shape}: it is of another body")
        return replace(job, initial_rgb=facts.initial_rgb.to(device)), facts
    return job, replace(facts, initial_rgb=job.initial_rgb)


def make_trainer(
    args: TrainArgs, job: Job, subject: Subject, perceptual: Lpips | None, device: torch.device
) -> Trainer:
    """The optimisation loop of a job."""
    optim = args.config.optim
    objective = Objective(job.model, args.config.loss, job.initial_rgb, perceptual)
    trainer = Trainer(
        model=job.model,
        optimizer=make_optimizer(job.parameter_groups, optim),
        base_lr={group["name"]: group["lr"] for group in job.parameter_groups},
        schedule=Schedule(optim.n_epochs, len(job.keys), optim.lr_drop_at, optim.lr_drop),
        subject=subject,
        keys=job.keys,
        losses=objective.fitting if args.fit_pose_to_test else objective.training,
        device=device,
        seed=args.seed,
        on_step=lambda iteration, terms: None,
    )
    is_plain = args.plain_step or args.skip_bad_frames or args.deterministic
    if device.type == "cuda" and not is_plain:
        make_fast(trainer, objective, args.fit_pose_to_test, args.low_memory)
    return trainer


def make_fast(trainer: Trainer, objective: Objective, is_fit: bool, low_memory: bool) -> None:
    """Let a trainer on a GPU make its steps as CUDA graphs, if Triton works there."""
    from common.fast_step import FastStep

    if preparation.begin(trainer.device).result():
        fast = FastStep(objective, is_fit, trainer.optimizer, trainer.base_lr, low_memory)
        if isinstance(objective.perceptual, Lpips) and objective.perceptual.sight is not None:
            fast.crops = perceptual_crops(trainer.subject, trainer.keys, objective.perceptual.sight)
        of_splits = list({split: (split, index) for split, index in trainer.keys}.values())
        fast.examples = lambda: [pack(trainer.subject.load(*key)) for key in of_splits]
        trainer.fast = fast
        trainer.store = FrameStore(
            trainer.subject,
            trainer.device,
            on_device=(0.05 if low_memory else 0.4) * GIB,
            on_host=8 * GIB,
        )


def perceptual_crops(subject: Subject, keys: Sequence[FrameKey], sight: Sight) -> dict[Kind, Crop]:
    """What LPIPS has to look at in photos, and in other frames of each size, as far as their masks tell."""
    from common.gpu.crop import Crop

    frames = list(dict.fromkeys(keys))

    def read() -> np.ndarray:
        with ThreadPoolExecutor(READERS) as readers:
            return np.array(list(readers.map(subject.mask_box, frames)))

    splits = list(dict.fromkeys(split for split, _ in frames))
    boxes = subject.kept_array("boxes", splits, read, frames)
    crops: dict[Kind, Crop] = {}
    for (split, _), (height, width, *box) in zip(frames, boxes.tolist(), strict=True):
        size = (height, width)
        crops.setdefault((split == CAPTURED, *size), Crop(size, sight)).expect(Box(*box))
    return crops


def make_run(
    args: TrainArgs, trainer: Trainer, facts: RunFacts, folder: Path, found: Found | None, stop: StopSignals
) -> TrainingRun:
    """The run, parameters and optimiser put back where it goes on from a snapshot."""
    start, n_skipped = Position(0, 0, 0), 0
    if found is not None:
        n_skipped = (found.snapshot.run or {}).get("n_skipped", 0)
        is_start_of_fit = args.fit_pose_to_test and found.snapshot.epoch == 0 and found.snapshot.run is None
        start = (
            Position.at_epoch(1, len(trainer.keys))
            if is_start_of_fit
            else resume(found, trainer, trainer.device)
        )
    guard = FiniteGuard(trainer.model, args.skip_bad_frames, n_skipped)
    guard.diagnose = lambda frame: trainer.losses(frame.to(trainer.device))
    trainer.guard = guard
    last = None if found is None else found.path
    return TrainingRun(
        trainer, facts, start, SnapshotFolder(folder, start, last), guard, stop, args.save_every
    )
