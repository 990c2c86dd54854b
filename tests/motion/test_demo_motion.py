"""The motion that comes with the project."""

from __future__ import annotations

import numpy as np
import pytest
import roma
import torch

from common.body_model.body import BodyModel
from common.body_model.files import load_body_data
from common.demo.walk_and_wave import FPS, make_walk_and_wave, write_walk_and_wave
from common.joints import joint_index
from common.motion import Figure, MotionOptions, load_motion, stage
from common.pose import rotation_vectors
from main.config import DEMO_BODY, DEMO_MOTION


@pytest.fixture(scope="module")
def figure() -> Figure:
    return Figure.of_body(BodyModel(load_body_data(DEMO_BODY, "neutral"), 0))


@pytest.fixture(scope="module")
def rotation() -> torch.Tensor:
    return roma.rotvec_to_rotmat(rotation_vectors(load_motion(DEMO_MOTION).params).double())


def test_it_is_a_small_amass_file_of_four_seconds_without_python_objects():
    assert DEMO_MOTION.stat().st_size < 300_000
    with np.load(DEMO_MOTION, allow_pickle=False) as arrays:
        content = {name: arrays[name] for name in arrays.files}
    assert content["poses"].shape[1] == 165 and content["trans"].shape == (len(content["poses"]), 3)
    assert 4 <= len(content["poses"]) / content["mocap_frame_rate"] <= 6
    assert str(content["licence"]) == "CC0-1.0"
    motion = load_motion(DEMO_MOTION)
    assert (motion.format, motion.up, motion.hands, motion.fps) == ("AMASS, SMPL-X", "z", "flat", FPS)


def test_its_tool_makes_the_committed_file(figure, tmp_path):
    write_walk_and_wave(tmp_path / "walk.npz", make_walk_and_wave(figure))
    with np.load(tmp_path / "walk.npz") as made, np.load(DEMO_MOTION) as committed:
        assert set(made.files) == set(committed.files)
        for name in ("poses", "trans"):
            assert made[name] == pytest.approx(committed[name], abs=1e-4)


def test_feet_stand_on_the_floor_and_do_not_slide(figure, rotation):
    trans = load_motion(DEMO_MOTION).params.trans.double()
    lowest = figure.posed_points(rotation, trans)[..., 2].amin(1)
    assert lowest.abs().max() < 0.03
    joints = figure.posed_joints(rotation, trans)
    feet = joints[:, [joint_index("left_foot"), joint_index("right_foot")]]
    speed = feet[..., :2].diff(dim=0).norm(dim=-1) * FPS  # (T - 1, 2)
    is_down = (feet[1:, :, 2] - feet[1:].amin(1)[:, None, 2]) < 1e-9
    assert speed[is_down].median() < 0.1 and speed[is_down].mean() < 0.2  # it walks at about 1 m/s
    assert trans[-1, :2].norm() > 1.5  # it walks


def test_it_walks_upright_turns_and_waves_with_the_right_hand(figure, rotation):
    joints = figure.posed_joints(rotation, torch.zeros(len(rotation), 3, dtype=torch.float64))
    up = joints[:, joint_index("head")] - joints[:, 0]
    assert (up[:, 2] / up.norm(dim=1)).min() > 0.9
    ahead = rotation[[0, -1], 0, :, 2]
    assert 40 < torch.rad2deg(torch.arccos(ahead[0] @ ahead[1])) < 90
    above_head = joints[-60:, joint_index("right_wrist"), 2] - joints[-60:, joint_index("neck"), 2]
    assert (above_head > 0).all()
    across = joints[-120:, joint_index("right_wrist")].double()
    assert across.std(0).norm() > 0.05


def test_hands_are_relaxed_like_the_bodys_own(figure):
    motion = stage(load_motion(DEMO_MOTION), figure, MotionOptions(), 30.0)
    assert motion.params.lhand_pose.abs().max() < 1e-5
    assert len(motion) == 135 and motion.fps == 30
