"""SMPL-X parameters as written by pose estimators: `global_orient`, `body_pose`, ..., stacked or frame by frame.

They are in camera space unless the file says otherwise. Axis-angle finger rotations are relative to the mean hand
(the smplx package's flat_hand_mean=False); rotation matrices are absolute (its layers add no mean to matrices).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.camera import Camera
from common.errors import UserError
from common.joints import JOINTS, N_JOINTS
from common.motion.containers import as_array
from common.motion.entries import expressions, frame_rate
from common.motion.hands import HandComponents
from common.motion.layouts import (
    body_rotations,
    hand_components,
    is_matrices,
    joint_rotations,
    rotvec_of_matrices,
    vectors,
)
from common.motion.motion import Motion, from_rotation_vectors
from common.motion.options import check_render_size

FORMAT = "SMPL-X parameters"
# Names in use for each entry, the smplx package's first.
NAMES = {
    "root": ("global_orient", "root_pose", "global_pose", "smplx_root_pose", "global_rot"),
    "body": ("body_pose", "smplx_body_pose"),
    "jaw": ("jaw_pose", "smplx_jaw_pose"),
    "leye": ("leye_pose", "left_eye_pose"),
    "reye": ("reye_pose", "right_eye_pose"),
    "left_hand": ("left_hand_pose", "lhand_pose", "smplx_lhand_pose"),
    "right_hand": ("right_hand_pose", "rhand_pose", "smplx_rhand_pose"),
    "trans": ("transl", "trans", "translation"),
    "camera_trans": ("camera_translation", "cam_trans", "pred_cam_t", "cam_t"),
    "camera_rotation": ("camera_rotation",),
    "focal": ("focal", "focal_length"),
    "princpt": ("princpt", "principal_point", "camera_center"),
}
_SINGLE = {"jaw": "jaw", "leye": "left_eye", "reye": "right_eye"}
_FIRST_FINGER = {"left": 25, "right": 40}


def is_estimate(entries: Mapping[str, Any]) -> bool:
    """Whether a file has the keys of this format."""
    return all(any(name in entries for name in NAMES[part]) for part in ("root", "body"))


def read_estimate(entries: Mapping[str, Any], path: Path, components: HandComponents | None) -> Motion:
    """The motion, of one or more frames, in a file's entries; UserError names the file and the wrong one."""
    reader = _Entries(entries, path)
    body = body_rotations(*reader.required("body"))
    n_frames = len(body)
    rotvec = np.zeros((n_frames, N_JOINTS, 3))
    rotvec[:, 1:22] = body
    rotvec[:, 0] = reader.joint("root", n_frames)
    for part, joint in _SINGLE.items():
        rotvec[:, JOINTS.index(joint)] = reader.joint(part, n_frames)
    are_absolute = []
    for side, first in _FIRST_FINGER.items():
        fingers, is_absolute = reader.hand(side, n_frames, components)
        rotvec[:, first : first + 15] = fingers
        are_absolute.append(is_absolute)
    trans = reader.translation(n_frames)
    expr = expressions(entries, n_frames, path)
    given = {absolute for absolute in are_absolute if absolute is not None}
    if len(given) > 1:
        raise UserError(f"{path}: one hand is in rotation matrices, the other is not; write both alike")
    return Motion(
        name=path.stem,
        format=FORMAT,
        indices=tuple(range(n_frames)),
        params=from_rotation_vectors(*map(torch.from_numpy, (rotvec, expr, trans))),
        hands="flat" if given == {True} else "relative",
        fps=frame_rate(entries, path),
        cameras=reader.cameras(n_frames),
    )


