"""Texture sampling, the seam rule, logits and spacing against known answers (SPEC 9)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from common.mesh import Subdivider
from common.texture import initial_log_scale, sample_subdivided, sample_texture, to_logit, vertex_uv


def ramp(height: int, width: int) -> Tensor:
    """A texture (2, H, W) whose colour is its own UV, pixel centres of the corners at 0 and 1."""
    v, u = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([u, v])


def test_a_texture_of_uv_returns_uv() -> None:
    uv = torch.rand(100, 2)
    torch.testing.assert_close(sample_texture(ramp(5, 9), uv), uv, atol=1e-6, rtol=0)


def test_corners_are_pixel_centres() -> None:
    texture = torch.arange(6.0).reshape(1, 2, 3)
    uv = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.5, 0.5]])
    assert sample_texture(texture, uv)[:, 0].tolist() == [0, 2, 3, 5, 2.5]


def test_a_vertex_takes_the_uv_of_its_last_face_corner() -> None:
    faces = torch.tensor([[0, 1, 2], [2, 1, 3], [3, 1, 0]])
    face_uv = torch.tensor([[0, 1, 2], [2, 4, 3], [3, 5, 0]])
    uv = torch.rand(6, 2)
    found, is_seam = vertex_uv(faces, face_uv, uv, n_vertices=5)
    assert torch.equal(found[:4], uv[[0, 5, 2, 3]])
    assert is_seam.tolist() == [False, True, False, False, False]
    assert (found[4] == 0).all()


def test_last_corner_counts_within_one_face_too() -> None:
    found, is_seam = vertex_uv(
        torch.tensor([[0, 1, 0]]), torch.tensor([[0, 1, 2]]), torch.eye(3)[:, :2], n_vertices=2
    )
    assert torch.equal(found[0], torch.eye(3)[2, :2])
    assert is_seam.tolist() == [True, False]


def plain_vertex_uv(faces: np.ndarray, face_uv: np.ndarray, uv: np.ndarray, n: int) -> tuple:
    seen: list[list[int]] = [[] for _ in range(n)]
    for face, corners in zip(faces, face_uv, strict=True):
        for vertex, corner in zip(face, corners, strict=True):
            seen[vertex].append(corner)
    return np.stack([uv[s[-1]] if s else np.zeros(2) for s in seen]), np.array(
        [len(set(s)) > 1 for s in seen]
    )


@pytest.mark.parametrize("seed", range(3))
def test_vertex_uv_equals_plain_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    faces, face_uv, uv = rng.integers(0, 20, (40, 3)), rng.integers(0, 9, (40, 3)), rng.random((9, 2))
    found, is_seam = vertex_uv(*(torch.from_numpy(a) for a in (faces, face_uv, uv)), n_vertices=21)
    expected, expected_seam = plain_vertex_uv(faces, face_uv, uv, 21)
    np.testing.assert_array_equal(found.numpy(), expected)
    np.testing.assert_array_equal(is_seam.numpy(), expected_seam)


def test_midpoints_near_a_seam_blend_colors_instead_of_uv() -> None:
    subdivider = Subdivider(torch.tensor([[0, 1, 2]]), 3, levels=1)  # midpoints 3: 01, 4: 02, 5: 12
    uv = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    texture = ramp(5, 5)[:1] ** 2  # not linear in u, so that the two ways differ
    is_seam = torch.tensor([True, False, False])
    color = sample_subdivided(texture, uv, is_seam, subdivider.interpolate)[:, 0]
    torch.testing.assert_close(color, torch.tensor([0.0, 1.0, 1.0, 0.5, 0.5, 1.0]))
    smooth = sample_subdivided(texture, uv, torch.zeros(3, dtype=torch.bool), subdivider.interpolate)[:, 0]
    torch.testing.assert_close(smooth, torch.tensor([0.0, 1.0, 1.0, 0.25, 0.25, 1.0]))


def test_logits_invert_the_sigmoid_and_stay_finite() -> None:
    color = torch.tensor([0.0, 1e-4, 0.3, 1.0])
    expected = torch.tensor([1e-4, 1e-4, 0.3, 1 - 1e-4])
    torch.testing.assert_close(to_logit(color).sigmoid(), expected)


def test_scale_is_the_rms_distance_to_three_neighbours() -> None:
    points = torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [0, 0.2, 0], [0, 0, 0.3], [9, 9, 9]])
    expected = np.log(np.sqrt((0.01 + 0.04 + 0.09) / 3))
    found = initial_log_scale(points)
    assert found.shape == (5, 1)
    assert float(found[0]) == pytest.approx(expected, abs=1e-6)


def test_scale_equals_all_pairs() -> None:
    points = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    nearest = torch.cdist(points.double(), points.double()).sort(1).values[:, 1:4]
    expected = nearest.square().mean(1, keepdim=True).sqrt().log().float()
    torch.testing.assert_close(initial_log_scale(points), expected)


def test_scale_of_coinciding_points_is_clamped() -> None:
    found = initial_log_scale(torch.zeros(6, 3))
    torch.testing.assert_close(found, torch.full((6, 1), float(np.log(1e-7) / 2)))
