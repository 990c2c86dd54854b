"""Triton kernels: lists of Gaussians, blending, and the backward of blending (SPEC 10).

Tiles of 8 x 8 pixels get sorted lists of Gaussians; each is split into the lists of its four cells of 4 x 4 pixels.
A pair is (Gaussian, tile). A cell's list is a run of slots; one program blends one cell, K Gaussians at a time.
Where training needs it, the forward leaves a checkpoint every SEGMENT slots, so that the backward walks long lists
in parallel pieces. No postponed annotations here: Triton reads them.
"""

import triton
import triton.language as tl

from common.rasterizer import interface

MAX_ALPHA = tl.constexpr(interface.MAX_ALPHA)
MIN_ALPHA = tl.constexpr(interface.MIN_ALPHA)
MIN_TRANSMITTANCE = tl.constexpr(interface.MIN_TRANSMITTANCE)
NOTHING = tl.constexpr(-1000.0)  # log2 of the opacity of a Gaussian that is not there
PIXELS = tl.constexpr(16)  # of a cell


@triton.jit(do_not_specialize=["n", "tiles_x", "n_tiles", "capacity"])
def list_pairs(
    order_ptr,  # (N,) int64 Gaussians front to back
    end_ptr,  # (N,) int64 running sum of their tile counts, in that order
    box_ptr,  # (N, 4) int32 cells x0, x1, y0, y1, ends exclusive
    key_ptr,  # out (capacity,) int16: tile - OFFSET; int32 if there are too many; the last tile + 1 where unused
    gaussian_ptr,  # out (capacity,) int32
    n,
    tiles_x,
    n_tiles,
    capacity,
    N_STEPS: tl.constexpr,  # 2^N_STEPS > N
    OFFSET: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """All pairs, front to back: which Gaussian, which tile."""
    pair = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = pair < capacity
    total = tl.load(end_ptr + n - 1)
    is_used = is_in & (pair < total)
    lo = tl.zeros([BLOCK], tl.int32)  # the first rank whose end lies beyond the pair
    hi = lo + (n - 1)
    for _ in range(N_STEPS):
        middle = (lo + hi) // 2
        is_beyond = tl.load(end_ptr + middle, mask=is_used, other=0) > pair
        hi = tl.where(is_beyond, middle, hi)
        lo = tl.where(is_beyond, lo, tl.minimum(middle + 1, hi))
    before = tl.load(end_ptr + lo - 1, mask=is_used & (lo > 0), other=0)
    g = tl.load(order_ptr + lo, mask=is_used, other=0).to(tl.int32)
    left = tl.load(box_ptr + 4 * g, mask=is_used, other=0) // 2
    right = (tl.load(box_ptr + 4 * g + 1, mask=is_used, other=1) - 1) // 2
    top = tl.load(box_ptr + 4 * g + 2, mask=is_used, other=0) // 2
    n_x = tl.maximum(right - left + 1, 1)
    k = (pair - before).to(tl.int32)
    tile = tl.where(is_used, (top + k // n_x) * tiles_x + left + k % n_x, n_tiles)
    tl.store(key_ptr + pair, (tile - OFFSET).to(key_ptr.dtype.element_ty), mask=is_in)
    tl.store(gaussian_ptr + pair, g, mask=is_in)


@triton.jit(do_not_specialize=["n_tiles", "capacity"])
def list_slots(
    key_ptr,  # (capacity,) of `list_pairs`, sorted
    pair_ptr,  # (capacity,) int64 the pair at each place of the sorted keys
    gaussian_ptr,  # (capacity,) of `list_pairs`
    slot_ptr,  # out (capacity,) int32 the Gaussian of every slot
    range_ptr,  # out (2, n_tiles) int32, zeros: first slot, one past the last
    n_tiles,
    capacity,
    OFFSET: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The list of every tile."""
    slot = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = slot < capacity
    pair = tl.load(pair_ptr + slot, mask=is_in, other=0)
    tl.store(slot_ptr + slot, tl.load(gaussian_ptr + pair, mask=is_in, other=0), mask=is_in)
    tile = tl.load(key_ptr + slot, mask=is_in, other=0).to(tl.int32) + OFFSET
    following = tl.load(key_ptr + slot + 1, mask=slot + 1 < capacity, other=0).to(tl.int32) + OFFSET
    following = tl.where(slot + 1 < capacity, following, n_tiles)
    is_last = is_in & (tile < n_tiles) & (tile != following)
    tl.store(range_ptr + n_tiles + tile, slot + 1, mask=is_last)
    tl.store(range_ptr + following, slot + 1, mask=is_in & (tile != following) & (following < n_tiles))


@triton.jit
def _append(list_ptr, found, g, is_member):
    """Append the members among g to a list that has `found` entries; how many it has then."""
    member = is_member.to(tl.int32)
    tl.store(list_ptr + found + tl.cumsum(member, 0) - member, g, mask=is_member)
    return found + tl.sum(member, 0)


@triton.jit(do_not_specialize=["n_tiles", "tiles_x"])
def split_lists(
    slot_ptr,  # (capacity,) of `list_slots`
    range_ptr,  # (2, n_tiles) of `list_slots`
    schedule_ptr,  # (n_tiles,) tiles, the longest lists first
    box_ptr,  # (N, 4) cells x0, x1, y0, y1
    cell_slot_ptr,  # out (4 capacity,) int32; the cells of a tile have four times its run
    cell_range_ptr,  # out (2, 4 n_tiles) int32: first slot, one past the last, of cells 4 tile + 2 row + column
    n_tiles,
    tiles_x,
    BLOCK: tl.constexpr,
):
    """The list of every cell, in the order of its tile's."""
    tile = tl.load(schedule_ptr + tl.program_id(0)).to(tl.int32)
    slot = tl.load(range_ptr + tile)
    end = tl.load(range_ptr + n_tiles + tile)
    left, top = tile % tiles_x * 2, tile // tiles_x * 2
    start0, n = 4 * slot, end - slot
    start1, start2, start3 = start0 + n, start0 + 2 * n, start0 + 3 * n
    n0, n1, n2, n3 = n * 0, n * 0, n * 0, n * 0
    while slot < end:
        i = slot + tl.arange(0, BLOCK)
        is_in = i < end
        g = tl.load(slot_ptr + i, mask=is_in, other=0)
        box = box_ptr + 4 * g
        in_left = is_in & (tl.load(box, mask=is_in, other=0) <= left)
        in_right = is_in & (tl.load(box + 1, mask=is_in, other=0) > left + 1)
        in_top = tl.load(box + 2, mask=is_in, other=0) <= top
        in_bottom = tl.load(box + 3, mask=is_in, other=0) > top + 1
        n0 = _append(cell_slot_ptr + start0, n0, g, in_left & in_top)
        n1 = _append(cell_slot_ptr + start1, n1, g, in_right & in_top)
        n2 = _append(cell_slot_ptr + start2, n2, g, in_left & in_bottom)
        n3 = _append(cell_slot_ptr + start3, n3, g, in_right & in_bottom)
        slot += BLOCK
    first, last = cell_range_ptr + 4 * tile, cell_range_ptr + 4 * n_tiles + 4 * tile
    tl.store(first, start0)
    tl.store(first + 1, start1)
    tl.store(first + 2, start2)
    tl.store(first + 3, start3)
    tl.store(last, start0 + n0)
    tl.store(last + 1, start1 + n1)
    tl.store(last + 2, start2 + n2)
    tl.store(last + 3, start3 + n3)


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
def _powers(row_ptr, slot_ptr, slot, end, x_px, y_px, K: tl.constexpr):
    """Of the next K Gaussians: index (K,), whether there is one, and log2 of alpha at the pixels (K, PIXELS)."""
    k = tl.arange(0, K)
    is_in = slot + k < end
    g = tl.load(slot_ptr + slot + k, mask=is_in, other=0)
    row = row_ptr + 8 * g
    dx = tl.load(row)[:, None] - x_px
    dy = tl.load(row + 1)[:, None] - y_px
    a, b, c = tl.load(row + 2)[:, None], tl.load(row + 3)[:, None], tl.load(row + 4)[:, None]
    top = tl.load(row + 5, mask=is_in, other=NOTHING)[:, None]
    return g, is_in, (a * dx + b * dy) * dx + (c * dy * dy + top)


@triton.jit
def _leave_checkpoint(place_ptr, checkpoint_ptr, place, cell, slot, colour, reaching, C, is_due):
    """Store where a segment begins, the colours (CHANNELS, PIXELS) before it and the transmittance."""
    if is_due:
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
    checkpoint_place_ptr,  # out (n_checkpoints, 2) int32 cell, slot; cell arrives as -1
    checkpoint_ptr,  # out (n_checkpoints, C + 1, 16) colours so far, transmittance
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
    slot = first
    while slot < end:
        if SEGMENT > 0:
            is_due = (slot > first) & ((slot - first) % SEGMENT == 0)
            _leave_checkpoint(
                checkpoint_place_ptr, checkpoint_ptr, slot // SEGMENT, cell, slot, colour, reaching, C, is_due
            )
        g, is_in, power = _powers(row_ptr, slot_ptr, slot, end, x_px, y_px, K)
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
    checkpoint_place_ptr,
    checkpoint_ptr,
    attached_ptr,  # (C,) 1.0, or 0.0 where the channel sends no gradient to geometry
    image_ptr,  # (C, H, W) the blended image
    d_image_ptr,  # (C, H, W)
    moment_ptr,  # out (N, 8), zeros: sums of the exponent's gradient times 1, dx, dy, dx^2, dx dy, dy^2
    d_channel_ptr,  # out (N, C), zeros
    n_checkpoints,
    width,
    height,
    C,
    K: tl.constexpr,
    CHANNELS: tl.constexpr,
    SEGMENT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add up the gradients of one segment of a list; programs beyond the checkpoints start lists."""
    program = tl.program_id(0)
    is_start = program >= n_checkpoints
    place = tl.where(is_start, 0, program)
    cell = tl.load(checkpoint_place_ptr + 2 * place)
    cell = tl.where(is_start, program - n_checkpoints, cell)
    is_live = cell >= 0
    slot = tl.load(range_ptr + cell, mask=is_live, other=0)
    slot = tl.where(is_start, slot, tl.load(checkpoint_place_ptr + 2 * place + 1))
    end = tl.minimum(tl.load(used_ptr + cell, mask=is_live, other=0), slot + SEGMENT)
    end = tl.where(is_live, end, slot)
    if slot < end:
        left, top = _cell_corner(cell, width)
        pixel = tl.arange(0, PIXELS)
        x, y = left + pixel % 4, top + pixel // 4
        is_inside = (x < width) & (y < height)
        x_px, y_px = x.to(tl.float32)[None, :], y.to(tl.float32)[None, :]
        left_px, top_px = left.to(tl.float32), top.to(tl.float32)
        basis = _basis((pixel % 4).to(tl.float32), (pixel // 4).to(tl.float32))
        c = tl.arange(0, CHANNELS)
        is_channel = c < C
        at_image = (c[:, None].to(tl.int64) * height + y[None, :]) * width + x[None, :]  # (CHANNELS, PIXELS)
        is_image = is_channel[:, None] & is_inside[None, :]
        d_colour = tl.load(d_image_ptr + at_image, mask=is_image, other=0.0)
        d_attached = d_colour * tl.load(attached_ptr + c, mask=is_channel, other=0.0)[:, None]
        beyond = tl.sum(d_attached * tl.load(image_ptr + at_image, mask=is_image, other=0.0), 0)
        reaching = tl.where(is_inside, 1.0, 0.0)
        if not is_start:
            source = checkpoint_ptr + place.to(tl.int64) * (C + 1) * PIXELS
            so_far = tl.load(source + c[:, None] * PIXELS + pixel[None, :], mask=is_image, other=0.0)
            beyond -= tl.sum(d_attached * so_far, 0)
            reaching = tl.load(source + C * PIXELS + pixel)
        attached_coarse, attached_fine = _halves(d_attached, PRECISION)
        colour_coarse, colour_fine = _halves(tl.trans(d_colour), PRECISION)
        while slot < end:
            g, is_in, power = _powers(row_ptr, slot_ptr, slot, end, x_px, y_px, K)
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
