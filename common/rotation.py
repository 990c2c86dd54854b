"""The rotation functions of a training step: roma's conventions and numbers, without the 3 s that its import takes.

Importing roma 1.8 imports PyTorch's compiler. Code that training does not start with uses roma.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALL_ANGLE = 1e-6  # radians; below it a rotation is taken to first order, like in roma


def rotvec_to_rotmat(rotvec: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of axis-angle vectors (..., 3), radians: Rodrigues' formula."""
    angle = torch.linalg.vector_norm(rotvec, dim=-1, keepdim=True)
    axis = rotvec / angle.clamp_min(SMALL_ANGLE)
    angle = angle[..., None]
    eye = torch.eye(3, dtype=rotvec.dtype, device=rotvec.device)
    outer = axis[..., :, None] * axis[..., None, :]
    rotation = torch.cos(angle) * eye + torch.sin(angle) * _cross(axis) + (1 - torch.cos(angle)) * outer
    return torch.where(angle < SMALL_ANGLE, eye + _cross(rotvec), rotation)


def _cross(v: Tensor) -> Tensor:
    """Matrices (..., 3, 3) of the cross product with v (..., 3)."""
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def rotmat_to_rotvec(rotation: Tensor) -> Tensor:
    """Axis-angle vectors (..., 3), at most pi long, of rotation matrices (..., 3, 3).

    By the unit quaternion (Markley 2008): of the four multiples of it that the matrix gives, the longest.
    """
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in rotation.unbind(-2))
    # fmt: off
    multiples = torch.stack([
        1 + a - e - i, d + b, g + c, h - f,
        b + d, 1 + e - i - a, h + f, c - g,
        c + g, f + h, 1 + i - a - e, d - b,
        h - f, c - g, d - b, 1 + a + e + i,
    ], dim=-1).unflatten(-1, (4, 4))
    # fmt: on
    longest = multiples.diagonal(dim1=-2, dim2=-1).argmax(-1)
    quaternion = multiples.take_along_dim(longest[..., None, None], dim=-2).squeeze(-2)  # x, y, z, w
    quaternion = quaternion / torch.linalg.vector_norm(quaternion, dim=-1, keepdim=True)
    quaternion = torch.where(quaternion[..., 3:] > 0, quaternion, -quaternion)  # the shorter way round
    vector, w = quaternion[..., :3], quaternion[..., 3]
    half = torch.atan2(torch.linalg.vector_norm(vector, dim=-1), w)
    return (2 * _inverse_sinc(half))[..., None] * vector


def _inverse_sinc(x: Tensor) -> Tensor:
    """x / sin(x), by its series where both are small: there the quotient's derivative would be mostly rounding."""
    is_small = x.abs() < 2 * torch.finfo(x.dtype).eps ** (1 / 6)
    sine = torch.where(is_small, torch.ones_like(x), torch.sin(x))
    return torch.where(is_small, 1 + x**2 / 6 + 7 * x**4 / 360, x / sine)


def gram_schmidt(columns: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) whose first two columns are those of (..., 3, 2), orthonormalised."""
    x, y = columns.unbind(-1)
    x = x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    y = y - (x * y).sum(-1, keepdim=True) * x
    y = y / torch.linalg.vector_norm(y, dim=-1, keepdim=True)
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=-1)
