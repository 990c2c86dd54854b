"""Numba kernels: binning of footprints into small tiles, blending, and the backward of blending (SPEC 10).

Lists are in depth order. Every (Gaussian, tile) pair owns a slot of its tile's list, and in the backward a row of
sums; rows are added up per Gaussian in tile order, so results do not depend on the number of threads.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from common.rasterizer.interface import MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE
from common.rasterizer.numba_projection import BIN_PX

_SUMS_IN_ANY_ORDER = {"contract", "reassoc", "nsz"}


@numba.njit(cache=True, error_model="numpy")
def _bin_band(order, box, first_pair, n_bins_x, band_lo, band_hi, bin_start, slot_of_pair, gaussian_of_slot):  # type: ignore[no-untyped-def]
    """Lists of the small tiles in rows band_lo..band_hi-1; counts into bin_start[1:] if slots are not yet known."""
    is_counting = gaussian_of_slot.shape[0] == 0
    cursor = bin_start[: bin_start.shape[0] - 1].copy()
    for k in range(order.shape[0]):
        g = order[k]
        top, bottom = box[g, 2] // BIN_PX, (box[g, 3] - 1) // BIN_PX
        if bottom < band_lo or top >= band_hi:
            continue
        left, right = box[g, 0] // BIN_PX, (box[g, 1] - 1) // BIN_PX
        for by in range(max(top, band_lo), min(bottom + 1, band_hi)):
            for bx in range(left, right + 1):
                b = by * n_bins_x + bx
                if is_counting:
                    bin_start[b + 1] += 1
                else:
                    gaussian_of_slot[cursor[b]] = g
                    slot_of_pair[first_pair[g] + (by - top) * (right - left + 1) + bx - left] = cursor[b]
                    cursor[b] += 1


@numba.njit(cache=True, error_model="numpy", parallel=True)
def bin_footprints(
    order, box, first_pair, n_bins_x, n_bins_y, n_bands, bin_start, slot_of_pair, gaussian_of_slot
):  # type: ignore[no-untyped-def]
    """Fill the start of every small tile's list (B + 1,), the slot of each pair and the Gaussian of each slot."""
    nothing = gaussian_of_slot[:0]
    for band in numba.prange(n_bands):
        lo, hi = band * n_bins_y // n_bands, (band + 1) * n_bins_y // n_bands
        _bin_band(order, box, first_pair, n_bins_x, lo, hi, bin_start, slot_of_pair, nothing)
    for b in range(bin_start.shape[0] - 1):
        bin_start[b + 1] += bin_start[b]
    for band in numba.prange(n_bands):
        lo, hi = band * n_bins_y // n_bands, (band + 1) * n_bins_y // n_bands
        _bin_band(order, box, first_pair, n_bins_x, lo, hi, bin_start, slot_of_pair, gaussian_of_slot)


@numba.njit(cache=True, error_model="numpy")
def _exponent(footprint, g, dx, dy, minus_half):  # type: ignore[no-untyped-def]
    """Log of the falloff; one function, so that forward and backward round alike."""
    xx, xy, yy = footprint[g, 2], footprint[g, 3], footprint[g, 4]
    return minus_half * (xx * dx * dx + yy * dy * dy) - xy * dx * dy


