"""A subject's folder: every file of every frame, their values, and the fitted body against them (SPEC 3)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from common.body_model.body import BodyModel
from common.body_model.identity import Identity
from common.camera import Camera
from common.doctor.findings import Findings
from common.doctor.frame_maps import Maps, check_maps
from common.doctor.person import check_camera, check_identity, check_params, check_view
from common.doctor.reprojection import BodyView, view_body
from common.errors import UserError
from common.evaluation import find_ground_truth
from common.io.array import read_array
from common.io.image import read_mask, read_rgb
from common.io.json import read_numbers
from common.io.parameters import read_camera, read_smplx_params
from common.pose import SmplxParams
from data.dataset import GENERATED, TEST, TRAIN_SPLITS, Subject
from data.frame import CAPTURED, FrameFiles

Value = TypeVar("Value")
Progress = Callable[[list[tuple[str, int]]], Iterable[tuple[str, int]]]


def check_subject(
    findings: Findings, subject: Subject, body: BodyModel | None, progress: Progress = iter
) -> None:
    """Look at everything; `body` (not subdivided) None: without its reprojection, which is noted."""
    findings.topic = f"subject ({subject.root})"
    splits = [*TRAIN_SPLITS]
    if (subject.root / TEST).is_dir():
        splits.append(TEST)
    elif subject.root.is_dir():
        findings.ok("split test", "there is none: the avatar can be trained, not evaluated")
    _check_files(findings, subject, splits, None if body is None else body.n_vertices)
    if not subject.root.is_dir():
        return
    identity = readable(lambda: subject.identity)
    if identity is not None:
        check_identity(findings, identity)
    identity = fitting_identity(subject, body)
    _check_textures(findings, subject)
    if body is None:
        findings.warn(
            "fitted body",
            "cannot be drawn over the frames: no body model",
            "mend what is told about body files",
        )
    keys = frame_keys(subject, splits)
    findings.ok("frames", ", ".join(f"{sum(key[0] == split for key in keys)} in {split}" for split in splits))
    sizes: dict[str, set[tuple[int, int]]] = {}
    for split, index in progress(keys):
        size = _check_frame(findings, FrameFiles(subject.root, split, index), body, identity)
        if size is not None:
            sizes.setdefault(split, set()).add(size)
    for split, found in sizes.items():
        if len(found) > 1:
            text = ", ".join(f"{width} x {height}" for height, width in sorted(found))
            findings.warn("image sizes", f"{split}: {text}", "write all frames of a split in one size")


def _check_files(findings: Findings, subject: Subject, splits: list[str], n_vertices: int | None) -> None:
    """That every file is there and of the right kind and size; where a test frame lies in its video."""
    problems = subject.problems(splits, n_vertices)
    for problem in problems:
        made_here = re.search(rf"({CAPTURED}|{GENERATED[0]})/smplx_optimized/smplx_\w+\.png", problem)
        if made_here:
            findings.error("file", problem.rpartition("; ")[0], _unwrap_command(subject, made_here[1]))
        else:
            findings.refused("file", _with_hint(problem), "" if ";" in problem else "see docs/data.md")
    if TEST in splits and not problems:
        findings.attempt(
            "place of a test frame",
            lambda: find_ground_truth(subject.root),
            "write it again; see docs/data.md",
        )


def _unwrap_command(subject: Subject, split: str) -> str:
    return f"make it with: python tools/unwrap_texture.py --subject_id {subject.root.name} --split {split}"


def _with_hint(problem: str) -> str:
    """The message; where a file is missing, with the files of the same number beside it."""
    match = re.match(r"missing file: (\S+\.\w+)", problem)
    folder = Path(match[1]).parent if match else Path()
    if match is None or not folder.is_dir():
        return problem
    others = sorted(path.name for path in folder.iterdir() if path.stem == Path(match[1]).stem)
    return problem.replace(match[1], f"{match[1]} (there is {', '.join(others)})", 1) if others else problem


def readable(read: Callable[[], Value]) -> Value | None:
    """What a reader returns, or None where it refuses; what it refuses is among the subject's problems."""
    try:
        return read()
    except UserError:
        return None


def fitting_identity(subject: Subject, body: BodyModel | None) -> Identity | None:
    """The subject's identity; None if it cannot be read or is another body's, which is among its problems."""
    identity = readable(lambda: subject.identity)
    if identity is not None and body is not None and identity.face_offset.shape[0] != body.n_vertices:
        return None
    return identity


def frame_keys(subject: Subject, splits: Sequence[str] = (*TRAIN_SPLITS, TEST)) -> list[tuple[str, int]]:
    """All frames of the splits that can be listed."""
    return [(split, i) for split in splits for i in readable(partial(subject.frames, split)) or []]


