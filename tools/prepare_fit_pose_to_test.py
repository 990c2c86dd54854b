"""Start pose fitting: copy the last snapshot, as epoch 0, to `<root_path>_fit_pose_to_test` (SPEC 2)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.checkpoint import available_epochs, newest_snapshot, read_snapshot, snapshot_path
from common.command_line import parse
from common.errors import UserError, run_command
from common.evaluation import FIT_SUFFIX
from common.run_lock import run_lock
from common.run_state import Position
from common.snapshot_folder import SnapshotFolder, available_steps

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Args:
    """Options of the preparation."""

    root_path: Path
    """Folder of the subject's snapshots: output/model_dump/S."""
    overwrite: bool = False
    """Start the fit again although there are fitted poses from an earlier one; they are removed."""


def prepare(root_path: Path, overwrite: bool = False) -> Path:
    """Copy the newest snapshot with its epoch set to 0; the new file's path."""
    source = newest_snapshot(root_path)
    folder = root_path.with_name(root_path.name + FIT_SUFFIX)
    with run_lock(folder):
        fitted = [f"epoch {epoch}" for epoch in available_epochs(folder) if epoch > 0]
        fitted += [f"step {step}" for step in available_steps(folder)]
        if fitted and not overwrite:
            raise UserError(
                f"{folder} has snapshots of an earlier fit ({', '.join(fitted)}), from which "
                "--continue would go on; give --overwrite to remove them"
            )
        target = snapshot_path(folder, 0)
        SnapshotFolder(folder, Position(0, 0, 0)).save_epoch(read_snapshot(source).at_epoch(0))
    print(f"{source} -> {target}")
    return target


def main() -> None:
    """Parse the command line and copy."""
    args = parse(Args, __doc__)
    folder = args.root_path if args.root_path.is_dir() else ROOT / args.root_path
    if not folder.is_dir():
        raise UserError(f"--root_path {args.root_path} is not a folder; give output/model_dump/<subject>")
    prepare(folder.resolve(), args.overwrite)


if __name__ == "__main__":
    run_command(main)
