"""Triton kernels: Gaussians to footprints on the image, and the published backward of it (SPEC 10).

One program handles BLOCK Gaussians. A camera is 16 floats: R (9, row by row), t (3), focal (2), princpt (2).
No postponed annotations here: Triton reads them. Constants stand to the right: its interpreter wants it so.
"""

import math

import triton
import triton.language as tl

from common.rasterizer import interface

TILE_PX = tl.constexpr(interface.TILE_PX)
CELL_PX = tl.constexpr(4)
NEAR_M = tl.constexpr(interface.NEAR_M)
FILTER_PX2 = tl.constexpr(interface.FILTER_PX2)
JACOBIAN_LIMIT = tl.constexpr(interface.JACOBIAN_LIMIT)
MIN_DET_PX4 = tl.constexpr(interface.MIN_DET_PX4)
MIN_ALPHA = tl.constexpr(interface.MIN_ALPHA)
EPS_COEFFICIENT = tl.constexpr(interface.EPS_COEFFICIENT)
EPS_CONIC_BACKWARD = tl.constexpr(interface.EPS_CONIC_BACKWARD)
MARGIN_PX = tl.constexpr(
    2e-3
)  # widens ellipse bounds so that rounding never cuts a pixel that passes the alpha test
MARGIN_POWER = tl.constexpr(1e-3)
FAR_PX = tl.constexpr(1e9)  # beyond it a position counts as not finite
LOG2_E = tl.constexpr(1.4426950408889634)
LOG2_MIN_ALPHA = tl.constexpr(math.log2(interface.MIN_ALPHA))
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _to_camera(mean_ptr, cam_ptr, g, is_in):
    """Camera coordinates of Gaussians g."""
    px = tl.load(mean_ptr + 3 * g, mask=is_in, other=0.0)
    py = tl.load(mean_ptr + 3 * g + 1, mask=is_in, other=0.0)
    pz = tl.load(mean_ptr + 3 * g + 2, mask=is_in, other=0.0)
    x = tl.load(cam_ptr) * px + tl.load(cam_ptr + 1) * py + tl.load(cam_ptr + 2) * pz + tl.load(cam_ptr + 9)
    y = (
        tl.load(cam_ptr + 3) * px
        + tl.load(cam_ptr + 4) * py
        + tl.load(cam_ptr + 5) * pz
        + tl.load(cam_ptr + 10)
    )
    z = (
        tl.load(cam_ptr + 6) * px
        + tl.load(cam_ptr + 7) * py
        + tl.load(cam_ptr + 8) * pz
        + tl.load(cam_ptr + 11)
    )
    return x, y, z


@triton.jit
def _jacobian(x, y, z, cam_ptr, width, height):
    """The two rows of J R, and x, y as clamped inside J."""
    fx, fy = tl.load(cam_ptr + 12), tl.load(cam_ptr + 13)
    limit_x, limit_y = width * JACOBIAN_LIMIT / (2 * fx), height * JACOBIAN_LIMIT / (2 * fy)
    jx = tl.minimum(tl.maximum(x / z, -limit_x), limit_x) * z
    jy = tl.minimum(tl.maximum(y / z, -limit_y), limit_y) * z
    j00, j02 = fx / z, -fx * jx / (z * z)
    j11, j12 = fy / z, -fy * jy / (z * z)
    p0 = j00 * tl.load(cam_ptr) + j02 * tl.load(cam_ptr + 6)
    p1 = j00 * tl.load(cam_ptr + 1) + j02 * tl.load(cam_ptr + 7)
    p2 = j00 * tl.load(cam_ptr + 2) + j02 * tl.load(cam_ptr + 8)
    q0 = j11 * tl.load(cam_ptr + 3) + j12 * tl.load(cam_ptr + 6)
    q1 = j11 * tl.load(cam_ptr + 4) + j12 * tl.load(cam_ptr + 7)
    q2 = j11 * tl.load(cam_ptr + 5) + j12 * tl.load(cam_ptr + 8)
    return p0, p1, p2, q0, q1, q2, jx, jy, limit_x, limit_y


