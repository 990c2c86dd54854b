"""Triton kernels: blending of the cells' lists, and its backward (SPEC 10).

A cell is 4 x 4 pixels, its list a run of slots; one program blends one cell, K Gaussians at a time. Where training
needs it, the forward leaves a checkpoint every SEGMENT slots, so that the backward walks long lists in parallel pieces.
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
def _leave_start(work_ptr, start_ptr, cell, is_due):
    """Tell the backward of a list that is not empty."""
    if is_due:
        tl.store(start_ptr + tl.atomic_add(work_ptr, 1, sem="relaxed"), cell)


@triton.jit
def _leave_checkpoint(work_ptr, place_ptr, checkpoint_ptr, cell, slot, colour, reaching, C, is_due):
    """Store where a segment begins, the colours (CHANNELS, PIXELS) before it and the transmittance."""
    if is_due:
        place = tl.atomic_add(work_ptr + 1, 1, sem="relaxed")
        tl.store(place_ptr + 2 * place, cell)
        tl.store(place_ptr + 2 * place + 1, slot)
        c, pixel = tl.arange(0, colour.shape[0]), tl.arange(0, colour.shape[1])
        target = checkpoint_ptr + place.to(tl.int64) * (C + 1) * colour.shape[1]
        is_channel = (c[:, None] < C) & (pixel[None, :] >= 0)
        tl.store(target + c[:, None] * colour.shape[1] + pixel[None, :], colour, mask=is_channel)
        tl.store(target + C * colour.shape[1] + pixel, reaching)


@triton.jit
def blend(
    slot_ptr,  # (4 capacity,) of `split_lists`
    range_ptr,  # (2, n_cells) of `split_lists`
    schedule_ptr,  # (n_tiles,) tiles, the longest lists first
    row_ptr,  # (N, 8)
    channel_ptr,  # (N, C)
    background_ptr,  # (C,)
    total_ptr,  # int64 number of pairs; beyond the capacity, lists are incomplete and the image is NaN
    image_ptr,  # out (C, H, W)
    used_ptr,  # out (n_cells,) int32 one past the last slot that was looked at
    work_ptr,  # out (2,) int32, zeros: how many starts, how many checkpoints
    start_ptr,  # out (n_cells,) int32 cells whose lists are not empty, in any order
    place_ptr,  # out (most checkpoints, 2) int32 cell, slot
    checkpoint_ptr,  # out (most checkpoints, C + 1, 16) colours so far, transmittance
    n_cells,
    capacity,
    width,
    height,
    C,
    K: tl.constexpr,
    CHANNELS: tl.constexpr,  # power of two >= C and >= 16
    SEGMENT: tl.constexpr,  # multiple of K; 0: no backward to come
    PRECISION: tl.constexpr,
):
    """Blend each cell's list front to back."""
    cell = 4 * tl.load(schedule_ptr + tl.program_id(0) // 4).to(tl.int32) + tl.program_id(0) % 4
    first = tl.load(range_ptr + cell)
    end = tl.load(range_ptr + n_cells + cell)
    last = end
    left, top = _cell_corner(cell, width)
    pixel = tl.arange(0, PIXELS)
    x, y = left + pixel % 4, top + pixel // 4
    is_inside = (x < width) & (y < height)
    x_px, y_px = x.to(tl.float32)[None, :], y.to(tl.float32)[None, :]
    c = tl.arange(0, CHANNELS)
    is_channel = c < C
    reaching = tl.where(is_inside, 1.0, 0.0)  # transmittance as if pixels were never done
    blended = tl.zeros([PIXELS], tl.float32)  # sum of the weights
    colour = tl.zeros([CHANNELS, PIXELS], tl.float32)
    if SEGMENT > 0:
        _leave_start(work_ptr, start_ptr, cell, first < end)
    slot = first
    k = tl.arange(0, K)
    g = tl.load(slot_ptr + slot + k, mask=slot + k < end, other=0)
    while slot < end:
        if SEGMENT > 0:
            is_due = (slot > first) & ((slot - first) % SEGMENT == 0)
            _leave_checkpoint(work_ptr, place_ptr, checkpoint_ptr, cell, slot, colour, reaching, C, is_due)
        is_in = slot + k < end
        upcoming = tl.load(slot_ptr + slot + K + k, mask=slot + K + k < end, other=0)
        power = _powers(row_ptr, g, is_in, x_px, y_px)
        values = tl.load(
            channel_ptr + g[None, :] * C + c[:, None], mask=is_in[None, :] & is_channel[:, None], other=0.0
        )
        alpha = tl.minimum(tl.exp2(power), MAX_ALPHA)
        alpha = tl.where(alpha >= MIN_ALPHA, alpha, 0.0)
        after = reaching[None, :] * tl.cumprod(1.0 - alpha, 0)
        weight = tl.where(after >= MIN_TRANSMITTANCE, alpha * after / (1.0 - alpha), 0.0)
        weight_coarse, weight_fine = _halves(weight, PRECISION)
        colour += _dot(values, weight_coarse, weight_fine, PRECISION)
        blended += tl.sum(weight, 0)
        reaching = tl.min(after, 0)
        slot += K
        g = upcoming
        end = tl.where(tl.max(reaching, 0) < MIN_TRANSMITTANCE, tl.minimum(slot, end), end)
    tl.store(used_ptr + cell, tl.minimum(end, last))
    background = tl.load(background_ptr + c, mask=is_channel, other=0.0)
    colour += background[:, None] * (1.0 - blended)[None, :]
    colour = tl.where(tl.load(total_ptr) > capacity, float("nan"), colour)
    target = image_ptr + (c[:, None].to(tl.int64) * height + y[None, :]) * width + x[None, :]
    tl.store(target, colour, mask=is_inside[None, :] & is_channel[:, None])


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
    start_ptr,
    place_ptr,
    checkpoint_ptr,
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
    SEGMENT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add up the gradients, segment by segment; any number of programs share the segments."""
    k, c, pixel = tl.arange(0, K), tl.arange(0, CHANNELS), tl.arange(0, PIXELS)
    is_channel = c < C
    basis = _basis((pixel % 4).to(tl.float32), (pixel // 4).to(tl.float32))
    n_checkpoints = tl.load(work_ptr + 1)
    n_items = tl.load(work_ptr) + n_checkpoints
    item = tl.program_id(0)
    while item < n_items:
        is_start = item >= n_checkpoints
        cell = tl.load(start_ptr + tl.maximum(item - n_checkpoints, 0), mask=is_start, other=0)
        cell = tl.load(place_ptr + 2 * item, mask=~is_start, other=cell)
        slot = tl.load(range_ptr + cell, mask=is_start, other=0)
        slot = tl.load(place_ptr + 2 * item + 1, mask=~is_start, other=slot)
        end = tl.minimum(tl.load(used_ptr + cell), slot + SEGMENT)
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
        source = checkpoint_ptr + tl.minimum(item, n_checkpoints).to(tl.int64) * (C + 1) * PIXELS
        so_far = tl.load(source + c[:, None] * PIXELS + pixel[None, :], mask=is_image & ~is_start, other=0.0)
        behind = tl.load(image_ptr + at_image, mask=is_image, other=0.0) - so_far
        beyond = tl.sum(d_attached * behind, 0)
        reaching = tl.load(source + C * PIXELS + pixel, mask=is_inside & ~is_start, other=1.0)
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
