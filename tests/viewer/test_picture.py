"""Pictures of the viewer and the splats of its page."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import roma
import torch
from PIL import Image

from common.camera import Camera
from common.errors import UserError
from common.gaussians import Gaussians
from common.io.image import as_png
from common.viewer.picture import FOV, MAX_SIDE_PX, eye_camera, first_view, picture
from common.viewer.splats import UNITS_PER_METRE, page_centers, page_colours, page_covariances, smallest_scale


def test_the_eye_looks_along_its_z_axis_with_the_vertical_angle_of_view():
    turn = roma.rotvec_to_rotmat(torch.tensor([0.3, -0.5, 0.2]))
    x, y, z, w = roma.rotmat_to_unitquat(turn).tolist()
    place = torch.tensor([1.0, 2.0, 3.0])
    eye = eye_camera([w, x, y, z], place.tolist(), fov=1.0, height=400, width=600)
    ahead = place + 2.0 * turn[:, 2]
    torch.testing.assert_close(eye.project(ahead), torch.tensor([300.0, 200.0]), atol=1e-3, rtol=0)
    lowest = ahead + 2.0 * math.tan(0.5) * turn[:, 1]
    torch.testing.assert_close(eye.project(lowest), torch.tensor([300.0, 400.0]), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"wxyz": [0.0, 0.0, 0.0, 0.0]},
        {"wxyz": [float("nan"), 0.0, 0.0, 1.0]},
        {"position": [float("inf"), 0.0, 0.0]},
        {"position": [1e30, 0.0, 0.0]},
        {"fov": float("nan")},
        {"height": 0},
        {"width": -5},
    ],
)
def test_a_camera_that_cannot_be_is_refused(wrong):
    usual = {"wxyz": [1.0, 0.0, 0.0, 0.0], "position": [0.0, 0.0, 0.0], "fov": 1.0, "height": 10, "width": 10}
    with pytest.raises(UserError, match="no usable camera"):
        eye_camera(**{**usual, **wrong})


def test_pictures_have_a_largest_size():
    eye = eye_camera([1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0], 1.0, 10**9, 10**9)
    assert (eye.height, eye.width) == (MAX_SIDE_PX, MAX_SIDE_PX)


def test_a_snapshot_shows_colour_over_the_background():
    eye = eye_camera([1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0], 1.0, 40, 60)
    red = Gaussians(torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([[0.2]]), torch.tensor([[1.0, 0.0, 0.0]]))
    image = np.asarray(Image.open(io.BytesIO(as_png(picture(red, eye, (0, 128, 255))))))
    assert image.shape == (40, 60, 3)
    assert image[0, 0].tolist() == [0, 128, 255]
    assert image[20, 30, 0] > 240 and image[20, 30, 2] < 15


def test_the_page_draws_no_gaussian_that_it_would_drop():
    eye = eye_camera([1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0], 1.2, 700, 900)
    for depth in (0.5, 2.0, 7.0):
        smallest = smallest_scale(torch.tensor([0.0, 0.0, depth]), eye)
        variance_px = (smallest * float(eye.focal[1]) / depth) ** 2
        assert (variance_px + 0.3) ** 2 > 0.25  # the page's rule
        assert variance_px < 4 * 0.2 * 1.1**2  # not more than a step of the size too large


def test_covariances_keep_their_digits_in_the_pages_16_bit_floats():
    scale = torch.tensor([[0.0003], [0.001], [0.01], [0.2]])
    stored = page_covariances(scale, 0.0).astype(np.float16).astype(np.float64)
    expected = (scale.double().numpy() * UNITS_PER_METRE)[:, :, None] ** 2 * np.eye(3)
    np.testing.assert_allclose(stored, expected, rtol=2e-3, atol=0)
    assert page_covariances(scale, 0.01)[0, 0, 0] == page_covariances(scale, 0.01)[2, 0, 0]


def test_centers_and_colours_are_those_of_the_gaussians():
    mean, rgb = torch.randn(5, 3), torch.tensor([[0.0, 0.5, 1.0], [1.2, -0.1, 0.25]])
    np.testing.assert_allclose(page_centers(mean) / UNITS_PER_METRE, mean.numpy(), rtol=1e-6)
    assert page_colours(rgb).tolist() == [[0, 128, 255], [255, 0, 64]]


def test_the_first_view_shows_all_of_the_avatar_upright_from_the_cameras_side():
    R = roma.rotvec_to_rotmat(torch.tensor([0.3, 0.8, -0.2]))
    camera = Camera(R, torch.tensor([0.5, 1.0, 4.0]), torch.ones(2), torch.ones(2), 1, 1)
    mean = torch.randn(200, 3) * torch.tensor([0.3, 0.9, 0.2]) + torch.tensor([3.0, -1.0, 2.0])
    view = first_view(mean, camera)
    position, target, up = (torch.tensor(value) for value in (view.position, view.look_at, view.up))
    ahead = (target - position) / (target - position).norm()
    torch.testing.assert_close(torch.stack([ahead, up]), torch.stack([R[2], -R[1]]), atol=1e-5, rtol=0)
    size = 500
    focal = torch.full((2,), size / (2 * math.tan(FOV / 2)))
    eye = Camera(R, -R @ position, focal, torch.full((2,), size / 2), size, size)
    pixels = eye.project(mean)
    assert (pixels > 0).all() and (pixels < size).all()
    assert (pixels - size / 2).norm(dim=1).max() > 0.3 * size
