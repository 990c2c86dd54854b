"""PSNR and the evaluation's SSIM: known answers and a slow twin (SPEC 14)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from common import metrics
from common.losses import ssim_map


def test_psnr_of_a_constant_difference():
    x = torch.full((3, 7, 5), 0.25, dtype=torch.float64)
    assert metrics.psnr(x, x + 0.1).item() == pytest.approx(20.0)
    assert metrics.psnr(x, x).item() == math.inf


def test_ssim_of_an_image_with_itself_is_one():
    x = torch.rand(3, 12, 15, dtype=torch.float64)
    assert metrics.ssim(x, x).item() == pytest.approx(1.0, abs=1e-12)


def test_ssim_of_two_constants_is_the_luminance_term():
    x, y = (
        torch.full((3, 16, 12), 0.2, dtype=torch.float64),
        torch.full((3, 16, 12), 0.7, dtype=torch.float64),
    )
    expected = (2 * 0.2 * 0.7 + 1e-4) / (0.2**2 + 0.7**2 + 1e-4)
    assert metrics.ssim(x, y).item() == pytest.approx(expected, rel=1e-12)


def slow_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Mean over all pixels of one plane; positions beyond an edge are mirrored, the edge itself not repeated."""
    a, b = (np.pad(plane, 5, mode="reflect") for plane in (x, y))
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for row, column in np.ndindex(x.shape):
        p, q = (plane[row : row + 11, column : column + 11] for plane in (a, b))
        mean_p, mean_q = (window * p).sum(), (window * q).sum()
        var_p, var_q = (window * (p - mean_p) ** 2).sum(), (window * (q - mean_q) ** 2).sum()
        covariance = (window * (p - mean_p) * (q - mean_q)).sum()
        luminance = (2 * mean_p * mean_q + 1e-4) / (mean_p**2 + mean_q**2 + 1e-4)
        values.append(luminance * (2 * covariance + 9e-4) / (var_p + var_q + 9e-4))
    return float(np.mean(values))


def test_ssim_equals_its_definition_with_mirrored_borders():
    x, y = np.random.default_rng(2).random((2, 3, 14, 11))
    expected = np.mean([slow_ssim(a, b) for a, b in zip(x, y, strict=True)])
    assert metrics.ssim(torch.from_numpy(x), torch.from_numpy(y)).item() == pytest.approx(expected, rel=1e-10)


def test_evaluation_ssim_and_training_ssim_differ_only_near_the_border():
    x, y = torch.rand(2, 3, 40, 30, dtype=torch.float64)
    inner = ssim_map(x, y)[:, 5:-5, 5:-5]
    padded = torch.nn.functional.pad(torch.stack([x, y]), (5, 5, 5, 5), mode="reflect")
    mirrored = ssim_map(padded[0], padded[1])[:, 10:-10, 10:-10]
    assert_close(inner, mirrored)
    assert abs(metrics.ssim(x, y).item() - ssim_map(x, y).mean().item()) > 1e-4
