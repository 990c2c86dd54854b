"""Finding out which format a motion is in, and reading it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.motion.amass import is_amass, read_amass
from common.motion.containers import READERS, as_array, describe, read_content
from common.motion.estimator import is_estimate, read_estimate
from common.motion.folder import is_motion_folder, read_motion_folder
from common.motion.hands import HandComponents
from common.motion.motion import Motion, joined
from common.motion.options import MotionOptions, check_options

logger = logging.getLogger(__name__)

KNOWN = (
    "a folder with smplx/params/<i>.json and cam_params/<i>.json; "
    "AMASS .npz (poses of 165, 156 or 72 numbers a frame and trans, or root_orient, pose_body, ...); "
    "SMPL-X parameters in .npz, .json, .pkl or .pt (global_orient, body_pose, ...), stacked, as a list of frames, "
    "or as a folder with one file a frame"
)
# Entries of a file that holds the same motion in its world (y up) and in camera space.
_WORLD, _CAMERA, _INTRINSICS = "smpl_params_global", "smpl_params_incam", "K_fullimg"
_FRAME = re.compile(r"(?:.*?)(\d+)")
_FRAME_AND_PERSON = re.compile(r"(\d+)_(\d+)")


def load_motion(
    path: Path,
    options: MotionOptions | None = None,
    with_background: bool = False,
    components: HandComponents | None = None,
) -> Motion:
    """Read a motion of any known format (docs/motion.md); UserError names what is wrong, or the known formats.

    `with_background`: a motion folder's background images are checked and listed. `components` expands principal
    components of hands. Which part is played, at which rate, is for `common.motion.stage`.
    """
    options = options or MotionOptions()
    check_options(options)
    if not path.exists():
        raise UserError(f"--motion_path {path} is not a folder or file; known formats: {KNOWN}")
    if path.is_dir() and is_motion_folder(path):
        motion = read_motion_folder(path, options, with_background)
    elif with_background:
        raise UserError(f"--use_bkg: {path} is no motion folder with images_bkg; leave the option out")
    else:
        read = _read_frame_files if path.is_dir() else _read_file
        motion = _as_said(read(path, options, components), options)
    if options.hands != "auto":
        motion = replace(motion, hands=options.hands)
    logger.info("motion %s: %s, %d frames, up %s", path, motion.format, len(motion), motion.up)
    return motion


def _as_said(motion: Motion, options: MotionOptions) -> Motion:
    """The motion with the up axis of the options; camera parameters are of no use in another world."""
    if options.up == "auto" or options.up == motion.up:
        return motion
    return replace(motion, up=options.up, cameras=motion.cameras if options.up == "camera" else None)


def _read_file(path: Path, options: MotionOptions, components: HandComponents | None) -> Motion:
    if path.suffix.lower() not in READERS:
        raise UserError(
            f"{path} is in no known motion format: its name ends in {path.suffix!r}; known: {KNOWN}"
        )
    content = read_content(path)
    motion = _read_content(content, path, options, components)
    return replace(motion, name=path.stem)


def _read_content(
    content: Any, path: Path, options: MotionOptions, components: HandComponents | None
) -> Motion:
    """The motion in a file's content: one set of entries, several frames, or several persons."""
    if isinstance(content, Mapping):
        if is_amass(content):
            return read_amass(content, path)
        if is_estimate(content):
            return read_estimate(content, path, components)
        if all(isinstance(content.get(name), Mapping) for name in (_WORLD, _CAMERA)):
            return _read_world_and_camera(content, path, options, components)
        nested = {key: value for key, value in _values(content) if _is_known(value)}
        if len(nested) == 1:
            return _read_content(next(iter(nested.values())), path, options, components)
        if nested and all(str(key).isdigit() for key in nested):
            numbered = sorted((int(key), value) for key, value in nested.items())
            motions = [(i, _read_content(value, path, options, components)) for i, value in numbered]
            if all(len(motion) == 1 for _, motion in motions):
                return joined(motions, path.stem)
            return _one_person(dict(motions), options, path)
        if nested:
            raise UserError(f"{path} holds several motions: {', '.join(map(str, nested))}; save one of them")
    if isinstance(content, list | tuple) and content and all(map(_is_known, content)):
        frames = [_read_content(entries, path, options, components) for entries in content]
        if any(len(frame) != 1 for frame in frames):
            raise UserError(f"{path} is a list of motions; save one of them")
        return joined(list(enumerate(frames)), path.stem)
    raise UserError(f"{path} is in no known motion format: it holds {describe(content)}; known: {KNOWN}")


