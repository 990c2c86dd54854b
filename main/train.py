"""Create the avatar of a subject, or fit the poses of its test frames (SPEC 13, 14)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import tyro

from common.checkpoint import (
    Snapshot,
    available_epochs,
    load_network,
    load_optimizer,
    network_state,
    newest_snapshot,
    read_snapshot,
    remove_snapshots,
    save_snapshot,
    snapshot_path,
)
from common.errors import UserError
from common.objective import Objective
from common.trainer import PersonModel, Schedule, Trainer, make_optimizer
from common.training_log import TrainingLog
from data.dataset import TEST, TRAIN_SPLITS
from main import setup
from main.jobs import fitting_job, training_job


@dataclass(frozen=True)
class TrainArgs(setup.SubjectArgs):
    """Options of training."""

    continue_: Annotated[bool, tyro.conf.arg(name="continue")] = False
    """Go on from the newest snapshot of the subject."""
    fit_pose_to_test: bool = False
    """Freeze the avatar and fit the SMPL-X parameters of the test frames; needs --continue."""
    no_lpips: bool = False
    """Train without the perceptual loss (the demo does so unless --lpips_weights is given)."""
    lpips_weights: Path | None = None
    """Folder of the VGG16 weights and LPIPS heads (default: torch's hub cache, downloaded if online)."""
    initialise_only: bool = False
    """Write the untrained avatar as snapshot 0 and stop; a baseline for evaluation."""
    overwrite: bool = False
    """Start again although snapshots of the subject exist; they are removed when the first new one is there."""


def main(args: TrainArgs) -> None:
    """Train, one snapshot an epoch."""
    device = setup.choose_device(args.device)
    folder = setup.model_folder(args, args.fit_pose_to_test)
    check_start(args, folder)
    torch.manual_seed(args.seed)
    subject = setup.open_subject(args)
    subject.check((TEST,) if args.fit_pose_to_test else TRAIN_SPLITS)
    perceptual = setup.load_perceptual(args, device, not args.no_lpips, args.lpips_weights)
    if args.fit_pose_to_test:
        job = fitting_job(args, subject, newest_snapshot(folder), device)
    else:
        job = training_job(args, subject, device)
    model, optim = job.model, args.config.optim
    base_lr = {group["name"]: group["lr"] for group in job.parameter_groups}
    optimizer = make_optimizer(job.parameter_groups, optim)
    if args.initialise_only:
        state = Snapshot(0, network_state(model), optimizer.state_dict())
        save_snapshot(snapshot_path(folder, 0), state)
        remove_snapshots(folder, after=0)
        return
    first_epoch = resume(args, folder, model, optimizer) if args.continue_ else 0

    schedule = Schedule(optim.n_epochs, len(job.keys), optim.lr_drop_at, optim.lr_drop)
    objective = Objective(model, args.config.loss, job.initial_rgb, perceptual)
    losses = objective.fitting if args.fit_pose_to_test else objective.training
    with TrainingLog(args.paths.output / "log" / folder.name, model, job.preview) as log:
        trainer = Trainer(
            model, optimizer, base_lr, schedule, subject, job.keys, losses, device, args.seed, log.scalars
        )
        for epoch in range(first_epoch, optim.n_epochs):
            trainer.run_epoch(epoch)
            state = Snapshot(epoch, network_state(model), optimizer.state_dict())
            save_snapshot(snapshot_path(folder, epoch), state)
            if not args.continue_:
                remove_snapshots(folder, after=epoch)
            log.images((epoch + 1) * len(job.keys))
    setup.logger.info("snapshots are in %s", folder)


def check_start(args: TrainArgs, folder: Path) -> None:
    """Refuse to fit without an avatar and to overwrite snapshots by accident."""
    if args.fit_pose_to_test and not args.continue_:
        raise UserError(
            "--fit_pose_to_test needs --continue: it starts from the avatar that "
            "tools/prepare_fit_pose_to_test.py put into the folder of the fit"
        )
    if args.continue_ and (args.overwrite or args.initialise_only):
        raise UserError(
            "--continue goes on; leave it out to start again with --overwrite or --initialise_only"
        )
    if args.fit_pose_to_test and args.config.optim.n_epochs < 2:
        raise UserError("--optim.n_epochs 1: fitting starts with epoch 1, so give 2 or more")
    if args.continue_:
        newest_snapshot(folder)
    elif available_epochs(folder) and not args.overwrite:
        raise UserError(
            f"{folder} has snapshots already; go on with --continue, or start again with --overwrite"
        )


def resume(args: TrainArgs, folder: Path, model: PersonModel, optimizer: torch.optim.Adam) -> int:
    """Load the newest snapshot; returns the epoch to go on with."""
    path = newest_snapshot(folder)
    snapshot = read_snapshot(path)
    is_start_of_fit = args.fit_pose_to_test and snapshot.epoch == 0
    if not is_start_of_fit:
        load_network(model, snapshot.network, path)
        load_optimizer(optimizer, snapshot.optimizer, path)
    if snapshot.epoch + 1 >= args.config.optim.n_epochs:
        setup.logger.info(
            "%s is of the last epoch already; to train longer, give a greater --optim.n_epochs", path
        )
    return snapshot.epoch + 1


if __name__ == "__main__":
    setup.run(TrainArgs, main, __doc__)
