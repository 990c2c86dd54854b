"""Gaussian rasterizer on the GPU: Triton kernels, forward and backward, behind one autograd function (SPEC 10).

Nothing waits for the device: lists of (Gaussian, tile) pairs get a capacity from earlier calls, and their true number
arrives while the rest of the call is already queued; only if it is larger is the call repeated. While a CUDA graph
is captured there is no repeating: if a replay finds more pairs than fit, its image is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from common.gpu.rooms import is_capturing, watch
from common.rasterizer import triton_blending, triton_lists, triton_projection
from common.rasterizer.interface import Splats

LIST_PX = 8  # side of the tiles whose lists are sorted
CELLS = 4  # of a tile: 4 x 4 pixels each, which one program blends
CELL_PIXELS = 16
SEGMENT = 256  # slots that the backward walks in one piece
MAX_PAIRS = 2**28  # memory: about 40 bytes a pair, more with many channels
SPARE = 1.15  # capacity over what was last needed
GRAPH_SPARE = 1.2  # again, for what a graph's other frames need
ROUNDING = 16384  # of capacities
FIRST_GUESS = 3  # pairs for every Gaussian
LARGEST_INT16 = 2**15 - 1
PROJECTION_BLOCK = 128
PAIR_BLOCK = 512
SPLIT_BLOCK = 512


class TooManyPairs(RuntimeError):
    """The Gaussians touch more tiles than the kernels are made for."""


@dataclass(frozen=True)
class Tuning:
    """How blending is cut up; measured on an H200 with 220,000 Gaussians on 1024 x 576 pixels."""

    k: int  # Gaussians at a time in the forward
    k_backward: int
    registers_backward: int | None  # at most; fewer registers, more programs at once
    programs_backward: int = 24  # for every multiprocessor
    n_warps: int = 1


TUNING = {  # by the channels that are reserved
    16: Tuning(k=64, k_backward=32, registers_backward=168),
    32: Tuning(k=32, k_backward=32, registers_backward=168),
    64: Tuning(k=32, k_backward=16, registers_backward=None),
}


@dataclass(frozen=True)
class Footprints:
    """Outputs of `triton_projection.project`, and the Gaussians in depth order."""

    row: Tensor  # (N, 8)
    box: Tensor  # (N, 4) int32
    count: Tensor  # (N,) int32
    order: Tensor  # (N,) int64, front to back
    end: Tensor  # (N,) int64 running sum of `count` in that order


@dataclass(frozen=True)
class Lists:
    """Which Gaussians touch each cell, front to back."""

    slot: Tensor  # (4 capacity,) int32
    range: Tensor  # (2, n_cells) int32
    schedule: Tensor  # (n_tiles,) tiles in the order in which they are blended


@dataclass(frozen=True)
class Trail:
    """What the forward leaves for the backward."""

    used: Tensor  # (n_cells,) int32 end of what was looked at of each list
    work: Tensor  # (2,) int32 how many starts, how many checkpoints
    start: Tensor  # (n_cells,) int32 cells whose lists are not empty
    place: Tensor  # (most checkpoints, 2) int32 cell, slot
    checkpoint: Tensor  # (most checkpoints, C + 1, 16)


_capacities: dict[tuple[torch.device, int, int, int], int] = {}


def _blocks(n: int, block: int) -> tuple[int]:
    return (-(-n // block),)


def _n_tiles(splats: Splats) -> tuple[int, int]:
    """Tiles in a row of the image, and in all."""
    tiles_x = -(-splats.camera.width // LIST_PX)
    return tiles_x, tiles_x * -(-splats.camera.height // LIST_PX)


@lru_cache(maxsize=64)
def _attached(is_detached: tuple[bool, ...], device: torch.device) -> Tensor:
    return torch.tensor([0.0 if flag else 1.0 for flag in is_detached], device=device)


@lru_cache(maxsize=8)
def _n_multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


@lru_cache(maxsize=8)
def _precision(device: torch.device) -> str:
    """How dot products keep float32 accuracy: as three products in tf32 where the device has it."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        return "ieee"
    return "tf32"


