"""The pure functions of losses and boundary maps against the published ones (golden 02)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from common import losses
from common.boundary import dilate, sobel_magnitude
from common.camera import Camera
from common.photo_panel import PANEL_EXTENT, warp_box
from common.rectangle import Rectangle
from tests.golden import scene

PATCH_ASPECT_RATIO = 0.7  # golden README


@pytest.fixture(scope="module")
def arrays(golden) -> dict[str, Tensor]:
    return {name: scene.from_numpy(value) for name, value in golden("02_functions.npz").items()}


def in_float64(arrays: dict[str, Tensor], *names: str) -> list[Tensor]:
    return [arrays[name].double() for name in names]


def test_ssim_map(arrays):
    x, y = in_float64(arrays, "img_out", "img_tgt")
    # The stored float32 map itself is off by the rounding of E[x^2] - E[x]^2.
    scene.assert_close(losses.ssim_map(x, y), arrays["ssim_map"].double(), atol=2e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_image_loss_and_its_gradient(arrays, dtype):
    x = arrays["img_out"].to(dtype, copy=True).requires_grad_()
    loss = losses.image_loss(x, arrays["img_tgt"].to(dtype))
    scene.assert_close(loss.detach(), arrays["img_loss"].to(dtype), atol=5e-6, rtol=0)
    loss.mean().backward()
    expected = arrays["img_loss_grad"].to(dtype)
    assert (x.grad - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_geometry_loss_and_its_gradients(arrays, dtype):
    outputs = {
        name: arrays[f"{name}_out"][0].to(dtype, copy=True).requires_grad_()
        for name in ("depth", "normal", "seg")
    }
    targets = {name: arrays[f"{name}_tgt"][0].to(dtype) for name in outputs}
    functions = {"depth": losses.depth_loss, "normal": losses.normal_loss, "seg": losses.part_loss}
    terms = {name: functions[name](outputs[name], targets[name]) for name in functions}
    for name, term in terms.items():
        expected = arrays[f"{name}_loss"].to(dtype)
        scene.assert_close(term.detach(), expected.reshape(term.shape), atol=2e-6, rtol=1e-5)

    no_mask = torch.zeros_like(outputs["depth"])
    loss = losses.geometry_loss(no_mask, no_mask, *terms.values(), frame_factor=1.0)
    scene.assert_close(loss.detach(), arrays["geo_loss"][0].to(dtype), atol=2e-6, rtol=1e-5)
    loss.mean().backward()
    for name, output in outputs.items():
        expected = arrays[f"geo_grad_{name}"][0].to(dtype)
        assert output.grad is not None
        assert (output.grad - expected).norm() < 1e-4 * expected.norm(), name


def test_total_variation_with_and_without_mask(golden):
    arrays = golden("02_mesh_operators.npz")
    image, mask = scene.from_numpy(arrays["tv_img"]), scene.from_numpy(arrays["tv_mask"])
    scene.assert_close(losses.total_variation(image, mask), scene.from_numpy(arrays["tv_masked"]))
    scene.assert_close(losses.total_variation(image), scene.from_numpy(arrays["tv_unmasked"]))


def test_sobel_magnitude(arrays):
    derivatives = arrays["sobel"][0]  # (3, 2, H, W) x, y
    expected = derivatives.norm(dim=1).mean(0)
    scene.assert_close(sobel_magnitude(arrays["img_out"][0]), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_dilation(arrays, size):
    assert torch.equal(dilate(arrays["binary"][0], size), arrays[f"dilate_{size}"][0])


def test_projection_agrees_with_the_published_field_of_view(arrays):
    height, width = (int(n) for n in arrays["cam_shape_hw"])
    camera = Camera(torch.eye(3), torch.zeros(3), arrays["cam_focal"], arrays["cam_princpt"], height, width)
    edge = torch.cat([(arrays["fov"] / 2).tan(), torch.ones(1)])
    half_size = camera.project(edge) - camera.princpt
    scene.assert_close(half_size, torch.tensor([width / 2, height / 2]), rtol=1e-5, atol=0)


def test_projection_agrees_with_the_published_projection_matrix(arrays):
    height, width = (int(n) for n in arrays["cam_shape_hw"])
    camera = Camera(torch.eye(3), torch.zeros(3), arrays["cam_focal"], arrays["cam_princpt"], height, width)
    points = torch.tensor([[0.1, -0.2, 1.5], [-0.4, 0.3, 2.5], [0.0, 0.0, 4.0]])
    clip = torch.cat([points, torch.ones(3, 1)], 1) @ arrays["proj_matrix"].T
    ndc = clip[:, :2] / clip[:, 3:]
    size = torch.tensor([width, height])
    np.testing.assert_allclose(camera.project(points), (ndc + 1) * size / 2, rtol=1e-5, atol=1e-3)


def test_box_of_a_shape_is_the_published_one(golden):
    """Grown to the aspect ratio, then by half, as the photo's beside an animation."""
    stored = golden("02_functions.npz")
    box = Rectangle(*stored["patch_bbox_in"].tolist()).extended(PANEL_EXTENT, aspect_ratio=PATCH_ASPECT_RATIO)
    np.testing.assert_allclose(box, stored["patch_bbox"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "factor"), [("kpt_bbox", 1.2), ("kpt_bbox_10", 1.0)])
