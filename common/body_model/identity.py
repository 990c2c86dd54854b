"""Who the body is: shape coefficients and the offsets of face vertices and joints (SPEC 3, 7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from common.joints import N_JOINTS, N_SHAPE


@dataclass(frozen=True)
class Identity:
    """One person's identity in the rest pose; metres."""

    shape: Tensor  # (100,)
    face_offset: Tensor  # (V, 3), added to the template
    joint_offset: Tensor  # (55, 3), added to the regressed joints

    def __post_init__(self) -> None:
        shapes = tuple(self.shape.shape), tuple(self.joint_offset.shape), tuple(self.face_offset.shape[1:])
        if shapes != ((N_SHAPE,), (N_JOINTS, 3), (3,)):
            raise ValueError(f"identity of shapes {shapes}, expected (({N_SHAPE},), ({N_JOINTS}, 3), (3,))")

    def to(self, *args: Any) -> Identity:
        """The same identity on another device or dtype."""
        return Identity(self.shape.to(*args), self.face_offset.to(*args), self.joint_offset.to(*args))

    @staticmethod
    def zeros(n_vertices: int) -> Identity:
        """The template itself, for a body of V vertices."""
        return Identity(torch.zeros(N_SHAPE), torch.zeros(n_vertices, 3), torch.zeros(N_JOINTS, 3))
