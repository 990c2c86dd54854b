"""Triton kernel: Gaussians to footprints on the image (SPEC 10).

One program handles BLOCK Gaussians. A camera is 16 floats: R (9, row by row), t (3), focal (2), princpt (2).
No postponed annotations here: Triton reads them. Constants stand to the right: its interpreter wants it so.
"""

import math

import triton
import triton.language as tl

from common.rasterizer import interface
from common.rasterizer.triton_geometry import (
    FILTER_PX2,
    compensation,
    gram,
    jacobian,
    rotate_row,
    scales,
    to_camera,
    unit_quaternion,
)
from common.rasterizer.triton_lists import FARTHEST
from common.rasterizer.triton_pixels import CELL_PX, TILE_PX, eight_columns

NEAR_M = tl.constexpr(interface.NEAR_M)
MIN_ALPHA = tl.constexpr(interface.MIN_ALPHA)
# Widens ellipse bounds so that rounding never cuts a pixel that passes the alpha test.
MARGIN_PX = tl.constexpr(2e-3)
MARGIN_POWER = tl.constexpr(1e-3)
FAR_PX = tl.constexpr(1e9)  # beyond it a position counts as not finite
LOG2_E = tl.constexpr(1.4426950408889634)
LOG2_MIN_ALPHA = tl.constexpr(math.log2(interface.MIN_ALPHA))
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _cell_range(centre, variance, reach2, radius, size):
    """Cells along one axis, first and one past the last: the published tiles, and within them the ellipse."""
    n_tiles = (size + TILE_PX - 1) // TILE_PX
    top = n_tiles.to(tl.float32)
    tile_lo = tl.minimum(tl.maximum((centre - radius) / TILE_PX, 0.0), top).to(tl.int32)
    tile_hi = tl.minimum(tl.maximum((centre + radius + (TILE_PX - 1)) / TILE_PX, 0.0), top).to(tl.int32)
    reach = tl.sqrt(tl.maximum(reach2 * variance, 0.0)) + MARGIN_PX
    limit = size.to(tl.float32)
    lo = tl.ceil(tl.minimum(tl.maximum(centre - reach, 0.0), limit)).to(tl.int32)
    hi = tl.floor(tl.minimum(tl.maximum(centre + reach, -1.0), limit - 1.0)).to(tl.int32) + 1
    lo, hi = tl.maximum(lo, tile_lo * TILE_PX), tl.minimum(tl.minimum(hi, tile_hi * TILE_PX), size)
    return lo // CELL_PX, tl.where(hi > lo, (hi - 1) // CELL_PX + 1, lo // CELL_PX)


