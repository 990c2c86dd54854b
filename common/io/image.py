"""8-bit images as float tensors (C, H, W), RGB in [0, 1]."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from common.errors import UserError
from common.io.atomic import atomic_path

_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")  # 8 bits or less a channel
_BROKEN = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, OverflowError, MemoryError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
_FOREGROUND = 127.5  # SPEC 3


def read_rgb(path: Path, size: tuple[int, int] | None = None) -> Tensor:
    """An image as RGB (3, H, W) in [0, 1], without alpha; UserError if broken or not of `size` (H, W)."""
    return _chw(_read(path, size)).float() / 255


def read_mask(path: Path, size: tuple[int, int] | None = None) -> Tensor:
    """A mask image as 0 or 1 (1, H, W): foreground where channel 0 is over 127.5 (SPEC 3)."""
    return (_chw(_read(path, size))[:1] > _FOREGROUND).float()


def check_image(path: Path, size: tuple[int, int] | None = None) -> tuple[int, int]:
    """Height and width of an image whose checksums are right, without decoding it; errors as `read_rgb`."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            _check_mode(path, image.mode)
            image.verify()
    except FileNotFoundError:
        raise UserError(f"missing file: {path}; put it there") from None
    except (*_BROKEN, UnidentifiedImageError) as error:
        raise _broken(path, error) from error
    _check_size(path, (height, width), size)
    return height, width


def image_size(path: Path) -> tuple[int, int]:
    """Height and width from an image's header."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except FileNotFoundError:
        raise UserError(f"missing file: {path}; put it there") from None
    except (*_BROKEN, UnidentifiedImageError) as error:
        raise _broken(path, error) from error


def to_uint8(image: Tensor) -> np.ndarray:
    """An image (3, H, W) or (1, H, W) in [0, 1] as rounded (H, W, 3) uint8; values outside are clamped."""
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"expected an image (3, H, W) or (1, H, W), got {tuple(image.shape)}")
    rounded = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8)
    return rounded.expand(3, -1, -1).permute(1, 2, 0).contiguous().cpu().numpy()


def write_image(path: Path, image: Tensor | np.ndarray) -> None:
    """Write a tensor (3, H, W) or (1, H, W) in [0, 1], or an array (H, W, 3) uint8, as an 8-bit RGB image."""
    pixels = to_uint8(image) if isinstance(image, Tensor) else image
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"expected (H, W, 3) uint8, got {pixels.shape} {pixels.dtype}")
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary)


def _read(path: Path, size: tuple[int, int] | None) -> np.ndarray:
    """Pixels (H, W, 3) uint8."""
    try:
        with Image.open(path) as image:
            _check_mode(path, image.mode)
            _check_size(path, (image.height, image.width), size)
            return np.array(image.convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"missing file: {path}; put it there") from None
    except (*_BROKEN, UnidentifiedImageError) as error:
        raise _broken(path, error) from error


def _chw(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _check_mode(path: Path, mode: str) -> None:
    if mode not in _MODES:
        raise UserError(f"{path} has pixels of type {mode}; save it as an 8-bit RGB image")


def _check_size(path: Path, found: tuple[int, int], expected: tuple[int, int] | None) -> None:
    if expected is not None and found != expected:
        sizes = f"{found[1]} x {found[0]} pixels (width x height), expected {expected[1]} x {expected[0]}"
        raise UserError(f"{path} is {sizes}; write it again in that size")


def _broken(path: Path, error: BaseException) -> UserError:
    return UserError(f"{path} is truncated or not an image ({error}); write it again")
