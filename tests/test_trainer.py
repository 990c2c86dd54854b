"""The optimisation loop: schedule, order of frames, what a step changes, and that runs repeat (SPEC 13)."""

from __future__ import annotations

import threading
from collections import Counter
from copy import deepcopy

import pytest
import torch

from common.trainer import Schedule, describe, load_ahead, shuffled
from data.dataset import training_list
from main.config import OptimConfig
from tests.data.tiny_subject import UNLISTED
from tests.tiny_person import tiny_model, tiny_trainer

CAPTURED, GENERATED = ("captured", 0), ("generated_0", 2)


@pytest.mark.parametrize(("n_epochs", "n_steps", "drop"), [(5, 7, 26), (5, 4, 15), (1, 3, 2), (5, 80, 300)])
def test_learning_rates_drop_once_at_three_quarters(n_epochs, n_steps, drop):
    """At int(0.75 * all iterations), rounded down."""
    optim = OptimConfig()
    schedule = Schedule(n_epochs, n_steps, optim.lr_drop_at, optim.lr_drop)
    factors = [schedule.factor(i) for i in range(n_epochs * n_steps)]
    assert factors == [1.0] * drop + [0.1] * (n_epochs * n_steps - drop)


def test_shuffling_depends_on_seed_and_epoch_alone():
    keys = [("generated_0", i) for i in range(40)]
    torch.manual_seed(5)
    first = shuffled(keys, seed=3, epoch=2)
    torch.manual_seed(6)
    assert shuffled(keys, seed=3, epoch=2) == first
    assert sorted(first) == keys
    others = [shuffled(keys, 3, 1), shuffled(keys, 2, 2), shuffled(keys, 4, 2), keys]
    assert all(other != first for other in others)


def test_an_epoch_sees_the_photo_as_often_as_all_generated_frames(small_subject):
    counts = Counter(split for split, _ in shuffled(training_list(small_subject), 0, 0))
    assert counts["captured"] == counts["generated_0"] + counts["generated_1"] == 4


class SlowSubject:
    """Hands out keys for frames and notes when each was asked for, and by which thread."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.threads: set[int] = set()

    def load(self, split: str, index: int) -> tuple[str, int]:
        self.asked.append((split, index))
        self.threads.add(threading.get_ident())
        if index < 0:
            raise ValueError(f"frame {index}")
        return split, index


@pytest.mark.parametrize("n", [0, 1, 5])
def test_frames_come_in_order_read_by_another_thread(n):
    subject, keys = SlowSubject(), [("captured", i % 3) for i in range(n)]
    assert list(load_ahead(subject, keys)) == keys == subject.asked
    assert threading.get_ident() not in subject.threads
    assert len(subject.threads) <= 1


def test_only_the_next_frame_is_read_ahead():
    subject, keys = SlowSubject(), [("captured", i) for i in range(6)]
    for used, _ in enumerate(load_ahead(subject, keys), start=1):
        assert len(subject.asked) <= used + 1


def test_an_error_while_reading_ahead_comes_with_its_own_frame():
    frames = load_ahead(SlowSubject(), [("captured", 0), ("captured", -1)])
    assert next(frames) == ("captured", 0)
    with pytest.raises(ValueError, match="frame -1"):
        next(frames)


def state(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def pose_key(frame: tuple[str, int]) -> str:
    return f"smplx_params.{frame[0]}.{frame[1]}."


@pytest.mark.parametrize(("visited", "n_avatar_unmoved"), [(CAPTURED, 1), (GENERATED, 0)])
def test_a_step_moves_the_avatar_and_the_visited_pose_only(small_subject, visited, n_avatar_unmoved):
    """The photo alone leaves the auxiliary colours where they are."""
    model = tiny_model()
    trainer = tiny_trainer(model, small_subject)
    before = state(model)
    terms = trainer.step(small_subject.load(*visited), 0)
    assert all(not value.requires_grad for value in terms.values())
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    poses = {name for name in before if ".smplx_params." in name}
    assert moved & poses == {name for name in poses if pose_key(visited) in name}
    avatar = {f"persona.{name}" for name, _ in model.persona.named_parameters()}
    assert avatar - moved == ({"persona.rgb_aux"} if n_avatar_unmoved else set())
    assert moved <= poses | avatar


def test_frames_that_are_never_visited_have_no_adam_state(small_subject):
    model = tiny_model()
    trainer = tiny_trainer(model, small_subject)
    for iteration, key in enumerate((GENERATED, CAPTURED, GENERATED)):
        trainer.step(small_subject.load(*key), iteration)
    for split, index in model.smplx_param_dict.named_frames():
        for parameter in model.smplx_param_dict.stored(split, index).values():
            adam = trainer.optimizer.state.get(parameter, {})
            n_steps = {GENERATED: 2, CAPTURED: 1}.get((split, index), 0)
            assert int(adam["step"] if adam else 0) == n_steps
    assert UNLISTED in model.smplx_param_dict


def test_first_step_is_the_learning_rate_of_each_group(small_subject):
    """Adam's first step is lr * sign(gradient) where there is a gradient."""
    model, optim = tiny_model(), OptimConfig()
    trainer = tiny_trainer(model, small_subject)
    before = state(model)
    trainer.step(small_subject.load(*GENERATED), 0)
    largest = {
        name: float((value - before[name]).abs().max())
        for name, value in model.state_dict().items()
        if f"smplx_params.{GENERATED[0]}.{GENERATED[1]}." in name or name.startswith("persona.")
    }
    for name, step in largest.items():
        if name.split(".")[1] in ("shape_param", "face_offset", "joint_offset"):
            expected = 0.0
        elif name.split(".")[1] in ("scale", "rgb", "rgb_aux", "seg"):
            expected = optim.lr_appearance
        elif name.endswith(("lhand_pose", "rhand_pose")):
            expected = optim.lr_hand
        else:
            expected = optim.lr
        assert step == pytest.approx(expected, rel=1e-2), name


