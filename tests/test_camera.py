"""The camera's convention (SPEC 6)."""

from __future__ import annotations

import pytest
import roma
import torch
from torch.testing import assert_close

from common.camera import Camera


@pytest.fixture(params=[None, 2, 6], ids=["exact", "2 digits", "6 digits"])
def camera(request: pytest.FixtureRequest) -> Camera:
    """A camera anywhere; its R exact, or with few digits, as in files."""
    R = roma.rotvec_to_rotmat(torch.tensor([0.7, -1.9, 0.4], dtype=torch.float64))
    if request.param is not None:
        R = R.round(decimals=request.param)
    t, focal, princpt = torch.tensor([0.3, -0.2, 2.5]), torch.tensor([70.0, 90.0]), torch.tensor([20.0, 31.0])
    return Camera(R, t.double(), focal.double(), princpt.double(), height=48, width=40)


def test_world_space_and_back_is_the_same_place_whatever_the_digits_of_R(camera):
    points = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert_close(camera.world_to_camera(camera.camera_to_world(points)), points, rtol=0, atol=1e-12)
    assert_close(camera.camera_to_world(camera.world_to_camera(points)), points, rtol=0, atol=1e-12)


def test_posed_points_are_seen_where_their_pose_is(camera):
    points = torch.tensor([[0.1, -0.2, 3.0], [-0.5, 0.4, 1.5]], dtype=torch.float64)
    pixels = camera.project(camera.camera_to_world(points))
    assert_close(pixels, points[:, :2] / points[:, 2:] * camera.focal + camera.princpt)


def test_an_identity_stays_exact():
    camera = Camera.identity((50.0, 50.0), (8.0, 8.0), 16, 16)
    assert torch.equal(camera.R_inverse_transposed, torch.eye(3))
    points = torch.rand(9, 3)
    assert torch.equal(camera.camera_to_world(points), points)


def test_a_crop_sees_the_same_points_at_the_moved_pixels(camera):
    x, y, w, h = 3.0, 5.0, 10.0, 20.0
    crop = camera.crop(torch.tensor([x, y, w, h], dtype=torch.float64), 60, 25)
    points = camera.camera_to_world(torch.tensor([[0.1, 0.2, 2.0]], dtype=torch.float64))
    corner, size = torch.tensor([x, y]), torch.tensor([w, h])
    expected = (camera.project(points) - corner) / size * torch.tensor([25.0, 60.0])
    assert_close(crop.project(points), expected)
    assert (crop.height, crop.width) == (60, 25)
