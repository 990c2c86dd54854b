"""Triton kernels: blending of the cells' lists, and its backward (SPEC 10).

A cell is 4 x 4 pixels, its list a run of slots; one program blends one list, K Gaussians at a time. The longest
lists would decide how long a call takes, so they are cut into segments: first what each lets through is found, then all
are blended side by side, then they are added up. The backward takes the same segments.
No postponed annotations here: Triton reads them.
"""

import triton
import triton.language as tl

from common.rasterizer import interface

MAX_ALPHA = tl.constexpr(interface.MAX_ALPHA)
MIN_ALPHA = tl.constexpr(interface.MIN_ALPHA)
MIN_TRANSMITTANCE = tl.constexpr(interface.MIN_TRANSMITTANCE)
NOTHING = tl.constexpr(-1000.0)  # log2 of the opacity of a Gaussian that is not there
PIXELS = tl.constexpr(16)  # of a cell


@triton.jit
def _cell_corner(cell, width):
    """Left and top pixel of a cell."""
    tile, tiles_x = cell // 4, (width + 7) // 8
    return tile % tiles_x * 8 + cell % 2 * 4, tile // tiles_x * 8 + cell // 2 % 2 * 4


@triton.jit
def _pin(x):
    """x unchanged, in a layout of its own: that of a dot product would spread through the code and spill."""
    index = tl.broadcast_to(tl.arange(0, x.shape[1])[None, :], x.shape)
    return tl.gather(x, index, 1)


