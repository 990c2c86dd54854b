"""Rotation functions give roma's numbers and gradients, at angles zero, tiny and near pi too."""

from __future__ import annotations

import math

import pytest
import roma
import torch
from torch import Tensor

from common.rotation import gram_schmidt, rotmat_to_rotvec, rotvec_to_rotmat

ANGLES = (0.0, 1e-12, 1e-7, 9e-7, 1.1e-6, 1e-4, 0.2, 0.3, 1.0, 2.5, 3.1, math.pi - 1e-5)


def rotvecs(dtype: torch.dtype, angles: tuple[float, ...] = ANGLES) -> Tensor:
    """Axis-angle vectors (angles, 40, 3) of each of the angles about random axes."""
    axes = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    axes = torch.cat([torch.eye(3, dtype=torch.float64), axes])[:40]
    axes = torch.nn.functional.normalize(axes, dim=1)
    return (torch.tensor(angles, dtype=torch.float64)[:, None, None] * axes).to(dtype)


def with_gradient(function, x: Tensor) -> tuple[Tensor, Tensor]:
    """Values, and the gradient of a fixed weighted sum of them."""
    x = x.clone().requires_grad_()
    value = function(x)
    weight = torch.randn(value.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((value * weight.to(value)).sum(), x)
    return value.detach(), gradient


def assert_same(ours, theirs, x: Tensor) -> None:
    tolerance = 200 * torch.finfo(x.dtype).eps
    for mine, its in zip(with_gradient(ours, x), with_gradient(theirs, x), strict=True):
        assert torch.isfinite(mine).all()
        torch.testing.assert_close(mine, its, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rotation_vectors_become_the_matrices_of_roma(dtype):
    assert_same(rotvec_to_rotmat, roma.rotvec_to_rotmat, rotvecs(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matrices_become_the_rotation_vectors_of_roma(dtype):
    assert_same(rotmat_to_rotvec, roma.rotmat_to_rotvec, roma.rotvec_to_rotmat(rotvecs(dtype)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_columns_become_the_matrices_of_roma(dtype):
    columns = torch.randn(5, 50, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert_same(gram_schmidt, roma.special_gramschmidt, columns.to(dtype))


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 1, 3)])
def test_any_number_of_dimensions(shape):
    x = torch.full(shape, 0.3)
    rotation = rotvec_to_rotmat(x)
    assert rotation.shape == (*shape, 3)
    torch.testing.assert_close(rotmat_to_rotvec(rotation), x)
    torch.testing.assert_close(gram_schmidt(rotation[..., :2]), rotation)


def test_there_and_back_below_pi():
    x = rotvecs(torch.float64)[2:-1]
    torch.testing.assert_close(rotmat_to_rotvec(rotvec_to_rotmat(x)), x, rtol=1e-9, atol=1e-12)


def test_gradients_are_the_derivatives():
    x = rotvecs(torch.float64, (1e-3, 0.1, 0.3, 1.0, 2.5, 3.1))[:, :8].requires_grad_()
    assert torch.autograd.gradcheck(rotvec_to_rotmat, x)
    rotation = rotvec_to_rotmat(x.detach()).requires_grad_()
    assert torch.autograd.gradcheck(rotmat_to_rotvec, rotation, atol=1e-4)
    assert torch.autograd.gradcheck(gram_schmidt, rotation.detach()[..., :2].requires_grad_())


def test_gradient_at_no_rotation():
    zero = torch.zeros(3, dtype=torch.float64)
    turned = torch.autograd.functional.jacobian(rotvec_to_rotmat, zero)
    back = torch.autograd.functional.jacobian(rotmat_to_rotvec, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(torch.einsum("aij,ijb->ab", back, turned), torch.eye(3, dtype=torch.float64))
