"""Gaussian rasterizer on the CPU: numba kernels, forward and backward, behind one autograd function (SPEC 10)."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from common.rasterizer.interface import JACOBIAN_LIMIT, Splats
from common.rasterizer.numba_blending import bin_footprints, blend, unblend
from common.rasterizer.numba_projection import BIN_PX, N_MOMENTS, gather, project

GAUSSIANS_PER_CHUNK = 512
_one_call_at_a_time = threading.Lock()  # numba's fallback thread pool must not be entered twice


@dataclass(frozen=True)
class _Geometry:
    """The call's inputs as contiguous arrays; absent rotations or opacities have length 0."""

    mean: np.ndarray  # (N, 3)
    scale: np.ndarray  # (N, 1 or 3)
    rotation: np.ndarray  # (N or 0, 4)
    opacity: np.ndarray  # (N or 0,)
    cam: np.ndarray  # (18,) float64
    width: int
    height: int


@dataclass(frozen=True)
class _Bins:
    """Footprints sorted into the lists of B small tiles, S slots in all."""

    footprint: np.ndarray  # (N, 8)
    box: np.ndarray  # (N, 4) int64
    pairs: np.ndarray  # (N + 1,) int64, first pair of each Gaussian
    slot_of_pair: np.ndarray  # (S,) int64
    gaussian_of_slot: np.ndarray  # (S,) int64
    start: np.ndarray  # (B + 1,) int64, first slot of each tile
    n_x: int  # small tiles in a row


def _follow_torch_threads() -> None:
    """Use as many threads as torch does."""
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


def _array(tensor: Tensor | None, empty_shape: tuple[int, ...], dtype: torch.dtype) -> np.ndarray:
    if tensor is None:
        return torch.empty(empty_shape, dtype=dtype).numpy()
    return tensor.detach().contiguous().numpy()


def _geometry(splats: Splats) -> _Geometry:
    camera, dtype = splats.camera, splats.mean.dtype
    limit = JACOBIAN_LIMIT * torch.tensor(splats.tan_half_fov, dtype=torch.float64)
    parts = (camera.R.reshape(-1), camera.t, camera.focal, camera.princpt, limit)
    return _Geometry(
        mean=_array(splats.mean, (), dtype),
        scale=_array(splats.scale, (), dtype),
        rotation=_array(splats.rotation, (0, 4), dtype),
        opacity=_array(splats.opacity, (0,), dtype),
        cam=torch.cat([part.double() for part in parts]).numpy(),
        width=camera.width,
        height=camera.height,
    )


