"""Parameters as EasyMocap writes them: `Rh`, `Th`, `poses`, one file a frame with all persons in it.

Its bodies turn about the origin of the body model instead of the pelvis: x = R x0 + Th.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.motion.containers import as_array
from common.motion.estimator import read_estimate
from common.motion.hands import HandComponents
from common.motion.motion import Motion

FORMAT = "EasyMocap"
_N_BODY = 66
_PARTS = {
    "left_hand_pose": slice(66, 72),
    "right_hand_pose": slice(72, 78),
    "jaw_pose": slice(78, 81),
    "leye_pose": slice(81, 84),
    "reye_pose": slice(84, 87),
}
_LAYOUTS = {72: "SMPL", 78: "SMPL+H", 87: "SMPL-X"}  # hands as 6 principal components each


def is_easymocap(entries: Any) -> bool:
    """Whether these are one person's parameters in this format."""
    return isinstance(entries, Mapping) and {"Rh", "Th", "poses"} <= set(entries)


def persons_of(content: Any) -> dict[int, Mapping[str, Any]] | None:
    """One frame's persons by their id, if a file's content is a list of such parameters (or has it as `annots`)."""
    if isinstance(content, Mapping) and isinstance(content.get("annots"), list):
        content = content["annots"]
    if not (isinstance(content, list) and content and all(map(is_easymocap, content))):
        return None
    ids = [entries.get("id", i) for i, entries in enumerate(content)]
    if not all(type(i) is int for i in ids) or len(set(ids)) < len(ids):
        return None
    return dict(zip(ids, content, strict=True))


def read_easymocap(entries: Mapping[str, Any], path: Path, components: HandComponents | None) -> Motion:
    """The motion, of one or more frames, of one person; UserError names the file and the wrong entry."""
    poses = np.atleast_2d(as_array(entries["poses"], f"{path}: poses"))
    if poses.ndim != 2 or poses.shape[1] not in _LAYOUTS:
        known = ", ".join(f"{n} ({name})" for n, name in _LAYOUTS.items())
        raise UserError(f"{path}: poses has shape {poses.shape}; known are frames of {known} numbers")
    if np.abs(poses[:, :3]).max() > 1e-6:
        raise UserError(f"{path}: the first 3 numbers of poses must be zero, because Rh turns the body")
    renamed: dict[str, Any] = {
        "global_orient": entries["Rh"],
        "body_pose": poses[:, 3:_N_BODY],
        "transl": entries["Th"],
    }
    if poses.shape[1] > 72:
        renamed |= {name: poses[:, part] for name, part in _PARTS.items() if part.stop <= poses.shape[1]}
    if "expression" in entries:
        renamed["expression"] = entries["expression"]
    motion = read_estimate(renamed, path, components)
    return replace(motion, format=f"{FORMAT}, {_LAYOUTS[poses.shape[1]]}", up="z", pivot="origin")
