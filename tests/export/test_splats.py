"""Splat files read back by independent readers look like the avatar, and stand as their axes say."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from plyfile import PlyData

from common.camera import Camera
from common.export.placement import Placement
from common.export.splats import write_splat, write_splat_ply
from common.gaussians import Gaussians
from common.pose import SmplxPose
from common.rasterizer import rasterize
from tests.tiny_person import tiny_avatar, tiny_camera, tiny_params

SH_C0 = 0.5 / np.sqrt(np.pi)
STANDARD = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
STANDARD_END = ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]


@pytest.fixture(scope="module")
def posed() -> tuple[Gaussians, Camera]:
    """The refined avatar in a pose, in front of a camera that is turned and moved."""
    camera = tiny_camera()
    with torch.no_grad():
        return tiny_avatar()(SmplxPose.from_params(tiny_params(0)), camera).refined, camera


def picture(gaussians: Gaussians, camera: Camera) -> torch.Tensor:
    return rasterize(gaussians, camera, gaussians.rgb, [False] * 3)


def general_gaussians(n: int = 40) -> Gaussians:
    """Gaussians with three scales, rotations and opacities."""
    generator = torch.Generator().manual_seed(0)
    return Gaussians(
        mean=torch.randn(n, 3, generator=generator),
        scale=torch.rand(n, 3, generator=generator) * 0.1 + 0.01,
        rgb=torch.rand(n, 3, generator=generator),
        rotation=torch.nn.functional.normalize(torch.randn(n, 4, generator=generator), dim=1),
        opacity=torch.rand(n, generator=generator),
    )


def read_ply(path: Path) -> Gaussians:
    """What a viewer makes of a 3D Gaussian .ply (Kerbl et al. 2023)."""
    vertex = PlyData.read(str(path))["vertex"]

    def columns(prefix: str, n: int) -> torch.Tensor:
        return torch.from_numpy(np.stack([vertex[f"{prefix}_{i}"] for i in range(n)], axis=1))

    return Gaussians(
        mean=torch.from_numpy(np.stack([vertex[axis] for axis in "xyz"], axis=1)),
        scale=torch.exp(columns("scale", 3)),
        rgb=0.5 + SH_C0 * columns("f_dc", 3).float(),
        rotation=columns("rot", 4),
        opacity=torch.sigmoid(torch.from_numpy(np.array(vertex["opacity"]))),
    )


def read_splat(path: Path) -> Gaussians:
    """What a viewer makes of a .splat file, record by record."""
    records = list(struct.iter_unpack("<6f8B", path.read_bytes()))
    table = torch.tensor(records)
    rotation = torch.nn.functional.normalize((table[:, 10:] - 128) / 128, dim=1)
    return Gaussians(table[:, :3], table[:, 3:6], table[:, 6:9] / 255, rotation, table[:, 9] / 255)


def covariances(gaussians: Gaussians) -> torch.Tensor:
    R = roma.unitquat_to_rotmat(roma.quat_wxyz_to_xyzw(gaussians.rotation))
    return R @ torch.diag_embed(gaussians.scale**2) @ R.transpose(1, 2)


@pytest.mark.parametrize(("degree", "n_rest"), [(0, 0), (3, 45)])
def test_ply_has_the_columns_of_3d_gaussian_splatting_in_their_order(tmp_path, posed, degree, n_rest):
    write_splat_ply(tmp_path / "a.ply", posed[0], degree)
    content = PlyData.read(str(tmp_path / "a.ply"))
    vertex = content["vertex"]
    names = [column.name for column in vertex.properties]
    assert names == STANDARD + [f"f_rest_{i}" for i in range(n_rest)] + STANDARD_END
    assert {column.val_dtype for column in vertex.properties} == {"f4"}
    assert content.byte_order == "<" and not content.text and len(content.elements) == 1
    assert all((vertex[f"f_rest_{i}"] == 0).all() for i in range(n_rest))


def test_opaque_gaussians_are_finite_in_the_file_and_opaque_in_8_bit_and_half_precision(tmp_path, posed):
    write_splat_ply(tmp_path / "a.ply", posed[0])
    logit = np.array(PlyData.read(str(tmp_path / "a.ply"))["vertex"]["opacity"])
    assert np.isfinite(logit).all() and np.isfinite(np.exp(-logit.astype(np.float16))).all()
    opacity = 1 / (1 + np.exp(-logit))
    assert ((opacity * 255).astype(np.uint8) >= 254).all() and opacity.min() > 0.999999


def test_ply_holds_gaussians_of_any_form_exactly(tmp_path):
    gaussians = general_gaussians()
    write_splat_ply(tmp_path / "a.ply", gaussians)
    for name, value in vars(read_ply(tmp_path / "a.ply")).items():
        torch.testing.assert_close(value, getattr(gaussians, name), rtol=1e-5, atol=1e-6)


def test_splat_holds_gaussians_of_any_form_within_its_bytes(tmp_path):
    gaussians = general_gaussians()
    write_splat(tmp_path / "a.splat", gaussians)
    assert (tmp_path / "a.splat").stat().st_size == 32 * len(gaussians.mean)
    found = read_splat(tmp_path / "a.splat")
    order = torch.cdist(gaussians.mean, found.mean).argmin(1)
    torch.testing.assert_close(found.mean[order], gaussians.mean, rtol=0, atol=0)
    torch.testing.assert_close(found.scale[order], gaussians.scale)
    torch.testing.assert_close(found.rgb[order], gaussians.rgb, rtol=0, atol=0.501 / 255)
    torch.testing.assert_close(found.opacity[order], gaussians.opacity, rtol=0, atol=0.501 / 255)
    torch.testing.assert_close(found.rotation[order], gaussians.rotation, rtol=0, atol=0.012)
    importance = found.scale.prod(1) * gaussians.opacity[order.argsort()]
    assert (importance.diff() <= 1e-9).all()


@pytest.mark.parametrize(
    ("write", "read", "bound"), [(write_splat_ply, read_ply, 1e-4), (write_splat, read_splat, 0.6 / 255)]
)
def test_file_rendered_from_the_first_camera_is_the_avatars_frame(tmp_path, posed, write, read, bound):
    gaussians, camera = posed
    placed = Placement.of_motion(camera, "minus_y").gaussians(gaussians)
    write(tmp_path / "a.ply", placed)
    own_axes = Camera.identity(
        tuple(camera.focal.tolist()), tuple(camera.princpt.tolist()), camera.height, camera.width
    )
    expected = picture(gaussians, camera)
    assert expected.max() > 0.5
    found = picture(read(tmp_path / "a.ply"), own_axes)
    assert (found - expected).abs().max() < bound


@pytest.mark.parametrize(("up", "axis"), [("y", (0, 1, 0)), ("minus_y", (0, -1, 0)), ("z", (0, 0, 1))])
def test_every_up_axis_is_a_rotation_that_puts_the_head_on_top(up, axis):
    for placement, head in (
        (Placement.of_neutral_pose(up), torch.tensor([0.0, 1.0, 0.0])),
        (Placement.of_motion(tiny_camera(is_moved=False), up), torch.tensor([0.0, -1.0, 0.0])),
    ):
        torch.testing.assert_close(placement.rotation @ head, torch.tensor(axis).float())
        torch.testing.assert_close(placement.rotation @ placement.rotation.T, torch.eye(3))
        assert torch.linalg.det(placement.rotation) == 1
        left = placement.rotation @ torch.tensor([1.0, 0.0, 0.0])
        torch.testing.assert_close(left, torch.tensor([1.0, 0.0, 0.0]))


def test_placement_turns_gaussians_with_their_shapes():
    gaussians, camera = general_gaussians(), tiny_camera()
    placement = Placement.of_motion(camera, "z")
    R = placement.rotation
    placed = placement.gaussians(gaussians)
    torch.testing.assert_close(placed.mean, gaussians.mean @ R.T + placement.translation)
    torch.testing.assert_close(covariances(placed), R @ covariances(gaussians) @ R.T, rtol=1e-4, atol=1e-7)
