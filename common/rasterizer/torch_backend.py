"""Gaussian rasterizer in plain torch: the reference the other backends are measured against (SPEC 10).

Each 16x16 tile is one dense (Gaussians x pixels) computation, recomputed in the backward, so memory stays
that of one tile. Where the published backward differs from the derivative of the forward, the forward value
is kept and its gradient replaced (`straight-through`); `exact_gradients=True` gives plain autograd instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from common.camera import Camera
from common.rasterizer.interface import (
    EPS_COEFFICIENT,
    EPS_CONIC_BACKWARD,
    FILTER_PX2,
    JACOBIAN_LIMIT,
    MAX_ALPHA,
    MIN_ALPHA,
    MIN_DET_PX4,
    MIN_TRANSMITTANCE,
    NEAR_M,
    TILE_PX,
    Splats,
)


@dataclass(frozen=True)
class Footprints:
    """The M Gaussians that touch the image, front to back."""

    index: Tensor  # (M,) int64 into the N Gaussians
    mean_px: Tensor  # (M, 2) x, y; pixel (column j, row i) has its centre at (j, i)
    conic: Tensor  # (M, 3) xx, xy, yy of the inverse covariance
    opacity: Tensor  # (M,) compensated for the filter
    depth: Tensor  # (M,) metres
    radius_px: Tensor  # (M,)
    tile_lo: Tensor  # (M, 2) int64 x, y, first tile
    tile_hi: Tensor  # (M, 2) int64 one past the last tile


def _rotation_matrices(quaternion: Tensor) -> Tensor:
    """Matrices (N, 3, 3) of quaternions (N, 4) w, x, y, z of any length."""
    w, x, y, z = torch.nn.functional.normalize(quaternion, dim=-1).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def _half_covariances(scale: Tensor, rotation: Tensor | None) -> Tensor:
    """M (N, 3, 3) with covariance M M^T."""
    stretch = torch.diag_embed(scale.expand(-1, 3))
    return stretch if rotation is None else _rotation_matrices(rotation) @ stretch


def _clamped_xy(cam: Tensor, limit: tuple[float, float], exact_gradients: bool) -> tuple[Tensor, Tensor]:
    """x and y as the Jacobian uses them; in the published backward a clamped one is a constant."""
    clamped = []
    for axis in (0, 1):
        xy, z = cam[:, axis], cam[:, 2]
        ratio = xy / z
        value = ratio.clamp(-limit[axis], limit[axis]) * z
        if not exact_gradients:
            value = torch.where(ratio.abs() <= limit[axis], xy, value.detach())
        clamped.append(value)
    return clamped[0], clamped[1]


def _covariances_px(
    splats: Splats, visible: Tensor, cam: Tensor, exact_gradients: bool
) -> tuple[Tensor, ...]:
    """xx, xy, yy (M,) of the projected covariances, px^2, without the filter."""
    camera = splats.camera
    tan_x, tan_y = splats.tan_half_fov
    x, y = _clamped_xy(cam, (JACOBIAN_LIMIT * tan_x, JACOBIAN_LIMIT * tan_y), exact_gradients)
    z = cam[:, 2]
    zero = torch.zeros_like(z)
    row_x = torch.stack([camera.focal[0] / z, zero, -camera.focal[0] * x / (z * z)], -1)
    row_y = torch.stack([zero, camera.focal[1] / z, -camera.focal[1] * y / (z * z)], -1)
    jacobian = torch.stack([row_x, row_y], -2) @ camera.R
    rotation = None if splats.rotation is None else splats.rotation[visible]
    half = jacobian @ _half_covariances(splats.scale[visible], rotation)
    return (half[:, 0] ** 2).sum(-1), (half[:, 0] * half[:, 1]).sum(-1), (half[:, 1] ** 2).sum(-1)


def _compensation(det: Tensor, det_filtered: Tensor, exact_gradients: bool) -> Tensor:
    """Factor on the opacity that keeps a Gaussian's energy under the filter; 0 where degenerate."""
    det0, det1 = det.clamp(min=MIN_DET_PX4), det_filtered.clamp(min=MIN_DET_PX4)
    factor = (det0 / (det1 + EPS_COEFFICIENT) + EPS_COEFFICIENT).sqrt()
    if not exact_gradients:
        value, d0, d1 = factor.detach(), det0.detach(), det1.detach()
        slope = 0.5 / (value + EPS_COEFFICIENT)
        by_det0 = slope / (d1 + EPS_COEFFICIENT)
        by_det1 = -slope * d0 / (d1 * d1 + EPS_COEFFICIENT)
        factor = value + by_det0 * (det0 - d0) + by_det1 * (det1 - d1)
    degenerate = (det <= MIN_DET_PX4) | (det_filtered <= MIN_DET_PX4)
    return torch.where(degenerate, torch.zeros_like(factor), factor)