@triton.jit
def _unit_quaternion(rotation_ptr, g, is_in):
    """Unit quaternion w, x, y, z and the length it had."""
    w = tl.load(rotation_ptr + 4 * g, mask=is_in, other=1.0)
    x = tl.load(rotation_ptr + 4 * g + 1, mask=is_in, other=0.0)
    y = tl.load(rotation_ptr + 4 * g + 2, mask=is_in, other=0.0)
    z = tl.load(rotation_ptr + 4 * g + 3, mask=is_in, other=0.0)
    norm = tl.maximum(tl.sqrt(w * w + x * x + y * y + z * z), 1e-12)
    return w / norm, x / norm, y / norm, z / norm, norm


@triton.jit
def _rotate_row(a, b, c, w, x, y, z):
    """Row vector times the matrix of a unit quaternion."""
    return (
        a * (1 - 2 * (y * y + z * z)) + b * 2 * (x * y + w * z) + c * 2 * (x * z - w * y),
        a * 2 * (x * y - w * z) + b * (1 - 2 * (x * x + z * z)) + c * 2 * (y * z + w * x),
        a * 2 * (x * z + w * y) + b * 2 * (y * z - w * x) + c * (1 - 2 * (x * x + y * y)),
    )


@triton.jit
def _scales(scale_ptr, g, is_in, SCALE_COLUMNS: tl.constexpr):
    """The standard deviations along the three axes."""
    s0 = tl.load(scale_ptr + SCALE_COLUMNS * g, mask=is_in, other=0.0)
    s1, s2 = s0, s0
    if SCALE_COLUMNS == 3:
        s1 = tl.load(scale_ptr + 3 * g + 1, mask=is_in, other=0.0)
        s2 = tl.load(scale_ptr + 3 * g + 2, mask=is_in, other=0.0)
    return s0, s1, s2


@triton.jit
def _gram(p0, p1, p2, q0, q1, q2, s0, s1, s2):
    """xx, xy, yy and determinant of the rows p and q with columns scaled by s."""
    a0, a1, a2, b0, b1, b2 = p0 * s0, p1 * s1, p2 * s2, q0 * s0, q1 * s1, q2 * s2
    c0, c1, c2 = a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0
    det = c0 * c0 + c1 * c1 + c2 * c2  # Lagrange's identity: nothing cancels
    return a0 * a0 + a1 * a1 + a2 * a2, a0 * b0 + a1 * b1 + a2 * b2, b0 * b0 + b1 * b1 + b2 * b2, det


