"""Gaussian rasterizer on the CPU: numba kernels, forward and backward, behind one autograd function (SPEC 10)."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from common.rasterizer.interface import JACOBIAN_LIMIT, Splats
from common.rasterizer.numba_blending import blend, fill_bins, unblend
from common.rasterizer.numba_projection import BIN_PX, N_MOMENTS, gather, project
from common.rasterizer.numba_threads import torch_threads
from common.rasterizer.numba_types import Bins, Canvas, Footprints, Geometry, Gradients, Paint

GAUSSIANS_PER_CHUNK = 512


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _geometry(splats: Splats) -> Geometry:
    camera, mean = splats.camera, splats.mean
    limit = JACOBIAN_LIMIT * torch.tensor(splats.tan_half_fov, dtype=torch.float64)
    parts = (camera.R.reshape(-1), camera.t, camera.focal, camera.princpt, limit)
    return Geometry(
        mean=_array(mean),
        scale=_array(splats.scale),
        rotation=_array(mean.new_empty(0, 4) if splats.rotation is None else splats.rotation),
        opacity=_array(mean.new_empty(0) if splats.opacity is None else splats.opacity),
        cam=torch.cat([part.double() for part in parts]).numpy(),
    )


def _paint(splats: Splats) -> Paint:
    order = np.argsort(np.array(splats.is_detached, dtype=np.int64), kind="stable")
    return Paint(
        channels=np.ascontiguousarray(splats.channels.detach().numpy()[:, order]),
        background=splats.background.numpy()[order],
        order=order,
        n_attached=splats.is_detached.count(False),
    )


def _depth_order(depth: np.ndarray, index: np.ndarray) -> np.ndarray:
    """`index` sorted by depth, equal depths by index. Positive float32 order like their bits: one integer sort."""
    if depth.dtype != np.float32:
        return index[np.argsort(depth[index], kind="stable")]
    keys = (depth[index].view(np.uint32).astype(np.uint64) << np.uint64(32)) | index.astype(np.uint64)
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _n_chunks(n: int) -> int:
    return -(-n // GAUSSIANS_PER_CHUNK)


def _project(geometry: Geometry, width: int, height: int) -> Footprints:
    n, dtype = len(geometry.mean), geometry.mean.dtype
    footprints = Footprints(np.empty((n, 8), dtype), np.empty((n, 4), np.int64), np.empty(n, np.int64))
    project(_n_chunks(n), geometry, width, height, footprints)
    return footprints


def _bin(footprints: Footprints, width: int, height: int) -> Bins:
    n_x, n_y = -(-width // BIN_PX), -(-height // BIN_PX)
    first_pair = np.concatenate([np.zeros(1, np.int64), np.cumsum(footprints.n_bins)])
    bins = Bins(
        n_x=n_x,
        start=np.zeros(n_x * n_y + 1, np.int64),
        gaussian_of_slot=np.empty(first_pair[-1], np.int64),
        first_pair=first_pair,
        slot_of_pair=np.empty(first_pair[-1], np.int64),
    )
    order = _depth_order(footprints.value[:, 6].copy(), np.flatnonzero(footprints.n_bins))
    n_bands = min(numba.get_num_threads(), n_y)
    fill_bins(order, footprints.box, bins, n_bands, True)
    np.cumsum(bins.start, out=bins.start)
    fill_bins(order, footprints.box, bins, n_bands, False)
    return bins


def _schedule(length: np.ndarray) -> np.ndarray:
    """Tiles dealt out to the threads, longest lists first, as the equal runs that prange hands to each."""
    order = np.argsort(-length, kind="stable")
    n_threads = numba.get_num_threads()
    return np.concatenate([order[i::n_threads] for i in range(n_threads)])


def _slots_used(last_slot: np.ndarray, bins: Bins) -> np.ndarray:
    """How many of each small tile's slots (B,) come before its pixels were all done."""
    height, width = last_slot.shape
    n_y = (len(bins.start) - 1) // bins.n_x
    padded = np.full((n_y * BIN_PX, bins.n_x * BIN_PX), -1, np.int64)
    padded[:height, :width] = last_slot
    last = padded.reshape(n_y, BIN_PX, bins.n_x, BIN_PX).max(axis=(1, 3)).reshape(-1)
    return np.maximum(last + 1 - bins.start[:-1], 0)


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
    ) -> Tensor:
        geometry, paint = _geometry(splats), _paint(splats)
        width, height, dtype = splats.camera.width, splats.camera.height, geometry.mean.dtype
        canvas = Canvas(
            image=np.empty((len(paint.order), height, width), dtype),
            transmittance=np.empty((height, width), dtype),
            last_slot=np.empty((height, width), np.int64),
        )
        with torch_threads():
            footprints = _project(geometry, width, height)
            bins = _bin(footprints, width, height)
            blend(_schedule(np.diff(bins.start)), bins, footprints.value, footprints.box, paint, canvas)
        ctx.saved = geometry, paint, footprints, bins, canvas._replace(image=np.empty((0, 0, 0), dtype))
        return torch.from_numpy(canvas.image)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_image: Tensor) -> tuple[Tensor | None, ...]:
        geometry, paint, footprints, bins, canvas = ctx.saved
        canvas = canvas._replace(image=_array(d_image))
        n_used = _slots_used(canvas.last_slot, bins)
        row_start = np.concatenate([np.zeros(1, np.int64), np.cumsum(n_used)])
        rows = np.empty((row_start[-1], len(paint.order) + N_MOMENTS), paint.channels.dtype)
        gradients = Gradients(*(np.zeros_like(array) for array in (*geometry[:4], paint.channels)))
        value, box = footprints.value, footprints.box
        with torch_threads():
            unblend(_schedule(n_used), bins, row_start, value, box, paint, canvas, rows)
            gather(
                _n_chunks(len(geometry.mean)),
                geometry,
                value,
                box,
                bins,
                row_start,
                rows,
                paint.order,
                gradients,
            )
        mean, scale, rotation, opacity, channels = (torch.from_numpy(array) for array in gradients)
        has_rotation, has_opacity = ctx.needs_input_grad[2:4]
        return (
            mean,
            scale,
            rotation if has_rotation else None,
            opacity if has_opacity else None,
            channels,
            None,
        )


def render(splats: Splats) -> Tensor:
    """Image (C, H, W) of the splats (SPEC 10); CPU tensors only."""
    if splats.mean.device.type != "cpu":
        raise ValueError(
            f'the numba rasterizer works on CPU tensors, not on {splats.mean.device}; use "auto"'
        )
    return _Rasterize.apply(
        splats.mean, splats.scale, splats.rotation, splats.opacity, splats.channels, splats
    )  # type: ignore[no-untyped-call]