def _geometry(splats: Splats) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """mean, scale, rotation, opacity, camera, contiguous; a placeholder for what is None."""
    mean, camera = splats.mean.detach().contiguous(), splats.camera
    cam = torch.cat([camera.R.reshape(-1), camera.t, camera.focal, camera.princpt])
    rotation, opacity = (
        mean if tensor is None else tensor.detach().contiguous()
        for tensor in (splats.rotation, splats.opacity)
    )
    return mean, splats.scale.detach().contiguous(), rotation, opacity, cam


def _project(splats: Splats, geometry: tuple[Tensor, ...]) -> Footprints:
    mean, n = geometry[0], len(geometry[0])
    row, depth = mean.new_empty(n, 8), mean.new_empty(n)
    box = torch.empty(n, 4, dtype=torch.int32, device=mean.device)
    count = torch.empty(n, dtype=torch.int32, device=mean.device)
    triton_projection.project[_blocks(n, PROJECTION_BLOCK)](
        *geometry,
        row,
        box,
        count,
        depth,
        n,
        splats.camera.width,
        splats.camera.height,
        SCALE_COLUMNS=splats.scale.shape[1],
        HAS_ROTATION=splats.rotation is not None,
        HAS_OPACITY=splats.opacity is not None,
        BLOCK=PROJECTION_BLOCK,
    )
    order = torch.sort(depth, stable=True).indices
    return Footprints(row, box, count, order, torch.cumsum(count[order], 0))


def _list(footprints: Footprints, tiles_x: int, n_tiles: int, capacity: int) -> Lists:
    device, n = footprints.row.device, len(footprints.order)
    is_short = n_tiles <= 2 * LARGEST_INT16
    offset = LARGEST_INT16 + 1 if is_short else 0
    key = torch.empty(capacity, dtype=torch.int16 if is_short else torch.int32, device=device)
    gaussian = torch.empty(capacity, dtype=torch.int32, device=device)
    triton_lists.list_pairs[_blocks(capacity, PAIR_BLOCK)](
        footprints.order,
        footprints.end,
        footprints.box,
        key,
        gaussian,
        n,
        tiles_x,
        n_tiles,
        capacity,
        N_STEPS=n.bit_length(),
        OFFSET=offset,
        BLOCK=PAIR_BLOCK,
    )
    key, pair = torch.sort(key, stable=True)
    slot = torch.empty_like(gaussian)
    ranges = torch.zeros(2, n_tiles, dtype=torch.int32, device=device)
    triton_lists.list_slots[_blocks(capacity, PAIR_BLOCK)](
        key, pair, gaussian, slot, ranges, n_tiles, capacity, OFFSET=offset, BLOCK=PAIR_BLOCK
    )
    rank = torch.empty(n_tiles, dtype=torch.uint8, device=device)
    triton_lists.rank_lists[_blocks(n_tiles, PAIR_BLOCK)](ranges, rank, n_tiles, BLOCK=PAIR_BLOCK)
    schedule = torch.sort(rank).indices  # the longest lists decide how long a call takes
    cell_slot = torch.empty(CELLS * capacity, dtype=torch.int32, device=device)
    cell_ranges = torch.empty(2, CELLS * n_tiles, dtype=torch.int32, device=device)
    triton_lists.split_lists[(n_tiles,)](
        slot,
        ranges,
        schedule,
        footprints.box,
        cell_slot,
        cell_ranges,
        n_tiles,
        tiles_x,
        BLOCK=SPLIT_BLOCK,
    )
    return Lists(cell_slot, cell_ranges, schedule)


def _reserved(n_channels: int) -> int:
    """Channels that programs reserve: dot products need a power of two from 16."""
    return max(16, 1 << (n_channels - 1).bit_length())


