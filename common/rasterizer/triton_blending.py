"""Triton kernels: lists of Gaussians per tile, blending, and the backward of blending (SPEC 10).

A pair is (Gaussian, tile); sorted by tile, then depth, pairs become slots: each tile's list is a run of slots.
One program blends one square tile of SIDE pixels, K Gaussians at a time. Where training needs it, the forward leaves a
checkpoint every SEGMENT slots, so that the backward walks long lists in parallel pieces.
No postponed annotations here: Triton reads them.
"""

import triton
import triton.language as tl

from common.rasterizer import interface

MAX_ALPHA = tl.constexpr(interface.MAX_ALPHA)
MIN_ALPHA = tl.constexpr(interface.MIN_ALPHA)
MIN_TRANSMITTANCE = tl.constexpr(interface.MIN_TRANSMITTANCE)
NOTHING = tl.constexpr(-1000.0)  # log2 of the opacity of a Gaussian that is not there
NO_TILE = tl.constexpr(-1)


@triton.jit(do_not_specialize=["n", "tiles_x", "n_tiles", "capacity"])
def list_pairs(
    order_ptr,  # (N,) int64 Gaussians front to back
    end_ptr,  # (N,) int64 running sum of their tile counts, in that order
    box_ptr,  # (N, 2) int32 first tile, tiles in a row
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
    first = tl.load(box_ptr + 2 * g, mask=is_used, other=0)
    n_x = tl.load(box_ptr + 2 * g + 1, mask=is_used, other=1)
    k = (pair - before).to(tl.int32)
    tile = tl.where(is_used, first + k // n_x * tiles_x + k % n_x, n_tiles)
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
def _leave_checkpoint(place_ptr, checkpoint_ptr, place, tile, slot, colour, reaching, C, is_due):
    """Store where a segment begins, the colours (PIXELS, CHANNELS) before it and the transmittance."""
    if is_due:
        tl.store(place_ptr + 2 * place, tile)
        tl.store(place_ptr + 2 * place + 1, slot)
        pixel, c = tl.arange(0, colour.shape[0]), tl.arange(0, colour.shape[1])
        target = checkpoint_ptr + place.to(tl.int64) * (C + 1) * colour.shape[0]
        is_channel = (c[None, :] < C) & (pixel[:, None] >= 0)
        tl.store(target + c[None, :] * colour.shape[0] + pixel[:, None], colour, mask=is_channel)
        tl.store(target + C * colour.shape[0] + pixel, reaching)


@triton.jit
def blend(
    slot_ptr,  # (capacity,) int32
    range_ptr,  # (2, n_tiles) int32
    schedule_ptr,  # (n_tiles,) tiles, the longest lists first
    row_ptr,  # (N, 8)
    channel_ptr,  # (N, C)
    background_ptr,  # (C,)
    total_ptr,  # int64 number of pairs; beyond the capacity, lists are incomplete and the image is NaN
    image_ptr,  # out (C, H, W)
    used_ptr,  # out (n_tiles,) int32 one past the last slot that was looked at
    checkpoint_place_ptr,  # out (capacity // SEGMENT + 1, 2) int32 tile, slot; tile arrives as -1
    checkpoint_ptr,  # out (capacity // SEGMENT + 1, C + 1, PIXELS) colours so far, transmittance
    n_tiles,
    capacity,
    width,
    height,
    C,
    SIDE: tl.constexpr,
    K: tl.constexpr,
    CHANNELS: tl.constexpr,  # power of two >= C and >= 16
    SEGMENT: tl.constexpr,  # multiple of K; 0: no backward to come
    PRECISION: tl.constexpr,
):
    """Blend each tile's list front to back."""
    PIXELS: tl.constexpr = SIDE * SIDE
    tile = tl.load(schedule_ptr + tl.program_id(0)).to(tl.int32)
    first = tl.load(range_ptr + tile)
    end = tl.load(range_ptr + n_tiles + tile)
    last = end
    tiles_x = (width + SIDE - 1) // SIDE
    pixel = tl.arange(0, PIXELS)
    x = tile % tiles_x * SIDE + pixel % SIDE
    y = tile // tiles_x * SIDE + pixel // SIDE
    is_inside = (x < width) & (y < height)
    x_px, y_px = x.to(tl.float32)[:, None], y.to(tl.float32)[:, None]
    k, c = tl.arange(0, K), tl.arange(0, CHANNELS)
    is_channel = c < C
    reaching = tl.where(is_inside, 1.0, 0.0)  # transmittance as if pixels were never done
    behind = tl.full([PIXELS], 1.0, tl.float32)  # transmittance of what was blended
    colour = tl.zeros([PIXELS, CHANNELS], tl.float32)
    slot = first
    while slot < end:
        if SEGMENT > 0:
            is_due = (slot > first) & ((slot - first) % SEGMENT == 0)
            _leave_checkpoint(
                checkpoint_place_ptr, checkpoint_ptr, slot // SEGMENT, tile, slot, colour, reaching, C, is_due
            )
        is_in = slot + k < end
        g = tl.load(slot_ptr + slot + k, mask=is_in, other=0)
        row = row_ptr + 8 * g
        dx = tl.load(row)[None, :] - x_px  # (PIXELS, K)
        dy = tl.load(row + 1)[None, :] - y_px
        power = (
            tl.load(row + 2)[None, :] * dx * dx
            + tl.load(row + 3)[None, :] * dx * dy
            + tl.load(row + 4)[None, :] * dy * dy
            + tl.load(row + 5, mask=is_in, other=NOTHING)[None, :]
        )
        alpha = tl.minimum(tl.exp2(power), MAX_ALPHA)
        alpha = tl.where(alpha >= MIN_ALPHA, alpha, 0.0)
        after = reaching[:, None] * tl.cumprod(1.0 - alpha, 1)
        is_blended = after >= MIN_TRANSMITTANCE
        weight = tl.where(is_blended, alpha * after / (1.0 - alpha), 0.0)
        values = tl.load(
            channel_ptr + g[:, None] * C + c[None, :], mask=is_in[:, None] & is_channel[None, :], other=0.0
        )
        colour = tl.dot(weight, values, acc=colour, input_precision=PRECISION)
        behind = tl.minimum(behind, tl.min(tl.where(is_blended, after, 1.0), 1))
        reaching = tl.min(after, 1)
        slot += K
        end = tl.where(tl.max(reaching, 0) < MIN_TRANSMITTANCE, tl.minimum(slot, end), end)
    tl.store(used_ptr + tile, tl.minimum(end, last))
    background = tl.load(background_ptr + c, mask=is_channel, other=0.0)
    colour += behind[:, None] * background[None, :]
    colour = tl.where(tl.load(total_ptr) > capacity, float("nan"), colour)
    target = image_ptr + (c[None, :].to(tl.int64) * height + y[:, None]) * width + x[:, None]
    tl.store(target, colour, mask=is_inside[:, None] & is_channel[None, :])


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
    SIDE: tl.constexpr,
    K: tl.constexpr,
    CHANNELS: tl.constexpr,
    SEGMENT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add up the gradients of one segment of a list; programs beyond the checkpoints start lists."""
    PIXELS: tl.constexpr = SIDE * SIDE
    program = tl.program_id(0)
    is_start = program >= n_checkpoints
    place = tl.where(is_start, 0, program)
    tile = tl.load(checkpoint_place_ptr + 2 * place)
    tile = tl.where(is_start, program - n_checkpoints, tile)
    is_live = tile >= 0
    slot = tl.load(range_ptr + tile, mask=is_live, other=0)
    slot = tl.where(is_start, slot, tl.load(checkpoint_place_ptr + 2 * place + 1))
    end = tl.minimum(tl.load(used_ptr + tile, mask=is_live, other=0), slot + SEGMENT)
    end = tl.where(is_live, end, slot)
    if slot < end:
        tiles_x = (width + SIDE - 1) // SIDE
        pixel = tl.arange(0, PIXELS)
        x = tile % tiles_x * SIDE + pixel % SIDE
        y = tile // tiles_x * SIDE + pixel // SIDE
        is_inside = (x < width) & (y < height)
        x_px, y_px = x.to(tl.float32)[None, :], y.to(tl.float32)[None, :]
        k, c = tl.arange(0, K), tl.arange(0, CHANNELS)
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
        d_colour = tl.trans(d_colour)  # (PIXELS, CHANNELS)
        while slot < end:
            is_in = slot + k < end
            g = tl.load(slot_ptr + slot + k, mask=is_in, other=0)
            row = row_ptr + 8 * g
            dx = tl.load(row)[:, None] - x_px  # (K, PIXELS)
            dy = tl.load(row + 1)[:, None] - y_px
            power = (
                tl.load(row + 2)[:, None] * dx * dx
                + tl.load(row + 3)[:, None] * dx * dy
                + tl.load(row + 4)[:, None] * dy * dy
                + tl.load(row + 5, mask=is_in, other=NOTHING)[:, None]
            )
            raw = tl.exp2(power)
            alpha = tl.minimum(raw, MAX_ALPHA)
            alpha = tl.where(alpha >= MIN_ALPHA, alpha, 0.0)
            after = reaching[None, :] * tl.cumprod(1.0 - alpha, 0)
            inverse = 1.0 / (1.0 - alpha)
            before = after * inverse
            weight = tl.where(after >= MIN_TRANSMITTANCE, alpha * before, 0.0)
            at_channel = g[:, None] * C + c[None, :]
            is_value = is_in[:, None] & is_channel[None, :]
            values = tl.load(channel_ptr + at_channel, mask=is_value, other=0.0)
            toward = tl.dot(values, d_attached, input_precision=PRECISION)  # (K, PIXELS)
            weighted = weight * toward
            left = beyond[None, :] - tl.cumsum(weighted, 0)
            d_power = tl.where(weight > 0, (before * toward - left * inverse) * raw, 0.0)
            d_values = tl.dot(weight, d_colour, input_precision=PRECISION)  # (K, CHANNELS)
            is_used = tl.max(weight, 1) > 0
            tl.atomic_add(
                d_channel_ptr + at_channel, d_values, mask=is_value & is_used[:, None], sem="relaxed"
            )
            moment = moment_ptr + 8 * g
            d_dx, d_dy = d_power * dx, d_power * dy
            tl.atomic_add(moment, tl.sum(d_power, 1), mask=is_used, sem="relaxed")
            tl.atomic_add(moment + 1, tl.sum(d_dx, 1), mask=is_used, sem="relaxed")
            tl.atomic_add(moment + 2, tl.sum(d_dy, 1), mask=is_used, sem="relaxed")
            tl.atomic_add(moment + 3, tl.sum(d_dx * dx, 1), mask=is_used, sem="relaxed")
            tl.atomic_add(moment + 4, tl.sum(d_dx * dy, 1), mask=is_used, sem="relaxed")
            tl.atomic_add(moment + 5, tl.sum(d_dy * dy, 1), mask=is_used, sem="relaxed")
            beyond -= tl.sum(weighted, 0)
            reaching = tl.min(after, 0)
            slot += K
