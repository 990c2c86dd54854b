"""Going on exactly: a run that is stopped anywhere ends like one that never was, bit by bit."""

from __future__ import annotations

import logging
import random
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.checkpoint import Snapshot, save_snapshot, snapshot_path
from common.errors import Stopped, UserError
from common.finite_guard import FiniteGuard
from common.run_state import (
    Position,
    RunFacts,
    differences,
    random_state,
    restore_random_state,
    seed_everything,
)
from common.snapshot_folder import SnapshotFolder, available_steps, latest_snapshot
from common.stop_signal import StopSignals
from common.training_run import TrainingRun, refuse_changed, resume
from tests.tiny_person import tiny_model, tiny_trainer

CPU = torch.device("cpu")
N_EPOCHS = 2


def cheap_losses(model):
    """Terms that reach the avatar and the frame's pose, with a random number in them."""

    def losses(frame):
        avatar = model.persona
        pose = model.smplx_param_dict.pose(frame.split, frame.index)
        noise = torch.rand(()) + random.random() + np.random.random()  # noqa: NPY002 (the global generator)
        return {
            "scale": (avatar.scale * noise).square().mean(),
            "rgb": (avatar.rgb.sigmoid() * frame.image.mean()).sum(),
            "pose": pose.rotation.sum() * noise + pose.trans.square().sum(),
        }

    return losses


def make_run(subject, folder: Path, save_every: int = 0, **changed: object) -> TrainingRun:
    """A run on the tiny subject: from its start, or from where the folder's newest snapshot stands."""
    seed_everything(7)
    model = tiny_model()
    trainer = tiny_trainer(model, subject, n_epochs=N_EPOCHS)
    trainer.losses = cheap_losses(model)
    facts = RunFacts.of_new_run({"optim": {"lr": 0.1}, "seed": 0, **changed}, "data", trainer.keys, CPU)
    start = Position(0, 0, 0)
    if folder.is_dir():
        found = latest_snapshot(folder)
        refuse_changed(found, facts, force=False)
        start = resume(found, trainer, CPU)
    trainer.guard = FiniteGuard(model)
    return TrainingRun(
        trainer, facts, start, SnapshotFolder(folder, start), trainer.guard, StopSignals(), save_every
    )


def end_of(folder: Path) -> dict[str, object]:
    content = torch.load(snapshot_path(folder, N_EPOCHS - 1), weights_only=True)
    adam = content["optimizer"]["state"]
    flat = {f"{i}.{key}": value for i, entry in adam.items() for key, value in entry.items()}
    return {**content["network"], **flat, "random": content["run"]["random"]["torch"]}


