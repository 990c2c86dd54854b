"""NaN and infinity stop the run before they reach the parameters, with frame, term and parameter named."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from torch import Tensor, nn

from common import finite_guard
from common.errors import UserError
from common.finite_guard import FiniteGuard
from data.dataset import Frame
from tests.tiny_person import tiny_model, tiny_trainer

CAPTURED, GENERATED = ("captured", 0), ("generated_0", 2)


class Broken:
    """Losses that go wrong on one frame."""

    def __init__(self, model: nn.Module, wrong: str) -> None:
        self.model, self.wrong = model, wrong

    def __call__(self, frame: Frame) -> dict[str, Tensor]:
        avatar = self.model.persona
        terms = {"colour": avatar.rgb.square().sum(), "size": avatar.scale.square().sum()}
        if (frame.split, frame.index) == GENERATED:
            if self.wrong == "term":
                terms["size"] = terms["size"] * math.inf
            else:  # the square root of 0 is fine, its slope is infinite
                terms["size"] = terms["size"] + (avatar.scale * 0).sum().sqrt()
        return terms


def broken_trainer(subject, wrong: str, skip: bool = False):
    model = tiny_model()
    trainer = tiny_trainer(model, subject)
    trainer.losses = Broken(model, wrong)
    trainer.guard = FiniteGuard(model, skip)
    trainer.guard.diagnose = trainer.losses
    return trainer


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("term", "loss term size is inf; the gradient of persona.scale is not finite"),
        ("gradient", "loss term size has no finite gradient; the gradient of persona.scale is not finite"),
    ],
)
def test_bad_step_stops_with_frame_term_and_parameter_and_changes_nothing(small_subject, wrong, said):
    trainer = broken_trainer(small_subject, wrong)
    trainer.step(small_subject.load(*CAPTURED), 0)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with pytest.raises(UserError) as error:
        trainer.step(small_subject.load(*GENERATED), 1)
    assert f"iteration 1, frame generated_0_2: {said}" in str(error.value)
    assert "--skip_bad_frames" in str(error.value) and "colour" not in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())


@pytest.mark.parametrize("wrong", ["term", "gradient"])
def test_skipped_frame_leaves_parameters_and_moments_alone_and_is_counted(small_subject, wrong, caplog):
    skipping, other = broken_trainer(small_subject, wrong, skip=True), broken_trainer(small_subject, wrong)
    with caplog.at_level(logging.WARNING):
        for iteration, key in enumerate((CAPTURED, GENERATED, GENERATED, CAPTURED)):
            skipping.step(small_subject.load(*key), iteration)
    for iteration in (0, 3):
        other.step(small_subject.load(*CAPTURED), iteration)
    expected = other.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in skipping.model.state_dict().items())
    assert skipping.guard.n_skipped == 2
    assert "frame generated_0_2" in caplog.text and "2 so far" in caplog.text


class OnDevice:
    """Pretends that values are on a GPU, and counts how often the host looks at them."""

    def __init__(self, monkeypatch) -> None:
        self.n_looks = 0
        look = finite_guard._first_bad
        monkeypatch.setattr(finite_guard, "_is_on_host", lambda values: False)
        monkeypatch.setattr(finite_guard, "_first_bad", lambda steps: self._count(look, steps))

    def _count(self, look, steps):
        self.n_looks += 1
        return look(steps)


def test_on_a_gpu_the_host_looks_once_in_many_steps_and_still_names_the_frame(small_subject, monkeypatch):
    device = OnDevice(monkeypatch)
    trainer = broken_trainer(small_subject, "term")
    guard = trainer.guard
    good, bad = small_subject.load(*CAPTURED), small_subject.load(*GENERATED)
    for iteration in range(finite_guard.CHECK_EVERY - 1):
        trainer.step(bad if iteration == 7 else good, iteration)
    assert device.n_looks == 0
    with pytest.raises(UserError, match=r"iteration 7, frame generated_0_2: loss term size is inf"):
        trainer.step(good, finite_guard.CHECK_EVERY - 1)
    assert device.n_looks == 1 and guard.n_skipped == 0


def test_step_that_keeps_its_gradients_to_itself_is_known_by_what_it_spoiled(small_subject):
    model = tiny_model()
    with torch.no_grad():
        model.persona.scale[0] = math.nan
    frame = small_subject.load(*GENERATED)
    with pytest.raises(UserError, match=r"loss term size is nan; persona\.scale became NaN or infinite"):
        FiniteGuard(model).accepts(frame, 5, {"size": model.persona.scale.sum()})


def test_nothing_waits_unseen_when_a_snapshot_is_written(small_subject, monkeypatch):
    OnDevice(monkeypatch)
    trainer = broken_trainer(small_subject, "term")
    trainer.step(small_subject.load(*GENERATED), 3)
    with pytest.raises(UserError, match="iteration 3, frame generated_0_2"):
        trainer.guard.check_before_saving([])


def test_parameter_that_an_update_made_infinite_is_not_saved(small_subject):
    model = tiny_model()
    guard = FiniteGuard(model)
    guard.check_before_saving([torch.ones(3)])
    with pytest.raises(UserError, match="optimiser's state became NaN"):
        guard.check_before_saving([torch.tensor([1.0, math.nan])])
    with torch.no_grad():
        model.persona.seg[3, 1] = math.inf
    with pytest.raises(UserError, match=r"persona\.seg became NaN or infinite"):
        guard.check_before_saving([])
