"""Triton kernels: blending of the cells' lists, and its backward (SPEC 10).

A cell is 4 x 4 pixels, its list a run of slots; one program blends one list, K Gaussians at a time. The longest
lists would decide how long a call takes, so they are cut into segments: first what each lets through is found, then all
are blended side by side, then they are added up. The backward takes the same segments.
No postponed annotations here: Triton reads them.
"""

import triton
import triton.language as tl

from common.rasterizer import interface
from common.rasterizer.triton_lists import CLASSES, n_of_classes

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
    """Log2 of alpha (K, 2, PIXELS) of Gaussians g (K, 2) at the pixels (1, 1, PIXELS); none where not is_in."""
    row = row_ptr + 8 * g
    dx = tl.load(row)[:, :, None] - x_px
    dy = tl.load(row + 1)[:, :, None] - y_px
    a, b, c = tl.load(row + 2)[:, :, None], tl.load(row + 3)[:, :, None], tl.load(row + 4)[:, :, None]
    top = tl.load(row + 5, mask=is_in, other=NOTHING)[:, :, None]
    return (a * dx + b * dy) * dx + (c * dy * dy + top)


@triton.jit
def _places(K: tl.constexpr):
    """Places (K, 2) of a list that are worked at together: halves side by side, so that scans stay in threads."""
    return tl.arange(0, K)[:, None] + K * tl.arange(0, 2)[None, :]


@triton.jit
def _half(x, h: tl.constexpr):
    """x[h] of (2, PIXELS) as (1, PIXELS)."""
    return tl.sum(tl.where(tl.arange(0, 2)[:, None] == h, x, 0.0), 0, keep_dims=True)


@triton.jit
def _after(alpha, reaching):
    """Transmittance (K, 2, PIXELS) behind each Gaussian, and behind them all, twice (2, PIXELS), like `reaching`."""
    passing = tl.cumprod(1.0 - alpha, 0)
    last = tl.min(passing, 0)
    between = reaching * _half(last, 0)
    is_first = tl.arange(0, 2)[:, None] == 0
    before = tl.where(is_first, reaching, between)
    return passing * before[None, :, :], between * _half(last, 1)


@triton.jit
def _twice(x):
    """(PIXELS,) as (2, PIXELS)."""
    return tl.broadcast_to(x[None, :], (2, x.shape[0]))


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
def _exp2(x, PRECISION: tl.constexpr):
    """2^x; what is below 2^-126 may come out as 0."""
    if PRECISION == "ieee":
        return tl.exp2(x)
    return tl.inline_asm_elementwise(
        "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
    )


@triton.jit
def _inverse(x, PRECISION: tl.constexpr):
    """1 / x of x that are neither tiny nor huge."""
    if PRECISION == "ieee":
        return 1.0 / x
    return tl.inline_asm_elementwise(
        "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
    )