@triton.jit
def _compensation(xx, yy, det0):
    """Opacity factor, 0 where degenerate, and the determinant of the filtered covariance."""
    det1 = det0 + (xx + yy + FILTER_PX2) * FILTER_PX2
    factor = tl.sqrt_rn(tl.div_rn(det0, det1 + EPS_COEFFICIENT) + EPS_COEFFICIENT)
    return tl.where((det0 > MIN_DET_PX4) & (det1 > MIN_DET_PX4), factor, 0.0), det1


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
    """Tiles of two cells along one axis that the cells lo to hi - 1 lie in."""
    return tl.where(hi > lo, (hi - 1) // 2 - lo // 2 + 1, 0)


@triton.jit(do_not_specialize=["n", "width", "height", "top"])
def project(
    mean_ptr,  # (N, 3)
    scale_ptr,  # (N, SCALE_COLUMNS)
    rotation_ptr,  # (N, 4), not read unless HAS_ROTATION
    opacity_ptr,  # (N,), not read unless HAS_OPACITY
    cam_ptr,  # (16,)
    row_ptr,  # out (N, 8): u, v, A, B, C, log2 o, o, unused; with alpha = 2^(A dx^2 + B dx dy + C dy^2 + log2 o)
    box_ptr,  # out (N, 4) int32: cells of 4 x 4 pixels x0, x1, y0, y1, ends exclusive
    count_ptr,  # out (N,) int32: tiles of 8 x 8 pixels touched, 0 if culled
    depth_ptr,  # out (N,): infinite if culled
    n,
    width,
    height,
    top,
    SCALE_COLUMNS: tl.constexpr,
    HAS_ROTATION: tl.constexpr,
    HAS_OPACITY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Footprints of the Gaussians on an image of width x height that begins at row `top`, a multiple of 8."""
    g = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = g < n
    x, y, z = _to_camera(mean_ptr, cam_ptr, g, is_in)
    is_behind = ~(z > NEAR_M)
    depth = z
    z = tl.where(is_behind, 1.0, z)
    p0, p1, p2, q0, q1, q2, _, _, _, _ = _jacobian(x, y, z, cam_ptr, width, height)
    if HAS_ROTATION:
        w, qx, qy, qz, _ = _unit_quaternion(rotation_ptr, g, is_in)
        p0, p1, p2 = _rotate_row(p0, p1, p2, w, qx, qy, qz)
        q0, q1, q2 = _rotate_row(q0, q1, q2, w, qx, qy, qz)
    s0, s1, s2 = _scales(scale_ptr, g, is_in, SCALE_COLUMNS)
    xx, xy, yy, det0 = _gram(p0, p1, p2, q0, q1, q2, s0, s1, s2)
    opacity, det = _compensation(xx, yy, det0)
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
    row = row_ptr + 8 * g
    tl.store(row, u, mask=is_in)
    tl.store(row + 1, v + top, mask=is_in)
    tl.store(row + 2, c / det * (-0.5 * LOG2_E), mask=is_in)
    tl.store(row + 3, xy / det * LOG2_E, mask=is_in)
    tl.store(row + 4, a / det * (-0.5 * LOG2_E), mask=is_in)
    tl.store(row + 5, log2_opacity, mask=is_in)
    tl.store(row + 6, opacity, mask=is_in)
    tl.store(box_ptr + 4 * g, x0, mask=is_in)
    tl.store(box_ptr + 4 * g + 1, x1, mask=is_in)
    tl.store(box_ptr + 4 * g + 2, y0 + top // CELL_PX, mask=is_in)
    tl.store(box_ptr + 4 * g + 3, y1 + top // CELL_PX, mask=is_in)
    tl.store(count_ptr + g, count, mask=is_in)
    tl.store(depth_ptr + g, tl.where(count > 0, depth, float("inf")), mask=is_in)


@triton.jit
def _covariance_gradient(xx, xy, yy, det0, d0, d1, d2, d_factor):
    """Gradient to the unfiltered covariance from conic (d0, d1, d2) and factor, with the published epsilons."""
    factor, det1 = _compensation(xx, yy, det0)
    a, b, c = xx + FILTER_PX2, xy, yy + FILTER_PX2
    inverse = 1.0 / (det1 * det1 + EPS_CONIC_BACKWARD)
    da = inverse * (-c * c * d0 + b * c * d1 - b * b * d2)
    db = inverse * (2 * b * c * d0 - (a * c + b * b) * d1 + 2 * a * b * d2)
    dc = inverse * (-b * b * d0 + a * b * d1 - a * a * d2)
    slope = 0.5 * d_factor / (factor + EPS_COEFFICIENT)
    by_det0 = slope / (det1 + EPS_COEFFICIENT)
    by_det1 = -slope * det0 / (det1 * det1 + EPS_COEFFICIENT)
    da += by_det0 * yy + by_det1 * c
    db -= 2 * b * (by_det0 + by_det1)
    dc += by_det0 * xx + by_det1 * a
    return da, db, dc, factor


@triton.jit
def _store(ptr, value, is_in, is_drawn):
    """Store the value, or 0 for a culled Gaussian."""
    tl.store(ptr, tl.where(is_drawn, value, 0.0), mask=is_in)


@triton.jit
def _store_quaternion_gradient(
    out_ptr, g, is_in, is_drawn, p0, p1, p2, q0, q1, q2, dp0, dp1, dp2, dq0, dq1, dq2, w, x, y, z, norm
):
    """Gradient to the given quaternions from the rotated rows' gradients; p, q: rows before the rotation."""
    d00, d01, d02 = p0 * dp0 + q0 * dq0, p0 * dp1 + q0 * dq1, p0 * dp2 + q0 * dq2
    d10, d11, d12 = p1 * dp0 + q1 * dq0, p1 * dp1 + q1 * dq1, p1 * dp2 + q1 * dq2
    d20, d21, d22 = p2 * dp0 + q2 * dq0, p2 * dp1 + q2 * dq1, p2 * dp2 + q2 * dq2
    gw = 2 * (z * (d10 - d01) + y * (d02 - d20) + x * (d21 - d12))
    gx = 2 * (y * (d01 + d10) + z * (d02 + d20) + w * (d21 - d12) - 2 * x * (d11 + d22))
    gy = 2 * (x * (d01 + d10) + z * (d12 + d21) + w * (d02 - d20) - 2 * y * (d00 + d22))
    gz = 2 * (x * (d02 + d20) + y * (d12 + d21) + w * (d10 - d01) - 2 * z * (d00 + d11))
    along = w * gw + x * gx + y * gy + z * gz
    _store(out_ptr + 4 * g, (gw - along * w) / norm, is_in, is_drawn)
    _store(out_ptr + 4 * g + 1, (gx - along * x) / norm, is_in, is_drawn)
    _store(out_ptr + 4 * g + 2, (gy - along * y) / norm, is_in, is_drawn)
    _store(out_ptr + 4 * g + 3, (gz - along * z) / norm, is_in, is_drawn)


@triton.jit
def _store_mean_gradient(
    out_ptr,
    cam_ptr,
    g,
    is_in,
    is_drawn,
    x,
    y,
    z,
    jx,
    jy,
    limit_x,
    limit_y,
    dp0,
    dp1,
    dp2,
    dq0,
    dq1,
    dq2,
    d_u,
    d_v,
):
    """Gradient to the means from those of the rows of J R and of the pixel position; a clamped x, y is constant."""
    r0, r1, r2 = tl.load(cam_ptr), tl.load(cam_ptr + 1), tl.load(cam_ptr + 2)
    r3, r4, r5 = tl.load(cam_ptr + 3), tl.load(cam_ptr + 4), tl.load(cam_ptr + 5)
    r6, r7, r8 = tl.load(cam_ptr + 6), tl.load(cam_ptr + 7), tl.load(cam_ptr + 8)
    fx, fy = tl.load(cam_ptr + 12), tl.load(cam_ptr + 13)
    d00, d02 = dp0 * r0 + dp1 * r1 + dp2 * r2, dp0 * r6 + dp1 * r7 + dp2 * r8
    d11, d12 = dq0 * r3 + dq1 * r4 + dq2 * r5, dq0 * r6 + dq1 * r7 + dq2 * r8
    z2 = z * z
    dz = -(fx * x * d_u + fy * y * d_v + fx * d00 + fy * d11) / z2
    dz += 2 * (fx * jx * d02 + fy * jy * d12) / (z2 * z)
    dx = fx / z * d_u - tl.where(tl.abs(x / z) <= limit_x, fx / z2 * d02, 0.0)
    dy = fy / z * d_v - tl.where(tl.abs(y / z) <= limit_y, fy / z2 * d12, 0.0)
    _store(out_ptr + 3 * g, r0 * dx + r3 * dy + r6 * dz, is_in, is_drawn)
    _store(out_ptr + 3 * g + 1, r1 * dx + r4 * dy + r7 * dz, is_in, is_drawn)
    _store(out_ptr + 3 * g + 2, r2 * dx + r5 * dy + r8 * dz, is_in, is_drawn)


@triton.jit(do_not_specialize=["n", "width", "height"])
def unproject(
    mean_ptr,
    scale_ptr,
    rotation_ptr,
    opacity_ptr,
    cam_ptr,
    row_ptr,  # (N, 8) of `project`
    count_ptr,  # (N,) of `project`
    moment_ptr,  # (N, 8): sums of the exponent's gradient times 1, dx, dy, dx^2, dx dy, dy^2
    d_mean_ptr,  # out, as the inputs
    d_scale_ptr,
    d_rotation_ptr,
    d_opacity_ptr,
    n,
    width,
    height,
    SCALE_COLUMNS: tl.constexpr,
    HAS_ROTATION: tl.constexpr,
    HAS_OPACITY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradients of the Gaussians from the moments that `unblend` summed."""
    g = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = g < n
    is_drawn = is_in & (tl.load(count_ptr + g, mask=is_in, other=0) > 0)
    row, moment = row_ptr + 8 * g, moment_ptr + 8 * g
    xx_conic = tl.load(row + 2, mask=is_drawn, other=0.0) * (-2.0 * LN_2)
    xy_conic = tl.load(row + 3, mask=is_drawn, other=0.0) * (-LN_2)
    yy_conic = tl.load(row + 4, mask=is_drawn, other=0.0) * (-2.0 * LN_2)
    m = tl.load(moment, mask=is_drawn, other=0.0)
    mx = tl.load(moment + 1, mask=is_drawn, other=0.0)
    my = tl.load(moment + 2, mask=is_drawn, other=0.0)
    d_u = -(xx_conic * mx + xy_conic * my)
    d_v = -(xy_conic * mx + yy_conic * my)
    d_xx = -0.5 * tl.load(moment + 3, mask=is_drawn, other=0.0)
    d_xy = -tl.load(moment + 4, mask=is_drawn, other=0.0)
    d_yy = -0.5 * tl.load(moment + 5, mask=is_drawn, other=0.0)
    d_opacity = m / tl.load(row + 6, mask=is_drawn, other=1.0)

    x, y, z = _to_camera(mean_ptr, cam_ptr, g, is_drawn)
    z = tl.where(is_drawn, z, 1.0)
    p0, p1, p2, q0, q1, q2, jx, jy, limit_x, limit_y = _jacobian(x, y, z, cam_ptr, width, height)
    t0, t1, t2, h0, h1, h2 = p0, p1, p2, q0, q1, q2
    if HAS_ROTATION:
        w, qx, qy, qz, norm = _unit_quaternion(rotation_ptr, g, is_drawn)
        t0, t1, t2 = _rotate_row(p0, p1, p2, w, qx, qy, qz)
        h0, h1, h2 = _rotate_row(q0, q1, q2, w, qx, qy, qz)
    s0, s1, s2 = _scales(scale_ptr, g, is_drawn, SCALE_COLUMNS)
    xx, xy, yy, det0 = _gram(t0, t1, t2, h0, h1, h2, s0, s1, s2)
    d_factor = d_opacity
    if HAS_OPACITY:
        d_factor = d_opacity * tl.load(opacity_ptr + g, mask=is_drawn, other=0.0)
    a, b, c, factor = _covariance_gradient(xx, xy, yy, det0, d_xx, d_xy, d_yy, d_factor)
    if HAS_OPACITY:
        _store(d_opacity_ptr + g, d_opacity * factor, is_in, is_drawn)
    ds0 = 2 * s0 * (a * t0 * t0 + b * t0 * h0 + c * h0 * h0)
    ds1 = 2 * s1 * (a * t1 * t1 + b * t1 * h1 + c * h1 * h1)
    ds2 = 2 * s2 * (a * t2 * t2 + b * t2 * h2 + c * h2 * h2)
    if SCALE_COLUMNS == 3:
        _store(d_scale_ptr + 3 * g, ds0, is_in, is_drawn)
        _store(d_scale_ptr + 3 * g + 1, ds1, is_in, is_drawn)
        _store(d_scale_ptr + 3 * g + 2, ds2, is_in, is_drawn)
    else:
        _store(d_scale_ptr + g, ds0 + ds1 + ds2, is_in, is_drawn)
    k0, k1, k2 = s0 * s0, s1 * s1, s2 * s2
    dt0, dt1, dt2 = k0 * (2 * a * t0 + b * h0), k1 * (2 * a * t1 + b * h1), k2 * (2 * a * t2 + b * h2)
    dh0, dh1, dh2 = k0 * (2 * c * h0 + b * t0), k1 * (2 * c * h1 + b * t1), k2 * (2 * c * h2 + b * t2)
    if HAS_ROTATION:
        _store_quaternion_gradient(
            d_rotation_ptr,
            g,
            is_in,
            is_drawn,
            p0,
            p1,
            p2,
            q0,
            q1,
            q2,
            dt0,
            dt1,
            dt2,
            dh0,
            dh1,
            dh2,
            w,
            qx,
            qy,
            qz,
            norm,
        )
        dt0, dt1, dt2 = _rotate_row(dt0, dt1, dt2, w, -qx, -qy, -qz)
        dh0, dh1, dh2 = _rotate_row(dh0, dh1, dh2, w, -qx, -qy, -qz)
    _store_mean_gradient(
        d_mean_ptr,
        cam_ptr,
        g,
        is_in,
        is_drawn,
        x,
        y,
        z,
        jx,
        jy,
        limit_x,
        limit_y,
        dt0,
        dt1,
        dt2,
        dh0,
        dh1,
        dh2,
        d_u,
        d_v,
    )
