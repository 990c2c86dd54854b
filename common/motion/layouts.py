"""The array layouts in which rotations of joints are written: flat or not, axis-angle or matrices."""

from __future__ import annotations

import numpy as np
import torch

from common.errors import UserError
from common.rotation import rotmat_to_rotvec

N_BODY = 21
_BODY_JOINTS = (21, 23)  # SMPL-X; SMPL, whose last two are the hands
_ROTATION_TOLERANCE = 2e-2  # files round their digits
_MIN_COMPONENTS = 6  # of a hand; the smplx package's default


def body_rotations(array: np.ndarray, where: str) -> np.ndarray:
    """Axis-angle (T, 21, 3) of the body joints, from (..., 63), (..., 21, 3), (..., 21, 3, 3) or 23 joints."""
    for n in _BODY_JOINTS:
        is_matrix = array.shape[-3:] == (n, 3, 3) or array.shape[-1:] == (9 * n,)
        if is_matrix:
            return rotvec_of_matrices(array.reshape(-1, n, 3, 3), where)[:, :N_BODY]
        if array.shape[-2:] == (n, 3) or array.shape[-1:] == (3 * n,):
            return array.reshape(-1, n, 3)[:, :N_BODY]
    raise UserError(
        f"{where} has shape {array.shape}, expected T x 63, T x 21 x 3 or T x 21 x 3 x 3 (or 69 and 23 with SMPL)"
    )


def joint_rotations(array: np.ndarray, n_joints: int, n_frames: int, where: str) -> np.ndarray | None:
    """Axis-angle (T, n_joints, 3) of joints in T frames, or of one frame that stands for all; None: no rotations."""
    for frames in (n_frames, 1):
        if array.size == frames * n_joints * 3 and _is_laid_out(array, frames, n_joints * 3):
            return np.broadcast_to(array.reshape(frames, n_joints, 3), (n_frames, n_joints, 3))
        if array.size == frames * n_joints * 9 and _is_laid_out(array, frames, n_joints * 9):
            rotvec = rotvec_of_matrices(array.reshape(frames, n_joints, 3, 3), where)
            return np.broadcast_to(rotvec, (n_frames, n_joints, 3))
    return None


def is_matrices(array: np.ndarray, n_joints: int, n_frames: int) -> bool:
    """Whether `joint_rotations` reads rotation matrices."""
    sizes = {frames * n_joints * count: count for frames in (1, n_frames) for count in (9, 3)}
    return sizes.get(array.size) == 9


def hand_components(array: np.ndarray, n_frames: int) -> np.ndarray | None:
    """Principal components (T, k) of one hand in T frames, or None if it is not that."""
    for frames in (n_frames, 1):
        count = array.size // frames
        if array.size == frames * count and _MIN_COMPONENTS <= count < 45 and array.shape[-1] == count:
            return np.broadcast_to(array.reshape(frames, count), (n_frames, count))
    return None


def vectors(array: np.ndarray, n_frames: int, where: str, size: int | None = None) -> np.ndarray:
    """Rows (T, k) of T frames, or one row for all; `size` is k where it is known."""
    for frames in (n_frames, 1):
        count = array.size // frames
        if array.size == frames * count and (size is None or count == size) and array.shape[-1] == count:
            return np.broadcast_to(array.reshape(frames, count), (n_frames, count))
    raise UserError(f"{where} has shape {array.shape}, expected {n_frames} x {size or 'any number'}")


def rotvec_of_matrices(matrices: np.ndarray, where: str) -> np.ndarray:
    """Axis-angle (..., 3) of rotation matrices (..., 3, 3); UserError if they are none."""
    deviation = np.abs(matrices @ np.swapaxes(matrices, -1, -2) - np.eye(3)).max()
    if deviation > _ROTATION_TOLERANCE or (np.linalg.det(matrices) < 0).any():
        raise UserError(f"{where} has shape {matrices.shape} but holds no rotation matrices")
    left, _, right = np.linalg.svd(matrices)  # the nearest rotations; torch is slow on matrices of one frame
    return rotmat_to_rotvec(torch.from_numpy(left @ right)).numpy()


def _is_laid_out(array: np.ndarray, n_frames: int, n_values: int) -> bool:
    """Whether the frames are the leading axes: a product of leading axes is T, of the others the values."""
    leading = np.cumprod((1, *array.shape))
    return n_frames in leading and leading[-1] == n_frames * n_values
