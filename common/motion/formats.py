"""Finding out which format a motion is in, and reading it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.motion.amass import is_aist, is_amass, is_motionx, read_aist, read_amass, read_motionx
from common.motion.containers import READERS, as_array, describe, read_content
from common.motion.easymocap import is_easymocap, persons_of, read_easymocap
from common.motion.estimator import is_estimate, read_estimate
from common.motion.folder import is_motion_folder, read_motion_folder
from common.motion.hands import HandComponents
from common.motion.motion import Motion, joined
from common.motion.options import MotionOptions, check_options
from common.motion.trackers import is_gvhmr, is_wham, read_gvhmr, read_wham, tracks_of

logger = logging.getLogger(__name__)

KNOWN = (
    "a folder with smplx/params/<i>.json and cam_params/<i>.json; "
    "AMASS .npz (poses of 165, 156 or 72 numbers a frame and trans, or root_orient, pose_body, ...); "
    "AIST++ .pkl (smpl_poses, smpl_trans); Motion-X .npy (T x 322); "
    "WHAM, GVHMR or PHALP results in .pkl or .pt; EasyMocap .json (Rh, Th, poses), one a frame; "
    "SMPL-X parameters in .npz, .json, .pkl or .pt (global_orient, body_pose, ...), stacked, as a list of frames, "
    "or as a folder with one file a frame"
)
_INNER_FOLDERS = ("smplx", "results")  # of SMPLer-X and X-Humans, of SMPLify-X
_FRAME = re.compile(r".*?(\d+)[^\d]*")
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
    try:
        is_there = path.exists()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check --motion_path") from error
    if not is_there:
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
    if is_motionx(content):
        return read_motionx(as_array(content, str(path)), path)
    tracks = tracks_of(content)
    if tracks is None and (persons := persons_of(content)):
        tracks = [(0, persons)]
    if tracks is not None:
        return _read_tracks(tracks, path, options, components)
    if isinstance(content, Mapping):
        if is_easymocap(content):
            return read_easymocap(content, path, components)
        if is_amass(content):
            return read_amass(content, path)
        if is_aist(content):
            return read_aist(content, path)
        if is_wham(content):
            return read_wham(content, path, options)
        if is_gvhmr(content):
            return read_gvhmr(content, path, options, components)
        if is_estimate(content):
            return read_estimate(content, path, components)
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
    kinds = (is_easymocap, is_amass, is_aist, is_wham, is_estimate)
    return isinstance(value, Mapping) and any(is_kind(value) for is_kind in kinds)


def _read_tracks(
    frames: Sequence[tuple[int, Mapping[int, Mapping[str, Any]]]],
    path: Path,
    options: MotionOptions,
    components: HandComponents | None,
) -> Motion:
    """One person's motion of (frame number, entries by person); frames without the person are left out."""
    person = _choose_person(sorted({person for _, persons in frames for person in persons}), options, path)
    found = [(number, persons[person]) for number, persons in frames if person in persons]
    motions = [(number, _read_content(entries, path, options, components)) for number, entries in found]
    if any(len(motion) != 1 for _, motion in motions):
        raise UserError(f"{path}: person {person} has several poses in one frame")
    return joined(motions, path.resolve().stem)


def _read_frame_files(folder: Path, options: MotionOptions, components: HandComponents | None) -> Motion:
    """A folder with one file a frame, `<frame>.<suffix>` or `<frame>_<person>.<suffix>`."""
    inner = [entry for entry in folder.iterdir() if entry.name.lower() in _INNER_FOLDERS and entry.is_dir()]
    files = _numbered_files(inner[0] if inner else folder)
    if not files:
        found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:10]) or "nothing"
        raise UserError(f"{folder} is in no known motion format: it holds {found}; known: {KNOWN}")
    suffixes = sorted({path.suffix.lower() for by_frame in files.values() for path in by_frame.values()})
    if len(suffixes) > 1:
        raise UserError(f"{folder} has frames as {' and '.join(suffixes)}; keep those of one kind")
    if len(files) == 1:
        contents = [(i, read_content(path)) for i, path in sorted(next(iter(files.values())).items())]
        frames_of_persons = [(i, persons_of(content)) for i, content in contents]
        if all(persons is not None for _, persons in frames_of_persons):
            return _read_tracks(
                [(i, persons or {}) for i, persons in frames_of_persons], folder, options, components
            )
    person = _choose_person(sorted(files), options, folder)
    frames = []
    for index, path in sorted(files[person].items()):
        motion = _read_content(read_content(path), path, options, components)
        if len(motion) != 1:
            raise UserError(f"{path} has {len(motion)} frames; expected one in each file of a folder")
        frames.append((index, motion))
    return joined(frames, folder.resolve().name)


def _numbered_files(folder: Path) -> dict[int, dict[int, Path]]:
    """Files by person and frame: of a folder, or of its numbered folders, which hold a file a person."""
    files: dict[int, dict[int, Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in READERS or not path.is_file():
            continue
        both, frame = _FRAME_AND_PERSON.fullmatch(path.stem), _FRAME.fullmatch(path.stem)
        if both:
            _put(files, int(both[2]), int(both[1]), path)
        elif frame:
            _put(files, 0, int(frame[1]), path)
    if not files:
        for inner in sorted(folder.iterdir()):
            if (frame := _FRAME.fullmatch(inner.name)) and inner.is_dir():
                for path in sorted(inner.iterdir()):
                    if path.suffix.lower() in READERS and path.stem.isdigit() and path.is_file():
                        _put(files, int(path.stem), int(frame[1]), path)
    return files


def _put(files: dict[int, dict[int, Path]], person: int, frame: int, path: Path) -> None:
    other = files.setdefault(person, {}).setdefault(frame, path)
    if other != path:
        raise UserError(f"{path} has the number of {other}; keep one file a frame")


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