@triton.jit
def _halves(x, PRECISION: tl.constexpr):
    """x as the sum of what tf32 holds exactly and a remainder; where there is no tf32, as x and 0."""
    if PRECISION == "ieee":
        return x, x * 0.0
    coarse = (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
    return coarse, x - coarse


@triton.jit
def _dot(a, b_coarse, b_fine, PRECISION: tl.constexpr):
    """a b at float32 accuracy, of the halves of b."""
    if PRECISION == "ieee":
        return tl.dot(a, b_coarse, input_precision="ieee")
    a_coarse, a_fine = _halves(a, PRECISION)
    product = tl.dot(a_fine, b_coarse, input_precision="tf32")
    product = tl.dot(a_coarse, b_fine, acc=product, input_precision="tf32")
    return tl.dot(a_coarse, b_coarse, acc=product, input_precision="tf32")


@triton.jit
def _powers(row_ptr, g, is_in, x_px, y_px):
    """Log2 of alpha (K, PIXELS) of Gaussians g (K,) at the pixels (1, PIXELS); none where not is_in."""
    row = row_ptr + 8 * g
    dx = tl.load(row)[:, None] - x_px
    dy = tl.load(row + 1)[:, None] - y_px
    a, b, c = tl.load(row + 2)[:, None], tl.load(row + 3)[:, None], tl.load(row + 4)[:, None]
    top = tl.load(row + 5, mask=is_in, other=NOTHING)[:, None]
    return (a * dx + b * dy) * dx + (c * dy * dy + top)


@triton.jit
def _n_segments(n, SEGMENT: tl.constexpr):
    """Segments that a list of n slots is cut into, of SEGMENT to 2 SEGMENT - 1 slots each."""
    return tl.maximum(n // SEGMENT, (n > 0).to(tl.int32))


@triton.jit(do_not_specialize=["n_cells", "room"])
def cut_lists(
    range_ptr,  # (2, n_cells) of `split_lists`
    work_ptr,  # out (3,) int32, zeros: how many lists are whole, segments of the others, those others
    whole_ptr,  # out (n_cells,) int32 cells with a list of one segment, in any order
    place_ptr,  # out (room, 3) int32 cell, first slot, one past the last slot of every other segment
    cut_ptr,  # out (room, 2) int32 first segment and number of segments of every list that is cut
    n_cells,
    room,
    SEGMENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Cut long lists, so that their segments are blended side by side."""
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = cell < n_cells
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
def _alpha(power):
    alpha = tl.minimum(tl.exp2(power), MAX_ALPHA)
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
):
    """The product of 1 - alpha over each segment."""
    item = tl.program_id(0)
    if item < tl.load(work_ptr + 1):
        slot, end = tl.load(place_ptr + 3 * item + 1), tl.load(place_ptr + 3 * item + 2)
        left, top = _cell_corner(tl.load(place_ptr + 3 * item), width)
        k, pixel = tl.arange(0, K), tl.arange(0, PIXELS)
        x_px, y_px = (left + pixel % 4).to(tl.float32)[None, :], (top + pixel // 4).to(tl.float32)[None, :]
        passing = tl.full([PIXELS], 1.0, tl.float32)
        g = tl.load(slot_ptr + slot + k, mask=slot + k < end, other=0)
        while slot < end:
            upcoming = tl.load(slot_ptr + slot + K + k, mask=slot + K + k < end, other=0)
            alpha = _alpha(_powers(row_ptr, g, slot + k < end, x_px, y_px))
            passing *= tl.reduce(1.0 - alpha, 0, _times)
            slot += K
            g = upcoming
        tl.store(passing_ptr + item * PIXELS + pixel, passing)


@triton.jit
def _reaching(passing_ptr, place_ptr, item, cell, first_item):
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
    schedule_ptr,  # (n_tiles,) tiles, the longest lists first
    row_ptr,  # (N, 8)
    channel_ptr,  # (N, C)
    background_ptr,  # (C,)
    total_ptr,  # int64 number of pairs; beyond the capacity, lists are incomplete and the image is NaN
    work_ptr,  # (3,) of `cut_lists`
    place_ptr,  # (room, 3) of `cut_lists`; ends become one past the last slot that was looked at
    passing_ptr,  # (room, PIXELS) of `attenuate`
    image_ptr,  # out (C, H, W)
    used_ptr,  # out (n_cells,) int32 one past the last slot that was looked at of a list that is not cut
    part_ptr,  # out (room, C + 2, PIXELS) of every segment: its colours, what reaches it, the sum of its weights
    n_cells,
    room,
    capacity,
    width,
    height,
    C,
    K: tl.constexpr,
    CHANNELS: tl.constexpr,  # power of two >= C and >= 16
    SEGMENT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Blend each list or segment front to back: programs below `room` the segments, the others a cell each."""
    item = tl.program_id(0)
    is_segment = item < room
    other = tl.maximum(item - room, 0)
    is_due = item < tl.load(work_ptr + 1)
    cell = 4 * tl.load(schedule_ptr + other // 4, mask=~is_segment, other=0).to(tl.int32) + other % 4
    cell = tl.load(place_ptr + 3 * item, mask=is_segment & is_due, other=cell)
    first = tl.load(range_ptr + cell)
    end = tl.load(range_ptr + n_cells + cell)
    n = end - first
    is_due = (is_segment & is_due) | (~is_segment & (n < 2 * SEGMENT))
    if is_due:
        left, top = _cell_corner(cell, width)
        pixel = tl.arange(0, PIXELS)
        x, y = left + pixel % 4, top + pixel // 4
        is_inside = (x < width) & (y < height)
        x_px, y_px = x.to(tl.float32)[None, :], y.to(tl.float32)[None, :]
        c = tl.arange(0, CHANNELS)
        is_channel = c < C
        slot = tl.load(place_ptr + 3 * item + 1, mask=is_segment, other=first)
        end = tl.load(place_ptr + 3 * item + 2, mask=is_segment, other=end)
        n_segments = _n_segments(n, SEGMENT)
        size = (n + n_segments - 1) // tl.maximum(n_segments, 1)
        first_item = tl.where(is_segment, item - (slot - first) // tl.maximum(size, 1), item)
        before = _reaching(passing_ptr, place_ptr, item, cell, first_item)  # transmittance as if never done
        before = tl.where(is_inside, before, 0.0)
        reaching = before
        blended = tl.zeros([PIXELS], tl.float32)  # sum of the weights
        colour = tl.zeros([CHANNELS, PIXELS], tl.float32)
        last = end
        end = tl.where(tl.max(reaching, 0) < MIN_TRANSMITTANCE, slot, end)
        k = tl.arange(0, K)
        g = tl.load(slot_ptr + slot + k, mask=slot + k < end, other=0)
        while slot < end:
            is_in = slot + k < end
            upcoming = tl.load(slot_ptr + slot + K + k, mask=slot + K + k < end, other=0)
            power = _powers(row_ptr, g, is_in, x_px, y_px)
            values = tl.load(
                channel_ptr + g[None, :] * C + c[:, None],
                mask=is_in[None, :] & is_channel[:, None],
                other=0.0,
            )
            alpha = _alpha(power)
            after = reaching[None, :] * tl.cumprod(1.0 - alpha, 0)
            weight = tl.where(after >= MIN_TRANSMITTANCE, alpha * after / (1.0 - alpha), 0.0)
            weight_coarse, weight_fine = _halves(weight, PRECISION)
            colour += _dot(values, weight_coarse, weight_fine, PRECISION)
            blended += tl.sum(weight, 0)
            reaching = tl.min(after, 0)
            slot += K
            g = upcoming
            end = tl.where(tl.max(reaching, 0) < MIN_TRANSMITTANCE, tl.minimum(slot, end), end)
        if is_segment:
            tl.store(place_ptr + 3 * item + 2, tl.minimum(end, last))
            part = part_ptr + item.to(tl.int64) * (C + 2) * PIXELS
            is_part = is_channel[:, None] & (pixel[None, :] >= 0)
            tl.store(part + c[:, None] * PIXELS + pixel[None, :], colour, mask=is_part)
            tl.store(part + C * PIXELS + pixel, before)
            tl.store(part + (C + 1) * PIXELS + pixel, blended)
        else:
            tl.store(used_ptr + cell, tl.minimum(end, last))
            background = tl.load(background_ptr + c, mask=is_channel, other=0.0)
            colour += background[:, None] * (1.0 - blended)[None, :]
            colour = tl.where(tl.load(total_ptr) > capacity, float("nan"), colour)
            target = image_ptr + (c[:, None].to(tl.int64) * height + y[None, :]) * width + x[None, :]
            tl.store(target, colour, mask=is_inside[None, :] & is_channel[:, None])


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
        left, top = _cell_corner(tl.load(place_ptr + 3 * item), width)
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


@triton.jit
def _column(x, j: tl.constexpr):
    """Column j of x."""
    return tl.sum(tl.where(tl.arange(0, x.shape[1])[None, :] == j, x, 0.0), 1)


@triton.jit
def _basis(x, y):
    """1, x, y, x^2, x y, y^2 of the pixels (PIXELS,), and columns of 0 up to 16."""
    j = tl.arange(0, 16)[None, :]
    column = (
        tl.where(j == 0, 1.0, 0.0) + tl.where(j == 1, x[:, None], 0.0) + tl.where(j == 2, y[:, None], 0.0)
    )
    column += tl.where(j == 3, (x * x)[:, None], 0.0) + tl.where(j == 4, (x * y)[:, None], 0.0)
    return column + tl.where(j == 5, (y * y)[:, None], 0.0)


@triton.jit
def _moments(d_power, basis, PRECISION: tl.constexpr):
    """d_power times the basis, which tf32 holds exactly."""
    if PRECISION == "ieee":
        return tl.dot(d_power, basis, input_precision="ieee")
    coarse, fine = _halves(d_power, PRECISION)
    product = tl.dot(fine, basis, input_precision="tf32")
    return tl.dot(coarse, basis, acc=product, input_precision="tf32")


@triton.jit
def unblend(
    slot_ptr,  # as in `blend`
    range_ptr,
    row_ptr,
    channel_ptr,
    used_ptr,
    work_ptr,
    whole_ptr,
    place_ptr,
    part_ptr,  # as `join_segments` left it
    attached_ptr,  # (images, C) 1.0, or 0.0 where the channel sends no gradient to geometry
    which_ptr,  # (rows of tiles,) int32 the image that a row of tiles belongs to
    image_ptr,  # (C, H, W) the blended image
    d_image_ptr,  # (C, H, W)
    moment_ptr,  # out (N, 8), zeros: sums of the exponent's gradient times 1, dx, dy, dx^2, dx dy, dy^2
    d_channel_ptr,  # out (N, C), zeros
    width,
    height,
    C,
    K: tl.constexpr,
    CHANNELS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add up the gradients, segment by segment; any number of programs share the segments."""
    k, c, pixel = tl.arange(0, K), tl.arange(0, CHANNELS), tl.arange(0, PIXELS)
    is_channel = c < C
    basis = _basis((pixel % 4).to(tl.float32), (pixel // 4).to(tl.float32))
    n_segments = tl.load(work_ptr + 1)
    n_items = tl.load(work_ptr) + n_segments
    item = tl.program_id(0)
    while item < n_items:
        is_whole = item >= n_segments
        cell = tl.load(whole_ptr + tl.maximum(item - n_segments, 0), mask=is_whole, other=0)
        cell = tl.load(place_ptr + 3 * item, mask=~is_whole, other=cell)
        slot = tl.load(range_ptr + cell, mask=is_whole, other=0)
        slot = tl.load(place_ptr + 3 * item + 1, mask=~is_whole, other=slot)
        end = tl.load(used_ptr + cell, mask=is_whole, other=0)
        end = tl.load(place_ptr + 3 * item + 2, mask=~is_whole, other=end)
        g = tl.load(slot_ptr + slot + k, mask=slot + k < end, other=0)
        left, top = _cell_corner(cell, width)
        x, y = left + pixel % 4, top + pixel // 4
        is_inside = (x < width) & (y < height)
        x_px, y_px = x.to(tl.float32)[None, :], y.to(tl.float32)[None, :]
        left_px, top_px = left.to(tl.float32), top.to(tl.float32)
        at_image = (c[:, None].to(tl.int64) * height + y[None, :]) * width + x[None, :]  # (CHANNELS, PIXELS)
        is_image = is_channel[:, None] & is_inside[None, :]
        attached = tl.load(attached_ptr + tl.load(which_ptr + top // 8) * C + c, mask=is_channel, other=0.0)
        d_colour = tl.load(d_image_ptr + at_image, mask=is_image, other=0.0)
        d_attached = d_colour * attached[:, None]
        source = part_ptr + tl.minimum(item, n_segments).to(tl.int64) * (C + 2) * PIXELS
        so_far = tl.load(source + c[:, None] * PIXELS + pixel[None, :], mask=is_image & ~is_whole, other=0.0)
        behind = tl.load(image_ptr + at_image, mask=is_image, other=0.0) - so_far
        beyond = tl.sum(d_attached * behind, 0)
        reaching = tl.load(source + C * PIXELS + pixel, mask=is_inside & ~is_whole, other=1.0)
        reaching = tl.where(is_inside, reaching, 0.0)
        attached_coarse, attached_fine = _halves(d_attached, PRECISION)
        colour_coarse, colour_fine = _halves(tl.trans(d_colour), PRECISION)
        while slot < end:
            is_in = slot + k < end
            upcoming = tl.load(slot_ptr + slot + K + k, mask=slot + K + k < end, other=0)
            power = _powers(row_ptr, g, is_in, x_px, y_px)
            at_channel = g[:, None] * C + c[None, :]
            is_value = is_in[:, None] & is_channel[None, :]
            values = tl.load(channel_ptr + at_channel, mask=is_value, other=0.0)
            raw = tl.exp2(power)
            alpha = tl.minimum(raw, MAX_ALPHA)
            alpha = tl.where(alpha >= MIN_ALPHA, alpha, 0.0)
            after = reaching[None, :] * tl.cumprod(1.0 - alpha, 0)
            inverse = 1.0 / (1.0 - alpha)
            before = after * inverse
            weight = tl.where(after >= MIN_TRANSMITTANCE, alpha * before, 0.0)
            toward = _dot(values, attached_coarse, attached_fine, PRECISION)  # (K, PIXELS)
            toward = _pin(toward)
            weight = _pin(weight)
            weighted = weight * toward
            left_over = beyond[None, :] - tl.cumsum(weighted, 0)
            d_power = tl.where(weight > 0, (before * toward - left_over * inverse) * raw, 0.0)
            d_values = _dot(weight, colour_coarse, colour_fine, PRECISION)  # (K, CHANNELS)
            is_used = tl.max(weight, 1) > 0
            tl.atomic_add(
                d_channel_ptr + at_channel, d_values, mask=is_value & is_used[:, None], sem="relaxed"
            )
            moment = moment_ptr + 8 * g
            local = _moments(d_power, basis, PRECISION)  # (K, 16), of pixels from the cell's corner
            m, sx, sy = _column(local, 0), _column(local, 1), _column(local, 2)
            u = tl.load(row_ptr + 8 * g) - left_px
            v = tl.load(row_ptr + 8 * g + 1) - top_px
            tl.atomic_add(moment, m, mask=is_used, sem="relaxed")
            tl.atomic_add(moment + 1, u * m - sx, mask=is_used, sem="relaxed")
            tl.atomic_add(moment + 2, v * m - sy, mask=is_used, sem="relaxed")
            mxx = u * (u * m - 2 * sx) + _column(local, 3)
            mxy = u * (v * m - sy) - v * sx + _column(local, 4)
            myy = v * (v * m - 2 * sy) + _column(local, 5)
            tl.atomic_add(moment + 3, mxx, mask=is_used, sem="relaxed")
            tl.atomic_add(moment + 4, mxy, mask=is_used, sem="relaxed")
            tl.atomic_add(moment + 5, myy, mask=is_used, sem="relaxed")
            beyond -= tl.sum(weighted, 0)
            reaching = tl.min(after, 0)
            slot += K
            g = upcoming
        item += tl.num_programs(0)
