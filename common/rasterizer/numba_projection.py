"""Numba kernels: Gaussians to footprints on the image, and the published backward of it (SPEC 10).

Kernels that call each other stay in one file: numba's cache does not see changes in other files.
A parallel kernel only calls others: numba drops its own writes to arrays inside a named tuple.
Arithmetic is float64 for either dtype, but for the camera coordinates, which decide the depth order.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from common.kernels import kernel
from common.rasterizer.interface import (
    EPS_COEFFICIENT,
    EPS_CONIC_BACKWARD,
    FILTER_PX2,
    MIN_ALPHA,
    MIN_DET_PX4,
    NEAR_M,
    TILE_PX,
)

BIN_PX = 8  # side of the small tiles that are blended; divides TILE_PX
N_MOMENTS = 6  # sums over pixels of the exponent's gradient times 1, dx, dy, dx^2, dx dy, dy^2
MARGIN_PX = 1e-3  # widens ellipse bounds so that rounding never cuts a pixel that passes the alpha test
MARGIN_POWER = 1e-3


@kernel(error_model="numpy")
def _to_camera(mean, cam, g):  # type: ignore[no-untyped-def]
    """Camera coordinates, rounded at the precision of `mean` as the reference does: they decide the depth order."""
    real = mean.dtype.type
    px, py, pz = mean[g, 0], mean[g, 1], mean[g, 2]
    x = real(cam[0]) * px + real(cam[1]) * py + real(cam[2]) * pz + real(cam[9])
    y = real(cam[3]) * px + real(cam[4]) * py + real(cam[5]) * pz + real(cam[10])
    z = real(cam[6]) * px + real(cam[7]) * py + real(cam[8]) * pz + real(cam[11])
    return float(x), float(y), float(z)


@kernel(error_model="numpy")
def _jacobian(x, y, z, cam):  # type: ignore[no-untyped-def]
    """The two rows of J R, and x, y as clamped inside J."""
    jx = min(max(x / z, -cam[16]), cam[16]) * z
    jy = min(max(y / z, -cam[17]), cam[17]) * z
    j00, j02 = cam[12] / z, -cam[12] * jx / (z * z)
    j11, j12 = cam[13] / z, -cam[13] * jy / (z * z)
    row_x = (j00 * cam[0] + j02 * cam[6], j00 * cam[1] + j02 * cam[7], j00 * cam[2] + j02 * cam[8])
    row_y = (j11 * cam[3] + j12 * cam[6], j11 * cam[4] + j12 * cam[7], j11 * cam[5] + j12 * cam[8])
    return row_x, row_y, jx, jy


@kernel(error_model="numpy")
def _quaternion(rotation, g):  # type: ignore[no-untyped-def]
    """Unit quaternion w, x, y, z and the length it had; identity if there are no rotations."""
    if rotation.shape[0] == 0:
        return 1.0, 0.0, 0.0, 0.0, 1.0
    w, x, y, z = float(rotation[g, 0]), float(rotation[g, 1]), float(rotation[g, 2]), float(rotation[g, 3])
    norm = max(math.sqrt(w * w + x * x + y * y + z * z), 1e-12)
    return w / norm, x / norm, y / norm, z / norm, norm


@kernel(error_model="numpy")
def _rotate_row(row, w, x, y, z):  # type: ignore[no-untyped-def]
    """Row vector times the matrix of a unit quaternion."""
    a, b, c = row
    return (
        a * (1 - 2 * (y * y + z * z)) + b * 2 * (x * y + w * z) + c * 2 * (x * z - w * y),
        a * 2 * (x * y - w * z) + b * (1 - 2 * (x * x + z * z)) + c * 2 * (y * z + w * x),
        a * 2 * (x * z + w * y) + b * 2 * (y * z - w * x) + c * (1 - 2 * (x * x + y * y)),
    )


@kernel(error_model="numpy")
def _scales(scale, g):  # type: ignore[no-untyped-def]
    last = scale.shape[1] - 1
    return float(scale[g, 0]), float(scale[g, min(1, last)]), float(scale[g, last])


@kernel(error_model="numpy")
def _gram(p, q, s):  # type: ignore[no-untyped-def]
    """xx, xy, yy of the two rows p and q with columns scaled by s."""
    p0, p1, p2 = p[0] * s[0], p[1] * s[1], p[2] * s[2]
    q0, q1, q2 = q[0] * s[0], q[1] * s[1], q[2] * s[2]
    return p0 * p0 + p1 * p1 + p2 * p2, p0 * q0 + p1 * q1 + p2 * q2, q0 * q0 + q1 * q1 + q2 * q2


@kernel(error_model="numpy")
def _compensation(xx, xy, yy):  # type: ignore[no-untyped-def]
    """Opacity factor and the two determinants, plain and filtered; 0 where degenerate."""
    det0 = xx * yy - xy * xy
    det1 = (xx + FILTER_PX2) * (yy + FILTER_PX2) - xy * xy
    if not (det0 > MIN_DET_PX4 and det1 > MIN_DET_PX4):
        return 0.0, det0, det1
    return math.sqrt(det0 / (det1 + EPS_COEFFICIENT) + EPS_COEFFICIENT), det0, det1


@kernel(error_model="numpy")
def _pixel_range(centre, variance, power, radius, size):  # type: ignore[no-untyped-def]
    """Pixels along one axis: published tile range, and within it the ellipse's extent at alpha = 1/255."""
    n_tiles = (size + TILE_PX - 1) // TILE_PX
    tile_lo = int(min(max((centre - radius) / TILE_PX, 0.0), float(n_tiles)))
    tile_hi = int(min(max((centre + radius + TILE_PX - 1) / TILE_PX, 0.0), float(n_tiles)))
    reach = math.sqrt(max(-2.0 * power * variance, 0.0)) + MARGIN_PX
    lo = math.ceil(min(max(centre - reach, 0.0), float(size)))
    hi = math.floor(min(max(centre + reach, -1.0), size - 1.0)) + 1
    return max(lo, tile_lo * TILE_PX), min(hi, tile_hi * TILE_PX)