def _blend(
    splats: Splats, footprints: Footprints, lists: Lists, channels: Tensor, keep: bool
) -> tuple[Tensor, Trail]:
    camera, (n, n_channels), device = splats.camera, channels.shape, channels.device
    capacity, n_cells = len(lists.slot) // CELLS, lists.range.shape[1]
    image = channels.new_empty(n_channels, camera.height, camera.width)
    reserved = _reserved(n_channels)
    tuning = TUNING[reserved]
    n_checkpoints = len(lists.slot) // SEGMENT + 1 if keep else 1
    trail = Trail(
        used=torch.empty(n_cells, dtype=torch.int32, device=device),
        work=torch.zeros(2, dtype=torch.int32, device=device),
        start=torch.empty(n_cells if keep else 1, dtype=torch.int32, device=device),
        place=torch.empty(n_checkpoints, 2, dtype=torch.int32, device=device),
        checkpoint=channels.new_empty(n_checkpoints, n_channels + 1, CELL_PIXELS),
    )
    triton_blending.blend[(n_cells,)](
        lists.slot,
        lists.range,
        lists.schedule,
        footprints.row,
        channels,
        splats.background.contiguous(),
        footprints.end[n - 1 :],
        image,
        trail.used,
        trail.work,
        trail.start,
        trail.place,
        trail.checkpoint,
        n_cells,
        capacity,
        camera.width,
        camera.height,
        n_channels,
        K=tuning.k,
        CHANNELS=reserved,
        SEGMENT=SEGMENT if keep else 0,
        PRECISION=_precision(device),
        num_warps=tuning.n_warps,
    )
    return image, trail


