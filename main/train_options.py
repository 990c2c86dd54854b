"""The command line options of training, and which of them its result depends on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from common.checkpoint import available_epochs
from common.errors import UserError
from common.snapshot_folder import available_steps
from main import setup


@dataclass(frozen=True)
class TrainArgs(setup.SubjectArgs):
    """Options of training."""

    continue_: Annotated[bool, tyro.conf.arg(name="continue")] = False
    """Go on from the newest snapshot of the subject."""
    force: bool = False
    """With --continue: go on although options or data have changed since the snapshot."""
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
    save_every: int = 0
    """Steps between snapshots inside an epoch, of which the last two are kept; 0: only at each epoch's end."""
    skip_bad_frames: bool = False
    """Leave out updates whose loss or gradient is NaN or infinite, instead of stopping."""
    plain_step: bool = False
    """On a GPU: compute each step with plain torch functions instead of as a CUDA graph; much slower."""
    low_memory: bool = False
    """On a GPU: keep fewer images there and send them through LPIPS one by one."""
    deterministic: bool = False
    """The very same bits in every run on one machine, on a GPU too, where this is slower."""
    no_report: bool = False
    """Leave out the report (output/report/<subject>.html) at the end; tools/report.py writes it later."""

    def result_options(self, is_perceptual: bool) -> dict[str, Any]:
        """Everything set on the command line that changes the result, nested: not devices, not paths."""
        config = asdict(self.config)
        if not self.fit_pose_to_test:  # a fit takes the number from the avatar that it starts from
            config["body"]["n_subdivisions"] = setup.n_subdivisions(self)
        config |= {"seed": self.seed, "fit_pose_to_test": self.fit_pose_to_test}
        return {**config, "perceptual_loss": "on" if is_perceptual else "off"}


def check_start(args: TrainArgs, folder: Path) -> None:
    """Refuse options that contradict each other, to fit without an avatar, to overwrite snapshots by accident."""
    if args.save_every < 0:
        raise UserError(f"--save_every {args.save_every}: give 0 or more steps")
    if args.fit_pose_to_test and not args.continue_:
        raise UserError(
            "--fit_pose_to_test needs --continue: it starts from the avatar that "
            "tools/prepare_fit_pose_to_test.py put into the folder of the fit"
        )
    if args.continue_ and (args.overwrite or args.initialise_only):
        raise UserError(
            "--continue goes on; leave it out to start again with --overwrite or --initialise_only"
        )
    if args.force and not args.continue_:
        raise UserError("--force goes with --continue; to replace an earlier run, give --overwrite")
    if args.fit_pose_to_test and args.config.optim.n_epochs < 2:
        raise UserError("--optim.n_epochs 1: fitting starts with epoch 1, so give 2 or more")
    has_snapshots = bool(available_epochs(folder) or available_steps(folder))
    if args.continue_ and not has_snapshots:
        raise UserError(f"no snapshot_<epoch>.pth in {folder}; train first")
    if has_snapshots and not (args.continue_ or args.overwrite):
        raise UserError(
            f"{folder} has snapshots already; go on with --continue, or start again with --overwrite"
        )