def test_rates_follow_the_schedule_and_not_the_state_they_were_in(small_subject):
    model = tiny_model()
    trainer = tiny_trainer(model, small_subject)
    frame = small_subject.load(*GENERATED)
    n_steps = len(trainer.keys)
    for iteration, factor in ((0, 1.0), (int(0.75 * n_steps), 0.1), (n_steps - 1, 0.1), (0, 1.0)):
        trainer.step(frame, iteration)
        for group in trainer.optimizer.param_groups:
            assert group["lr"] == trainer.base_lr[group["name"]] * factor


def run_two_steps(small_subject, seed: int) -> dict[str, torch.Tensor]:
    model = tiny_model(seed)
    trainer = tiny_trainer(model, small_subject, seed)
    for iteration, key in enumerate((CAPTURED, GENERATED)):
        trainer.step(small_subject.load(*key), iteration)
    return state(model)


def test_runs_with_one_seed_are_equal_bit_by_bit(small_subject):
    first, second, other = (run_two_steps(small_subject, seed) for seed in (0, 0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["persona.mean_offset"], other["persona.mean_offset"])


def test_training_goes_on_from_state_dicts_as_if_never_stopped(small_subject):
    straight = tiny_model()
    trainer = tiny_trainer(straight, small_subject)
    trainer.step(small_subject.load(*CAPTURED), 0)

    resumed = tiny_model()  # of the same person
    again = tiny_trainer(resumed, small_subject)
    resumed.load_state_dict(state(straight))
    again.optimizer.load_state_dict(deepcopy(trainer.optimizer.state_dict()))  # it would share the moments
    for run in (trainer, again):
        run.step(small_subject.load(*GENERATED), 1)
    expected = straight.state_dict()
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_an_epoch_visits_its_frames_in_shuffled_order_and_counts_on(small_subject):
    model = tiny_model()
    trainer = tiny_trainer(model, small_subject, seed=4, n_epochs=3)
    seen, told = [], []
    trainer.losses = lambda frame: (
        seen.append((frame.split, frame.index)) or {"scale": model.persona.scale.square().sum()}
    )
    trainer.on_step = lambda iteration, terms: told.append(iteration)
    trainer.run_epoch(0)
    trainer.run_epoch(1)
    assert seen == shuffled(trainer.keys, 4, 0) + shuffled(trainer.keys, 4, 1)
    assert told == list(range(2 * len(trainer.keys)))


def test_training_makes_the_loss_smaller(small_subject):
    model = tiny_model()
    trainer = tiny_trainer(model, small_subject, n_epochs=10)
    frame = small_subject.load(*GENERATED)
    totals = [sum(float(value) for value in trainer.step(frame, i).values()) for i in range(12)]
    assert totals[-1] < 0.9 * totals[0]


def test_progress_tells_total_and_the_largest_terms():
    terms = {name: torch.tensor(float(i)) for i, name in enumerate("abcdefg")}
    assert describe(terms) == "total=21 g=6 f=5 e=4 d=3 c=2"
