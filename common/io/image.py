"""8-bit images as float tensors (C, H, W), RGB in [0, 1]."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from common.errors import UserError
from common.io.atomic import atomic_path
from common.io.files import open_file

MAX_PIXELS = 2**26  # 8192 x 8192
_FORMATS = ("PNG", "JPEG")  # others can start programs or read other files
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_INFLATION = 1032  # bytes that deflate makes of one at most
_MAX_SCANS = 32  # of a progressive JPEG, which has about ten; each costs as much time as the image has pixels
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")  # 8 bits or less a channel
_BROKEN = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, OverflowError, MemoryError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
_FOREGROUND = 127.5  # SPEC 3

# Pillow warns of what _check_pixels is stricter about, and of animations of which only the first image is read.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", message="Invalid APNG")
PngImagePlugin.MAX_TEXT_MEMORY = 2**23  # bytes that texts in a PNG may inflate to (Pillow: 64 MiB)


def read_rgb(path: Path, size: tuple[int, int] | None = None) -> Tensor:
    """An image as RGB (3, H, W) in [0, 1], without alpha; UserError if broken or not of `size` (H, W)."""
    return _chw(read_pixels(path, size)).float() / 255


def read_pixels(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """An image as RGB (H, W, 3) uint8, without alpha; errors as `read_rgb`."""
    with _opened(path) as image:
        _check_mode(path, image.mode)
        _check_size(path, (image.height, image.width), size)
        image.info.pop("transparency", None)  # is dropped anyway; Pillow warns of some kinds
        return np.array(image.convert("RGB"))


def read_mask(path: Path, size: tuple[int, int] | None = None) -> Tensor:
    """A mask image as 0 or 1 (1, H, W): foreground where channel 0 is over 127.5 (SPEC 3)."""
    return (_chw(read_pixels(path, size))[:1] > _FOREGROUND).float()


def check_image(path: Path, size: tuple[int, int] | None = None) -> tuple[int, int]:
    """Height and width of an image whose checksums are right, without decoding it; errors as `read_rgb`."""
    with _opened(path) as image:
        found = image.height, image.width
        _check_mode(path, image.mode)
        image.verify()
    _check_size(path, found, size)
    return found


def image_size(path: Path) -> tuple[int, int]:
    """Height and width from an image's header."""
    with _opened(path) as image:
        return image.height, image.width


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


def as_png(image: Tensor) -> bytes:
    """An image (3, H, W) or (1, H, W) in [0, 1] as the bytes of an 8-bit .png file."""
    file = io.BytesIO()
    Image.fromarray(to_uint8(image)).save(file, "PNG")
    return file.getvalue()


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image whose header is read and plausible; what goes wrong with it in the block is a UserError."""
    with open_file(path) as file:
        try:
            n_bytes = file.seek(0, 2)
            _check_chunks(file, n_bytes)
            file.seek(0)
            with Image.open(file, formats=_FORMATS) as image:
                _check_pixels(path, image, n_bytes)
                if image.format != "PNG":
                    _check_scans(file)
                yield image
        except (*_BROKEN, UnidentifiedImageError) as error:
            raise UserError(f"{path} is truncated or not an image ({error}); write it again") from error


def _check_pixels(path: Path, image: Image.Image, n_bytes: int) -> None:
    """Refuse more pixels than the program or the file can hold, before there is memory for them."""
    n_pixels = image.width * image.height
    if n_pixels > MAX_PIXELS:
        raise UserError(
            f"{path} has {image.width} x {image.height} pixels, at most {MAX_PIXELS} work; shrink it"
        )
    bits = 1 if image.mode in ("1", "L", "P") else 8 * len(image.getbands())  # packed at the least
    if n_pixels * bits > 8 * _MAX_INFLATION * n_bytes:
        raise ValueError(f"{n_bytes} bytes cannot hold {image.width} x {image.height} pixels")


def _check_chunks(file: BinaryIO, n_bytes: int) -> None:
    """Refuse a PNG with a chunk that ends beyond the file: Pillow takes memory for what its length says."""
    file.seek(0)
    if file.read(len(_PNG_SIGNATURE)) != _PNG_SIGNATURE:
        return
    kind = b""
    while kind != b"IEND" and len(header := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        if file.seek(length + 4, 1) > n_bytes:  # a checksum follows
            raise ValueError(f"its part {kind!r} is said to have {length} bytes")


def _check_scans(file: BinaryIO) -> None:
    """Refuse a JPEG with so many scans that decoding it would take for ever."""
    position = file.tell()
    file.seek(0)
    if file.read().count(b"\xff\xda") > _MAX_SCANS:
        raise ValueError(f"a JPEG with over {_MAX_SCANS} scans")
    file.seek(position)


def _chw(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _check_mode(path: Path, mode: str) -> None:
    if mode not in _MODES:
        raise UserError(f"{path} has pixels of type {mode}; save it as an 8-bit RGB image")


def _check_size(path: Path, found: tuple[int, int], expected: tuple[int, int] | None) -> None:
    if expected is not None and found != expected:
        sizes = f"{found[1]} x {found[0]} pixels (width x height), expected {expected[1]} x {expected[0]}"
        raise UserError(f"{path} is {sizes}; write it again in that size")