@triton.jit
def _alpha(power, PRECISION: tl.constexpr):
    alpha = tl.minimum(_exp2(power, PRECISION), MAX_ALPHA)
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
        left, top = _cell_corner(tl.load(place_ptr + 3 * item), width)
        k, pixel = _places(K), tl.arange(0, PIXELS)
        x_px, y_px = (left + pixel % 4).to(tl.float32), (top + pixel // 4).to(tl.float32)
        passing = tl.full([2, PIXELS], 1.0, tl.float32)
        g = tl.load(slot_ptr + slot + k, mask=slot + k < end, other=0)
        while slot < end:
            upcoming = tl.load(slot_ptr + slot + 2 * K + k, mask=slot + 2 * K + k < end, other=0)
            power = _powers(row_ptr, g, slot + k < end, x_px[None, None, :], y_px[None, None, :])
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
        left, top = _cell_corner(cell, width)
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
        reaching = _twice(arriving)
        blended = tl.zeros([2, PIXELS], tl.float32)  # sum of the weights, of either half
        colour = tl.zeros([CHANNELS, PIXELS], tl.float32)
        last = end
        end = tl.where(tl.max(arriving, 0) < MIN_TRANSMITTANCE, slot, end)
        k, row = _places(K), tl.arange(0, 2 * K)
        row = row // 2 + K * (row % 2)  # places as the rows of the weights have them
        g = tl.load(slot_ptr + slot + k, mask=slot + k < end, other=0)
        while slot < end:
            upcoming = tl.load(slot_ptr + slot + 2 * K + k, mask=slot + 2 * K + k < end, other=0)
            is_in = slot + k < end
            alpha = _alpha(_powers(row_ptr, g, is_in, x_px, y_px), PRECISION)
            after, reaching = _after(alpha, reaching)
            before = after * _inverse(1.0 - alpha, PRECISION)
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
                weight_coarse, weight_fine = _halves(tl.reshape(weight, (2 * K, PIXELS)), PRECISION)
                colour += _dot(values, weight_coarse, weight_fine, PRECISION)
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
    k, c, pixel = _places(K), tl.arange(0, CHANNELS), tl.arange(0, PIXELS)
    row = tl.arange(0, 2 * K)
    row = row // 2 + K * (row % 2)  # places as the rows of products have them
    is_first = tl.arange(0, 2)[:, None] == 0
    is_channel = c < C
    j = tl.arange(0, 16)[None, :]
    basis = _basis(-(pixel % 4).to(tl.float32), -(pixel // 4).to(tl.float32))
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
        x_px, y_px = x.to(tl.float32)[None, None, :], y.to(tl.float32)[None, None, :]
        left_px, top_px = left.to(tl.float32), top.to(tl.float32)
        at_image = (c[:, None].to(tl.int64) * height + y[None, :]) * width + x[None, :]  # (CHANNELS, PIXELS)
        is_image = is_channel[:, None] & is_inside[None, :]
        attached = tl.load(attached_ptr + tl.load(which_ptr + top // 8) * C + c, mask=is_channel, other=0.0)
        d_colour = tl.load(d_image_ptr + at_image, mask=is_image, other=0.0)
        d_attached = d_colour * attached[:, None]
        source = part_ptr + tl.minimum(item, n_segments).to(tl.int64) * (C + 2) * PIXELS
        so_far = tl.load(source + c[:, None] * PIXELS + pixel[None, :], mask=is_image & ~is_whole, other=0.0)
        behind = tl.load(image_ptr + at_image, mask=is_image, other=0.0) - so_far
        beyond = _twice(tl.sum(d_attached * behind, 0))
        reaching = tl.load(source + C * PIXELS + pixel, mask=is_inside & ~is_whole, other=1.0)
        reaching = _twice(tl.where(is_inside, reaching, 0.0))
        attached_coarse, attached_fine = _halves(d_attached, PRECISION)
        colour_coarse, colour_fine = _halves(tl.trans(d_colour), PRECISION)
        while slot < end:
            is_in, is_in_row = slot + k < end, slot + row < end
            upcoming = tl.load(slot_ptr + slot + 2 * K + k, mask=slot + 2 * K + k < end, other=0)
            g_of_row = tl.load(slot_ptr + slot + row, mask=is_in_row, other=0)
            at_channel = g_of_row[:, None] * C + c[None, :]
            is_value = is_in_row[:, None] & is_channel[None, :]
            values = tl.load(channel_ptr + at_channel, mask=is_value, other=0.0)
            toward = _dot(values, attached_coarse, attached_fine, PRECISION)  # (2 K, PIXELS)
            toward = tl.reshape(_pin(toward), (K, 2, PIXELS))
            raw = _exp2(_powers(row_ptr, g, is_in, x_px, y_px), PRECISION)
            alpha = tl.minimum(raw, MAX_ALPHA)
            alpha = tl.where(alpha >= MIN_ALPHA, alpha, 0.0)
            after, reaching = _after(alpha, reaching)
            inverse = _inverse(1.0 - alpha, PRECISION)
            before = after * inverse
            weight = tl.where(after >= MIN_TRANSMITTANCE, alpha * before, 0.0)
            weighted = weight * toward
            found = tl.sum(weighted, 0)
            left_over = beyond - tl.where(is_first, 0.0, _half(found, 0))
            left_over = left_over[None, :, :] - tl.cumsum(weighted, 0)
            d_power = tl.where(weight > 0, (before * toward - left_over * inverse) * raw, 0.0)
            weight = _pin(tl.reshape(weight, (2 * K, PIXELS)))
            d_power = _pin(tl.reshape(d_power, (2 * K, PIXELS)))
            d_values = _dot(weight, colour_coarse, colour_fine, PRECISION)  # (2 K, CHANNELS)
            is_used = _column(_moments(weight, basis, PRECISION), 0) > 0  # no weight is negative
            tl.atomic_add(
                d_channel_ptr + at_channel, d_values, mask=is_value & is_used[:, None], sem="relaxed"
            )
            local = _moments(d_power, basis, PRECISION)  # (2 K, 16), of pixels from the cell's corner
            u = tl.load(row_ptr + 8 * g_of_row)[:, None] - left_px
            v = tl.load(row_ptr + 8 * g_of_row + 1)[:, None] - top_px
            m, sx, sy = _column(local, 0)[:, None], _column(local, 1)[:, None], _column(local, 2)[:, None]
            shift = tl.where(j == 1, u * m, tl.where(j == 2, v * m, 0.0))
            shift = tl.where(j == 3, u * (u * m + 2 * sx), shift)
            shift = tl.where(j == 4, u * (v * m + sy) + v * sx, shift)
            shifted = local + tl.where(j == 5, v * (v * m + 2 * sy), shift)
            tl.atomic_add(
                moment_ptr + 8 * g_of_row[:, None] + j,
                shifted,
                mask=is_used[:, None] & (j < 6),
                sem="relaxed",
            )
            beyond -= tl.sum(found, 0, keep_dims=True)
            slot += 2 * K
            g = upcoming
        item += tl.num_programs(0)
