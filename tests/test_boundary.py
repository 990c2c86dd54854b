"""Depth-boundary maps against slow twins and known answers (SPEC 11)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from common.boundary import boundary_map, dilate, dilation_kernel_size, sobel_magnitude


def slow_sobel(image: np.ndarray) -> np.ndarray:
    """Mean over channels of the gradient's norm, pixel by pixel; the border is repeated."""
    kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge")
    n_channels, height, width = image.shape
    magnitude = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            windows = padded[:, i : i + 3, j : j + 3]
            gradients = [[(window * k).sum() for k in (kernel, kernel.T)] for window in windows]
            magnitude[i, j] = np.linalg.norm(gradients, axis=1).sum() / n_channels
    return magnitude


def test_sobel_magnitude_equals_plain_loops():
    image = torch.rand(3, 7, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert_close(sobel_magnitude(image), torch.from_numpy(slow_sobel(image.numpy())), atol=1e-12, rtol=0)


def test_sobel_magnitude_of_a_ramp_is_its_slope():
    ramp = torch.arange(9.0).expand(2, 6, 9) * 0.25
    assert_close(sobel_magnitude(ramp)[:, 1:-1], torch.full((6, 7), 0.25))


@pytest.mark.parametrize("size", [0, 1, 3, 5])
def test_dilation_equals_plain_loops(size):
    mask = (torch.rand(1, 8, 13, generator=torch.Generator().manual_seed(1)) > 0.9).float()
    reach = max(size // 2, 0)
    expected = torch.zeros_like(mask)
    for _, i, j in mask.nonzero().tolist():
        expected[:, max(i - reach, 0) : i + reach + 1, max(j - reach, 0) : j + reach + 1] = 1
    assert torch.equal(dilate(mask, size), expected)


@pytest.mark.parametrize(
    ("height", "width", "ratio", "expected"),
    [
        (200, 30, 0.015, 3),  # 3
        (30, 267, 0.015, 5),  # 4.005 -> 4, made odd
        (100, 100, 0.015, 3),  # 1.5 -> 2 (to the even number), made odd
        (100, 40, 0.025, 3),  # 2.5 -> 2 (to the even number), made odd
        (60, 60, 0.06, 5),  # 3.6 -> 4, made odd
        (20, 10, 0.015, 1),  # 0.3 -> 0, made odd
    ],
)
def test_kernel_size_follows_the_larger_side_of_the_box(height, width, ratio, expected):
    mask = torch.zeros(1, 300, 320)
    mask[0, 40 : 40 + height, 20 : 20 + width] = 0.95
    mask[0, 0, 0] = 0.9  # not above the threshold
    assert dilation_kernel_size(mask, ratio) == expected


def test_an_empty_mask_has_no_dilation():
    assert dilation_kernel_size(torch.full((1, 8, 8), 0.9), 0.5) == 0


def test_the_face_is_taken_out_before_the_dilation():
    positions = torch.zeros(3, 21, 31)
    positions[:, :, 10:] = 1.0  # a step, seen in columns 9 and 10
    face = torch.zeros(1, 21, 31)
    face[:, 5:16] = 1.0
    mask = torch.ones(1, 21, 31)
    result = boundary_map(positions, mask, face, threshold=0.02, ratio=0.1)  # 3.1 -> 3
    expected = torch.zeros(1, 21, 31)
    expected[:, :6, 8:12] = 1.0  # one row of the dilation reaches into the face
    expected[:, 15:, 8:12] = 1.0
    assert torch.equal(result, expected)


def test_a_boundary_map_is_a_constant():
    positions = torch.rand(3, 6, 8, requires_grad=True)
    result = boundary_map(positions, torch.ones(1, 6, 8), torch.zeros(1, 6, 8), 0.02, 0.1)
    assert not result.requires_grad
    assert set(result.unique().tolist()) <= {0.0, 1.0}
