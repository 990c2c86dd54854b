"""The arrays of one body model, as read from files and kept in one safe .npz (SPEC 7, 16)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BodyData:
    """Everything the system needs of a body in SMPL-X form; V vertices, F faces, 55 joints, any V and F."""

    v_template: np.ndarray  # (V, 3) float32, metres; x body's left, y up, z forward
    faces: np.ndarray  # (F, 3) int64
    shape_dirs: np.ndarray  # (V, 3, n_shape <= 100) float32
    expr_dirs: np.ndarray  # (V, 3, 50) float32, face vertices already FLAME's
    pose_dirs: np.ndarray  # (V, 3, 486) float32, or (V, 3, 0) for a body without pose blend shapes
    joint_regressor: np.ndarray  # (55, V) float32
    skinning_weights: np.ndarray  # (V, 55) float32, rows sum to 1
    parents: np.ndarray  # (55,) int64, root -1
    left_hand_mean: np.ndarray  # (15, 3) float32 axis-angle
    right_hand_mean: np.ndarray  # (15, 3) float32 axis-angle
    vertex_uv: np.ndarray  # (U, 2) float32 in [0, 1], v already flipped (v' = 1 - v)
    face_uv: np.ndarray  # (F, 3) int64 into vertex_uv
    left_hand_vertices: np.ndarray  # (.,) int64
    right_hand_vertices: np.ndarray  # (.,) int64
    expression_vertices: np.ndarray  # (.,) int64, the FLAME rule of SPEC 7 applied

    @property
    def n_vertices(self) -> int:
        """Number of low-resolution vertices V."""
        return self.v_template.shape[0]
