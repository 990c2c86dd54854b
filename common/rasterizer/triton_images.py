"""Launches of the blending kernels: images of the lists, and gradients of the images (SPEC 10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from common.rasterizer import triton_blending, triton_unblending
from common.rasterizer.triton_canvas import Canvas, image_of_tiles
from common.rasterizer.triton_footprints import Footprints
from common.rasterizer.triton_tile_lists import CELLS, Lists, n_multiprocessors

CELL_PIXELS = 16
SEGMENT = 256  # slots; lists of twice as many are cut into pieces that are not much longer
CUT_BLOCK = 256  # cells
JOINED = 16  # segments at a time
JOINING = 2  # programs for every multiprocessor and channel


@dataclass(frozen=True)
class Tuning:
    """How blending is cut up; measured on an H200 with 220,000 Gaussians on 1024 x 576 pixels."""

    k: int  # Gaussians at a time in the forward
    k_backward: int
    registers_backward: int | None  # at most; fewer registers, more programs at once
    registers: int | None = 128  # the same in the forward
    programs: int = 32  # of the forward, for every multiprocessor
    programs_backward: int = 48  # for every multiprocessor
    n_warps: int = 1


TUNING = {  # by the channels that are reserved
    4: Tuning(k=32, k_backward=32, registers_backward=168),
    16: Tuning(k=32, k_backward=32, registers_backward=168),
    32: Tuning(k=32, k_backward=32, registers_backward=168),
    64: Tuning(k=32, k_backward=16, registers_backward=None, registers=None),
}


@dataclass(frozen=True)
class Trail:
    """What the forward leaves for the backward."""

    used: Tensor  # (n_cells,) int32 end of what was looked at of each list that is not cut
    work: Tensor  # (3,) int32 how many lists are whole, segments of the others, those others
    whole: Tensor  # (n_cells,) int32 cells whose lists are of one segment
    place: Tensor  # (room, 3) int32 cell, first slot, end of what was looked at of every segment
    part: Tensor  # (room, C + 2, 16) colour and transmittance before every segment, sum of its weights


@lru_cache(maxsize=64)
def _attached(is_detached: tuple[tuple[bool, ...], ...], device: torch.device) -> Tensor:
    """(images, C) from each image's flags; missing channels are detached."""
    width = max(map(len, is_detached))
    rows = [[0.0 if flag else 1.0 for flag in flags] + [0.0] * (width - len(flags)) for flags in is_detached]
    return torch.tensor(rows, device=device)


@lru_cache(maxsize=8)
def _precision(device: torch.device) -> str:
    """How dot products keep float32 accuracy: as three products in tf32 where the device has it."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        return "ieee"
    return "tf32"


def _reserved(n_channels: int, is_backward: bool) -> int:
    """Channels that programs reserve: dot products need a power of two from 16; few are blended without them."""
    return 4 if n_channels <= 4 and not is_backward else max(16, 1 << (n_channels - 1).bit_length())


def blend(
    canvas: Canvas, background: Tensor, footprints: Footprints, lists: Lists, channels: Tensor
) -> tuple[Tensor, Trail]:
    """Image (C, H, W) of the canvas, and what the backward needs."""
    (n, n_channels), device = channels.shape, channels.device
    capacity, n_cells = len(lists.slot) // CELLS, lists.range.shape[1]
    image = background[:, None, None].repeat(1, canvas.height, canvas.width)
    reserved = _reserved(n_channels, is_backward=False)
    tuning = TUNING[reserved]
    room = len(lists.slot) // SEGMENT + 1
    precision = _precision(device)
    work = torch.zeros(3, dtype=torch.int32, device=device)
    whole = torch.empty(n_cells, dtype=torch.int32, device=device)
    place = torch.empty(room, 3, dtype=torch.int32, device=device)
    cut = torch.empty(room, 2, dtype=torch.int32, device=device)
    triton_blending.cut_lists[(-(-n_cells // CUT_BLOCK),)](
        lists.range,
        lists.classes,
        lists.schedule,
        work,
        whole,
        place,
        cut,
        n_cells,
        room,
        SEGMENT=SEGMENT,
        BLOCK=CUT_BLOCK,
    )
    passing = channels.new_empty(room, CELL_PIXELS)
    triton_blending.attenuate[(tuning.programs * n_multiprocessors(device),)](
        lists.slot,
        footprints.row,
        work,
        place,
        passing,
        canvas.width,
        K=tuning.k // 2,
        PRECISION=precision,
        num_warps=tuning.n_warps,
    )
    used = torch.empty(n_cells, dtype=torch.int32, device=device)
    part = channels.new_empty(room, n_channels + 2, CELL_PIXELS)
    background, total = background.contiguous(), footprints.end[n - 1 :]
    triton_blending.blend[(tuning.programs * n_multiprocessors(device),)](
        lists.slot,
        lists.range,
        footprints.row,
        channels,
        background,
        total,
        work,
        whole,
        place,
        passing,
        image,
        used,
        part,
        n_cells,
        capacity,
        canvas.width,
        canvas.height,
        n_channels,
        K=tuning.k // 2,
        CHANNELS=reserved,
        SEGMENT=SEGMENT,
        PRECISION=precision,
        num_warps=tuning.n_warps,
        maxnreg=tuning.registers,
    )
    triton_blending.join_segments[(JOINING * n_multiprocessors(device), n_channels)](
        work,
        place,
        cut,
        part,
        background,
        total,
        image,
        capacity,
        canvas.width,
        canvas.height,
        n_channels,
        SEGMENTS=JOINED,
        num_warps=1,
    )
    return image, Trail(used, work, whole, place, part)


def unblend(
    canvas: Canvas,
    is_detached: tuple[tuple[bool, ...], ...],
    channels: Tensor,
    image: Tensor,
    d_image: Tensor,
    row: Tensor,
    trail: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """Moments (N, 8) of the exponents' gradients and the gradient of the channels.

    is_detached: flags of each image's channels; trail: lists, then the Trail.
    """
    (n, n_channels), device = channels.shape, channels.device
    reserved = _reserved(n_channels, is_backward=True)
    tuning = TUNING[reserved]
    moments, d_channels = channels.new_zeros(n, 8), torch.zeros_like(channels)
    slot, ranges, *left = trail
    triton_unblending.unblend[(tuning.programs_backward * n_multiprocessors(device),)](
        slot,
        ranges,
        row,
        channels,
        *left,
        _attached(is_detached, device),
        image_of_tiles(canvas, device),
        image,
        d_image.contiguous(),
        moments,
        d_channels,
        canvas.width,
        canvas.height,
        n_channels,
        K=tuning.k_backward // 2,
        CHANNELS=reserved,
        PRECISION=_precision(device),
        num_warps=tuning.n_warps,
        maxnreg=tuning.registers_backward,
    )
    return moments, d_channels
