"""One frame of a subject: the typed sample that training, fitting and evaluation use (SPEC 3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.camera import Camera
from common.errors import UserError
from common.io.array import open_array, read_array
from common.io.files import inside
from common.io.image import check_image, read_mask, read_rgb
from common.io.json import read_numbers
from common.io.parameters import read_camera, read_smplx_params
from common.pose import SmplxParams

FrameKey = tuple[str, int]  # split, frame index
CAPTURED = "captured"  # the split of the photo
_MAX_BBOX = 16  # image sides that the side of a face box may measure
_NO_BBOX = (0.0, 0.0, 1.0, 1.0)  # of frames without a face patch


@dataclass(frozen=True)
class Frame:
    """One frame; images are RGB in [0, 1]; what is not valid is exactly 0 in depth, normal and seg."""

    split: str
    index: int
    camera: Camera  # of the image
    face_camera: Camera  # of the face patch
    params: SmplxParams  # as in the file, axis-angle
    image: Tensor  # (3, H, W)
    mask: Tensor  # (1, H, W) 0 or 1
    albedo: Tensor  # (3, H, W), ones except on captured frames
    depth: Tensor  # (1, H, W) relative, larger is farther
    depth_mask: Tensor  # (1, H, W) validity
    normal: Tensor  # (3, H, W) (n + 1) / 2 of normals x right, y up, z towards the camera
    seg: Tensor  # (3, H, W) part colours
    face_patch: Tensor  # (3, P, P), ones except on captured frames
    face_bbox: Tensor  # (4,) x, y, w, h in pixels of the image

    @property
    def is_captured(self) -> bool:
        """Whether this is the photo (or one of the photos)."""
        return self.split == CAPTURED

    @property
    def name(self) -> str:
        """`<split>_<index>`, as output files are called."""
        return f"{self.split}_{self.index}"

    def to(self, device: torch.device | str) -> Frame:
        """The same frame on another device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{k: v.to(device) for k, v in values.items() if not isinstance(v, str | int)})


@dataclass(frozen=True)
class FrameFiles:
    """Where the files of one frame are."""

    root: Path  # the subject's folder
    split: str
    index: int

    def _path(self, *parts: str) -> Path:
        """A file of the frame; UserError if it is a link that leads out of the subject's folder."""
        return inside(self.root, self.root.joinpath(self.split, *parts))

    @property
    def image(self) -> Path:
        """Image with background."""
        return self._path("images", f"{self.index}.png")

    @property
    def mask(self) -> Path:
        """Foreground mask."""
        return self._path("masks", f"{self.index}.png")

    @property
    def camera(self) -> Path:
        """Camera."""
        return self._path("cam_params", f"{self.index}.json")

    @property
    def params(self) -> Path:
        """SMPL-X parameters."""
        return self._path("smplx_optimized", "smplx_params", f"{self.index}.json")

    @property
    def depth(self) -> tuple[Path, Path]:
        """Depth and its validity."""
        return self._path("depths", f"{self.index}.npy"), self._path("depths", f"{self.index}_mask.npy")

    @property
    def normal(self) -> tuple[Path, Path]:
        """Normals and their validity."""
        return self._path("normals", f"{self.index}.npy"), self._path("normals", f"{self.index}_mask.npy")

    @property
    def seg(self) -> tuple[Path, Path]:
        """Part colours and their validity."""
        return self._path("segs", f"{self.index}.png"), self._path("segs", f"{self.index}.npy")

    @property
    def albedo(self) -> Path:
        """Albedo image (captured only)."""
        return self._path("image_intrinsics", f"{self.index}_albedo.png")

    @property
    def face_patch(self) -> tuple[Path, Path]:
        """Enhanced face crop and its box in the image (captured only)."""
        return (
            self._path("face_patches", "images", f"{self.index}.png"),
            self._path("face_patches", "bbox", f"{self.index}.json"),
        )