def test_box_around_the_valid_points_is_the_published_one(golden, name, factor):
    stored = golden("02_functions.npz")
    box = Rectangle.around(stored["kpt"][stored["kpt_valid"] > 0]).extended(factor)
    np.testing.assert_allclose(box, stored[name], rtol=1e-5, atol=1e-5)


def test_crop_camera_agrees_with_the_published_affine_crop(golden):
    """The crop's matrix maps image pixels as the crop's camera moves principal point and focal length."""
    stored = golden("02_functions.npz")
    names = ("patch", "patch_src", "patch_bbox", "patch_trans", "patch_inv_trans")
    arrays = {name: scene.from_numpy(stored[name]) for name in names}
    height, width = arrays["patch"].shape[:2]
    camera = Camera.identity((1.0, 1.0), (0.0, 0.0), *arrays["patch_src"].shape[:2])
    crop = camera.crop(arrays["patch_bbox"], height, width)
    matrix = torch.cat([torch.diag(crop.focal), crop.princpt[:, None]], 1)
    scene.assert_close(matrix, arrays["patch_trans"], atol=1e-5, rtol=1e-5)
    there_and_back = torch.cat([matrix, torch.tensor([[0.0, 0.0, 1.0]])]).inverse()[:2]
    scene.assert_close(there_and_back, arrays["patch_inv_trans"], atol=1e-5, rtol=1e-5)


def test_warp_of_a_box_agrees_with_the_published_affine_crop(golden):
    """OpenCV interpolates at 1/32 pixel: the crop differs by what the image changes over half of that."""
    stored = golden("02_functions.npz")
    image, expected = scene.from_numpy(stored["patch_src"]) / 255, scene.from_numpy(stored["patch"]) / 255
    found = warp_box(image.permute(2, 0, 1), Rectangle(*stored["patch_bbox"].tolist()), *expected.shape[:2])
    difference = (found.permute(1, 2, 0) - expected).abs()
    assert difference.max() < 1 / 32  # half of 1/32 along either axis, and colours differ by 1 at most
    assert difference.mean() < 1 / 128


def test_cameras_matrices_agree_with_the_published_ones(arrays):
    height, width = (int(n) for n in arrays["cam_shape_hw"])
    camera = Camera(torch.eye(3), torch.zeros(3), arrays["cam_focal"], arrays["cam_princpt"], height, width)
    scene.assert_close(scene.view_and_projection(camera)[1], arrays["proj_matrix"], atol=1e-6, rtol=1e-5)
