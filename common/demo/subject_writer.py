"""Files of the demo subject in the subject and motion layouts, and the truth kept beside them (SPEC 3, 4, 16)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from common.body_model.identity import Identity
from common.camera import Camera
from common.demo.subject_render import Picture
from common.demo.subject_wardrobe import PART_COLORS
from common.io.array import write_array
from common.io.image import write_image
from common.io.json import write_json
from common.io.parameters import write_camera, write_smplx_params
from common.pose import SmplxParams
from common.rectangle import Rectangle
from common.unwrapping import UnwrappedTextures

LOOSE = 0.25  # cloth looser than this counts as loose in the cloth masks


def eight_bit(image: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as (H, W, 3) uint8, rounded; one channel is repeated."""
    pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return (
        np.ascontiguousarray(np.broadcast_to(pixels[..., None], (*pixels.shape, 3)))
        if pixels.ndim == 2
        else pixels
    )


def write_frame(
    folder: Path,
    index: int,
    image: np.ndarray,
    picture: Picture,
    camera: Camera,
    params: SmplxParams,
    depth_scale: tuple[float, float],
) -> None:
    """One frame of a split: image, mask, camera, parameters and maps; depth is scale * metres / mean + shift."""
    mask = picture.mask
    write_image(folder / "images" / f"{index}.png", eight_bit(image))
    write_image(folder / "masks" / f"{index}.png", eight_bit(mask.astype(np.float32)))
    write_camera(folder / "cam_params" / f"{index}.json", camera)
    write_smplx_params(folder / "smplx_optimized" / "smplx_params" / f"{index}.json", params)
    scale, shift = depth_scale
    depth = np.where(mask, scale * picture.depth / picture.depth[mask].mean() + shift, 0).astype(np.float32)
    write_array(folder / "depths" / f"{index}.npy", depth)
    write_array(folder / "depths" / f"{index}_mask.npy", mask)
    write_array(
        folder / "normals" / f"{index}.npy", np.where(mask[..., None], picture.normal, 0).astype(np.float16)
    )
    write_array(folder / "normals" / f"{index}_mask.npy", mask)
    part_colors = np.where(mask[..., None], PART_COLORS[picture.label], 0).astype(np.uint8)
    write_image(folder / "segs" / f"{index}.png", part_colors)
    write_array(folder / "segs" / f"{index}.npy", mask)


def write_identity(folder: Path, identity: Identity) -> None:
    """Shape coefficients and offsets into a split's `smplx_optimized`."""
    write_json(folder / "smplx_optimized" / "shape_param.json", identity.shape)
    write_json(folder / "smplx_optimized" / "face_offset.json", identity.face_offset)
    write_json(folder / "smplx_optimized" / "joint_offset.json", identity.joint_offset)


def write_textures(folder: Path, textures: UnwrappedTextures) -> None:
    """Textures and mask into a split's `smplx_optimized`."""
    target = folder / "smplx_optimized"
    write_image(target / "smplx_texture_inpaint.png", eight_bit(textures.color))
    write_image(target / "smplx_seg_inpaint.png", eight_bit(textures.part_color))
    write_image(target / "smplx_texture_mask.png", eight_bit(textures.is_seen.astype(np.float32)))


def write_photo_extras(
    folder: Path, index: int, picture: Picture, patch: np.ndarray, bbox: Rectangle
) -> None:
    """The photo's albedo, and its face patch with the box it shows."""
    write_image(folder / "image_intrinsics" / f"{index}_albedo.png", eight_bit(picture.albedo))
    write_image(folder / "face_patches" / "images" / f"{index}.png", eight_bit(patch))
    write_json(folder / "face_patches" / "bbox" / f"{index}.json", list(bbox))


def write_frame_list(folder: Path, n_frames: int) -> None:
    """The frames of a generated split that are to be used: all of them."""
    (folder / "frame_idx_list.txt").write_text("".join(f"{i}\n" for i in range(n_frames)))


def write_crop(folder: Path, index: int, bbox: tuple[int, int, int, int], shape: tuple[int, int]) -> None:
    """Where a test frame lies (x, y, w, h) in the original video of (H, W) pixels."""
    write_json(folder / "images" / "img_shape_orig.json", list(shape))
    write_json(folder / "images" / f"{index}_bbox_orig.json", list(bbox))


def write_motion_frame(
    folder: Path, index: int, image: np.ndarray, background: np.ndarray, camera: Camera, params: SmplxParams
) -> None:
    """One frame of a motion folder (SPEC 4)."""
    write_smplx_params(folder / "smplx" / "params" / f"{index}.json", params)
    write_camera(folder / "cam_params" / f"{index}.json", camera)
    write_image(folder / "images" / f"{index}.png", eight_bit(image))
    write_image(folder / "images_bkg" / f"{index}.png", eight_bit(background))


def write_true_frame(folder: Path, split: str, index: int, params: SmplxParams, cloth: Tensor) -> None:
    """Exact parameters, and the cloth's pose-driven offset (N, 3) in the neutral pose, metres, float16."""
    write_smplx_params(folder / "smplx_params" / split / f"{index}.json", params)
    write_array(folder / "cloth" / split / f"{index}.npy", cloth.numpy().astype(np.float16))


def write_cloth_mask(folder: Path, split: str, index: int, picture: Picture) -> None:
    """Where loose, pose-driven cloth is seen."""
    is_loose = picture.mask & (picture.looseness > LOOSE)
    write_image(folder / "cloth_masks" / split / f"{index}.png", eight_bit(is_loose.astype(np.float32)))


def write_true_appearance(
    folder: Path,
    texture: np.ndarray,
    part: np.ndarray,
    per_vertex: dict[str, np.ndarray],
    about: dict[str, object],
) -> None:
    """True albedo and part textures, per-vertex arrays (`vertices/`) and a description."""
    write_image(folder / "albedo_texture.png", eight_bit(texture))
    write_image(folder / "part_texture.png", PART_COLORS[part])
    for name, values in per_vertex.items():
        write_array(folder / "vertices" / f"{name}.npy", values)
    write_json(folder / "about.json", about)
