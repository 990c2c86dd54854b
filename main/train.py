"""Create the avatar of a subject, or fit the poses of its test frames (SPEC 13, 14)."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import early_start

early_start.begin(loads_kernels=True)

import torch

from common.determinism import make_deterministic, replace_pools
from common.device_memory import memory_errors_explained
from common.doctor.start import check_before_training
from common.gpu import preparation
from common.io.files import inside
from common.run_lock import run_lock
from common.run_state import seed_everything, use_few_threads, use_threads_of
from common.snapshot_folder import latest_snapshot, remove_unfinished
from common.stop_signal import StopSignals
from common.trainer import shuffled
from common.training_log import TrainingLog
from data.dataset import TEST, TRAIN_SPLITS
from main import setup
from main.jobs import Ahead
from main.train_options import TrainArgs, check_start
from main.train_setup import epoch_keys, make_job, make_run, make_trainer, run_facts

early_start.imported()


def main(args: TrainArgs) -> None:
    """Train, one snapshot an epoch and on request between epochs."""
    device = setup.choose_device(args.device)
    folder = setup.model_folder(args, args.fit_pose_to_test)
    check_start(args, folder)
    with StopSignals() as stop, run_lock(folder), memory_errors_explained(device):
        check_start(args, folder)  # again: another training may have ended since
        remove_unfinished(folder)
        train(args, folder, device, stop)


def train(args: TrainArgs, folder: Path, device: torch.device, stop: StopSignals) -> None:
    """Train in a folder that is locked."""
    seed_everything(args.seed)
    if args.deterministic:
        make_deterministic(device)
    if device.type == "cuda":
        use_few_threads()
        preparation.begin(device)
    found = latest_snapshot(folder) if args.continue_ else None
    if found is not None and found.snapshot.run is not None:
        use_threads_of(found.snapshot.run)
    subject = setup.open_subject(args)
    ahead = None if args.fit_pose_to_test else Ahead.begin(args)
    check_before_training(subject, (TEST,) if args.fit_pose_to_test else TRAIN_SPLITS)
    perceptual = setup.load_perceptual(args, device, not args.no_lpips, args.lpips_weights)
    if perceptual is not None and args.deterministic and device.type == "cuda":
        replace_pools(perceptual)
    facts = run_facts(args, subject, found, perceptual is not None, device)
    if found is None:
        subject.read_ahead(*shuffled(epoch_keys(args, subject), args.seed, 0)[0])
    job, facts = make_job(args, subject, facts, found, device, ahead)
    trainer = make_trainer(args, job, subject, perceptual, device)
    run = make_run(args, trainer, facts, folder, found, stop)
    if args.initialise_only:
        run.save_start()
        return
    with TrainingLog(
        inside(args.paths.output, args.paths.output / "log" / folder.name), job.model, job.preview
    ) as log:
        run.after_step, run.after_epoch = log.scalars, log.images
        run.run()
    setup.logger.info("snapshots are in %s", folder)
    if not (args.no_report or args.fit_pose_to_test):
        from main.report_page import write_subject_report  # late: nothing of it is needed to start

        setup.logger.info("the report is %s", write_subject_report(args, device))


if __name__ == "__main__":
    setup.run(TrainArgs, main, __doc__)
