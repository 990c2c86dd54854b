"""Numba kernel of the mesh rasterizer: a depth buffer, one band of rows per thread."""

from __future__ import annotations

import math

import numba
import numpy as np

from common.kernels import kernel

BAND_ROWS = 16


@kernel(error_model="numpy")
def _draw_band(vertices, faces, intrinsics, near, first_row, last_row, face_index, barycentric, depth):  # type: ignore[no-untyped-def]
    """Draw all triangles into rows first_row..last_row-1."""
    focal_x, focal_y, princpt_x, princpt_y = intrinsics
    width = face_index.shape[1]
    for f in range(faces.shape[0]):
        a, b, c = faces[f]
        za, zb, zc = vertices[a, 2], vertices[b, 2], vertices[c, 2]
        if not (za > near and zb > near and zc > near):
            continue
        ya = focal_y * vertices[a, 1] / za + princpt_y
        yb = focal_y * vertices[b, 1] / zb + princpt_y
        yc = focal_y * vertices[c, 1] / zc + princpt_y
        top, bottom = min(ya, yb, yc), max(ya, yb, yc)
        if not (bottom >= first_row and top <= last_row):
            continue
        xa = focal_x * vertices[a, 0] / za + princpt_x
        xb = focal_x * vertices[b, 0] / zb + princpt_x
        xc = focal_x * vertices[c, 0] / zc + princpt_x
        left, right = min(xa, xb, xc), max(xa, xb, xc)
        area = (xb - xa) * (yc - ya) - (xc - xa) * (yb - ya)
        if not (right >= 0.0 and left <= width) or area == 0.0 or not math.isfinite(area):
            continue
        for row in range(max(first_row, math.ceil(top - 0.5)), min(last_row, math.floor(bottom - 0.5) + 1)):
            y = row + 0.5
            for column in range(max(0, math.ceil(left - 0.5)), min(width, math.floor(right - 0.5) + 1)):
                x = column + 0.5
                wa = ((xb - x) * (yc - y) - (xc - x) * (yb - y)) / area
                wb = ((xc - x) * (ya - y) - (xa - x) * (yc - y)) / area
                wc = ((xa - x) * (yb - y) - (xb - x) * (ya - y)) / area
                if wa < 0.0 or wb < 0.0 or wc < 0.0:
                    continue
                wa, wb, wc = wa / za, wb / zb, wc / zc
                z = 1.0 / (wa + wb + wc)
                if face_index[row, column] < 0 or z < depth[row, column]:
                    face_index[row, column] = f
                    depth[row, column] = z
                    barycentric[row, column, 0] = wa * z
                    barycentric[row, column, 1] = wb * z
                    barycentric[row, column, 2] = wc * z


@kernel(error_model="numpy", parallel=True)
def draw_triangles(vertices, faces, intrinsics, near, face_index, barycentric, depth):  # type: ignore[no-untyped-def]
    """Fill face_index (H, W), barycentric (H, W, 3), depth (H, W) with the nearest triangles."""
    height = face_index.shape[0]
    n_bands = (height + BAND_ROWS - 1) // BAND_ROWS
    for band in numba.prange(n_bands):
        first = band * BAND_ROWS
        last = np.int64(min(height, first + BAND_ROWS))
        _draw_band(vertices, faces, intrinsics, near, first, last, face_index, barycentric, depth)
