"""Figures against the demo subject's truth: zero for an avatar that is the truth, known values for known errors."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from common.avatar import Avatar
from common.camera import Camera
from common.demo.cloth_region import cloth_region_psnr
from common.demo.truth import LOOSE, Truth, cloth_error_mm, identity_color_error, silhouette_iou
from common.errors import UserError
from common.io.array import write_array
from common.io.image import write_image
from common.io.parameters import write_smplx_params
from common.pose import SmplxPose
from tests.tiny_person import tiny_avatar, tiny_params

FRAMES = [0, 3]
ERROR_M = 0.004  # of the loose vertices' written cloth, along z


@pytest.fixture(scope="module")
def avatar() -> Avatar:
    return tiny_avatar().requires_grad_(False)


def write_truth(subject: Path, avatar: Avatar, shift_m: float = 0.0) -> None:
    """The truth of which the avatar is right; loose cloth and static offsets as far off as said, half each."""
    n = len(avatar.mean_offset)
    is_loose = np.arange(n) % 3 == 0
    world = Camera.identity((1.0, 1.0), (0.0, 0.0), 1, 1)
    static = torch.zeros(n, 3)
    static[:, 2] = shift_m / 2
    arrays = {"albedo": avatar.appearance.rgb.numpy(), "static_offset": static.numpy()}
    for name, values in {**arrays, "looseness": np.where(is_loose, 2 * LOOSE, 0.5 * LOOSE)}.items():
        write_array(subject / "truth/vertices" / f"{name}.npy", values)
    for index in FRAMES:
        params = tiny_params(index)
        posed = avatar(SmplxPose.from_params(params), world)
        cloth = (posed.refined_neutral - avatar.neutral_vertices).numpy()
        cloth[is_loose, 2] += shift_m / 2
        cloth[~is_loose] += 1.0  # does not count
        write_smplx_params(subject / f"truth/smplx_params/test/{index}.json", params)
        write_array(subject / f"truth/cloth/test/{index}.npy", cloth)


@pytest.mark.parametrize("shift_m", [0.0, ERROR_M])
def test_cloth_error_is_the_distance_of_loose_vertices_over_the_test_poses(tmp_path, avatar, shift_m):
    write_truth(tmp_path, avatar, shift_m)
    truth = Truth.load(tmp_path, len(avatar.mean_offset))
    assert cloth_error_mm(avatar, truth, FRAMES) == pytest.approx(1e3 * shift_m, abs=2e-3)


def test_colour_error_is_the_mean_absolute_difference_from_the_albedo(tmp_path, avatar):
    write_truth(tmp_path, avatar)
    truth = Truth.load(tmp_path, len(avatar.mean_offset))
    assert identity_color_error(avatar, truth) == 0
    truth.albedo[:, 1] += 0.3
    assert identity_color_error(avatar, truth) == pytest.approx(0.1, rel=1e-5)


def test_truth_of_another_body_and_subjects_without_truth_are_refused(tmp_path, avatar):
    with pytest.raises(UserError, match="only demo subjects"):
        Truth.load(tmp_path, 5)
    write_truth(tmp_path, avatar)
    with pytest.raises(UserError, match="the avatar has 5 Gaussians"):
        Truth.load(tmp_path, 5)


def box(left: int, right: int) -> torch.Tensor:
    """A mask (1, 8, 12), 1 from one column to before another."""
    mask = torch.zeros(1, 8, 12)
    mask[..., left:right] = 1
    return mask


def test_silhouettes_overlap_by_the_share_of_their_union(tmp_path):
    for index, (truth, render) in enumerate([(box(0, 6), box(0, 6)), (box(0, 6), box(3, 9))]):
        write_image(tmp_path / f"test/masks/{index}.png", truth)
        write_image(tmp_path / f"renders/test_{index}_mask_refined.png", render)
    assert silhouette_iou(tmp_path, tmp_path / "renders", [0]) == 1
    assert silhouette_iou(tmp_path, tmp_path / "renders", [0, 1]) == pytest.approx((1 + 3 / 9) / 2)


@pytest.mark.parametrize("is_refined", [True, False])
def test_psnr_of_the_cloth_region_is_of_its_pixels_in_frames_that_show_it(tmp_path, is_refined):
    suffix = "_refined" if is_refined else ""
    image = torch.full((3, 8, 12), 0.4)
    for index, cloth in enumerate([box(2, 4), box(0, 0)]):
        render = image + 0.2 * box(2, 4) + 0.6 * box(8, 12)  # what is off the cloth does not count
        write_image(tmp_path / f"truth/cloth_masks/test/{index}.png", cloth)
        write_image(tmp_path / f"test/images/{index}.png", image)
        write_image(tmp_path / f"renders/test_{index}{suffix}.png", render)
    found = cloth_region_psnr(tmp_path, tmp_path / "renders", is_refined)
    assert found == pytest.approx(-20 * math.log10(0.2), abs=1e-3)
    with pytest.raises(UserError, match="has no masks"):
        cloth_region_psnr(tmp_path / "nobody", tmp_path / "renders", is_refined)
