"""The motion folder of SPEC 4: `smplx/params`, `cam_params`, `images` (optional) and `images_bkg`."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from common.errors import UserError
from common.io.atomic import atomic_path
from common.io.files import FRAME_INDEX
from common.io.image import check_image, image_size
from common.io.json import numbers, read_json_object
from common.io.parameters import read_camera, read_smplx_params, write_camera, write_smplx_params
from common.motion.motion import Motion
from common.motion.options import MotionOptions, check_render_size
from common.pose import stack_params

FORMAT = "motion folder"


def is_motion_folder(path: Path) -> bool:
    """Whether a folder is laid out as in SPEC 4."""
    return (path / "smplx" / "params").is_dir() or (path / "cam_params").is_dir()


def read_motion_folder(path: Path, options: MotionOptions, with_background: bool) -> Motion:
    """Read a motion folder; UserError names what is wrong.

    The first image sets the render size; without images it is options.height x width, and what is not given
    follows from the principal point of the first camera (taken as the image's centre).
    """
    params_folder = path / "smplx" / "params"
    indices = _indices(params_folder, ".json")
    if not indices:
        raise UserError(f"the motion is empty: no <i>.json with i = 0, 1, 2, ... in {params_folder}")
    if options.up not in ("auto", "camera"):
        raise UserError(f"--up {options.up}: {path} has cam_params, so its parameters are in camera space")
    size = _render_size(path, indices[0], options)
    images = [path / "images" / f"{index}.png" for index in indices]
    return Motion(
        name=path.resolve().name,
        format=FORMAT,
        indices=tuple(indices),
        params=stack_params([read_smplx_params(params_folder / f"{index}.json") for index in indices]),
        cameras=tuple(read_camera(path / "cam_params" / f"{index}.json", *size) for index in indices),
        images=tuple(images) if all(image.is_file() for image in images) else None,
        backgrounds=tuple(_background(path, i, size) for i in indices) if with_background else None,
    )


def write_motion_folder(path: Path, motion: Motion) -> None:
    """Write a motion with cameras as a motion folder, with copies of its images and backgrounds if it has any."""
    for i, frame in enumerate(motion.frames):
        write_smplx_params(path / "smplx" / "params" / f"{frame.index}.json", frame.params)
        write_camera(path / "cam_params" / f"{frame.index}.json", frame.camera)
        for name, sources in (("images", motion.images), ("images_bkg", motion.backgrounds)):
            if sources is not None:
                with atomic_path(path / name / f"{frame.index}.png") as temporary:
                    shutil.copyfile(sources[i], temporary)


def _render_size(path: Path, first: int, options: MotionOptions) -> tuple[int, int]:
    images = _indices(path / "images", ".png")
    is_own_view = options.camera in ("auto", "motion")
    height, width = (options.height, options.width) if is_own_view else (None, None)
    if images:
        image = path / "images" / f"{images[0]}.png"
        size = image_size(image)
        if (height or size[0], width or size[1]) != size:
            raise UserError(
                f"{image} sets the render size {size[1]} x {size[0]} (width x height); "
                "leave --width and --height out, or choose another --camera"
            )
        return size
    if height is None or width is None:
        camera = path / "cam_params" / f"{first}.json"
        content = read_json_object(camera, ("princpt",))
        centre = numbers(content["princpt"], (2,), f"{camera}: princpt")
        x, y = torch.round(2 * centre).long().tolist()
        height, width = height or y, width or x
    if height < 1 or width < 1:
        raise UserError(
            f"{path} has no images and no principal point to tell its size; give --width, --height"
        )
    check_render_size(path, height, width)
    return height, width


def _background(path: Path, index: int, size: tuple[int, int]) -> Path:
    background = path / "images_bkg" / f"{index}.png"
    check_image(background, size)
    return background


def _indices(folder: Path, suffix: str) -> list[int]:
    """Frame indices of a folder's files `<i><suffix>`, increasing."""
    if not folder.is_dir():
        return []
    return sorted(
        int(p.stem) for p in folder.iterdir() if p.suffix == suffix and FRAME_INDEX.fullmatch(p.stem)
    )
