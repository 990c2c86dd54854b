"""Cameras around the neutral pose (SPEC 15)."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from common.body_model.body import BodyModel
from common.pose import SmplxPose
from common.turntable import turntable_cameras, turntable_pose, turntable_target
from tests.body_model.bodies import tiny_body_data

TRANS = (0.0, 3.0, 3.0)
N_VIEWS = 12


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel(tiny_body_data(), 0).double()


@pytest.fixture(scope="module")
def target(body):
    return turntable_target(body, turntable_pose(body, TRANS))


@pytest.fixture(scope="module")
def cameras(target):
    return list(turntable_cameras(target, N_VIEWS, focal=1500.0, size=1024))


def test_target_is_the_turned_and_moved_mean_of_the_template(body, target):
    x, y, z = body.v_template.mean(0).tolist()
    assert_close(target, target.new_tensor([x, 3 - y, 3 - z]), rtol=0, atol=1e-12)


def test_pose_is_the_neutral_one_but_for_root_and_place(body):
    params = turntable_pose(body, TRANS)
    neutral = body.neutral_pose_params(jaw_open=False)
    assert params.root_pose.tolist() == pytest.approx([math.pi, 0, 0])
    assert params.trans.tolist() == list(TRANS)
    for name, value in vars(neutral).items():
        if name not in ("root_pose", "trans"):
            assert torch.equal(getattr(params, name), value), name


def test_every_camera_looks_at_the_target_from_the_origins_distance(cameras, target):
    assert len(cameras) == N_VIEWS
    for camera in cameras:
        assert_close(camera.R @ camera.R.T, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-12)
        assert float(torch.det(camera.R)) == pytest.approx(1)
        expected = target.new_tensor([0.0, 0.0, float(target.norm())])
        assert_close(camera.world_to_camera(target), expected, rtol=0, atol=1e-9)
        assert_close(camera.project(target), target.new_tensor([512.0, 512.0]), rtol=0, atol=1e-6)


def test_cameras_stand_on_an_even_circle(cameras, target):
    centres = torch.stack([-camera.R.T @ camera.t for camera in cameras])
    from_target = centres - target
    height = -math.sin(math.pi / 12) * float(target.norm())
    assert_close(from_target[:, 1], torch.full((N_VIEWS,), height, dtype=torch.float64))
    angles = torch.atan2(from_target[:, 0], from_target[:, 2])
    steps = torch.remainder(angles.diff(append=angles[:1]), 2 * math.pi)
    assert_close(steps, torch.full((N_VIEWS,), 2 * math.pi / N_VIEWS, dtype=torch.float64))


def test_the_first_view_is_from_the_origins_side(cameras, target):
    centre = -cameras[0].R.T @ cameras[0].t
    assert float(centre[0] - target[0]) == pytest.approx(0, abs=1e-12)
    assert centre[2] < target[2]


def test_the_body_stands_upright_in_every_view(body, cameras):
    params = turntable_pose(body, TRANS)
    vertices = body.vertices(SmplxPose.from_params(params), None).vertices
    head, feet = body.v_template[:, 1].argmax(), body.v_template[:, 1].argmin()
    for camera in cameras:
        pixels = camera.project(vertices[torch.stack([head, feet])])
        assert pixels[0, 1] < pixels[1, 1]
        assert (camera.world_to_camera(vertices)[:, 2] > 0).all()
