"""Triton kernel: the published backward of the projection (SPEC 10).

One program handles BLOCK Gaussians. A camera is 16 floats: R (9, row by row), t (3), focal (2), princpt (2).
No postponed annotations here: Triton reads them. Constants stand to the right: its interpreter wants it so.
"""

import triton
import triton.language as tl

from common.rasterizer import interface
from common.rasterizer.triton_geometry import (
    EPS_COEFFICIENT,
    FILTER_PX2,
    compensation,
    gram,
    jacobian,
    rotate_row,
    scales,
    to_camera,
    unit_quaternion,
)

EPS_CONIC_BACKWARD = tl.constexpr(interface.EPS_CONIC_BACKWARD)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _covariance_gradient(xx, xy, yy, det0, d0, d1, d2, d_factor):
    """Gradient to the unfiltered covariance from conic (d0, d1, d2) and factor, with the published epsilons."""
    factor, det1 = compensation(xx, yy, det0)
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

    x, y, z = to_camera(mean_ptr, cam_ptr, g, is_drawn)
    z = tl.where(is_drawn, z, 1.0)
    p0, p1, p2, q0, q1, q2, jx, jy, limit_x, limit_y = jacobian(x, y, z, cam_ptr, width, height)
    t0, t1, t2, h0, h1, h2 = p0, p1, p2, q0, q1, q2
    if HAS_ROTATION:
        w, qx, qy, qz, norm = unit_quaternion(rotation_ptr, g, is_drawn)
        t0, t1, t2 = rotate_row(p0, p1, p2, w, qx, qy, qz)
        h0, h1, h2 = rotate_row(q0, q1, q2, w, qx, qy, qz)
    s0, s1, s2 = scales(scale_ptr, g, is_drawn, SCALE_COLUMNS)
    xx, xy, yy, det0 = gram(t0, t1, t2, h0, h1, h2, s0, s1, s2)
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
        dt0, dt1, dt2 = rotate_row(dt0, dt1, dt2, w, -qx, -qy, -qz)
        dh0, dh1, dh2 = rotate_row(dh0, dh1, dh2, w, -qx, -qy, -qz)
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
