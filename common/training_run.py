"""A run from its first or a later step to its end: saving, stopping on signals, and going on exactly."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from common.checkpoint import Snapshot, load_network, load_optimizer, network_state
from common.device_memory import memory_errors_explained
from common.errors import UserError
from common.finite_guard import FiniteGuard
from common.run_state import (
    Position,
    RunFacts,
    changed_surroundings,
    differences,
    restore_random_state,
    run_entry,
)
from common.snapshot_folder import Found, SnapshotFolder
from common.stop_signal import StopSignals
from common.trainer import Losses, Trainer

logger = logging.getLogger(__name__)


@dataclass
class TrainingRun:
    """Runs a trainer's epochs from `position` on; every snapshot holds all that going on exactly needs."""

    trainer: Trainer
    facts: RunFacts
    position: Position
    snapshots: SnapshotFolder
    guard: FiniteGuard
    stop: StopSignals
    save_every: int  # steps between snapshots inside an epoch; 0: none
    after_step: Callable[[int, Losses], None] = lambda iteration, terms: None  # iteration, detached terms
    after_epoch: Callable[[int], None] = lambda n_iterations: None  # iterations done

    def run(self) -> None:
        """To the end of the last epoch.

        Stopped after a signal, with everything saved. UserError for data that cannot be read, values that are
        not finite or a disk that is full; it tells which snapshot is left.
        """
        n_epochs = self.trainer.schedule.n_epochs
        if self.position.epoch >= n_epochs:
            logger.info(
                "%s is of the last epoch already; to train longer, give a greater --optim.n_epochs and --force",
                self.snapshots.last,
            )
            return
        self.trainer.on_step = self._step_done
        explained = memory_errors_explained(self.trainer.device)
        with self._telling_what_is_left(), explained, self.stop.deferred():
            while self.position.epoch < n_epochs:
                epoch = self.position.epoch
                self.trainer.run_epoch(epoch, self.position.step)
                self.snapshots.save_epoch(self._snapshot(epoch))
                self.stop.check()
                self.after_epoch(self.position.iteration)
        self.stop.check()
        if self.guard.n_skipped:
            logger.warning("%d updates of bad frames were left out", self.guard.n_skipped)

    def save_start(self) -> None:
        """Write the untrained avatar as epoch 0; a run that goes on from it begins with the first step."""
        self.snapshots.save_epoch(self._snapshot(0))

    def _step_done(self, iteration: int, terms: Losses) -> None:
        self.position = self.position.next(len(self.trainer.keys))
        self.after_step(iteration, terms)
        if self.position.step == 0:  # the epoch's own snapshot follows
            return
        is_due = self.save_every > 0 and self.position.iteration % self.save_every == 0
        if is_due or self.stop.requested is not None:
            self.snapshots.save_step(self._snapshot(self.position.epoch), self.position.iteration)
        self.stop.check()

    def _snapshot(self, epoch: int) -> Snapshot:
        self.trainer.settle()
        optimizer = self.trainer.optimizer.state_dict()
        self.guard.check_before_saving(_tensors(optimizer["state"]))
        factor = self.trainer.schedule.factor(self.position.iteration)
        run = run_entry(self.facts, self.position, factor, self.guard.n_skipped)
        return Snapshot(epoch, network_state(self.trainer.model), optimizer, run)

    @contextmanager
    def _telling_what_is_left(self) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            last = self.snapshots.last
            left = (
                f"the last snapshot is {last}; go on from it with --continue"
                if last
                else "nothing was saved yet"
            )
            raise UserError(f"{error}; {left}") from error


def _tensors(state: dict[int, dict[str, object]]) -> Iterator[Tensor]:
    for entries in state.values():
        for value in entries.values():
            if isinstance(value, Tensor):
                yield value


def refuse_changed(found: Found, facts: RunFacts, force: bool) -> None:
    """Refuse to go on with other options or data than before, unless forced to; UserError lists them."""
    run = found.snapshot.run
    if run is None:
        return
    changed = differences(run["config"], facts.config)
    before, now = (len(frames) for frames in (run["frames"], facts.frames))
    if run["frames"] != facts.frames:
        changed.append(f"frames of an epoch {before} -> {now}" if before != now else "the list of frames")
    if run["data"] != facts.data:
        changed.append(f"content of the subject's files {run['data']} -> {facts.data}")
    if not changed:
        return
    text = f"{found.path} was trained with other settings: {'; '.join(changed)}"
    if not force:
        raise UserError(f"{text}; give the earlier ones, or --force to go on with the new ones")
    logger.warning("%s; going on all the same (--force)", text)


def resume(found: Found, trainer: Trainer, device: torch.device) -> Position:
    """Put parameters, optimiser and random numbers back; returns where to go on."""
    snapshot = found.snapshot
    load_network(trainer.model, snapshot.network, found.path)
    load_optimizer(trainer.optimizer, snapshot.optimizer, found.path)
    n_steps = len(trainer.keys)
    if snapshot.run is None or found.position is None:
        logger.warning(
            "%s does not say where exactly its run stood: training goes on after its epoch, "
            "but not to the very same bits as without the break",
            found.path,
        )
        return Position.at_epoch(snapshot.epoch + 1, n_steps)
    restore_random_state(snapshot.run["random"], found.path)
    for change in changed_surroundings(snapshot.run, device):
        logger.warning("changed since %s: %s; the last bits may differ", found.path.name, change)
    position = found.position
    if len(snapshot.run["frames"]) != n_steps:  # only with --force
        position = Position.at_epoch(position.epoch, n_steps)
    logger.info(
        "going on from %s: epoch %d, step %d of %d", found.path, position.epoch, position.step, n_steps
    )
    return position
