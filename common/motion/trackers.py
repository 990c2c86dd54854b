"""What trackers of people in videos write: WHAM and GVHMR a motion a person, PHALP (4D-Humans) all persons by frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.motion.containers import as_array
from common.motion.estimator import read_estimate
from common.motion.hands import HandComponents
from common.motion.motion import Motion
from common.motion.options import MotionOptions

# GVHMR: the same motion in its world (y up) and in camera space.
_WORLD, _CAMERA, _INTRINSICS = "smpl_params_global", "smpl_params_incam", "K_fullimg"
_N_ROOT = 3  # numbers of a pose that turn the root, the first ones


def is_gvhmr(entries: Mapping[str, Any]) -> bool:
    """Whether a file holds a motion of GVHMR."""
    return all(isinstance(entries.get(name), Mapping) for name in (_WORLD, _CAMERA))


def read_gvhmr(
    entries: Mapping[str, Any], path: Path, options: MotionOptions, components: HandComponents | None
) -> Motion:
    """Parameters in a world with y up, or with --up camera or --camera motion those in camera space."""
    if not _wants_camera(options):
        return replace(read_estimate(entries[_WORLD], path, components), up="y", cameras=None)
    seen = dict(entries[_CAMERA])
    if _INTRINSICS in entries:
        K = as_array(entries[_INTRINSICS], f"{path}: {_INTRINSICS}")
        if K.shape[-2:] != (3, 3):
            raise UserError(f"{path}: {_INTRINSICS} has shape {K.shape}, expected 3 x 3 or T x 3 x 3")
        seen |= {"focal": K[..., [0, 1], [0, 1]], "princpt": K[..., :2, 2]}
    return read_estimate(seen, path, components)


def is_wham(entries: Mapping[str, Any]) -> bool:
    """Whether these are one person's entries of WHAM."""
    return {"pose", "trans", "pose_world", "trans_world"} <= set(entries)


def read_wham(entries: Mapping[str, Any], path: Path, options: MotionOptions) -> Motion:
    """SMPL poses (T, 72) in a world with y up, or with --up camera those in camera space."""
    is_camera = _wants_camera(options)
    names = ("pose", "trans") if is_camera else ("pose_world", "trans_world")
    pose = as_array(entries[names[0]], f"{path}: {names[0]}")
    if pose.ndim != 2 or pose.shape[1] != 72:
        raise UserError(f"{path}: {names[0]} has shape {pose.shape}, expected T x 72")
    renamed = {
        "global_orient": pose[:, :_N_ROOT],
        "body_pose": pose[:, _N_ROOT:],
        "transl": entries[names[1]],
    }
    motion = read_estimate(renamed, path, None)
    return replace(motion, format="WHAM, SMPL", up="camera" if is_camera else "y")


def tracks_of(content: Any) -> list[tuple[int, dict[int, Mapping[str, Any]]]] | None:
    """(Frame number, parameters by person) of a file of PHALP; None if it is none."""
    if not (isinstance(content, dict) and content and all(map(_is_phalp_frame, content.values()))):
        return None
    frames: list[tuple[int, dict[int, Mapping[str, Any]]]] = []
    for frame in content.values():
        persons: dict[int, Mapping[str, Any]] = {}
        for person, body, place in zip(frame["tid"], frame["smpl"], frame["camera"], strict=False):
            if type(person) is int and isinstance(body, Mapping):
                persons[person] = {**body, "transl": place}
        frames.append((frame["time"], persons))
    return sorted(frames, key=lambda frame: frame[0])


def _is_phalp_frame(frame: Any) -> bool:
    if not (isinstance(frame, Mapping) and type(frame.get("time")) is int):
        return False
    return all(isinstance(frame.get(name), list) for name in ("tid", "smpl", "camera"))


def _wants_camera(options: MotionOptions) -> bool:
    return options.up == "camera" or options.camera == "motion"