def _values(content: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    """A mapping's items; files of bare arrays have no nested ones and are not read for this."""
    return list(content.items()) if isinstance(content, dict) else []


def _is_known(value: Any) -> bool:
    return isinstance(value, Mapping) and (is_amass(value) or is_estimate(value))


def _read_world_and_camera(
    content: Mapping[str, Any], path: Path, options: MotionOptions, components: HandComponents | None
) -> Motion:
    """Parameters in a world with y up, or with --up camera or --camera motion those in camera space."""
    if options.up != "camera" and options.camera != "motion":
        return replace(read_estimate(content[_WORLD], path, components), up="y", cameras=None)
    entries = dict(content[_CAMERA])
    if _INTRINSICS in content:
        K = as_array(content[_INTRINSICS], f"{path}: {_INTRINSICS}")
        if K.shape[-2:] != (3, 3):
            raise UserError(f"{path}: {_INTRINSICS} has shape {K.shape}, expected 3 x 3 or T x 3 x 3")
        entries |= {"focal": K[..., [0, 1], [0, 1]], "princpt": K[..., :2, 2]}
    return read_estimate(entries, path, components)


def _read_frame_files(folder: Path, options: MotionOptions, components: HandComponents | None) -> Motion:
    """A folder with one file a frame, `<frame>.<suffix>` or `<frame>_<person>.<suffix>`."""
    inner = folder / "smplx"
    files = _numbered_files(inner if inner.is_dir() else folder)
    if not files:
        found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:10]) or "nothing"
        raise UserError(f"{folder} is in no known motion format: it holds {found}; known: {KNOWN}")
    suffixes = sorted({path.suffix.lower() for by_frame in files.values() for path in by_frame.values()})
    if len(suffixes) > 1:
        raise UserError(f"{folder} has frames as {' and '.join(suffixes)}; keep those of one kind")
    person = _choose_person(sorted(files), options, folder)
    frames = []
    for index, path in sorted(files[person].items()):
        motion = _read_content(read_content(path), path, options, components)
        if len(motion) != 1:
            raise UserError(f"{path} has {len(motion)} frames; expected one in each file of a folder")
        frames.append((index, motion))
    return joined(frames, folder.resolve().name)


def _numbered_files(folder: Path) -> dict[int, dict[int, Path]]:
    """Files by person and frame."""
    files: dict[int, dict[int, Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in READERS or not path.is_file():
            continue
        both, frame = _FRAME_AND_PERSON.fullmatch(path.stem), _FRAME.fullmatch(path.stem)
        if both:
            files.setdefault(int(both[2]), {})[int(both[1])] = path
        elif frame:
            files.setdefault(0, {})[int(frame[1])] = path
    return files


def _one_person(motions: dict[int, Motion], options: MotionOptions, path: Path) -> Motion:
    return motions[_choose_person(sorted(motions), options, path)]


def _choose_person(persons: list[int], options: MotionOptions, path: Path) -> int:
    names = ", ".join(map(str, persons))
    if options.person is None:
        if len(persons) > 1:
            logger.info("%s has the persons %s; the first is taken, --person takes another", path, names)
        return persons[0]
    if options.person not in persons:
        raise UserError(f"--person {options.person}: {path} has the persons {names}")
    return options.person
