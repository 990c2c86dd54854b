"""Triton kernels: blending of the cells' lists (SPEC 10).

A cell is 4 x 4 pixels, its list a run of slots; one program blends one list, K Gaussians at a time. The longest
lists would decide how long a call takes, so they are cut into segments: first what each lets through is found, then all
are blended side by side, then they are added up. The backward takes the same segments.
No postponed annotations here: Triton reads them.
"""

import triton
import triton.language as tl

from common.rasterizer.triton_lists import CLASSES, n_of_classes
from common.rasterizer.triton_pixels import (
    MAX_ALPHA,
    MIN_ALPHA,
    MIN_TRANSMITTANCE,
    PIXELS,
    cell_corner,
    exact_dot,
    exp2,
    inverse_of,
    log2_alpha,
    places,
    tf32_halves,
    transmittance,
    twice,
)


@triton.jit
def _n_segments(n, SEGMENT: tl.constexpr):
    """Segments that a list of n slots is cut into, of SEGMENT to 2 SEGMENT - 1 slots each."""
    return tl.maximum(n // SEGMENT, (n > 0).to(tl.int32))


@triton.jit(do_not_specialize=["n_cells", "room"])
def cut_lists(
    range_ptr,  # (2, n_cells) of `split_lists`
    class_ptr,  # (2, CLASSES) of `find_lists`
    schedule_ptr,  # (n_tiles,) of `schedule_lists`
    work_ptr,  # out (3,) int32, zeros: how many lists are whole, segments of the others, those others
    whole_ptr,  # out (n_cells,) int32 cells with a list of one segment, the longest more or less first
    place_ptr,  # out (room, 3) int32 cell, first slot, one past the last slot of every other segment
    cut_ptr,  # out (room, 2) int32 first segment and number of segments of every list that is cut
    n_cells,
    room,
    SEGMENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Cut long lists, so that their segments are blended side by side."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = i < 4 * n_of_classes(class_ptr, 0, CLASSES - 1)
    cell = 4 * tl.load(schedule_ptr + i // 4, mask=is_in, other=0) + i % 4
    slot = tl.load(range_ptr + cell, mask=is_in, other=0)
    n = tl.load(range_ptr + n_cells + cell, mask=is_in, other=0) - slot
    n_segments = _n_segments(n, SEGMENT)
    is_whole, is_cut = n_segments == 1, n_segments > 1
    counts = is_whole.to(tl.int64) + (tl.where(is_cut, n_segments, 0).to(tl.int64) << 16)
    counts += is_cut.to(tl.int64) << 48  # three counts in one running sum
    before, found = tl.cumsum(counts, 0) - counts, tl.sum(counts, 0)
    n_whole, n_cut = (found & 0xFFFF).to(tl.int32), (found >> 48).to(tl.int32)
    first = tl.atomic_add(work_ptr, n_whole, sem="relaxed")
    tl.store(whole_ptr + first + (before & 0xFFFF).to(tl.int32), cell, mask=is_whole)
    item = tl.atomic_add(work_ptr + 1, ((found >> 16) & 0xFFFFFFFF).to(tl.int32), sem="relaxed")
    item += ((before >> 16) & 0xFFFFFFFF).to(tl.int32)
    place = tl.atomic_add(work_ptr + 2, n_cut, sem="relaxed") + (before >> 48).to(tl.int32)
    tl.store(cut_ptr + 2 * place, item, mask=is_cut)
    tl.store(cut_ptr + 2 * place + 1, n_segments, mask=is_cut)
    size = (n + n_segments - 1) // tl.maximum(n_segments, 1)
    k = 0
    while k < tl.max(tl.where(is_cut, n_segments, 0), 0):
        is_here = is_cut & (k < n_segments) & (item + k < room)
        target = place_ptr + 3 * (item + k)
        tl.store(target, cell, mask=is_here)
        tl.store(target + 1, slot + k * size, mask=is_here)
        tl.store(target + 2, slot + tl.minimum((k + 1) * size, n), mask=is_here)
        k += 1


@triton.jit
def _times(a, b):
    return a * b


@triton.jit
def _alpha(power, PRECISION: tl.constexpr):
    alpha = tl.minimum(exp2(power, PRECISION), MAX_ALPHA)
    return tl.where(alpha >= MIN_ALPHA, alpha, 0.0)


@triton.jit
def attenuate(
    slot_ptr,  # (4 capacity,) of `split_lists`
    row_ptr,  # (N, 8)
    work_ptr,  # (3,) of `cut_lists`
    place_ptr,  # (room, 3) of `cut_lists`
    passing_ptr,  # out (room, PIXELS) what every segment of a list that is cut lets through
    width,
    K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The product of 1 - alpha over each segment; any number of programs share them."""
    item, n_items = tl.program_id(0), tl.load(work_ptr + 1)
    while item < n_items:
        slot, end = tl.load(place_ptr + 3 * item + 1), tl.load(place_ptr + 3 * item + 2)
        left, top = cell_corner(tl.load(place_ptr + 3 * item), width)
        k, pixel = places(K), tl.arange(0, PIXELS)
        x_px, y_px = (left + pixel % 4).to(tl.float32), (top + pixel // 4).to(tl.float32)
        passing = tl.full([2, PIXELS], 1.0, tl.float32)
        g = tl.load(slot_ptr + slot + k, mask=slot + k < end, other=0)
        while slot < end:
            upcoming = tl.load(slot_ptr + slot + 2 * K + k, mask=slot + 2 * K + k < end, other=0)
            power = log2_alpha(row_ptr, g, slot + k < end, x_px[None, None, :], y_px[None, None, :])
            alpha = _alpha(power, PRECISION)
            passing *= tl.reduce(1.0 - alpha, 0, _times)
            slot += 2 * K
            g = upcoming
        tl.store(passing_ptr + item * PIXELS + pixel, tl.reduce(passing, 0, _times))
        item += tl.num_programs(0)


@triton.jit
def _reaching(passing_ptr, item, first_item):
    """What the segments before this one of the same cell let through (PIXELS,)."""
    pixel, j = tl.arange(0, PIXELS), tl.arange(0, 16)
    reaching = tl.full([PIXELS], 1.0, tl.float32)
    start = first_item
    while start < item:
        at = (start + j)[:, None] * PIXELS + pixel[None, :]
        passing = tl.load(passing_ptr + at, mask=(start + j < item)[:, None], other=1.0)
        reaching *= tl.reduce(passing, 0, _times)
        start += 16
    return reaching


@triton.jit
def blend(
    slot_ptr,  # (4 capacity,) of `split_lists`
    range_ptr,  # (2, n_cells) of `split_lists`
    row_ptr,  # (N, 8)
    channel_ptr,  # (N, C)
    background_ptr,  # (C,)
    total_ptr,  # int64 number of pairs; beyond the capacity, lists are incomplete and the image is NaN
    work_ptr,  # (3,) of `cut_lists`
    whole_ptr,  # (n_cells,) of `cut_lists`
    place_ptr,  # (room, 3) of `cut_lists`; ends become one past the last slot that was looked at
    passing_ptr,  # (room, PIXELS) of `attenuate`
    image_ptr,  # out (C, H, W), the background where no list is
    used_ptr,  # out (n_cells,) int32 one past the last slot that was looked at of a list that is not cut
    part_ptr,  # out (room, C + 2, PIXELS) of every segment: its colours, what reaches it, the sum of its weights
    n_cells,
    capacity,
    width,
    height,
    C,
    K: tl.constexpr,
    CHANNELS: tl.constexpr,  # power of two >= C; 4, or from 16 on
    SEGMENT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Blend each segment and each whole list front to back; any number of programs share them."""
    n_segments = tl.load(work_ptr + 1)
    n_items = n_segments + tl.load(work_ptr)
    item = tl.program_id(0)
    while item < n_items:
        is_segment = item < n_segments
        cell = tl.load(whole_ptr + item - n_segments, mask=~is_segment, other=0)
        cell = tl.load(place_ptr + 3 * item, mask=is_segment, other=cell)
        first = tl.load(range_ptr + cell)
        end = tl.load(range_ptr + n_cells + cell)
        n = end - first
        left, top = cell_corner(cell, width)
        pixel = tl.arange(0, PIXELS)
        x, y = left + pixel % 4, top + pixel // 4
        is_inside = (x < width) & (y < height)
        x_px, y_px = x.to(tl.float32)[None, None, :], y.to(tl.float32)[None, None, :]
        c = tl.arange(0, CHANNELS)
        is_channel = c < C
        slot = tl.load(place_ptr + 3 * item + 1, mask=is_segment, other=first)
        end = tl.load(place_ptr + 3 * item + 2, mask=is_segment, other=end)
        n_parts = _n_segments(n, SEGMENT)
        size = (n + n_parts - 1) // tl.maximum(n_parts, 1)
        first_item = tl.where(is_segment, item - (slot - first) // tl.maximum(size, 1), item)
        arriving = _reaching(passing_ptr, item, first_item)  # transmittance as if pixels were never done
        arriving = tl.where(is_inside, arriving, 0.0)
        reaching = twice(arriving)
        blended = tl.zeros([2, PIXELS], tl.float32)  # sum of the weights, of either half
        colour = tl.zeros([CHANNELS, PIXELS], tl.float32)
        last = end
        end = tl.where(tl.max(arriving, 0) < MIN_TRANSMITTANCE, slot, end)
        k, row = places(K), tl.arange(0, 2 * K)
        row = row // 2 + K * (row % 2)  # places as the rows of the weights have them
        g = tl.load(slot_ptr + slot + k, mask=slot + k < end, other=0)
        while slot < end:
            upcoming = tl.load(slot_ptr + slot + 2 * K + k, mask=slot + 2 * K + k < end, other=0)
            is_in = slot + k < end
            alpha = _alpha(log2_alpha(row_ptr, g, is_in, x_px, y_px), PRECISION)
            after, reaching = transmittance(alpha, reaching)
            before = after * inverse_of(1.0 - alpha, PRECISION)
            weight = tl.where(after >= MIN_TRANSMITTANCE, alpha * before, 0.0)
            blended += tl.sum(weight, 0)
            if CHANNELS < 16:  # too few for dot products
                values = tl.load(
                    channel_ptr + g[None, :, :] * C + c[:, None, None],
                    mask=is_in[None, :, :] & is_channel[:, None, None],
                    other=0.0,
                )
                colour += tl.sum(tl.sum(values[:, :, :, None] * weight[None, :, :, :], 1), 1)
            else:
                is_value = (slot + row < end)[None, :] & is_channel[:, None]
                g_of_row = tl.load(slot_ptr + slot + row, mask=slot + row < end, other=0)
                values = tl.load(channel_ptr + g_of_row[None, :] * C + c[:, None], mask=is_value, other=0.0)
                weight_coarse, weight_fine = tf32_halves(tl.reshape(weight, (2 * K, PIXELS)), PRECISION)
                colour += exact_dot(values, weight_coarse, weight_fine, PRECISION)
            slot += 2 * K
            g = upcoming
            is_done = tl.max(tl.max(reaching, 0), 0) < MIN_TRANSMITTANCE
            end = tl.where(is_done, tl.minimum(slot, end), end)
        weights = tl.sum(blended, 0)
        if is_segment:
            tl.store(place_ptr + 3 * item + 2, tl.minimum(end, last))
            part = part_ptr + item.to(tl.int64) * (C + 2) * PIXELS
            is_part = is_channel[:, None] & (pixel[None, :] >= 0)
            tl.store(part + c[:, None] * PIXELS + pixel[None, :], colour, mask=is_part)
            tl.store(part + C * PIXELS + pixel, arriving)
            tl.store(part + (C + 1) * PIXELS + pixel, weights)
        else:
            tl.store(used_ptr + cell, tl.minimum(end, last))
            background = tl.load(background_ptr + c, mask=is_channel, other=0.0)
            colour += background[:, None] * (1.0 - weights)[None, :]
            colour = tl.where(tl.load(total_ptr) > capacity, float("nan"), colour)
            target = image_ptr + (c[:, None].to(tl.int64) * height + y[None, :]) * width + x[None, :]
            tl.store(target, colour, mask=is_inside[None, :] & is_channel[:, None])
        item += tl.num_programs(0)


@triton.jit(do_not_specialize=["C"])
def join_segments(
    work_ptr,  # (3,) of `cut_lists`
    place_ptr,  # (room, 3) of `blend`
    cut_ptr,  # (room, 2) of `cut_lists`
    part_ptr,  # (room, C + 2, PIXELS) of `blend`; colours become those of all segments before
    background_ptr,  # (C,)
    total_ptr,  # as in `blend`
    image_ptr,  # out (C, H, W)
    capacity,
    width,
    height,
    C,
    SEGMENTS: tl.constexpr,  # at a time
):
    """Add up the segments of every list that is cut, a channel to a program."""
    j, pixel = tl.arange(0, SEGMENTS), tl.arange(0, PIXELS)
    channel = tl.program_id(1)
    background = tl.load(background_ptr + channel)
    place = tl.program_id(0)
    n_cut = tl.load(work_ptr + 2)
    while place < n_cut:
        item, n = tl.load(cut_ptr + 2 * place), tl.load(cut_ptr + 2 * place + 1)
        left, top = cell_corner(tl.load(place_ptr + 3 * item), width)
        x, y = left + pixel % 4, top + pixel // 4
        colour, blended = tl.zeros([PIXELS], tl.float32), tl.zeros([PIXELS], tl.float32)
        k = 0
        while k < n:
            is_in = (k + j < n)[:, None] & (pixel[None, :] >= 0)
            part = part_ptr + (item + k + j).to(tl.int64)[:, None] * (C + 2) * PIXELS + pixel[None, :]
            own = tl.load(part + channel * PIXELS, mask=is_in, other=0.0)
            so_far = tl.cumsum(own, 0)
            tl.store(part + channel * PIXELS, colour[None, :] + (so_far - own), mask=is_in)
            colour += tl.sum(own, 0)
            blended += tl.sum(tl.load(part + (C + 1) * PIXELS, mask=is_in, other=0.0), 0)
            k += SEGMENTS
        colour += background * (1.0 - blended)
        colour = tl.where(tl.load(total_ptr) > capacity, float("nan"), colour)
        target = image_ptr + (channel.to(tl.int64) * height + y) * width + x
        tl.store(target, colour, mask=(x < width) & (y < height))
        place += tl.num_programs(0)