@kernel(error_model="numpy")
def _project_one(geometry, width, height, g, value, box):  # type: ignore[no-untyped-def]
    """Fill row g of the footprints; the number of small tiles it touches (0: culled)."""
    cam = geometry.cam
    x, y, z = _to_camera(geometry.mean, cam, g)
    if not z > float(geometry.mean.dtype.type(NEAR_M)):
        return 0
    row_x, row_y, _, _ = _jacobian(x, y, z, cam)
    w, qx, qy, qz, _ = _quaternion(geometry.rotation, g)
    p, q = _rotate_row(row_x, w, qx, qy, qz), _rotate_row(row_y, w, qx, qy, qz)
    xx, xy, yy = _gram(p, q, _scales(geometry.scale, g))
    opacity, _, det = _compensation(xx, xy, yy)
    if geometry.opacity.shape[0] > 0:
        opacity *= float(geometry.opacity[g])
    u, v = cam[12] * x / z + cam[14] - 0.5, cam[13] * y / z + cam[15] - 0.5
    if not (opacity >= MIN_ALPHA and math.isfinite(u) and math.isfinite(v) and math.isfinite(det)):
        return 0
    a, c = xx + FILTER_PX2, yy + FILTER_PX2
    middle = 0.5 * (a + c)
    radius = math.ceil(3.0 * math.sqrt(middle + math.sqrt(max(0.1, middle * middle - det))))
    least = -math.log(opacity / MIN_ALPHA) - MARGIN_POWER
    x0, x1 = _pixel_range(u, a, least, radius, width)
    y0, y1 = _pixel_range(v, c, least, radius, height)
    if x0 >= x1 or y0 >= y1:
        return 0
    value[g, 0], value[g, 1] = u, v
    value[g, 2], value[g, 3], value[g, 4] = c / det, -xy / det, a / det
    value[g, 5], value[g, 6], value[g, 7] = opacity, z, least
    box[g, 0], box[g, 1], box[g, 2], box[g, 3] = x0, x1, y0, y1
    return ((x1 - 1) // BIN_PX - x0 // BIN_PX + 1) * ((y1 - 1) // BIN_PX - y0 // BIN_PX + 1)


@kernel(error_model="numpy")
def _project_chunk(geometry, width, height, first, last, footprints):  # type: ignore[no-untyped-def]
    for g in range(first, last):
        footprints.n_bins[g] = _project_one(geometry, width, height, g, footprints.value, footprints.box)


@kernel(error_model="numpy", parallel=True)
def project(n_chunks, geometry, width, height, footprints):  # type: ignore[no-untyped-def]
    """Fill the footprints on an image of width x height."""
    n = footprints.n_bins.shape[0]
    for i in numba.prange(n_chunks):
        _project_chunk(geometry, width, height, i * n // n_chunks, (i + 1) * n // n_chunks, footprints)


@kernel(error_model="numpy")
def _covariance_gradient(xx, xy, yy, d_conic, d_coefficient):  # type: ignore[no-untyped-def]
    """Gradient to the unfiltered covariance xx, xy, yy, with the published epsilons."""
    coefficient, det0, det1 = _compensation(xx, xy, yy)
    a, b, c = xx + FILTER_PX2, xy, yy + FILTER_PX2
    d0, d1, d2 = d_conic
    inverse = 1.0 / (det1 * det1 + EPS_CONIC_BACKWARD)
    da = inverse * (-c * c * d0 + b * c * d1 - b * b * d2)
    db = inverse * (2 * b * c * d0 - (a * c + b * b) * d1 + 2 * a * b * d2)
    dc = inverse * (-b * b * d0 + a * b * d1 - a * a * d2)
    slope = 0.5 * d_coefficient / (coefficient + EPS_COEFFICIENT)
    by_det0 = slope / (det1 + EPS_COEFFICIENT)
    by_det1 = -slope * det0 / (det1 * det1 + EPS_COEFFICIENT)
    return (
        da + by_det0 * yy + by_det1 * c,
        db - 2 * b * (by_det0 + by_det1),
        dc + by_det0 * xx + by_det1 * a,
    )


@kernel(error_model="numpy")
def _camera_gradient(point, clamped, d_row_x, d_row_y, d_u, d_v, cam):  # type: ignore[no-untyped-def]
    """Gradient to the camera-space mean from the rows of J R and from the pixel position."""
    x, y, z = point
    jx, jy = clamped
    fx, fy = cam[12], cam[13]
    d00 = d_row_x[0] * cam[0] + d_row_x[1] * cam[1] + d_row_x[2] * cam[2]
    d02 = d_row_x[0] * cam[6] + d_row_x[1] * cam[7] + d_row_x[2] * cam[8]
    d11 = d_row_y[0] * cam[3] + d_row_y[1] * cam[4] + d_row_y[2] * cam[5]
    d12 = d_row_y[0] * cam[6] + d_row_y[1] * cam[7] + d_row_y[2] * cam[8]
    z2 = z * z
    dx, dy = fx / z * d_u, fy / z * d_v
    dz = -(fx * x * d_u + fy * y * d_v + fx * d00 + fy * d11) / z2
    dz += 2 * (fx * jx * d02 + fy * jy * d12) / (z2 * z)
    if abs(x / z) <= cam[16]:
        dx -= fx / z2 * d02
    if abs(y / z) <= cam[17]:
        dy -= fy / z2 * d12
    return dx, dy, dz


@kernel(error_model="numpy")
def _quaternion_gradient(row_x, row_y, dq_x, dq_y, unit, norm):  # type: ignore[no-untyped-def]
    """Gradient to the given quaternion from the rotated rows' gradients."""
    w, x, y, z = unit
    d00, d01, d02 = (
        row_x[0] * dq_x[0] + row_y[0] * dq_y[0],
        row_x[0] * dq_x[1] + row_y[0] * dq_y[1],
        row_x[0] * dq_x[2] + row_y[0] * dq_y[2],
    )
    d10, d11, d12 = (
        row_x[1] * dq_x[0] + row_y[1] * dq_y[0],
        row_x[1] * dq_x[1] + row_y[1] * dq_y[1],
        row_x[1] * dq_x[2] + row_y[1] * dq_y[2],
    )
    d20, d21, d22 = (
        row_x[2] * dq_x[0] + row_y[2] * dq_y[0],
        row_x[2] * dq_x[1] + row_y[2] * dq_y[1],
        row_x[2] * dq_x[2] + row_y[2] * dq_y[2],
    )
    gw = 2 * (z * (d10 - d01) + y * (d02 - d20) + x * (d21 - d12))
    gx = 2 * (y * (d01 + d10) + z * (d02 + d20) + w * (d21 - d12) - 2 * x * (d11 + d22))
    gy = 2 * (x * (d01 + d10) + z * (d12 + d21) + w * (d02 - d20) - 2 * y * (d00 + d22))
    gz = 2 * (x * (d02 + d20) + y * (d12 + d21) + w * (d10 - d01) - 2 * z * (d00 + d11))
    along = w * gw + x * gx + y * gy + z * gz
    return (gw - along * w) / norm, (gx - along * x) / norm, (gy - along * y) / norm, (gz - along * z) / norm


@kernel(error_model="numpy")
def _unproject_one(geometry, g, d_footprint, gradients):  # type: ignore[no-untyped-def]
    """Gradients of Gaussian g from those of its footprint (mean x, y, conic xx, xy, yy, opacity)."""
    cam, scale = geometry.cam, geometry.scale
    d_u, d_v, d_xx, d_xy, d_yy, d_opacity = d_footprint
    x, y, z = _to_camera(geometry.mean, cam, g)
    row_x, row_y, jx, jy = _jacobian(x, y, z, cam)
    w, qx, qy, qz, norm = _quaternion(geometry.rotation, g)
    p, q = _rotate_row(row_x, w, qx, qy, qz), _rotate_row(row_y, w, qx, qy, qz)
    s0, s1, s2 = _scales(scale, g)
    xx, xy, yy = _gram(p, q, (s0, s1, s2))
    if geometry.opacity.shape[0] > 0:
        gradients.opacity[g] = d_opacity * _compensation(xx, xy, yy)[0]
        d_opacity *= float(geometry.opacity[g])
    a, b, c = _covariance_gradient(xx, xy, yy, (d_xx, d_xy, d_yy), d_opacity)
    ds0 = 2 * s0 * (a * p[0] * p[0] + b * p[0] * q[0] + c * q[0] * q[0])
    ds1 = 2 * s1 * (a * p[1] * p[1] + b * p[1] * q[1] + c * q[1] * q[1])
    ds2 = 2 * s2 * (a * p[2] * p[2] + b * p[2] * q[2] + c * q[2] * q[2])
    if scale.shape[1] == 1:
        gradients.scale[g, 0] = ds0 + ds1 + ds2
    else:
        gradients.scale[g, 0], gradients.scale[g, 1], gradients.scale[g, 2] = ds0, ds1, ds2
    k0, k1, k2 = s0 * s0, s1 * s1, s2 * s2
    dp = (k0 * (2 * a * p[0] + b * q[0]), k1 * (2 * a * p[1] + b * q[1]), k2 * (2 * a * p[2] + b * q[2]))
    dq = (k0 * (2 * c * q[0] + b * p[0]), k1 * (2 * c * q[1] + b * p[1]), k2 * (2 * c * q[2] + b * p[2]))
    if geometry.rotation.shape[0] > 0:
        dw, dx, dy, dz = _quaternion_gradient(row_x, row_y, dp, dq, (w, qx, qy, qz), norm)
        d_rotation = gradients.rotation[g]
        d_rotation[0], d_rotation[1], d_rotation[2], d_rotation[3] = dw, dx, dy, dz
    d_row_x, d_row_y = _rotate_row(dp, w, -qx, -qy, -qz), _rotate_row(dq, w, -qx, -qy, -qz)
    dx, dy, dz = _camera_gradient((x, y, z), (jx, jy), d_row_x, d_row_y, d_u, d_v, cam)
    gradients.mean[g, 0] = cam[0] * dx + cam[3] * dy + cam[6] * dz
    gradients.mean[g, 1] = cam[1] * dx + cam[4] * dy + cam[7] * dz
    gradients.mean[g, 2] = cam[2] * dx + cam[5] * dy + cam[8] * dz


@kernel(error_model="numpy")
def _add_rows(g, bins, row_start, box, rows, total):  # type: ignore[no-untyped-def]
    """Add up the rows of Gaussian g; whether it has any."""
    left, right = box[g, 0] // BIN_PX, (box[g, 1] - 1) // BIN_PX
    n_columns = right - left + 1
    total[:] = 0.0
    is_used = False
    for pair in range(bins.first_pair[g], bins.first_pair[g + 1]):
        k = pair - bins.first_pair[g]
        b = (box[g, 2] // BIN_PX + k // n_columns) * bins.n_x + left + k % n_columns
        r = bins.slot_of_pair[pair] - bins.start[b] + row_start[b]
        if r < row_start[b + 1]:
            is_used = True
            for c in range(total.shape[0]):
                total[c] += rows[r, c]
    return is_used


@kernel(error_model="numpy")
def _gather_chunk(geometry, value, box, bins, row_start, rows, order, first, last, gradients):  # type: ignore[no-untyped-def]
    n_channels = order.shape[0]
    total = np.zeros(n_channels + N_MOMENTS)
    for g in range(first, last):
        if bins.first_pair[g] == bins.first_pair[g + 1]:
            continue
        if not _add_rows(g, bins, row_start, box, rows, total):
            continue
        for c in range(n_channels):
            gradients.channels[g, order[c]] = total[c]
        m, mx, my = total[n_channels], total[n_channels + 1], total[n_channels + 2]
        xx, xy, yy = float(value[g, 2]), float(value[g, 3]), float(value[g, 4])
        d_footprint = (
            -(xx * mx + xy * my),
            -(xy * mx + yy * my),
            -0.5 * total[n_channels + 3],
            -total[n_channels + 4],
            -0.5 * total[n_channels + 5],
            m / float(value[g, 5]),
        )
        _unproject_one(geometry, g, d_footprint, gradients)


@kernel(error_model="numpy", parallel=True)
def gather(n_chunks, geometry, value, box, bins, row_start, rows, order, gradients):  # type: ignore[no-untyped-def]
    """Rows of `unblend` to gradients of the Gaussians, which arrive as zeros; `order`: place of each channel."""
    n = gradients.channels.shape[0]
    for i in numba.prange(n_chunks):
        first, last = i * n // n_chunks, (i + 1) * n // n_chunks
        _gather_chunk(geometry, value, box, bins, row_start, rows, order, first, last, gradients)