def _depth_order(depth: np.ndarray, index: np.ndarray) -> np.ndarray:
    """`index` sorted by depth, equal depths by index. Positive float32 order like their bits: one integer sort."""
    if depth.dtype != np.float32:
        return index[np.argsort(depth[index], kind="stable")]
    keys = (depth[index].view(np.uint32).astype(np.uint64) << np.uint64(32)) | index.astype(np.uint64)
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _bin(geometry: _Geometry) -> _Bins:
    n = geometry.mean.shape[0]
    footprint = np.empty((n, 8), geometry.mean.dtype)
    box = np.empty((n, 4), np.int64)
    n_bins = np.empty(n, np.int64)
    g = geometry
    project(g.mean, g.scale, g.rotation, g.opacity, g.cam, g.width, g.height, footprint, box, n_bins)
    order = _depth_order(footprint[:, 6].copy(), np.flatnonzero(n_bins))
    pairs = np.zeros(n + 1, np.int64)
    np.cumsum(n_bins, out=pairs[1:])
    n_x, n_y = -(-geometry.width // BIN_PX), -(-geometry.height // BIN_PX)
    start = np.zeros(n_x * n_y + 1, np.int64)
    slot_of_pair, gaussian_of_slot = np.empty(pairs[-1], np.int64), np.empty(pairs[-1], np.int64)
    n_bands = min(numba.get_num_threads(), n_y)
    bin_footprints(order, box, pairs, n_x, n_y, n_bands, start, slot_of_pair, gaussian_of_slot)
    return _Bins(footprint, box, pairs, slot_of_pair, gaussian_of_slot, start, n_x)


def _schedule(length: np.ndarray) -> np.ndarray:
    """Tiles dealt out to the threads, longest lists first, as the equal runs that prange hands to each."""
    order = np.argsort(-length, kind="stable")
    n_threads = numba.get_num_threads()
    return np.concatenate([order[i::n_threads] for i in range(n_threads)])


class _Blend(torch.autograd.Function):
    """Image of the splats; channels arrive with the attached ones first, as `channel_order` says."""

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
        geometry = _geometry(splats)
        channel_order = np.argsort(np.array(splats.is_detached, dtype=np.int64), kind="stable")
        packed = np.ascontiguousarray(channels.detach().numpy()[:, channel_order])
        background = splats.background.numpy()[channel_order]
        height, width = geometry.height, geometry.width
        image = np.empty((len(channel_order), height, width), geometry.mean.dtype)
        transmittance = np.empty((height, width), geometry.mean.dtype)
        last_slot = np.empty((height, width), np.int64)
        with _one_call_at_a_time:
            _follow_torch_threads()
            bins = _bin(geometry)
            blend(
                _schedule(np.diff(bins.start)),
                bins.n_x,
                bins.start,
                bins.gaussian_of_slot,
                bins.footprint,
                bins.box,
                packed,
                background,
                channel_order,
                image,
                transmittance,
                last_slot,
            )
        n_attached = splats.is_detached.count(False)
        ctx.saved = (geometry, bins, packed, background, channel_order, n_attached, transmittance, last_slot)
        return torch.from_numpy(image)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_image: Tensor) -> tuple[Tensor | None, ...]:
        geometry, bins, packed, background, channel_order, n_attached, transmittance, last_slot = ctx.saved
        n_used = _slots_used(last_slot, bins)
        row_start = np.concatenate([np.zeros(1, np.int64), np.cumsum(n_used)])
        rows = np.empty((row_start[-1], packed.shape[1] + N_MOMENTS), packed.dtype)
        d_mean, d_scale = np.zeros_like(geometry.mean), np.zeros_like(geometry.scale)
        d_rotation, d_opacity = np.zeros_like(geometry.rotation), np.zeros_like(geometry.opacity)
        d_channels = np.zeros_like(packed)
        with _one_call_at_a_time:
            _follow_torch_threads()
            unblend(
                _schedule(n_used),
                bins.n_x,
                bins.start,
                row_start,
                bins.gaussian_of_slot,
                bins.footprint,
                bins.box,
                packed,
                background,
                channel_order,
                n_attached,
                d_image.contiguous().numpy(),
                transmittance,
                last_slot,
                rows,
            )
            gather(
                -(-len(packed) // GAUSSIANS_PER_CHUNK),
                bins.pairs,
                bins.n_x,
                bins.start,
                row_start,
                bins.slot_of_pair,
                bins.footprint,
                bins.box,
                rows,
                geometry.mean,
                geometry.scale,
                geometry.rotation,
                geometry.opacity,
                geometry.cam,
                channel_order,
                d_mean,
                d_scale,
                d_rotation,
                d_opacity,
                d_channels,
            )
        return (
            torch.from_numpy(d_mean),
            torch.from_numpy(d_scale),
            torch.from_numpy(d_rotation) if len(d_rotation) else None,
            torch.from_numpy(d_opacity) if len(d_opacity) else None,
            torch.from_numpy(d_channels),
            None,
        )


def _slots_used(last_slot: np.ndarray, bins: _Bins) -> np.ndarray:
    """How many of each small tile's slots (B,) come before its pixels were all done."""
    height, width = last_slot.shape
    n_y = (len(bins.start) - 1) // bins.n_x
    padded = np.full((n_y * BIN_PX, bins.n_x * BIN_PX), -1, np.int64)
    padded[:height, :width] = last_slot
    last = padded.reshape(n_y, BIN_PX, bins.n_x, BIN_PX).max(axis=(1, 3)).reshape(-1)
    return np.maximum(last + 1 - bins.start[:-1], 0)


def render(splats: Splats) -> Tensor:
    """Image (C, H, W) of the splats (SPEC 10); CPU tensors only."""
    if splats.mean.device.type != "cpu":
        raise ValueError(
            f'the numba rasterizer works on CPU tensors, not on {splats.mean.device}; use "auto"'
        )
    return _Blend.apply(splats.mean, splats.scale, splats.rotation, splats.opacity, splats.channels, splats)  # type: ignore[no-untyped-call]