def _pixels(read: Callable[[], torch.Tensor]) -> np.ndarray | None:
    """An image (H, W, C) or None."""
    image = readable(read)
    return None if image is None else image.permute(1, 2, 0).numpy()


def load_view(
    files: FrameFiles, body: BodyModel, identity: Identity | None, size: tuple[int, int]
) -> tuple[Camera, SmplxParams, BodyView] | None:
    """A frame's camera, parameters and body; None if one of their files cannot be read."""
    camera = readable(lambda: read_camera(files.camera, *size))
    params = readable(lambda: read_smplx_params(files.params))
    if camera is None or params is None:
        return None
    return camera, params, view_body(body, identity, params, camera)


def _check_frame(
    findings: Findings, files: FrameFiles, body: BodyModel | None, identity: Identity | None
) -> tuple[int, int] | None:
    """Everything about one frame; returns its size, or None if there is no image."""
    where = f"{files.split} frame {files.index}"
    image = _pixels(lambda: read_rgb(files.image))
    if image is None:
        return None
    size = (image.shape[0], image.shape[1])
    if image.max() == image.min():
        findings.error("image is empty", f"{where}: one colour everywhere", "write the image again")
    view = None
    camera = readable(lambda: read_camera(files.camera, *size))
    params = readable(lambda: read_smplx_params(files.params))
    if camera is not None:
        check_camera(findings, where, camera)
    if params is not None:
        check_params(findings, where, params)
    if camera is not None and params is not None and body is not None:
        view = view_body(body, identity, params, camera)
        check_view(findings, where, view)
    mask = _pixels(lambda: read_mask(files.mask, size))
    maps = Maps(
        where=where,
        mask=None if mask is None else mask[..., 0] > 0,
        depth=readable(lambda: read_array(files.depth[0], size)),
        depth_valid=readable(lambda: read_array(files.depth[1], size)),
        normal=readable(lambda: read_array(files.normal[0], (*size, 3))),
        normal_valid=readable(lambda: read_array(files.normal[1], size)),
        seg=_pixels(lambda: read_rgb(files.seg[0], size)),
        seg_valid=readable(lambda: read_array(files.seg[1], size)),
        view=view,
    )
    check_maps(findings, maps)
    if files.split == CAPTURED:
        _check_photo(findings, files, image, view, body)
    return size


def _check_photo(
    findings: Findings, files: FrameFiles, image: np.ndarray, view: BodyView | None, body: BodyModel | None
) -> None:
    """Albedo and face patch of a photo."""
    where = f"{files.split} frame {files.index}"
    albedo = _pixels(lambda: read_rgb(files.albedo, image.shape[:2]))
    if albedo is not None and np.array_equal(albedo, image):
        findings.warn(
            "albedo is the photo", f"{where}: both images are equal, so the photo's light goes into the avatar",
            "estimate the albedo (intrinsic image decomposition), or accept it",
        )  # fmt: skip
    patch = _pixels(lambda: read_rgb(files.face_patch[0]))
    if patch is not None and patch.max() == patch.min():
        findings.error("face patch is empty", f"{where}: one colour everywhere", "write the face crop again")
    box = readable(lambda: _box(files.face_patch[1]))
    if box is None or view is None or body is None or not body.parts_low.face.any():
        return
    x, y, width, height = box
    pixels = view.pixels[body.parts_low.face.numpy()]
    is_inside = (pixels >= (x, y)).all(1) & (pixels < (x + width, y + height)).all(1)
    if is_inside.mean() < 0.3:
        findings.warn(
            "face box is not on the face", f"{where}: it holds {is_inside.mean():.0%} of the fitted body's face",
            "the box is [x, y, width, height] in pixels of the image",
        )  # fmt: skip


def _box(path: Path) -> tuple[float, float, float, float]:
    x, y, width, height = read_numbers(path, (4,)).tolist()
    return x, y, width, height


def _check_textures(findings: Findings, subject: Subject) -> None:
    """Values of the textures that colours start from."""
    for split in (CAPTURED, GENERATED[0]):
        remedy = _unwrap_command(subject, split)
        folder = subject.root / split / "smplx_optimized"
        for name in ("smplx_texture_inpaint", "smplx_seg_inpaint"):
            image = _pixels(partial(read_rgb, folder / f"{name}.png"))
            if image is not None and image.max() == image.min():
                findings.error("texture is empty", f"{split}: {name}.png has one colour everywhere", remedy)
        mask = _pixels(partial(read_rgb, folder / "smplx_texture_mask.png"))
        if mask is not None and mask[..., 0].max() == 0:
            findings.warn(
                "texture mask is empty",
                f"{split}: smplx_texture_mask.png marks no texel as seen",
                remedy,
            )
        elif mask is not None and mask[..., 0].min() > 0:
            findings.warn(
                "texture mask is full", f"{split}: smplx_texture_mask.png marks every texel as seen, also unseen ones",
                remedy,
            )  # fmt: skip
