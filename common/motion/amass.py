"""Motion capture as in AMASS: `poses` of SMPL, SMPL+H or SMPL-X, `trans`, and a frame rate.

AMASS' world has z up. Its finger rotations are absolute: zero is a flat hand. BEAT2 writes the same with y up,
AIST++ under other names, Motion-X as one array.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import UserError
from common.joints import N_JOINTS
from common.motion.containers import as_array
from common.motion.entries import RATES, expressions, frame_rate
from common.motion.layouts import vectors
from common.motion.motion import Motion, from_rotation_vectors

FORMAT = "AMASS"
LAYOUTS = {165: "SMPL-X", 156: "SMPL+H", 72: "SMPL", 66: "body only"}
_PARTS = {"root_orient": 3, "pose_body": 63, "pose_jaw": 3, "pose_eye": 6, "pose_hand": 90}  # SMPL-X order
_N_BODY = 22  # joints that SMPL, SMPL+H and SMPL-X share, in this order; SMPL's two hand joints are dropped
_FIRST_FINGER = 25
_BEAT2 = {"poses", "expressions", "model"}  # together in no file of AMASS
AIST_FPS, MOTIONX_FPS = 60.0, 30.0
# Motion-X: one array of so many columns; the shape of face and body, in between, is not used.
MOTIONX_WIDTH = 322
_MOTIONX = {
    "root_orient": slice(0, 3),
    "pose_body": slice(3, 66),
    "pose_hand": slice(66, 156),
    "pose_jaw": slice(156, 159),
    "expression": slice(159, 209),
    "trans": slice(309, 312),
}


def is_amass(entries: Mapping[str, Any]) -> bool:
    """Whether a file has the keys of this format."""
    return "poses" in entries or {"root_orient", "pose_body"} <= set(entries)


def read_amass(entries: Mapping[str, Any], path: Path) -> Motion:
    """The motion in a file's entries; UserError names the file and the wrong one."""
    poses = _poses(entries, path)
    n_frames, n_values = poses.shape
    rotvec = np.zeros((n_frames, N_JOINTS, 3))
    rotvec[:, :_N_BODY] = poses[:, : 3 * _N_BODY].reshape(n_frames, _N_BODY, 3)
    if n_values == 165:
        rotvec[:, _N_BODY:] = poses[:, 66:].reshape(n_frames, N_JOINTS - _N_BODY, 3)
    elif n_values == 156:
        rotvec[:, _FIRST_FINGER:] = poses[:, 66:].reshape(n_frames, 30, 3)
    trans = np.zeros((n_frames, 3))
    if "trans" in entries:
        trans = vectors(as_array(entries["trans"], f"{path}: trans"), n_frames, f"{path}: trans", 3)
    expr = expressions(entries, n_frames, path)
    params = from_rotation_vectors(*map(torch.from_numpy, (rotvec, expr, np.array(trans))))
    return Motion(
        name=path.stem,
        format=f"{FORMAT}, {LAYOUTS[n_values]}",
        indices=tuple(range(n_frames)),
        params=params,
        up="y" if set(entries) >= _BEAT2 else "z",
        hands="flat" if n_values in (165, 156) else "relative",
        fps=frame_rate(entries, path),
    )


def is_aist(entries: Mapping[str, Any]) -> bool:
    """Whether a file has the keys of AIST++, or of programs that write its poses (EDGE)."""
    return {"smpl_poses", "smpl_trans"} <= set(entries)


def read_aist(entries: Mapping[str, Any], path: Path) -> Motion:
    """AIST++: y up, 60 frames per second; `smpl_scaling` is the person's size, in whose unit `smpl_trans` is.

    Without it (EDGE), metres and z up.
    """
    renamed: dict[str, Any] = {"poses": entries["smpl_poses"], "trans": entries["smpl_trans"]}
    renamed |= {name: entries[name] for name in RATES if name in entries}
    if "smpl_scaling" not in entries:
        return replace(read_amass(renamed, path), format="EDGE, SMPL")
    scale = as_array(entries["smpl_scaling"], f"{path}: smpl_scaling")
    if scale.size != 1 or not scale.item() > 0:
        raise UserError(f"{path}: smpl_scaling must be one number above 0")
    renamed["trans"] = as_array(renamed["trans"], f"{path}: smpl_trans") / scale.item()
    motion = read_amass(renamed, path)
    return replace(motion, format="AIST++, SMPL", up="y", fps=motion.fps or AIST_FPS)


def is_motionx(content: Any) -> bool:
    """Whether a file is one array as in Motion-X."""
    return isinstance(content, np.ndarray) and content.ndim == 2 and content.shape[1] == MOTIONX_WIDTH


def read_motionx(array: np.ndarray, path: Path) -> Motion:
    """Motion-X: y up, 30 frames per second."""
    motion = read_amass({name: array[:, columns] for name, columns in _MOTIONX.items()}, path)
    return replace(motion, format="Motion-X, SMPL-X", up="y", fps=MOTIONX_FPS)


def _poses(entries: Mapping[str, Any], path: Path) -> np.ndarray:
    """Axis-angle (T, 165, 156, 72 or 66)."""
    if "poses" in entries:
        poses = as_array(entries["poses"], f"{path}: poses")
        poses = poses.reshape(len(poses), -1) if poses.ndim > 1 else poses[None]
        if poses.shape[1] not in LAYOUTS:
            known = ", ".join(f"{n} ({name})" for n, name in LAYOUTS.items())
            raise UserError(f"{path}: poses has {poses.shape[1]} numbers a frame; known are {known}")
        return poses
    n_frames = len(as_array(entries["root_orient"], f"{path}: root_orient"))
    parts = [
        vectors(as_array(entries[name], f"{path}: {name}"), n_frames, f"{path}: {name}", size)
        if name in entries
        else np.zeros((n_frames, size))
        for name, size in _PARTS.items()
    ]
    return np.concatenate(parts if "pose_hand" in entries else parts[:2], axis=1)
