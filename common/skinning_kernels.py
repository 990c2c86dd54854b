"""CPU kernels (numba) of the skinning field: diffusion on the grid, and lookups with their gradient.

A lookup averages 13 trilinear samples on three axis-parallel lines through the centre (SPEC 8). Along each
line only one coordinate changes, so the 13 x 8 corners collapse to the 2 x 2 x 2 block around the centre plus
2 x 2 grid points for each further plane near a sample. Coordinates are in cells: grid point i is at i.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from common.kernels import kernel
from common.skinning_lookup import SAMPLE_WEIGHTS

ONE_SIGMA_WEIGHT, TWO_SIGMA_WEIGHT = SAMPLE_WEIGHTS[0], SAMPLE_WEIGHTS[2]
# The centre's cell, and two planes of 2 x 2 points for each of four samples on three lines.
MAX_ROWS = 8 + 3 * 4 * 8
CHUNK = 256  # Gaussians to one task
_FASTMATH = {"reassoc", "contract", "nsz"}  # vectorises dot products; NaN and infinity keep their meaning


@kernel(parallel=True, error_model="numpy")
def diffuse(channels: np.ndarray, other: np.ndarray, is_fixed: np.ndarray, rate: float) -> None:
    """One step w + rate * Laplacian, channels -> other (C, X, Y, Z); replicated border, fixed points."""
    n_channels, nx, ny, nz = channels.shape
    for slab in numba.prange(n_channels * nx):
        c = slab // nx
        i = slab % nx
        below = max(i - 1, 0)
        above = min(i + 1, nx - 1)
        for j in range(ny):
            left = max(j - 1, 0)
            right = min(j + 1, ny - 1)
            for k in range(nz):
                value = channels[c, i, j, k]
                if is_fixed[i, j, k]:
                    other[c, i, j, k] = value
                    continue
                total = channels[c, below, j, k] + channels[c, above, j, k]
                total += channels[c, i, left, k] + channels[c, i, right, k]
                total += channels[c, i, j, max(k - 1, 0)] + channels[c, i, j, min(k + 1, nz - 1)]
                other[c, i, j, k] = value + rate * (total - 6.0 * value)


@kernel()
def _hat(u, i, last, is_clamped):  # type: ignore[no-untyped-def]
    """Linear weight of grid point i for coordinate u, and its derivative; clamped coordinates have none."""
    slope = 1.0
    if is_clamped:
        if u <= 0.0:
            u = 0.0
            slope = 0.0
        elif u >= last:
            u = last
            slope = 0.0
    floor = math.floor(u)
    if floor == i:
        return 1.0 - (u - floor), -slope
    if floor == i - 1:
        return u - floor, slope
    return 0.0, 0.0


@kernel()
def _line(u, h, i, last, is_clamped):  # type: ignore[no-untyped-def]
    """Summed weight of grid point i for the samples at u +- h and u +- 2h, and its derivative."""
    a, da = _hat(u - h, i, last, is_clamped)
    b, db = _hat(u + h, i, last, is_clamped)
    c, dc = _hat(u - 2.0 * h, i, last, is_clamped)
    d, dd = _hat(u + 2.0 * h, i, last, is_clamped)
    value = ONE_SIGMA_WEIGHT * (a + b) + TWO_SIGMA_WEIGHT * (c + d)
    return value, ONE_SIGMA_WEIGHT * (da + db) + TWO_SIGMA_WEIGHT * (dc + dd)


@kernel()
def _stencil(point, step, size, stride, rows, parts):  # type: ignore[no-untyped-def]
    """Find the table rows of one lookup and their [weight, d/dx, d/dy, d/dz]; returns how many there are."""
    is_clamped = False
    for a in range(3):
        is_clamped = is_clamped or point[a] < 0 or point[a] > size[a] - 1
    base = np.empty(3, np.int64)
    # Per axis and plane of the centre's cell: centre weight, slope, line weight, slope.
    near = np.empty((3, 2, 4))
    for a in range(3):
        last = size[a] - 1.0
        base[a] = min(math.floor(min(max(point[a], 0.0), last)), size[a] - 2)
        for b in range(2):
            near[a, b, 0], near[a, b, 1] = _hat(point[a], base[a] + b, last, is_clamped)
            near[a, b, 2], near[a, b, 3] = _line(point[a], step[a], base[a] + b, last, is_clamped)
    count = 0
    for i in range(2):
        for j in range(2):
            for k in range(2):
                wx, dx, lx, mx = near[0, i]
                wy, dy, ly, my = near[1, j]
                wz, dz, lz, mz = near[2, k]
                rows[count] = (base[0] + i) * stride[0] + (base[1] + j) * stride[1] + base[2] + k
                parts[count, 0] = (wx + lx) * wy * wz + wx * (ly * wz + wy * lz)
                parts[count, 1] = (dx + mx) * wy * wz + dx * (ly * wz + wy * lz)
                parts[count, 2] = (wx + lx) * dy * wz + wx * (my * wz + dy * lz)
                parts[count, 3] = (wx + lx) * wy * dz + wx * (ly * dz + wy * mz)
                count += 1
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        last = size[a] - 1.0
        first = math.floor(min(max(point[a] - 2.0 * step[a], 0.0), last))
        final = math.floor(min(max(point[a] + 2.0 * step[a], 0.0), last)) + 1
        for plane in range(first, min(final, size[a] - 1) + 1):
            weight, slope = _line(point[a], step[a], plane, last, is_clamped)
            if base[a] <= plane <= base[a] + 1 or (weight == 0.0 and slope == 0.0):
                continue
            for j in range(2):
                for k in range(2):
                    row = plane * stride[a] + (base[b] + j) * stride[b] + (base[c] + k) * stride[c]
                    rows[count] = row
                    parts[count, 0] = weight * near[b, j, 0] * near[c, k, 0]
                    parts[count, 1 + a] = slope * near[b, j, 0] * near[c, k, 0]
                    parts[count, 1 + b] = weight * near[b, j, 1] * near[c, k, 0]
                    parts[count, 1 + c] = weight * near[b, j, 0] * near[c, k, 1]
                    count += 1
    return count


@kernel(fastmath=_FASTMATH)
def _add_row(row, weight, out):  # type: ignore[no-untyped-def]
    for c in range(out.shape[0]):
        out[c] += weight * row[c]


@kernel(fastmath=_FASTMATH)
def _dot(row, grad):  # type: ignore[no-untyped-def]
    total = row[0] * grad[0]
    for c in range(1, grad.shape[0]):
        total += row[c] * grad[c]
    return total


@kernel(parallel=True, error_model="numpy")
def look_up(
    table: np.ndarray, size: np.ndarray, points: np.ndarray, steps: np.ndarray, out: np.ndarray
) -> None:
    """Sum out (N, C) of 13 samples of table (X Y Z, C), size [X, Y, Z], at points +- steps (N, 3)."""
    stride = np.array([size[1] * size[2], size[2], 1])
    for chunk in numba.prange((points.shape[0] + CHUNK - 1) // CHUNK):
        rows = np.empty(MAX_ROWS, np.int64)
        parts = np.empty((MAX_ROWS, 4))
        for n in range(chunk * CHUNK, min((chunk + 1) * CHUNK, points.shape[0])):
            out[n] = 0.0
            if np.isnan(points[n]).any() or np.isnan(steps[n]).any():
                out[n] = np.nan
                continue
            for m in range(_stencil(points[n], steps[n], size, stride, rows, parts)):
                _add_row(table[rows[m]], out.dtype.type(parts[m, 0]), out[n])


@kernel(parallel=True, error_model="numpy")
def look_up_backward(
    table: np.ndarray,
    size: np.ndarray,
    points: np.ndarray,
    steps: np.ndarray,
    grad_out: np.ndarray,
    grad_points: np.ndarray,
) -> None:
    """Gradient (N, 3) of sum(out * grad_out) of `look_up` with respect to points; written to grad_points."""
    stride = np.array([size[1] * size[2], size[2], 1])
    for chunk in numba.prange((points.shape[0] + CHUNK - 1) // CHUNK):
        rows = np.empty(MAX_ROWS, np.int64)
        parts = np.empty((MAX_ROWS, 4))
        for n in range(chunk * CHUNK, min((chunk + 1) * CHUNK, points.shape[0])):
            if np.isnan(points[n]).any() or np.isnan(steps[n]).any():
                grad_points[n] = np.nan
                continue
            gx, gy, gz = 0.0, 0.0, 0.0
            for m in range(_stencil(points[n], steps[n], size, stride, rows, parts)):
                d = _dot(table[rows[m]], grad_out[n])
                gx += d * parts[m, 1]
                gy += d * parts[m, 2]
                gz += d * parts[m, 3]
            grad_points[n, 0], grad_points[n, 1], grad_points[n, 2] = gx, gy, gz
