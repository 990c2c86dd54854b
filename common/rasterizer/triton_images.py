"""Launches of the blending kernels: images of the lists, and gradients of the images (SPEC 10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from common.rasterizer import triton_blending, triton_pixels, triton_unblending
from common.rasterizer.triton_canvas import Canvas, image_of_tiles
from common.rasterizer.triton_footprints import Footprints
from common.rasterizer.triton_tile_lists import CELLS, Lists

CELL_PIXELS: int = triton_pixels.PIXELS.value
LEAST_RESULTS, LEAST_TERMS = 8, 16  # of a matrix product along one axis
FILLED = 4096  # pixels at a time
JOINING, JOINED = 16, 8  # programs for every multiprocessor; channels of one
ATTENUATED = 64  # Gaussians at a time


@dataclass(frozen=True)
class Tuning:
    """How blending is cut up; measured on an H200 with 220,000 Gaussians on 1024 x 576 pixels."""

    registers: int | None = 128  # at most; fewer registers, more programs at once
    programs: int = 16  # for every multiprocessor
    registers_backward: int | None = 168
    programs_backward: int = 12


TUNING = {  # by the channels that are reserved
    8: Tuning(),
    16: Tuning(),
    32: Tuning(registers=168, programs=12, registers_backward=None, programs_backward=8),
    64: Tuning(registers=None, programs=8, registers_backward=None, programs_backward=8),
}


@dataclass(frozen=True)
class Trail:
    """What the forward leaves for the backward."""

    used: Tensor  # (room + n_tiles, 16) int32 how much of every list was looked at
    part: Tensor  # (room, 16, C + 2, 16) of used lists of cut tiles: colours, what reaches them, sum of their weights


@lru_cache(maxsize=64)
def _attached(is_detached: tuple[tuple[bool, ...], ...], device: torch.device) -> Tensor:
    """(images, C) from each image's flags; missing channels are detached."""
    width = max(map(len, is_detached))
    rows = [[0.0 if flag else 1.0 for flag in flags] + [0.0] * (width - len(flags)) for flags in is_detached]
    return torch.tensor(rows, device=device)


@lru_cache(maxsize=8)
def _basis(device: torch.device) -> Tensor:
    """1, x, y, x^2, x y, y^2, 0, 0 of a cell's pixels, from its centre, twice: (16, 16)."""
    along_axis = torch.arange(float(triton_pixels.CELL_PX.value)) - triton_pixels.CENTRE_PX.value
    y, x = torch.meshgrid(along_axis, along_axis, indexing="ij")
    columns = torch.stack([x**0, x, y, x * x, x * y, y * y, 0 * x, 0 * x]).reshape(8, CELL_PIXELS)
    return columns.repeat(2, 1).to(device)


@lru_cache(maxsize=8)
def _precision(device: torch.device) -> str:
    """How dot products keep float32 accuracy: as three products in tf32 where the device has it."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        return "ieee"
    return "tf32"


@lru_cache(maxsize=8)
def _n_multiprocessors(device: torch.device) -> int:
    """How many the device has; 1 without a GPU."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def _reserved(n_channels: int, least: int) -> int:
    """Channels that programs reserve: a power of two."""
    return max(least, 1 << (n_channels - 1).bit_length())


def blend(
    canvas: Canvas, background: Tensor, footprints: Footprints, lists: Lists, channels: Tensor
) -> tuple[Tensor, Trail]:
    """Image (C, H, W) of the canvas, and what the backward needs."""
    n_channels, device = channels.shape[1], channels.device
    capacity, tiles_x = len(lists.slot) // CELLS, canvas.n_tiles[0]
    background, n_pixels = background.contiguous(), canvas.height * canvas.width
    image = channels.new_empty(n_channels, canvas.height, canvas.width)
    triton_blending.fill[(-(-n_pixels // FILLED), n_channels)](
        background, footprints.total, image, capacity, n_pixels, BLOCK=FILLED
    )
    reserved, precision, basis = _reserved(n_channels, LEAST_RESULTS), _precision(device), _basis(device)
    tuning = TUNING[reserved]
    passing = channels.new_empty(lists.room, CELLS, CELL_PIXELS)
    triton_blending.attenuate[(CELLS * lists.room,)](
        lists.slot,
        lists.counts,
        lists.chunk,
        lists.length,
        footprints.row,
        basis,
        passing,
        lists.room,
        tiles_x,
        BLOCK=ATTENUATED,
        PRECISION=precision,
        num_warps=1,
    )
    used = torch.empty_like(lists.length)
    part = channels.new_empty(lists.room, CELLS, n_channels + 2, CELL_PIXELS)
    n_programs = tuning.programs * _n_multiprocessors(device)
    triton_blending.blend[(n_programs,)](
        lists.slot,
        lists.counts,
        lists.chunk,
        lists.length,
        footprints.row,
        channels,
        background,
        footprints.total,
        basis,
        passing,
        lists.ticket,
        image,
        used,
        part,
        lists.room,
        capacity,
        tiles_x,
        canvas.width,
        canvas.height,
        n_channels,
        CHANNELS=reserved,
        PRECISION=precision,
        num_warps=1,
        maxnreg=tuning.registers,
    )
    triton_blending.join_chunks[(JOINING * _n_multiprocessors(device), -(-n_channels // JOINED))](
        lists.counts,
        lists.chunk,
        lists.cut,
        used,
        part,
        background,
        footprints.total,
        image,
        capacity,
        tiles_x,
        canvas.width,
        canvas.height,
        n_channels,
        CHANNELS=JOINED,
        num_warps=1,
    )
    return image, Trail(used, part)


def unblend(
    canvas: Canvas,
    is_detached: tuple[tuple[bool, ...], ...],
    channels: Tensor,
    image: Tensor,
    d_image: Tensor,
    row: Tensor,
    lists: Sequence[Tensor],
    trail: Trail,
) -> tuple[Tensor, Tensor]:
    """Moments (N, 8) of the exponents' gradients and the gradient of the channels.

    is_detached: flags of each image's channels; lists: slot, counts and chunk of the Lists.
    """
    (n, n_channels), device = channels.shape, channels.device
    reserved = _reserved(n_channels, LEAST_TERMS)
    tuning = TUNING[reserved]
    moments, d_channels = channels.new_zeros(n, 8), torch.zeros_like(channels)
    ticket = torch.zeros(1, dtype=torch.int32, device=device)
    triton_unblending.unblend[(tuning.programs_backward * _n_multiprocessors(device),)](
        *lists,
        trail.used,
        row,
        channels,
        trail.part,
        _attached(is_detached, device),
        image_of_tiles(canvas, device),
        _basis(device),
        ticket,
        image,
        d_image.contiguous(),
        moments,
        d_channels,
        len(trail.part),
        canvas.n_tiles[0],
        canvas.width,
        canvas.height,
        n_channels,
        CHANNELS=reserved,
        PRECISION=_precision(device),
        num_warps=1,
        maxnreg=tuning.registers_backward,
    )
    return moments, d_channels