def _conics(xx: Tensor, xy: Tensor, yy: Tensor, exact_gradients: bool) -> Tensor:
    """Inverse (M, 3) of the filtered covariances."""
    if not exact_gradients:
        det2 = ((xx * yy - xy * xy) ** 2).detach()
        share = det2 / (det2 + EPS_CONIC_BACKWARD)
        xx, xy, yy = (v.detach() + share * (v - v.detach()) for v in (xx, xy, yy))
    det = xx * yy - xy * xy
    return torch.stack([yy, -xy, xx], -1) / det[:, None]


def _tile_range(mean_px: Tensor, radius: Tensor, n_tiles: Tensor) -> tuple[Tensor, Tensor]:
    """Published tiles (M, 2) x, y: trunc((u - r) / 16) to trunc((u + r + 15) / 16), clipped to the grid."""
    limit = n_tiles.to(mean_px.dtype)
    first = ((mean_px - radius[:, None]) / TILE_PX).trunc().clamp(min=0).minimum(limit)
    last = ((mean_px + radius[:, None] + TILE_PX - 1) / TILE_PX).trunc().clamp(min=0).minimum(limit)
    return first.long(), last.long()


def project(splats: Splats, exact_gradients: bool = False) -> Footprints:
    """Footprints on the image, culled and sorted by depth (stable)."""
    camera = splats.camera
    cam_all = camera.world_to_camera(splats.mean)
    visible = torch.nonzero(cam_all[:, 2] > NEAR_M)[:, 0]
    cam = cam_all[visible]
    mean_px = cam[:, :2] / cam[:, 2:] * camera.focal + camera.princpt - 0.5
    xx, xy, yy = _covariances_px(splats, visible, cam, exact_gradients)
    det = xx * yy - xy * xy
    xx, yy = xx + FILTER_PX2, yy + FILTER_PX2
    det_filtered = xx * yy - xy * xy
    opacity = _compensation(det, det_filtered, exact_gradients)
    if splats.opacity is not None:
        opacity = opacity * splats.opacity[visible]
    with torch.no_grad():
        middle = 0.5 * (xx + yy)
        radius = (3 * (middle + (middle * middle - det_filtered).clamp(min=0.1).sqrt()).sqrt()).ceil()
        n_tiles = torch.tensor([-(-camera.width // TILE_PX), -(-camera.height // TILE_PX)], device=xx.device)
        tile_lo, tile_hi = _tile_range(mean_px.nan_to_num(), radius.nan_to_num(), n_tiles)
        is_drawn = (tile_hi > tile_lo).all(-1) & (opacity >= MIN_ALPHA)
        is_drawn &= torch.isfinite(mean_px).all(-1) & torch.isfinite(radius)
        keep = torch.nonzero(is_drawn)[:, 0]
        keep = keep[torch.sort(cam[keep, 2], stable=True).indices]
    conic = _conics(xx[keep], xy[keep], yy[keep], exact_gradients)
    return Footprints(
        index=visible[keep],
        mean_px=mean_px[keep],
        conic=conic,
        opacity=opacity[keep],
        depth=cam[keep, 2],
        radius_px=radius[keep],
        tile_lo=tile_lo[keep],
        tile_hi=tile_hi[keep],
    )


def _blend_tile(
    mean_px: Tensor,  # (K, 2)
    conic: Tensor,  # (K, 3)
    opacity: Tensor,  # (K,)
    channels: Tensor,  # (K, C)
    pixels: Tensor,  # (P, 2) x, y
    is_detached: Tensor,  # (C,)
    background: Tensor,  # (C,)
    exact_gradients: bool,
) -> Tensor:
    """Blend K Gaussians front to back at P pixels: (C, P)."""
    dx = mean_px[:, None, 0] - pixels[None, :, 0]  # (K, P)
    dy = mean_px[:, None, 1] - pixels[None, :, 1]
    power = -0.5 * (conic[:, 0:1] * dx * dx + conic[:, 2:3] * dy * dy) - conic[:, 1:2] * dx * dy
    raw = opacity[:, None] * torch.exp(power)
    alpha = raw.clamp(max=MAX_ALPHA)
    if not exact_gradients:
        alpha = raw + (alpha - raw).detach()
    alpha = torch.where(alpha.detach() >= MIN_ALPHA, alpha, torch.zeros_like(alpha))
    passed = torch.cumprod(1 - alpha.detach(), 0) >= MIN_TRANSMITTANCE
    alpha = torch.where(passed, alpha, torch.zeros_like(alpha))
    remaining = torch.cat([dx.new_ones(1, dx.shape[1]), torch.cumprod(1 - alpha, 0)])
    weight, behind = alpha * remaining[:-1], remaining[-1:]
    attached_image = channels.T @ weight + background[:, None] * behind
    detached_image = channels.T @ weight.detach() + background[:, None] * behind.detach()
    return torch.where(is_detached[:, None], detached_image, attached_image)


def _tile_pixels(left: int, top: int, camera: Camera, like: Tensor) -> Tensor:
    """Coordinates (P, 2) of a tile's pixels inside the image, row by row."""
    y, x = torch.meshgrid(
        torch.arange(top, min(top + TILE_PX, camera.height), device=like.device, dtype=like.dtype),
        torch.arange(left, min(left + TILE_PX, camera.width), device=like.device, dtype=like.dtype),
        indexing="ij",
    )
    return torch.stack([x.reshape(-1), y.reshape(-1)], -1)


def render(splats: Splats, exact_gradients: bool = False) -> Tensor:
    """Image (C, H, W) of the splats (SPEC 10)."""
    camera = splats.camera
    prints = project(splats, exact_gradients)
    channels = splats.channels[prints.index]
    is_detached = torch.tensor(splats.is_detached, dtype=torch.bool, device=splats.mean.device)
    tile_rows = []
    for top in range(0, camera.height, TILE_PX):
        is_in_row = (prints.tile_lo[:, 1] <= top // TILE_PX) & (prints.tile_hi[:, 1] > top // TILE_PX)
        row = torch.nonzero(is_in_row)[:, 0]
        tiles = []
        for left in range(0, camera.width, TILE_PX):
            column = left // TILE_PX
            hit = row[(prints.tile_lo[row, 0] <= column) & (prints.tile_hi[row, 0] > column)]
            tile = checkpoint(
                _blend_tile,
                prints.mean_px[hit],
                prints.conic[hit],
                prints.opacity[hit],
                channels[hit],
                _tile_pixels(left, top, camera, splats.mean),
                is_detached,
                splats.background,
                exact_gradients,
                use_reentrant=False,
                preserve_rng_state=False,
            )
            tiles.append(
                tile.reshape(-1, min(TILE_PX, camera.height - top), min(TILE_PX, camera.width - left))
            )
        tile_rows.append(torch.cat(tiles, 2))
    return torch.cat(tile_rows, 1)