@numba.njit(cache=True, error_model="numpy", fastmath=_SUMS_IN_ANY_ORDER)
def _blend_bin(
    b,
    n_bins_x,
    bin_start,
    gaussian_of_slot,
    footprint,
    box,
    channels,
    background,
    channel_order,
    image,
    transmittance,
    last_slot,
):  # type: ignore[no-untyped-def]
    real = footprint.dtype.type
    one, minus_half = real(1), real(-0.5)
    max_alpha, min_alpha, min_transmittance = real(MAX_ALPHA), real(MIN_ALPHA), real(MIN_TRANSMITTANCE)
    n_channels, height, width = image.shape
    left, top = (b % n_bins_x) * BIN_PX, (b // n_bins_x) * BIN_PX
    right, bottom = min(left + BIN_PX, width), min(top + BIN_PX, height)
    colour = np.zeros((BIN_PX * BIN_PX, n_channels), footprint.dtype)
    remaining = np.ones(BIN_PX * BIN_PX, footprint.dtype)
    is_open = np.ones(BIN_PX * BIN_PX, np.bool_)
    last = np.full(BIN_PX * BIN_PX, -1, np.int64)
    n_open = (right - left) * (bottom - top)
    for slot in range(bin_start[b], bin_start[b + 1]):
        g = gaussian_of_slot[slot]
        u, v, opacity, least = footprint[g, 0], footprint[g, 1], footprint[g, 5], footprint[g, 7]
        for y in range(max(top, box[g, 2]), min(bottom, box[g, 3])):
            dy = v - real(y)
            for x in range(max(left, box[g, 0]), min(right, box[g, 1])):
                p = (y - top) * BIN_PX + x - left
                if not is_open[p]:
                    continue
                exponent = _exponent(footprint, g, u - real(x), dy, minus_half)
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
                image[channel_order[c], y, x] = colour[p, c] + remaining[p] * background[c]
            transmittance[y, x] = remaining[p]
            last_slot[y, x] = last[p]


@numba.njit(cache=True, error_model="numpy", parallel=True)
def blend(
    schedule,
    n_bins_x,
    bin_start,
    gaussian_of_slot,
    footprint,
    box,
    channels,
    background,
    channel_order,
    image,
    transmittance,
    last_slot,
):  # type: ignore[no-untyped-def]
    """Blend all small tiles: image (C, H, W), final transmittance (H, W), last contributing slot (H, W; -1 none)."""
    for i in numba.prange(schedule.shape[0]):
        _blend_bin(
            schedule[i],
            n_bins_x,
            bin_start,
            gaussian_of_slot,
            footprint,
            box,
            channels,
            background,
            channel_order,
            image,
            transmittance,
            last_slot,
        )


@numba.njit(cache=True, error_model="numpy", fastmath=_SUMS_IN_ANY_ORDER)
def _unblend_bin(
    b,
    n_bins_x,
    bin_start,
    row_start,
    gaussian_of_slot,
    footprint,
    box,
    channels,
    background,
    channel_order,
    n_attached,
    d_image,
    transmittance,
    last_slot,
    rows,
):  # type: ignore[no-untyped-def]
    real = footprint.dtype.type
    one, minus_half = real(1), real(-0.5)
    max_alpha, min_alpha = real(MAX_ALPHA), real(MIN_ALPHA)
    n_channels, height, width = d_image.shape
    left, top = (b % n_bins_x) * BIN_PX, (b // n_bins_x) * BIN_PX
    right, bottom = min(left + BIN_PX, width), min(top + BIN_PX, height)
    d_colour = np.zeros((BIN_PX * BIN_PX, n_channels), footprint.dtype)
    remaining = np.ones(BIN_PX * BIN_PX, footprint.dtype)
    beyond = np.zeros(BIN_PX * BIN_PX, footprint.dtype)  # dL/dcolour times all that lies behind
    last = np.full(BIN_PX * BIN_PX, -1, np.int64)
    for y in range(top, bottom):
        for x in range(left, right):
            p = (y - top) * BIN_PX + x - left
            remaining[p], last[p] = transmittance[y, x], last_slot[y, x]
            for c in range(n_channels):
                d_colour[p, c] = d_image[channel_order[c], y, x]
            for c in range(n_attached):
                beyond[p] += d_colour[p, c] * background[c]
            beyond[p] *= remaining[p]
    n_rows = row_start[b + 1] - row_start[b]
    for k in range(n_rows - 1, -1, -1):
        slot = bin_start[b] + k
        row = rows[row_start[b] + k]
        row[:] = real(0)
        g = gaussian_of_slot[slot]
        u, v, opacity, least = footprint[g, 0], footprint[g, 1], footprint[g, 5], footprint[g, 7]
        m, mx, my, mxx, mxy, myy = real(0), real(0), real(0), real(0), real(0), real(0)
        for y in range(max(top, box[g, 2]), min(bottom, box[g, 3])):
            dy = v - real(y)
            for x in range(max(left, box[g, 0]), min(right, box[g, 1])):
                p = (y - top) * BIN_PX + x - left
                if slot > last[p]:
                    continue
                dx = u - real(x)
                exponent = _exponent(footprint, g, dx, dy, minus_half)
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


@numba.njit(cache=True, error_model="numpy", parallel=True)
def unblend(
    schedule,
    n_bins_x,
    bin_start,
    row_start,
    gaussian_of_slot,
    footprint,
    box,
    channels,
    background,
    channel_order,
    n_attached,
    d_image,
    transmittance,
    last_slot,
    rows,
):  # type: ignore[no-untyped-def]
    """Sums over each tile's pixels (rows, C + 6) for every slot that contributed."""
    for i in numba.prange(schedule.shape[0]):
        _unblend_bin(
            schedule[i],
            n_bins_x,
            bin_start,
            row_start,
            gaussian_of_slot,
            footprint,
            box,
            channels,
            background,
            channel_order,
            n_attached,
            d_image,
            transmittance,
            last_slot,
            rows,
        )
