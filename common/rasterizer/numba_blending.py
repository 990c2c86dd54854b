"""Numba kernels: binning of footprints into small tiles, blending, and the backward of blending (SPEC 10).

Lists are in depth order. Every (Gaussian, tile) pair owns a slot of its tile's list and, in the backward, a row of
sums; rows are added up per Gaussian in tile order, so results do not depend on the number of threads.
Kernels that call each other stay in one file: numba's cache does not see changes in other files.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from common.kernels import kernel
from common.rasterizer.interface import MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE
from common.rasterizer.numba_projection import BIN_PX

_SUMS_IN_ANY_ORDER = {"contract", "reassoc", "nsz"}


@kernel(error_model="numpy")
def _bin_band(order, box, bins, first_row, last_row, is_counting):  # type: ignore[no-untyped-def]
    """Tiles in rows first_row..last_row-1: count their Gaussians into start[1:], or fill their lists."""
    cursor = bins.start[: bins.start.shape[0] - 1].copy()
    for k in range(order.shape[0]):
        g = order[k]
        top, bottom = box[g, 2] // BIN_PX, (box[g, 3] - 1) // BIN_PX
        if bottom < first_row or top >= last_row:
            continue
        left, right = box[g, 0] // BIN_PX, (box[g, 1] - 1) // BIN_PX
        for y in range(max(top, first_row), min(bottom + 1, last_row)):
            for x in range(left, right + 1):
                b = y * bins.n_x + x
                if is_counting:
                    bins.start[b + 1] += 1
                else:
                    pair = bins.first_pair[g] + (y - top) * (right - left + 1) + x - left
                    bins.slot_of_pair[pair] = cursor[b]
                    bins.gaussian_of_slot[cursor[b]] = g
                    cursor[b] += 1


@kernel(error_model="numpy", parallel=True)
def fill_bins(order, box, bins, n_bands, is_counting):  # type: ignore[no-untyped-def]
    """Count or list the Gaussians `order` (front to back) of every tile; each thread owns a band of tile rows."""
    n_rows = (bins.start.shape[0] - 1) // bins.n_x
    for band in numba.prange(n_bands):
        _bin_band(order, box, bins, band * n_rows // n_bands, (band + 1) * n_rows // n_bands, is_counting)


@kernel(error_model="numpy")
def _exponent(value, g, dx, dy, minus_half):  # type: ignore[no-untyped-def]
    """Log of the falloff; one function without fastmath, so that forward and backward round alike."""
    return minus_half * (value[g, 2] * dx * dx + value[g, 4] * dy * dy) - value[g, 3] * dx * dy


@kernel(error_model="numpy", fastmath=_SUMS_IN_ANY_ORDER)
def _blend_bin(b, bins, value, box, paint, canvas):  # type: ignore[no-untyped-def]
    """Blend the list of small tile b."""
    real = value.dtype.type
    one, minus_half = real(1), real(-0.5)
    max_alpha, min_alpha, min_transmittance = real(MAX_ALPHA), real(MIN_ALPHA), real(MIN_TRANSMITTANCE)
    channels = paint.channels
    n_channels, height, width = canvas.image.shape
    left, top = (b % bins.n_x) * BIN_PX, (b // bins.n_x) * BIN_PX
    right, bottom = min(left + BIN_PX, width), min(top + BIN_PX, height)
    colour = np.zeros((BIN_PX * BIN_PX, n_channels), value.dtype)
    remaining = np.ones(BIN_PX * BIN_PX, value.dtype)
    is_open = np.ones(BIN_PX * BIN_PX, np.bool_)
    last = np.full(BIN_PX * BIN_PX, -1, np.int64)
    n_open = (right - left) * (bottom - top)
    for slot in range(bins.start[b], bins.start[b + 1]):
        g = bins.gaussian_of_slot[slot]
        u, v, opacity, least = value[g, 0], value[g, 1], value[g, 5], value[g, 7]
        for y in range(max(top, box[g, 2]), min(bottom, box[g, 3])):
            dy = v - real(y)
            for x in range(max(left, box[g, 0]), min(right, box[g, 1])):
                p = (y - top) * BIN_PX + x - left
                if not is_open[p]:
                    continue
                exponent = _exponent(value, g, u - real(x), dy, minus_half)
                if exponent < least:
                    continue
                alpha = min(max_alpha, opacity * math.exp(exponent))
                if alpha < min_alpha:
                    continue
                behind = remaining[p] * (one - alpha)
                if behind < min_transmittance:
                    is_open[p] = False
                    n_open -= 1
                    continue
                weight = alpha * remaining[p]
                for c in range(n_channels):
                    colour[p, c] += weight * channels[g, c]
                remaining[p] = behind
                last[p] = slot
        if n_open == 0:
            break
    for y in range(top, bottom):
        for x in range(left, right):
            p = (y - top) * BIN_PX + x - left
            for c in range(n_channels):
                canvas.image[paint.order[c], y, x] = colour[p, c] + remaining[p] * paint.background[c]
            canvas.transmittance[y, x] = remaining[p]
            canvas.last_slot[y, x] = last[p]


@kernel(error_model="numpy", parallel=True)
def blend(schedule, bins, value, box, paint, canvas):  # type: ignore[no-untyped-def]
    """Fill the canvas, one small tile of `schedule` after the other."""
    for i in numba.prange(schedule.shape[0]):
        _blend_bin(schedule[i], bins, value, box, paint, canvas)


@kernel(error_model="numpy", fastmath=_SUMS_IN_ANY_ORDER)
def _load_pixels(b, bins, paint, canvas, d_colour, remaining, beyond, last):  # type: ignore[no-untyped-def]
    """Per pixel of tile b: image gradient, transmittance, gradient times what lies behind, last slot."""
    n_channels, height, width = canvas.image.shape
    left, top = (b % bins.n_x) * BIN_PX, (b // bins.n_x) * BIN_PX
    for y in range(top, min(top + BIN_PX, height)):
        for x in range(left, min(left + BIN_PX, width)):
            p = (y - top) * BIN_PX + x - left
            remaining[p], last[p] = canvas.transmittance[y, x], canvas.last_slot[y, x]
            for c in range(n_channels):
                d_colour[p, c] = canvas.image[paint.order[c], y, x]
            for c in range(paint.n_attached):
                beyond[p] += d_colour[p, c] * paint.background[c] * remaining[p]


@kernel(error_model="numpy", fastmath=_SUMS_IN_ANY_ORDER)
def _unblend_bin(b, bins, row_start, value, box, paint, canvas, rows):  # type: ignore[no-untyped-def]
    """Rows of small tile b, back to front; `canvas.image` holds the image's gradient."""
    real = value.dtype.type
    one, minus_half = real(1), real(-0.5)
    max_alpha, min_alpha = real(MAX_ALPHA), real(MIN_ALPHA)
    channels, n_attached = paint.channels, paint.n_attached
    n_channels, height, width = canvas.image.shape
    left, top = (b % bins.n_x) * BIN_PX, (b // bins.n_x) * BIN_PX
    right, bottom = min(left + BIN_PX, width), min(top + BIN_PX, height)
    d_colour = np.zeros((BIN_PX * BIN_PX, n_channels), value.dtype)
    remaining = np.ones(BIN_PX * BIN_PX, value.dtype)
    beyond = np.zeros(BIN_PX * BIN_PX, value.dtype)
    last = np.full(BIN_PX * BIN_PX, -1, np.int64)
    _load_pixels(b, bins, paint, canvas, d_colour, remaining, beyond, last)
    for k in range(row_start[b + 1] - row_start[b] - 1, -1, -1):
        slot = bins.start[b] + k
        row = rows[row_start[b] + k]
        row[:] = real(0)
        g = bins.gaussian_of_slot[slot]
        u, v, opacity, least = value[g, 0], value[g, 1], value[g, 5], value[g, 7]
        m, mx, my, mxx, mxy, myy = real(0), real(0), real(0), real(0), real(0), real(0)
        for y in range(max(top, box[g, 2]), min(bottom, box[g, 3])):
            dy = v - real(y)
            for x in range(max(left, box[g, 0]), min(right, box[g, 1])):
                p = (y - top) * BIN_PX + x - left
                if slot > last[p]:
                    continue
                dx = u - real(x)
                exponent = _exponent(value, g, dx, dy, minus_half)
                if exponent < least:
                    continue
                raw = opacity * math.exp(exponent)
                alpha = min(max_alpha, raw)
                if alpha < min_alpha:
                    continue
                inverse = one / (one - alpha)
                before = remaining[p] * inverse
                weight = alpha * before
                toward = real(0)
                for c in range(n_attached):
                    toward += d_colour[p, c] * channels[g, c]
                for c in range(n_channels):
                    row[c] += weight * d_colour[p, c]
                d_exponent = (before * toward - beyond[p] * inverse) * raw
                beyond[p] += weight * toward
                remaining[p] = before
                m += d_exponent
                mx += d_exponent * dx
                my += d_exponent * dy
                mxx += d_exponent * dx * dx
                mxy += d_exponent * dx * dy
                myy += d_exponent * dy * dy
        row[n_channels], row[n_channels + 1], row[n_channels + 2] = m, mx, my
        row[n_channels + 3], row[n_channels + 4], row[n_channels + 5] = mxx, mxy, myy


@kernel(error_model="numpy", parallel=True)
def unblend(schedule, bins, row_start, value, box, paint, canvas, rows):  # type: ignore[no-untyped-def]
    """Sums over each tile's pixels (R, C + 6) for the slots that contributed.

    A row: gradients of the channels, then the sums of the exponent's gradient times 1, dx, dy, dx^2, dx dy, dy^2.
    """
    for i in numba.prange(schedule.shape[0]):
        _unblend_bin(schedule[i], bins, row_start, value, box, paint, canvas, rows)