class _Entries:
    """A file's entries under all their names."""

    def __init__(self, entries: Mapping[str, Any], path: Path) -> None:
        self._entries, self._path = entries, path

    def optional(self, part: str) -> tuple[np.ndarray, str] | None:
        """The array of a part and how to call it in messages; None if it is not there."""
        for name in NAMES[part]:
            if name in self._entries and self._entries[name] is not None:
                where = f"{self._path}: {name}"
                return as_array(self._entries[name], where), where
        return None

    def required(self, part: str) -> tuple[np.ndarray, str]:
        found = self.optional(part)
        if found is None:
            raise UserError(f"{self._path} lacks {NAMES[part][0]}")
        return found

    def joint(self, part: str, n_frames: int) -> np.ndarray:
        """Axis-angle (T, 3) of one joint, zero where it is not given."""
        found = self.optional(part)
        if found is None:
            return np.zeros((n_frames, 3))
        rotvec = joint_rotations(found[0], 1, n_frames, found[1])
        if rotvec is None:
            raise UserError(
                f"{found[1]} has shape {found[0].shape}, expected {n_frames} x 3 or x 3 x 3 (body_pose's frames)"
            )
        return rotvec[:, 0]

    def hand(
        self, side: str, n_frames: int, components: HandComponents | None
    ) -> tuple[np.ndarray, bool | None]:
        """Axis-angle (T, 15, 3) and whether it is absolute; zero and None where it is not given."""
        found = self.optional(f"{side}_hand")
        if found is None:
            return np.zeros((n_frames, 15, 3)), None
        array, where = found
        rotvec = joint_rotations(array, 15, n_frames, where)
        if rotvec is not None:
            return rotvec, is_matrices(array, 15, n_frames)
        coefficients = hand_components(array, n_frames)
        if coefficients is None:
            raise UserError(
                f"{where} has shape {array.shape}, expected {n_frames} x 45, x 15 x 3, x 15 x 3 x 3, or 6 to 44 "
                "principal components"
            )
        if components is None:
            raise UserError(f"{where}: principal components of a hand need the body's files")
        return components.expand(coefficients, side, where), False

    def translation(self, n_frames: int) -> np.ndarray:
        """Translation (T, 3) in camera space: the body's, and the camera's where it is given apart."""
        trans = np.zeros((n_frames, 3))
        for part in ("trans", "camera_trans"):
            found = self.optional(part)
            if found is not None:
                trans = trans + vectors(found[0], n_frames, found[1], 3)
        rotation = self.optional("camera_rotation")
        if rotation is not None:
            if rotation[0].shape[-2:] != (3, 3):
                raise UserError(f"{rotation[1]} has shape {rotation[0].shape}, expected 3 x 3 or T x 3 x 3")
            rotvec = rotvec_of_matrices(rotation[0].reshape(-1, 3, 3), rotation[1])
            if np.abs(rotvec).max() > 1e-3:
                raise UserError(
                    f"{rotation[1]} is not the identity; turn the parameters into camera space before saving them"
                )
        return trans

    def cameras(self, n_frames: int) -> tuple[Camera, ...] | None:
        """Cameras, if focal length, principal point (taken as the image's centre) and a translation are given."""
        focal, princpt = self.optional("focal"), self.optional("princpt")
        has_place = any(self.optional(part) is not None for part in ("trans", "camera_trans"))
        if focal is None or princpt is None or not has_place:
            return None
        if focal[0].size in (1, n_frames):
            focal = np.repeat(focal[0].reshape(-1, 1), 2, axis=1), focal[1]
        focals, centres = vectors(*_rows(focal, n_frames), 2), vectors(*_rows(princpt, n_frames), 2)
        if (focals <= 0).any() or (centres <= 0).any():
            raise UserError(f"{self._path}: focal and principal point must be positive pixels")
        width, height = (max(1, round(n)) for n in (2 * centres[0]).tolist())
        check_render_size(self._path, height, width)
        return tuple(
            Camera.identity((float(f[0]), float(f[1])), (float(c[0]), float(c[1])), height, width)
            for f, c in zip(focals, centres, strict=True)
        )


def _rows(found: tuple[np.ndarray, str], n_frames: int) -> tuple[np.ndarray, int, str]:
    return found[0], n_frames, found[1]