@triton.jit
def _n_tiles(lo, hi):
    """Tiles of four cells along one axis that the cells lo to hi - 1 lie in."""
    return tl.where(hi > lo, (hi - 1) // 4 - lo // 4 + 1, 0)


@triton.jit(do_not_specialize=["n", "width", "height", "top"])
def project(
    mean_ptr,  # (N, 3)
    scale_ptr,  # (N, SCALE_COLUMNS)
    rotation_ptr,  # (N, 4), not read unless HAS_ROTATION
    opacity_ptr,  # (N,), not read unless HAS_OPACITY
    cam_ptr,  # (16,)
    row_ptr,  # out (N, 8): u, v, A, B, C, log2 o, o, depth; with alpha = 2^(A dx^2 + B dx dy + C dy^2 + log2 o)
    box_ptr,  # out (N,) int64: cells of 4 x 4 pixels x0, x1, y0, y1, ends exclusive, of 16 bits each
    count_ptr,  # out (N,) int32: tiles touched, 0 if culled
    end_ptr,  # out (N,) int64 running sum of the counts; each program has a run of its own
    total_ptr,  # out int64, 0: sum of all counts
    depth_ptr,  # out (2,) int32, 0: bits of the largest depth, and of the smallest subtracted from FARTHEST
    n,
    width,
    height,
    top,
    SCALE_COLUMNS: tl.constexpr,
    HAS_ROTATION: tl.constexpr,
    HAS_OPACITY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Footprints of the Gaussians on an image of width x height that begins at row `top`, a multiple of 16."""
    g = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = g < n
    x, y, z = to_camera(mean_ptr, cam_ptr, g, is_in)
    is_behind = ~(z > NEAR_M)
    z = tl.where(is_behind, 1.0, z)
    p0, p1, p2, q0, q1, q2, _, _, _, _ = jacobian(x, y, z, cam_ptr, width, height)
    if HAS_ROTATION:
        w, qx, qy, qz, _ = unit_quaternion(rotation_ptr, g, is_in)
        p0, p1, p2 = rotate_row(p0, p1, p2, w, qx, qy, qz)
        q0, q1, q2 = rotate_row(q0, q1, q2, w, qx, qy, qz)
    s0, s1, s2 = scales(scale_ptr, g, is_in, SCALE_COLUMNS)
    xx, xy, yy, det0 = gram(p0, p1, p2, q0, q1, q2, s0, s1, s2)
    opacity, det = compensation(xx, yy, det0)
    if HAS_OPACITY:
        opacity *= tl.load(opacity_ptr + g, mask=is_in, other=0.0)
    u = tl.load(cam_ptr + 12) * tl.div_rn(x, z) + tl.load(cam_ptr + 14) - 0.5
    v = tl.load(cam_ptr + 13) * tl.div_rn(y, z) + tl.load(cam_ptr + 15) - 0.5
    is_drawn = is_in & ~is_behind & (opacity >= MIN_ALPHA) & (det < float("inf"))
    is_drawn = is_drawn & (tl.abs(u) < FAR_PX) & (tl.abs(v) < FAR_PX)
    u, v = tl.where(is_drawn, u, 0.0), tl.where(is_drawn, v, 0.0)
    a = tl.where(is_drawn, xx + FILTER_PX2, 1.0)
    c = tl.where(is_drawn, yy + FILTER_PX2, 1.0)
    det = tl.where(is_drawn, det, 1.0)
    xy = tl.where(is_drawn, xy, 0.0)
    opacity = tl.where(is_drawn, opacity, 1.0)
    middle = 0.5 * (a + c)
    radius = tl.ceil(3.0 * tl.sqrt_rn(middle + tl.sqrt_rn(tl.maximum(middle * middle - det, 0.1))))
    log2_opacity = tl.log2(opacity)
    reach2 = ((log2_opacity - LOG2_MIN_ALPHA) * LN_2 + MARGIN_POWER) * 2.0
    x0, x1 = _cell_range(u, a, reach2, radius, width)
    y0, y1 = _cell_range(v, c, reach2, radius, height)
    count = tl.where(is_drawn, _n_tiles(x0, x1) * _n_tiles(y0, y1), 0)
    values = eight_columns(
        u,
        v + top,
        c / det * (-0.5 * LOG2_E),
        xy / det * LOG2_E,
        a / det * (-0.5 * LOG2_E),
        log2_opacity,
        opacity,
        z,
    )
    tl.store(row_ptr + 8 * g[:, None] + tl.arange(0, 8)[None, :], values, mask=is_in[:, None])
    box = x0.to(tl.int64) + (x1.to(tl.int64) << 16)
    box += ((y0 + top // CELL_PX).to(tl.int64) << 32) + ((y1 + top // CELL_PX).to(tl.int64) << 48)
    tl.store(box_ptr + g, box, mask=is_in)
    tl.store(count_ptr + g, count, mask=is_in)
    counts = count.to(tl.int64)
    end = tl.atomic_add(total_ptr, tl.sum(counts, 0), sem="relaxed") + tl.cumsum(counts, 0)
    tl.store(end_ptr + g, end, mask=is_in)
    depth = z.to(tl.int32, bitcast=True)  # of positive numbers, bits are in the order of the numbers
    farthest = tl.max(tl.where(count > 0, depth, 0), 0)
    nearest = tl.max(tl.where(count > 0, -(depth - FARTHEST), 0), 0)
    tl.atomic_max(depth_ptr, farthest, sem="relaxed")
    tl.atomic_max(depth_ptr + 1, nearest, sem="relaxed")
