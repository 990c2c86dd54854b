"""A subject of a few tiny random frames in the format of SPEC 3, for tests of loading and of bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from common.camera import Camera
from common.io.array import write_array
from common.io.image import write_image
from common.io.json import write_json
from common.io.parameters import SMPLX_SHAPES, write_camera, write_smplx_params
from common.pose import SmplxParams

HEIGHT, WIDTH, PATCH, TEXTURE = 20, 14, 8, 6
FRAMES = {"captured": [0], "generated_0": [0, 2, 10], "generated_1": [1], "test": [3, 11]}
UNLISTED = ("generated_0", 7)  # has parameters but is not in the frame list


def write_subject(root: Path, n_vertices: int = 12, seed: int = 0) -> Path:
    """Write the whole folder; random content, any number of body vertices."""
    rng = np.random.default_rng(seed)
    for split, frames in FRAMES.items():
        for index in frames:
            _write_frame(root / split, index, rng)
            write_params(root / split, index, rng)
    write_params(root / UNLISTED[0], UNLISTED[1], rng)
    for split in ("generated_0", "generated_1"):
        lines = [str(index) for index in reversed(FRAMES[split])]
        (root / split / "frame_idx_list.txt").write_text("\n".join(lines) + "\n")
    identity = {"shape_param": (100,), "face_offset": (n_vertices, 3), "joint_offset": (55, 3)}
    for name, shape in identity.items():
        write_json(root / "captured/smplx_optimized" / f"{name}.json", rng.normal(size=shape) * 0.01)
    for split in ("captured", "generated_0"):
        for name in ("texture_inpaint", "seg_inpaint", "texture_mask"):
            write_image(
                root / split / "smplx_optimized" / f"smplx_{name}.png", _pixels(rng, TEXTURE, TEXTURE)
            )
    return root


def write_params(split: Path, index: int, rng: np.random.Generator) -> None:
    """Write the SMPL-X parameters of one frame."""
    values = {name: torch.tensor(rng.normal(size=shape) * 0.1) for name, shape in SMPLX_SHAPES.items()}
    write_smplx_params(split / "smplx_optimized/smplx_params" / f"{index}.json", SmplxParams(**values))


def _write_frame(split: Path, index: int, rng: np.random.Generator) -> None:
    write_camera(
        split / "cam_params" / f"{index}.json", Camera.identity((30.0, 31.0), (7.0, 10.0), HEIGHT, WIDTH)
    )
    for folder in ("images", "masks", "segs"):
        write_image(split / folder / f"{index}.png", _pixels(rng, HEIGHT, WIDTH))
    write_array(split / "segs" / f"{index}.npy", _validity(rng))
    write_array(split / "depths" / f"{index}.npy", rng.uniform(1, 2, (HEIGHT, WIDTH)).astype(np.float32))
    write_array(split / "depths" / f"{index}_mask.npy", _validity(rng))
    write_array(split / "normals" / f"{index}.npy", rng.uniform(-1, 1, (HEIGHT, WIDTH, 3)).astype(np.float32))
    write_array(split / "normals" / f"{index}_mask.npy", _validity(rng))
    if split.name == "captured":
        write_image(split / "image_intrinsics" / f"{index}_albedo.png", _pixels(rng, HEIGHT, WIDTH))
        write_image(split / "face_patches/images" / f"{index}.png", _pixels(rng, PATCH, PATCH))
        write_json(split / "face_patches/bbox" / f"{index}.json", [3.5, 2.0, 5.0, 4.0])


def _pixels(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


def _validity(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(size=(HEIGHT, WIDTH)) > 0.4