@pytest.fixture(scope="module")
def whole(small_subject, tmp_path_factory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    make_run(small_subject, folder).run()
    return end_of(folder)


@pytest.mark.parametrize("stopped_after", [(1,), (3, 4, 7), (8,), (9, 12, 15)])
def test_stopped_after_any_step_it_ends_in_the_very_same_bits(small_subject, tmp_path, whole, stopped_after):
    folder = tmp_path / "S"
    for iteration in stopped_after:
        run = make_run(small_subject, folder)
        run.after_step = lambda i, terms, run=run, n=iteration: setattr(
            run.stop, "requested", signal.SIGINT if i + 1 == n else None
        )
        with pytest.raises(Stopped) as stop:
            run.run()
        assert stop.value.exit_code == 130
        position = latest_snapshot(folder).position
        assert position is not None and position.iteration == iteration
    make_run(small_subject, folder).run()
    end = end_of(folder)
    assert end.keys() == whole.keys()
    assert [name for name, value in whole.items() if not torch.equal(value, end[name])] == []


def test_without_its_random_state_it_would_end_differently(small_subject, tmp_path, whole, monkeypatch):
    monkeypatch.setattr("common.training_run.restore_random_state", lambda state, path: None)
    run = make_run(small_subject, tmp_path / "S")
    run.after_step = lambda i, terms: setattr(run.stop, "requested", signal.SIGTERM if i == 2 else None)
    with pytest.raises(Stopped) as stop:
        run.run()
    assert stop.value.exit_code == 143
    make_run(small_subject, tmp_path / "S").run()
    assert not torch.equal(end_of(tmp_path / "S")["persona.scale"], whole["persona.scale"])


def test_snapshots_come_every_n_steps_and_at_each_epoch_s_end(small_subject, tmp_path, whole):
    folder, seen = tmp_path / "S", set()
    run = make_run(small_subject, folder, save_every=3)
    run.after_step = lambda iteration, terms: seen.update(available_steps(folder))
    run.run()
    n_steps = len(run.trainer.keys)
    assert seen | set(available_steps(folder)) == {i for i in range(3, 2 * n_steps, 3) if i % n_steps}
    assert len(available_steps(folder)) == 2
    assert torch.equal(end_of(folder)["persona.rgb"], whole["persona.rgb"])


def test_snapshot_holds_everything_in_plain_values(small_subject, tmp_path):
    make_run(small_subject, tmp_path / "S").run()
    content = torch.load(snapshot_path(tmp_path / "S", 0), weights_only=True)
    assert set(content) == {"epoch", "network", "optimizer", "run"} and content["epoch"] == 0
    run = content["run"]
    n_steps = len(run["frames"])
    assert run["position"] == {"epoch": 1, "step": 0, "iteration": n_steps}
    assert run["config"] == {"optim": {"lr": 0.1}, "seed": 0}
    assert set(run["random"]) == {"torch", "cuda", "python", "numpy"}
    assert run["versions"]["torch"] == torch.__version__ and run["versions"]["project"]
    assert run["revision"] and run["machine"]["threads"] == str(torch.get_num_threads())


def test_changed_options_are_refused_each_with_old_and_new(small_subject, tmp_path):
    make_run(small_subject, tmp_path / "S").run()
    with pytest.raises(UserError, match=r"seed 0 -> 5; extra \(not there\) -> 1; .*--force"):
        make_run(small_subject, tmp_path / "S", seed=5, extra=1)


def test_force_goes_on_with_a_warning(small_subject, tmp_path, caplog):
    make_run(small_subject, tmp_path / "S").run()
    found = latest_snapshot(tmp_path / "S")
    facts = RunFacts.of_new_run({"optim": {"lr": 0.5}, "seed": 0}, "other data", [("captured", 0)], CPU)
    with pytest.raises(
        UserError, match=r"lr 0.1 -> 0.5; frames of an epoch 8 -> 1; content of .* data -> other data"
    ):
        refuse_changed(found, facts, force=False)
    with caplog.at_level(logging.WARNING):
        refuse_changed(found, facts, force=True)
    assert "optim.lr 0.1 -> 0.5" in caplog.text and "going on all the same" in caplog.text


def test_options_that_training_does_not_read_may_change():
    old = {"animation": {"fps": 30}, "optim": {"lr": 1.0}}
    assert differences(old, {"animation": {"fps": 25}, "optim": {"lr": 1.0}}) == []


def test_published_snapshot_goes_on_after_its_epoch_and_says_that_this_is_not_exact(
    small_subject, tmp_path, caplog
):
    run = make_run(small_subject, tmp_path / "S")
    run.run()
    found = latest_snapshot(tmp_path / "S")
    published = tmp_path / "P"
    save_snapshot(snapshot_path(published, 0), replace(found.snapshot, epoch=0, run=None))
    with caplog.at_level(logging.WARNING):
        resumed = make_run(small_subject, published)
    assert "not to the very same bits" in caplog.text
    assert resumed.position == Position(1, 0, len(run.trainer.keys))
    resumed.run()


@pytest.mark.parametrize(
    "run", [{}, {"format": 99}, {"format": 1, "position": {"epoch": 0}}, {"format": 1, "position": 3}]
)
def test_incomplete_run_is_refused(tmp_path, run):
    save_snapshot(snapshot_path(tmp_path, 0), Snapshot(0, {}, None, run))
    with pytest.raises(UserError, match=r"snapshot_0\.pth is"):
        latest_snapshot(tmp_path)


def test_random_numbers_go_on_where_they_were():
    seed_everything(3)
    state = random_state()

    def draw() -> list[float]:
        return [random.random(), float(np.random.random()), float(torch.rand(()))]  # noqa: NPY002

    first = draw()
    restore_random_state(state, Path("x"))
    assert draw() == first
    with pytest.raises(UserError, match="random states are not complete"):
        restore_random_state({"torch": state["torch"]}, Path("x"))


def test_running_out_of_memory_says_what_to_lower_and_what_is_left(small_subject, tmp_path):
    run = make_run(small_subject, tmp_path / "S", save_every=1)
    compute = run.trainer.losses

    def losses(frame):
        if available_steps(tmp_path / "S") == [1, 2]:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return compute(frame)

    run.trainer.losses = losses
    with pytest.raises(UserError, match=r"out of GPU memory.*--body\.n_subdivisions.*snapshot_step_2\.pth"):
        run.run()


def test_failure_tells_which_snapshot_is_left(small_subject, tmp_path):
    run = make_run(small_subject, tmp_path / "S", save_every=2)

    def lose_data(iteration, terms):
        if iteration == 4:
            raise UserError("missing file: 3.png")

    run.after_step = lose_data
    with pytest.raises(UserError, match=r"missing file: 3\.png; the last snapshot is .*snapshot_step_4\.pth"):
        run.run()
    assert available_steps(tmp_path / "S") == [2, 4]
