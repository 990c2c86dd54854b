"""Gaussian rasterizer on the GPU: Triton kernels, forward and backward, behind one autograd function (SPEC 10).

Nothing waits for the device: lists of (Gaussian, tile) pairs get a capacity from earlier calls, and their true number
arrives while the rest of the call is already queued; only if it is larger is the call repeated. While a CUDA graph
is captured there is no repeating: if a replay finds more pairs than fit, its image is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from common.gpu.rooms import is_capturing, watch
from common.rasterizer import triton_blending, triton_lists, triton_projection
from common.rasterizer.interface import TILE_PX, Splats

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


@dataclass(frozen=True)
class Canvas:
    """Images that are drawn together, one below the other."""

    width: int
    height: int
    tops: tuple[int, ...]  # first row of each image, a multiple of TILE_PX
    sizes: tuple[tuple[int, int], ...]  # height, width of each image

    @staticmethod
    def of(scenes: Sequence[Splats]) -> Canvas:
        """Room for every scene's image; each begins with a tile of its own."""
        sizes = tuple((scene.camera.height, scene.camera.width) for scene in scenes)
        heights = [-(-height // TILE_PX) * TILE_PX for height, _ in sizes[:-1]]
        tops = tuple(accumulate(heights, initial=0))
        return Canvas(max(width for _, width in sizes), tops[-1] + sizes[-1][0], tops, sizes)

    @property
    def n_tiles(self) -> tuple[int, int]:
        """Tiles in a row of the canvas, and in all."""
        tiles_x = -(-self.width // LIST_PX)
        return tiles_x, tiles_x * -(-self.height // LIST_PX)


@lru_cache(maxsize=64)
def _image_of_tiles(canvas: Canvas, device: torch.device) -> Tensor:
    """The image that every row of tiles belongs to."""
    rows = torch.arange(-(-canvas.height // LIST_PX)) * LIST_PX
    tops = torch.tensor(canvas.tops)
    return (torch.searchsorted(tops, rows, right=True) - 1).int().to(device)


@lru_cache(maxsize=64)
def _attached(is_detached: tuple[tuple[bool, ...], ...], device: torch.device) -> Tensor:
    """(images, C) from each image's flags; missing channels are detached."""
    width = max(map(len, is_detached))
    rows = [[0.0 if flag else 1.0 for flag in flags] + [0.0] * (width - len(flags)) for flags in is_detached]
    return torch.tensor(rows, device=device)


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


def _project(
    scenes: Sequence[Splats], geometries: Sequence[tuple[Tensor, ...]], canvas: Canvas
) -> Footprints:
    like, n = geometries[0][0], sum(len(geometry[0]) for geometry in geometries)
    row, depth = like.new_empty(n, 8), like.new_empty(n)
    box = torch.empty(n, 4, dtype=torch.int32, device=like.device)
    count = torch.empty(n, dtype=torch.int32, device=like.device)
    first = 0
    for splats, geometry, top in zip(scenes, geometries, canvas.tops, strict=True):
        n_here = len(geometry[0])
        triton_projection.project[_blocks(n_here, PROJECTION_BLOCK)](
            *geometry,
            row[first:],
            box[first:],
            count[first:],
            depth[first:],
            n_here,
            splats.camera.width,
            splats.camera.height,
            top,
            SCALE_COLUMNS=splats.scale.shape[1],
            HAS_ROTATION=splats.rotation is not None,
            HAS_OPACITY=splats.opacity is not None,
            BLOCK=PROJECTION_BLOCK,
        )
        first += n_here
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
    canvas: Canvas, background: Tensor, footprints: Footprints, lists: Lists, channels: Tensor, keep: bool
) -> tuple[Tensor, Trail]:
    (n, n_channels), device = channels.shape, channels.device
    capacity, n_cells = len(lists.slot) // CELLS, lists.range.shape[1]
    image = channels.new_empty(n_channels, canvas.height, canvas.width)
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
        background.contiguous(),
        footprints.end[n - 1 :],
        image,
        trail.used,
        trail.work,
        trail.start,
        trail.place,
        trail.checkpoint,
        n_cells,
        capacity,
        canvas.width,
        canvas.height,
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
    scenes: Sequence[Splats],
    geometries: Sequence[tuple[Tensor, ...]],
    canvas: Canvas,
    channels: Tensor,
    keep: bool,
) -> tuple[Tensor, Footprints, Lists, Trail]:
    """Canvas and what the backward needs; the capacity is right in the end."""
    device, n = channels.device, len(channels)
    tiles_x, n_tiles = canvas.n_tiles
    footprints = _project(scenes, geometries, canvas)
    background = scenes[0].background if len(scenes) == 1 else channels.new_zeros(channels.shape[1])
    key = (device, n, canvas.height, canvas.width)
    capacity = _capacities.get(key, _rounded(FIRST_GUESS * n))
    is_in_graph = is_capturing(device)
    if is_in_graph:
        capacity = _rounded(GRAPH_SPARE * capacity)
    on_host, event = (None, None) if is_in_graph else _announced(footprints.end[n - 1 :])
    while True:
        lists = _list(footprints, tiles_x, n_tiles, capacity)
        image, trail = _blend(canvas, background, footprints, lists, channels, keep)
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

    canvas: Canvas
    is_detached: tuple[tuple[bool, ...], ...]  # of each image
    has_rotation: tuple[bool, ...]
    has_opacity: tuple[bool, ...]

    @staticmethod
    def of(scenes: Sequence[Splats], canvas: Canvas) -> _Call:
        """A call without its tensors."""
        return _Call(
            canvas,
            tuple(scene.is_detached for scene in scenes),
            tuple(scene.rotation is not None for scene in scenes),
            tuple(scene.opacity is not None for scene in scenes),
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
        _image_of_tiles(call.canvas, device),
        image,
        d_image.contiguous(),
        moments,
        d_channels,
        call.canvas.width,
        call.canvas.height,
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
    call: _Call, which: int, geometry: Sequence[Tensor], row: Tensor, count: Tensor, moments: Tensor
) -> list[Tensor | None]:
    """Gradients of mean, scale, rotation and opacity of one image's Gaussians."""
    gradients = [torch.empty_like(tensor) for tensor in geometry[:4]]
    n, (height, width) = len(geometry[0]), call.canvas.sizes[which]
    triton_projection.unproject[_blocks(n, PROJECTION_BLOCK)](
        *geometry,
        row,
        count,
        moments,
        *gradients,
        n,
        width,
        height,
        SCALE_COLUMNS=geometry[1].shape[1],
        HAS_ROTATION=call.has_rotation[which],
        HAS_OPACITY=call.has_opacity[which],
        BLOCK=PROJECTION_BLOCK,
    )
    d_mean, d_scale, d_rotation, d_opacity = gradients
    return [
        d_mean,
        d_scale,
        d_rotation if call.has_rotation[which] else None,
        d_opacity if call.has_opacity[which] else None,
    ]


def _joined(scenes: Sequence[Splats]) -> Tensor:
    """Channels (all Gaussians, most channels) of the scenes, 0 where one has fewer."""
    if len(scenes) == 1:
        return scenes[0].channels.detach().contiguous()
    width = max(scene.channels.shape[1] for scene in scenes)
    joined, first = scenes[0].channels.new_zeros(sum(len(scene.channels) for scene in scenes), width), 0
    for scene in scenes:
        n, used = scene.channels.shape
        joined[first : first + n, :used] = scene.channels.detach()
        first += n
    return joined


class _Rasterize(torch.autograd.Function):
    """Images of scenes. The tensors that may need gradients are arguments of their own, as autograd wants it:

    mean, scale, rotation, opacity and channels of each scene.
    """

    @staticmethod
    def forward(ctx: Any, scenes: Sequence[Splats], keep: bool, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        canvas, channels = Canvas.of(scenes), _joined(scenes)
        with torch.cuda.device_of(channels):
            geometries = [_geometry(scene) for scene in scenes]
            image, footprints, lists, trail = _draw(scenes, geometries, canvas, channels, keep)
        if keep:
            ctx.call = _Call.of(scenes, canvas)
            ctx.save_for_backward(
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
                *(tensor for geometry in geometries for tensor in geometry),
            )
        if len(scenes) == 1:
            return (image,)
        return tuple(
            image[: scene.channels.shape[1], top : top + height, :width].clone()
            for scene, top, (height, width) in zip(scenes, canvas.tops, canvas.sizes, strict=True)
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d_images: Tensor) -> tuple[Tensor | None, ...]:
        call, (channels, image, row, count) = ctx.call, ctx.saved_tensors[:4]
        trail, flat = ctx.saved_tensors[4:11], ctx.saved_tensors[11:]
        d_canvas = d_images[0]
        if len(d_images) > 1:
            d_canvas = torch.zeros_like(image)
            for d_image, top, (height, width) in zip(
                d_images, call.canvas.tops, call.canvas.sizes, strict=True
            ):
                d_canvas[: len(d_image), top : top + height, :width] = d_image
        gradients: list[Tensor | None] = []
        with torch.cuda.device_of(d_canvas):
            moments, d_channels = _unblend(call, channels, image, d_canvas, row, trail)
            first = 0
            for which, d_image in enumerate(d_images):
                geometry = flat[5 * which : 5 * which + 5]
                here = slice(first, first + len(geometry[0]))
                gradients += _unproject(call, which, geometry, row[here], count[here], moments[here])
                gradients.append(d_channels[here, : len(d_image)])
                first = here.stop
        return (None, None, *gradients)


def render(splats: Splats) -> Tensor:
    """Image (C, H, W) of the splats (SPEC 10); float32, as many channels as `triton_loader` lets through."""
    return render_together([splats])[0]


def render_together(scenes: Sequence[Splats]) -> tuple[Tensor, ...]:
    """Images of several sets of Gaussians or cameras in one call, each with its channels.

    Several scenes share lists and launches; their backgrounds must be 0 then.
    """
    inputs = [(s.mean, s.scale, s.rotation, s.opacity, s.channels) for s in scenes]
    if any(len(splats.mean) == 0 for splats in scenes):
        if len(scenes) > 1:
            return tuple(render(splats) for splats in scenes)
        splats, tensors = scenes[0], inputs[0]
        image = splats.background[:, None, None].expand(-1, splats.camera.height, splats.camera.width)
        return (image + sum(tensor.sum() for tensor in tensors if tensor is not None),)
    flat = [tensor for tensors in inputs for tensor in tensors]
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in flat)
    result: tuple[Tensor, ...] = _Rasterize.apply(tuple(scenes), keep, *flat)  # type: ignore[no-untyped-call]
    return result
