"""Launches of the projection's kernels: Gaussians to footprints on the canvas, and back to gradients (SPEC 10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.rasterizer import triton_projection, triton_unprojection
from common.rasterizer.interface import Splats
from common.rasterizer.triton_canvas import Canvas

BLOCK = 128  # Gaussians to a program


@dataclass(frozen=True)
class Footprints:
    """Outputs of `triton_projection.project`."""

    row: Tensor  # (N, 8)
    box: Tensor  # (N,) int64
    count: Tensor  # (N,) int32
    end: Tensor  # (N,) int64 running sums of `count`, by blocks of BLOCK Gaussians of a scene
    total: Tensor  # (1,) int64 sum of all counts
    depth: Tensor  # (2,) int32 the largest depth and the smallest, as `project` tells them
    sizes: tuple[int, ...]  # Gaussians of each scene


def geometry_of(splats: Splats) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """mean, scale, rotation, opacity, camera, contiguous; a placeholder for what is None."""
    mean, camera = splats.mean.detach().contiguous(), splats.camera
    cam = torch.cat([camera.R.reshape(-1), camera.t, camera.focal, camera.princpt])
    rotation, opacity = (
        mean if tensor is None else tensor.detach().contiguous()
        for tensor in (splats.rotation, splats.opacity)
    )
    return mean, splats.scale.detach().contiguous(), rotation, opacity, cam


def project(scenes: Sequence[Splats], geometries: Sequence[tuple[Tensor, ...]], canvas: Canvas) -> Footprints:
    """Footprints of the Gaussians of all scenes, whose geometries are those of `geometry_of`."""
    like, sizes = geometries[0][0], tuple(len(geometry[0]) for geometry in geometries)
    n, device = sum(sizes), like.device
    row = like.new_empty(n, 8)
    box = torch.empty(n, dtype=torch.int64, device=device)
    count = torch.empty(n, dtype=torch.int32, device=device)
    end = torch.empty(n, dtype=torch.int64, device=device)
    total = torch.zeros(2, dtype=torch.int64, device=device)
    depth = total[1:].view(torch.int32)
    first = 0
    for splats, geometry, top in zip(scenes, geometries, canvas.tops, strict=True):
        n_here = len(geometry[0])
        triton_projection.project[(-(-n_here // BLOCK),)](
            *geometry,
            row[first:],
            box[first:],
            count[first:],
            end[first:],
            total,
            depth,
            n_here,
            splats.camera.width,
            splats.camera.height,
            top,
            SCALE_COLUMNS=splats.scale.shape[1],
            HAS_ROTATION=splats.rotation is not None,
            HAS_OPACITY=splats.opacity is not None,
            BLOCK=BLOCK,
        )
        first += n_here
    return Footprints(row, box, count, end, total[:1], depth, sizes)


def unproject(
    geometry: Sequence[Tensor],
    has_rotation: bool,
    has_opacity: bool,
    size: tuple[int, int],
    row: Tensor,
    count: Tensor,
    moments: Tensor,
) -> list[Tensor | None]:
    """Gradients of mean, scale, rotation and opacity of one image's Gaussians; size: height, width of the image."""
    gradients = [torch.empty_like(tensor) for tensor in geometry[:4]]
    n, (height, width) = len(geometry[0]), size
    triton_unprojection.unproject[(-(-n // BLOCK),)](
        *geometry,
        row,
        count,
        moments,
        *gradients,
        n,
        width,
        height,
        SCALE_COLUMNS=geometry[1].shape[1],
        HAS_ROTATION=has_rotation,
        HAS_OPACITY=has_opacity,
        BLOCK=BLOCK,
    )
    d_mean, d_scale, d_rotation, d_opacity = gradients
    return [
        d_mean,
        d_scale,
        d_rotation if has_rotation else None,
        d_opacity if has_opacity else None,
    ]
