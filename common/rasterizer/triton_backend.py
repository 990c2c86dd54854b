"""Gaussian rasterizer on the GPU: Triton kernels, forward and backward, behind one autograd function (SPEC 10).

Nothing waits for the device: lists of (Gaussian, tile) pairs get a capacity from earlier calls, and their true number
arrives while the rest of the call is already queued; only if it is larger is the call repeated. While a CUDA graph
is captured there is no repeating: if a replay finds more pairs than fit, its image is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from common.gpu import rooms
from common.rasterizer import triton_tile_lists as tile_lists
from common.rasterizer.interface import Splats
from common.rasterizer.triton_canvas import Canvas
from common.rasterizer.triton_footprints import Footprints, geometry_of, project, unproject
from common.rasterizer.triton_images import Trail, blend, unblend
from common.rasterizer.triton_tile_lists import Lists, list_gaussians


class TooManyPairs(RuntimeError):
    """The Gaussians touch more tiles than the kernels are made for."""


_capacities: dict[tuple[torch.device, int, int, int], int] = {}


def _announced(total: Tensor) -> tuple[Tensor, Any]:
    """A host copy of the number of pairs, and the event after which it is there."""
    if total.device.type != "cuda":
        return total, None
    on_host = torch.empty(1, dtype=total.dtype, device="cpu", pin_memory=True)
    on_host.copy_(total, non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(total.device))
    return on_host, event


def _draw(
    scenes: Sequence[Splats],
    geometries: Sequence[tuple[Tensor, ...]],
    canvas: Canvas,
    channels: Tensor,
) -> tuple[Tensor, Footprints, Lists, Trail]:
    """Canvas and what the backward needs; the capacity is right in the end."""
    device, n = channels.device, len(channels)
    tiles_x, n_tiles = canvas.n_tiles
    footprints = project(scenes, geometries, canvas)
    background = scenes[0].background if len(scenes) == 1 else channels.new_zeros(channels.shape[1])
    key = (device, n, canvas.height, canvas.width)
    capacity = _capacities.get(key, tile_lists.rounded(tile_lists.FIRST_GUESS * n))
    is_in_graph = rooms.is_capturing(device)
    if is_in_graph:
        capacity = tile_lists.rounded(capacity, tile_lists.GRAPH_SPARE)
    on_host, event = (None, None) if is_in_graph else _announced(footprints.total)
    while True:
        lists = list_gaussians(footprints, tiles_x, n_tiles, capacity)
        image, trail = blend(canvas, background, footprints, lists, channels)
        if on_host is None:
            rooms.watch(footprints.total, capacity)
            return image, footprints, lists, trail
        if event is not None:
            event.synchronize()
        n_pairs = int(on_host)
        if n_pairs > tile_lists.MAX_PAIRS:
            raise TooManyPairs(
                f"{n} Gaussians touch {n_pairs} tiles; the GPU kernels take {tile_lists.MAX_PAIRS}"
            )
        if not capacity // 2 <= n_pairs * tile_lists.SPARE <= capacity:
            _capacities[key] = tile_lists.rounded(n_pairs)
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
            geometries = [geometry_of(scene) for scene in scenes]
            image, footprints, lists, trail = _draw(scenes, geometries, canvas, channels)
        if keep:
            ctx.call = _Call.of(scenes, canvas)
            ctx.save_for_backward(
                channels,
                image,
                footprints.row,
                footprints.count,
                lists.slot,
                lists.counts,
                lists.chunk,
                trail.used,
                trail.part,
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
        lists, trail, flat = ctx.saved_tensors[4:7], Trail(*ctx.saved_tensors[7:9]), ctx.saved_tensors[9:]
        d_canvas = d_images[0]
        if len(d_images) > 1:
            d_canvas = torch.zeros_like(image)
            for d_image, top, (height, width) in zip(
                d_images, call.canvas.tops, call.canvas.sizes, strict=True
            ):
                d_canvas[: len(d_image), top : top + height, :width] = d_image
        gradients: list[Tensor | None] = []
        with torch.cuda.device_of(d_canvas):
            moments, d_channels = unblend(
                call.canvas, call.is_detached, channels, image, d_canvas, row, lists, trail
            )
            first = 0
            for which, d_image in enumerate(d_images):
                geometry = flat[5 * which : 5 * which + 5]
                here = slice(first, first + len(geometry[0]))
                gradients += unproject(
                    geometry,
                    call.has_rotation[which],
                    call.has_opacity[which],
                    call.canvas.sizes[which],
                    row[here],
                    count[here],
                    moments[here],
                )
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
