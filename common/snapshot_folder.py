"""The snapshots of one run: those of epochs, those between epochs, which to go on from, which to remove."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.checkpoint import (
    Snapshot,
    available_epochs,
    find_snapshot,
    read_snapshot,
    save_snapshot,
    snapshot_path,
)
from common.errors import UserError
from common.run_state import Position, position_of

STEPS_FOLDER = "steps"  # beside the epochs' files, where other programs do not take them for epochs
N_KEPT_STEPS = 2
_STEP_NAME = re.compile(r"snapshot_step_([0-9]+)\.pth")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """A snapshot that was read, and where."""

    path: Path
    snapshot: Snapshot

    @property
    def position(self) -> Position | None:
        """Where its run stood; None for a published snapshot."""
        run = self.snapshot.run
        return None if run is None else position_of(run, self.path)


def step_snapshot_path(folder: Path, iteration: int) -> Path:
    """Name of the snapshot after `iteration` steps in all."""
    return folder / STEPS_FOLDER / f"snapshot_step_{iteration}.pth"


def available_steps(folder: Path) -> list[int]:
    """Iterations that have a step snapshot in `folder`, increasing."""
    steps = folder / STEPS_FOLDER
    if not steps.is_dir():
        return []
    matches = (_STEP_NAME.fullmatch(path.name) for path in steps.iterdir())
    return sorted({int(match[1]) for match in matches if match})


def latest_snapshot(folder: Path) -> Found:
    """The undamaged snapshot that is furthest on in its run, of an epoch or between epochs.

    Damaged ones are passed over with a warning. A run that was killed at the moment of its first save may have left
    snapshots of an earlier run, which it was to replace: they are passed over, too. UserError if there is none.
    """
    damaged: list[str] = []
    epoch, step = (
        next(_undamaged(_of_last_run(paths), damaged), None)
        for paths in (
            [find_snapshot(folder, epoch) for epoch in reversed(available_epochs(folder))],
            [step_snapshot_path(folder, i) for i in reversed(available_steps(folder))],
        )
    )
    if epoch is None and step is None:
        raise UserError(damaged[0] if damaged else f"no snapshot_<epoch>.pth in {folder}; train first")
    if epoch is None or step is None:
        return epoch or step  # type: ignore[return-value]
    return step if _is_later(step, epoch) else epoch


def _of_last_run(paths: list[Path]) -> Iterator[Path]:
    """The snapshots without those of an earlier run than the file that was written last.

    paths: the furthest on first, which is the opposite of the order in which a run writes them. So only what stands
    before the newest file is looked at.
    """
    newest = max(paths, key=lambda path: path.stat().st_mtime_ns, default=None)
    n_before = 0 if newest is None else paths.index(newest)
    last_run = _run_name(newest) if newest is not None and n_before else None
    for path in paths[:n_before]:
        if last_run is None or _run_name(path) in (None, last_run):
            yield path
        else:
            logger.warning("%s is of an earlier run than %s; passed over", path, newest)
    yield from paths[n_before:]


def _run_name(path: Path) -> str | None:
    """The name of a snapshot's run; None if it is damaged or has none."""
    try:
        run = read_snapshot(path).run
    except UserError:
        return None
    return None if run is None else run.get("name")


def _undamaged(paths: Iterator[Path], damaged: list[str]) -> Iterator[Found]:
    """Those that can be read; what is wrong with the others goes to `damaged` and, as a warning, to the log."""
    for path in paths:
        try:
            found = Found(path, read_snapshot(path))
            found.position  # noqa: B018 (refuses an incomplete entry)
            yield found
        except UserError as error:
            logger.warning("%s; going on from the snapshot before it", error)
            damaged.append(str(error))


def _is_later(step: Found, epoch: Found) -> bool:
    """Whether to go on from a step snapshot rather than from the last epoch's."""
    if step.snapshot.run is None or step.position is None:
        return False
    if epoch.snapshot.run is None or epoch.position is None:  # published: all we know is its epoch
        return step.position.epoch > epoch.snapshot.epoch
    if step.snapshot.run["name"] != epoch.snapshot.run["name"]:  # the older file is of an earlier run
        return step.path.stat().st_mtime_ns > epoch.path.stat().st_mtime_ns
    return step.position.iteration > epoch.position.iteration


class SnapshotFolder:
    """Where a run that starts at `start` writes its snapshots.

    The first one written removes those that lie ahead of `start`: they are damaged or of an earlier run.
    """

    def __init__(self, folder: Path, start: Position, last: Path | None = None) -> None:
        """last: the snapshot that the run goes on from."""
        self.folder = folder
        self.last = last
        self._start = start
        self._is_first = True

    def save_epoch(self, snapshot: Snapshot) -> None:
        """Write the snapshot of a finished epoch."""
        self._save(snapshot_path(self.folder, snapshot.epoch), snapshot)

    def save_step(self, snapshot: Snapshot, iteration: int) -> None:
        """Write a snapshot between epochs; only the last ones are kept."""
        self._save(step_snapshot_path(self.folder, iteration), snapshot)
        for old in available_steps(self.folder)[:-N_KEPT_STEPS]:
            step_snapshot_path(self.folder, old).unlink()

    def _save(self, path: Path, snapshot: Snapshot) -> None:
        save_snapshot(path, snapshot)
        if self._is_first:
            self._remove_ahead(path)
        self._is_first, self.last = False, path

    def _remove_ahead(self, written: Path) -> None:
        ahead = [
            find_snapshot(self.folder, i) for i in available_epochs(self.folder) if i >= self._start.epoch
        ]
        steps = [i for i in available_steps(self.folder) if i > self._start.iteration]
        ahead += [step_snapshot_path(self.folder, i) for i in steps]
        for path in ahead:
            if path != written:
                path.unlink()


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed run left of snapshots it was writing; only for the holder of the folder's lock."""
    for path in [*folder.glob(".snapshot_*.tmp.pth"), *(folder / STEPS_FOLDER).glob(".snapshot_*.tmp.pth")]:
        logger.info("removing %s: a snapshot that was being written when its run was killed", path)
        path.unlink(missing_ok=True)