def load_frame(files: FrameFiles, patch_size: int) -> Frame:
    """Read a frame; UserError names the file that is missing, broken, or of another size than the image."""
    image = read_rgb(files.image)
    size = (image.shape[1], image.shape[2])
    camera = read_camera(files.camera, *size)
    depth, depth_mask = _read_valid(*files.depth, size, n_channels=0)
    normal, normal_mask = _read_valid(*files.normal, size, n_channels=3)
    seg_image, seg_mask = files.seg
    if files.split == CAPTURED:
        albedo = read_rgb(files.albedo, size)
        face_patch = read_rgb(files.face_patch[0], (patch_size, patch_size))
        face_bbox = _read_bbox(files.face_patch[1], size)
    else:
        albedo, face_patch = torch.ones_like(image), torch.ones(3, patch_size, patch_size)
        face_bbox = torch.tensor(_NO_BBOX)
    return Frame(
        split=files.split,
        index=files.index,
        camera=camera,
        face_camera=camera.crop(face_bbox, patch_size, patch_size),
        params=read_smplx_params(files.params),
        image=image,
        mask=read_mask(files.mask, size),
        albedo=albedo,
        depth=depth,
        depth_mask=depth_mask,
        normal=(normal + 1) / 2 * normal_mask,
        seg=read_rgb(seg_image, size) * _read_validity(seg_mask, size),
        face_patch=face_patch,
        face_bbox=face_bbox,
    )


def frame_problems(files: FrameFiles, patch_size: int) -> list[str]:
    """All that is wrong with a frame's files, as far as checksums, headers and json files tell; fast."""
    problems: list[str] = []
    size: tuple[int, int] | None = None  # unknown without the image: then sizes are not compared
    try:
        size = check_image(files.image)
    except UserError as error:
        problems.append(str(error))
    checks = [
        lambda: read_camera(files.camera, *(size or (1, 1))),
        lambda: read_smplx_params(files.params),
        lambda: check_image(files.mask, size),
        lambda: check_image(files.seg[0], size),
        lambda: open_array(files.seg[1], size),
        lambda: open_array(files.depth[0], size),
        lambda: open_array(files.depth[1], size),
        lambda: open_array(files.normal[0], size and (*size, 3)),
        lambda: open_array(files.normal[1], size),
    ]
    if files.split == CAPTURED:
        checks += [
            lambda: check_image(files.albedo, size),
            lambda: check_image(files.face_patch[0], (patch_size, patch_size)),
            lambda: _read_bbox(files.face_patch[1], size),
        ]
    return problems + failures(*checks)


def failures(*checks: Callable[[], Any]) -> list[str]:
    """Messages of the checks that raise a UserError."""
    problems = []
    for check in checks:
        try:
            check()
        except UserError as error:
            problems.append(str(error))
    return problems


def _read_valid(path: Path, mask_path: Path, size: tuple[int, int], n_channels: int) -> tuple[Tensor, Tensor]:
    """A map (C, H, W) that is 0 where it is not valid, and its validity (1, H, W)."""
    mask = _read_validity(mask_path, size)
    array = read_array(path, (*size, n_channels) if n_channels else size)
    values = torch.from_numpy(array).float().reshape(*size, -1).permute(2, 0, 1)
    values = torch.where(mask > 0, values, torch.zeros(()))
    if not torch.isfinite(values).all():
        raise UserError(
            f"{path} has NaN or infinite values where {mask_path.name} says valid; write it again"
        )
    return (values * mask).contiguous(), mask


def _read_validity(path: Path, size: tuple[int, int]) -> Tensor:
    mask = torch.from_numpy(read_array(path, size)).float()[None]
    if not ((mask >= 0) & (mask <= 1)).all():
        raise UserError(f"{path} has values outside 0 and 1; save it as a boolean array")
    return mask


def _read_bbox(path: Path, size: tuple[int, int] | None) -> Tensor:
    """A box (x, y, w, h) that overlaps the image, if its size is known."""
    bbox = read_numbers(path, (4,))
    x, y, w, h = bbox.tolist()
    where = f"{path}: the box {bbox.tolist()} (x, y, width, height)"
    if w <= 0 or h <= 0:
        raise UserError(f"{where} is empty; write it again")
    if min(w, h) < 1 or (size is not None and max(w, h) > _MAX_BBOX * max(size)):
        raise UserError(f"{where} is smaller than a pixel or far larger than the image; write it again")
    if size is not None and (x >= size[1] or y >= size[0] or x + w <= 0 or y + h <= 0):
        raise UserError(f"{where} lies outside the {size[1]} x {size[0]} image; write it again")
    return bbox
