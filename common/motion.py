"""Motions that drive an avatar: SMPL-X parameters and a camera a frame (SPEC 4)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from common.camera import Camera
from common.errors import UserError
from common.io.image import check_image, image_size
from common.io.json import numbers, read_json_object
from common.io.parameters import read_camera, read_smplx_params
from common.pose import SmplxParams

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class MotionFrame:
    """One frame of a motion."""

    index: int  # number in the file names
    params: SmplxParams
    camera: Camera  # its size is the render size
    background: Path | None = None  # image of the render size


@dataclass(frozen=True)
class Motion:
    """Frames in the order in which they are played."""

    name: str
    frames: tuple[MotionFrame, ...]
    height: int  # render size in pixels
    width: int


def load_motion(
    path: Path, height: int | None = None, width: int | None = None, with_background: bool = False
) -> Motion:
    """Read a motion folder: `smplx/params`, `cam_params`, `images` (optional) and `images_bkg`.

    The first image sets the render size; without images it is height x width, and what is not given follows
    from the principal point of the first camera (taken as the image's centre). UserError names what is wrong.
    """
    if not path.is_dir():
        raise UserError(f"--motion_path {path} is not a folder; give one with smplx/params and cam_params")
    params_folder = path / "smplx" / "params"
    indices = _indices(params_folder, ".json")
    if not indices:
        raise UserError(f"the motion is empty: no <i>.json with i = 0, 1, 2, ... in {params_folder}")
    size = _render_size(path, indices[0], height, width)
    frames = tuple(
        MotionFrame(
            index=index,
            params=read_smplx_params(params_folder / f"{index}.json"),
            camera=read_camera(path / "cam_params" / f"{index}.json", *size),
            background=_background(path, index, size) if with_background else None,
        )
        for index in indices
    )
    return Motion(path.resolve().name, frames, *size)


def _render_size(path: Path, first: int, height: int | None, width: int | None) -> tuple[int, int]:
    if any(side is not None and side < 1 for side in (height, width)):
        raise UserError("--height and --width must be positive pixels")
    images = _indices(path / "images", ".png")
    if images:
        image = path / "images" / f"{images[0]}.png"
        size = image_size(image)
        if (height or size[0], width or size[1]) != size:
            raise UserError(
                f"{image} sets the render size {size[1]} x {size[0]} (width x height); "
                "leave --width and --height out"
            )
        return size
    if height is None or width is None:
        camera = path / "cam_params" / f"{first}.json"
        content = read_json_object(camera, ("princpt",))
        centre = numbers(content["princpt"], (2,), f"{camera}: princpt")
        x, y = torch.round(2 * centre).int().tolist()
        height, width = height or y, width or x
    if height < 1 or width < 1:
        raise UserError(
            f"{path} has no images and no principal point to tell its size; give --width, --height"
        )
    return height, width


def _background(path: Path, index: int, size: tuple[int, int]) -> Path:
    background = path / "images_bkg" / f"{index}.png"
    check_image(background, size)
    return background


def _indices(folder: Path, suffix: str) -> list[int]:
    """Frame indices of a folder's files `<i><suffix>`, increasing."""
    if not folder.is_dir():
        return []
    return sorted(int(p.stem) for p in folder.iterdir() if p.suffix == suffix and _INDEX.fullmatch(p.stem))