def _rounded(n_pairs: float) -> int:
    return max(-(-int(SPARE * n_pairs) // ROUNDING), 1) * ROUNDING


def _announced(total: Tensor) -> tuple[Tensor, Any]:
    """A host copy of the number of pairs, and the event after which it is there."""
    if total.device.type != "cuda":
        return total, None
    on_host = torch.empty(1, dtype=total.dtype, pin_memory=True)
    on_host.copy_(total, non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(total.device))
    return on_host, event


def _draw(
    splats: Splats, geometry: tuple[Tensor, ...], channels: Tensor, keep: bool
) -> tuple[Tensor, Footprints, Lists, Trail]:
    """Image and what the backward needs; the capacity is right in the end."""
    device, n = channels.device, len(channels)
    tiles_x, n_tiles = _n_tiles(splats)
    footprints = _project(splats, geometry)
    key = (device, n, splats.camera.height, splats.camera.width)
    capacity = _capacities.get(key, _rounded(FIRST_GUESS * n))
    is_in_graph = is_capturing(device)
    if is_in_graph:
        capacity = _rounded(GRAPH_SPARE * capacity)
    on_host, event = (None, None) if is_in_graph else _announced(footprints.end[n - 1 :])
    while True:
        lists = _list(footprints, tiles_x, n_tiles, capacity)
        image, trail = _blend(splats, footprints, lists, channels, keep)
        if on_host is None:
            watch(footprints.end[n - 1 :], capacity)
            return image, footprints, lists, trail
        if event is not None:
            event.synchronize()
        n_pairs = int(on_host)
        if n_pairs > MAX_PAIRS:
            raise TooManyPairs(f"{n} Gaussians touch {n_pairs} tiles; the GPU kernels take {MAX_PAIRS}")
        if not capacity // 2 <= n_pairs * SPARE <= capacity:
            _capacities[key] = _rounded(n_pairs)
        if n_pairs <= capacity:
            return image, footprints, lists, trail
        capacity = _capacities[key]


@dataclass(frozen=True)
class _Call:
    """What the backward needs to know besides tensors."""

    is_detached: tuple[bool, ...]
    width: int
    height: int
    has_rotation: bool
    has_opacity: bool


def _without_tensors(splats: Splats) -> _Call:
    return _Call(
        splats.is_detached,
        splats.camera.width,
        splats.camera.height,
        splats.rotation is not None,
        splats.opacity is not None,
    )


def _unblend(
    call: _Call, channels: Tensor, image: Tensor, d_image: Tensor, row: Tensor, trail: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Moments (N, 8) of the exponents' gradients and the gradient of the channels; trail: lists, then the Trail."""
    (n, n_channels), device = channels.shape, channels.device
    reserved = _reserved(n_channels)
    tuning = TUNING[reserved]
    moments, d_channels = channels.new_zeros(n, 8), torch.zeros_like(channels)
    slot, ranges, *left = trail
    triton_blending.unblend[(tuning.programs_backward * _n_multiprocessors(device),)](
        slot,
        ranges,
        row,
        channels,
        *left,
        _attached(call.is_detached, device),
        image,
        d_image.contiguous(),
        moments,
        d_channels,
        call.width,
        call.height,
        n_channels,
        K=tuning.k_backward,
        CHANNELS=reserved,
        SEGMENT=SEGMENT,
        PRECISION=_precision(device),
        num_warps=tuning.n_warps,
        maxnreg=tuning.registers_backward,
    )
    return moments, d_channels


def _unproject(
    call: _Call, geometry: Sequence[Tensor], row: Tensor, count: Tensor, moments: Tensor
) -> list[Tensor]:
    """Gradients of mean, scale, rotation and opacity."""
    gradients = [torch.empty_like(tensor) for tensor in geometry[:4]]
    n = len(row)
    triton_projection.unproject[_blocks(n, PROJECTION_BLOCK)](
        *geometry,
        row,
        count,
        moments,
        *gradients,
        n,
        call.width,
        call.height,
        SCALE_COLUMNS=geometry[1].shape[1],
        HAS_ROTATION=call.has_rotation,
        HAS_OPACITY=call.has_opacity,
        BLOCK=PROJECTION_BLOCK,
    )
    return gradients


class _Rasterize(torch.autograd.Function):
    """Image of the splats. The tensors that may need gradients are arguments of their own, as autograd wants it."""

    @staticmethod
    def forward(
        ctx: Any,
        mean: Tensor,
        scale: Tensor,
        rotation: Tensor | None,
        opacity: Tensor | None,
        channels: Tensor,
        splats: Splats,
        keep: bool,
    ) -> Tensor:
        channels = channels.detach().contiguous()
        with torch.cuda.device_of(mean):
            geometry = _geometry(splats)
            image, footprints, lists, trail = _draw(splats, geometry, channels, keep)
        if keep:
            ctx.call = _without_tensors(splats)
            ctx.save_for_backward(
                *geometry,
                channels,
                image,
                footprints.row,
                footprints.count,
                lists.slot,
                lists.range,
                trail.used,
                trail.work,
                trail.start,
                trail.place,
                trail.checkpoint,
            )
        return image

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_image: Tensor) -> tuple[Tensor | None, ...]:
        *geometry, channels, image, row, count = ctx.saved_tensors[:9]
        with torch.cuda.device_of(d_image):
            moments, d_channels = _unblend(ctx.call, channels, image, d_image, row, ctx.saved_tensors[9:])
            d_geometry = _unproject(ctx.call, geometry, row, count, moments)
        d_mean, d_scale, d_rotation, d_opacity = d_geometry
        return (
            d_mean,
            d_scale,
            d_rotation if ctx.call.has_rotation else None,
            d_opacity if ctx.call.has_opacity else None,
            d_channels,
            None,
            None,
        )


def render(splats: Splats) -> Tensor:
    """Image (C, H, W) of the splats (SPEC 10); float32, as many channels as `triton_loader` lets through."""
    inputs = (splats.mean, splats.scale, splats.rotation, splats.opacity, splats.channels)
    if len(splats.mean) == 0:
        image = splats.background[:, None, None].expand(-1, splats.camera.height, splats.camera.width)
        return image + sum(tensor.sum() for tensor in inputs if tensor is not None)
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)
    return _Rasterize.apply(*inputs, splats, keep)  # type: ignore[no-untyped-call]
