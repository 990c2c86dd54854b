"""Triton kernel: the backward of blending (SPEC 10), over the lists that `triton_blending` went through.

No postponed annotations here: Triton reads them.
"""

import triton
import triton.language as tl

from common.rasterizer.triton_blending import chunk_of, first_slot_of, n_items
from common.rasterizer.triton_lists import CELLS
from common.rasterizer.triton_pixels import (
    CENTRE_PX,
    GROUP,
    MIN_TRANSMITTANCE,
    PIXELS,
    cell_corner,
    coefficients,
    eight_columns,
    exact_dot,
    inverse_of,
    load_footprints,
    polynomial,
    scan_step,
    seen_alpha,
    tf32_halves,
)


@triton.jit
def _places():
    """Place in the list of each row (GROUP,): a thread's rows are neighbours."""
    k = tl.arange(0, GROUP)
    return k % 8 * (GROUP // 8) + k // 8


@triton.jit
def _combined(first, second, IS_PRODUCT: tl.constexpr):
    if IS_PRODUCT:
        return first * second
    return first + second


@triton.jit
def _before_each(x, before, IS_PRODUCT: tl.constexpr):
    """Product or sum of `before` and x in earlier places (GROUP, PIXELS), and of `before` and all x, like `before`.

    before: (8, PIXELS), the same eight times.
    """
    # The last axes are the four of a thread.
    runs = tl.permute(tl.reshape(x, (2, 2, 8, PIXELS)), (2, 3, 0, 1))
    first, second = tl.split(runs)
    third, fourth = tl.split(_combined(first, second, IS_PRODUCT))
    run = tl.reshape(_combined(third, fourth, IS_PRODUCT), (2, 2, 2, PIXELS))
    start = tl.reshape(before, (2, 2, 2, PIXELS))
    i = tl.arange(0, 2)
    run, start = scan_step(run, start, i[None, None, :, None], 2, IS_PRODUCT)
    run, start = scan_step(run, start, i[None, :, None, None], 1, IS_PRODUCT)
    run, start = scan_step(run, start, i[:, None, None, None], 0, IS_PRODUCT)
    start = tl.reshape(start, (8, PIXELS))
    start = tl.join(start, _combined(start, third, IS_PRODUCT))
    start = tl.join(start, _combined(start, first, IS_PRODUCT))
    start = tl.reshape(tl.permute(start, (2, 3, 0, 1)), (GROUP, PIXELS))
    return start, _combined(before, tl.reshape(run, (8, PIXELS)), IS_PRODUCT)


@triton.jit
def _moments(d_power, at_pixels, PRECISION: tl.constexpr):
    """d_power (GROUP, PIXELS) times the basis (PIXELS, 8), which tf32 holds exactly, as columns (GROUP,)."""
    if PRECISION == "ieee":
        product = tl.dot(d_power, at_pixels, input_precision="ieee")
    else:
        coarse, fine = tf32_halves(d_power, PRECISION)
        product = tl.dot(fine, at_pixels, input_precision="tf32")
        product = tl.dot(coarse, at_pixels, acc=product, input_precision="tf32")
    even, odd = tl.split(tl.reshape(product, (d_power.shape[0], 2, 2, 2)))
    by_0_4, by_2_6 = tl.split(even)
    by_1_5, by_3_7 = tl.split(odd)
    by_0, by_4 = tl.split(by_0_4)
    by_1, by_5 = tl.split(by_1_5)
    by_2, _ = tl.split(by_2_6)
    by_3, _ = tl.split(by_3_7)
    return by_0, by_1, by_2, by_3, by_4, by_5


@triton.jit
def _around(m, mx, my, mxx, mxy, myy, u, v):
    """Moments (n, 8) around u, v, of differences that point from the pixels to there; two columns of 0."""
    nothing = tl.zeros_like(m)
    xx = mxx + u * (u * m - 2.0 * mx)
    xy = mxy + u * (v * m - my) - v * mx
    yy = myy + v * (v * m - 2.0 * my)
    return eight_columns(m, u * m - mx, v * m - my, xx, xy, yy, nothing, nothing)


@triton.jit(do_not_specialize=["room", "tiles_x"])
def unblend(
    slot_ptr,  # these four: Lists
    counts_ptr,
    chunk_ptr,
    used_ptr,  # (room + n_tiles, CELLS) of `blend`: how much of every list counts
    row_ptr,
    channel_ptr,
    part_ptr,  # (room, CELLS, C + 2, PIXELS) of `blend`
    attached_ptr,  # (images, C) 1.0, or 0.0 where the channel sends no gradient to geometry
    which_ptr,  # (rows of tiles,) int32 the image that a row of tiles belongs to
    basis_ptr,  # as in `attenuate`
    ticket_ptr,  # (1,) int32, 0: the next list that no program has taken
    image_ptr,  # (C, H, W) the blended image
    d_image_ptr,  # (C, H, W)
    moment_ptr,  # out (N, 8), zeros: sums of the exponent's gradient times 1, dx, dy, dx^2, dx dy, dy^2
    d_channel_ptr,  # out (N, C), zeros
    room,
    tiles_x,
    width,
    height,
    C,
    CHANNELS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add up the gradients, list by list; any number of programs take one after the other."""
    place, c, pixel, j = _places(), tl.arange(0, CHANNELS), tl.arange(0, PIXELS), tl.arange(0, 8)
    is_channel, j16 = c < C, tl.arange(0, 16)
    at_pixels_twice = tl.load(basis_ptr + j16[:, None] * PIXELS + pixel[None, :])
    at_pixels = tl.load(basis_ptr + j[None, :] * PIXELS + pixel[:, None])
    end, item = n_items(counts_ptr), tl.atomic_add(ticket_ptr, 1, sem="relaxed")
    while item < end:
        next_item = tl.atomic_add(ticket_ptr, 1, sem="relaxed")
        chunk, is_of_cut = chunk_of(item, counts_ptr, room)
        n = tl.load(used_ptr + chunk * CELLS + item % CELLS)
        if n > 0:
            slot = first_slot_of(item, chunk, chunk_ptr)
            stop = slot + n
            g, u, v, a, b, conic_c, o = load_footprints(row_ptr, slot_ptr, slot + place, stop)
            tile = tl.load(chunk_ptr + 4 * chunk)
            left, top = cell_corner(tile, item % CELLS, tiles_x)
            x_px, y_px = left.to(tl.float32) + CENTRE_PX, top.to(tl.float32) + CENTRE_PX
            x, y = left + pixel % 4, top + pixel // 4
            is_inside = (x < width) & (y < height)
            is_image = is_channel[:, None] & is_inside[None, :]
            at_image = (c[:, None].to(tl.int64) * height + y[None, :]) * width + x[None, :]
            attached = tl.load(
                attached_ptr + tl.load(which_ptr + tile // tiles_x) * C + c, mask=is_channel, other=0.0
            )
            d_colour = tl.load(d_image_ptr + at_image, mask=is_image, other=0.0)
            d_attached = d_colour * attached[:, None]
            behind = tl.load(image_ptr + at_image, mask=is_image, other=0.0)
            earlier = tl.where(is_of_cut, tl.load(chunk_ptr + 4 * chunk + 3), chunk)
            while earlier < chunk:
                is_used = tl.load(used_ptr + earlier * CELLS + item % CELLS) > 0
                part = part_ptr + (earlier * CELLS + item % CELLS).to(tl.int64) * (C + 2) * PIXELS
                behind -= tl.load(
                    part + c[:, None] * PIXELS + pixel[None, :], mask=is_image & is_used, other=0.0
                )
                earlier += 1
            beyond = tl.broadcast_to(-tl.sum(d_attached * behind, 0)[None, :], (8, PIXELS))
            part = part_ptr + tl.where(is_of_cut, item, 0).to(tl.int64) * (C + 2) * PIXELS
            reaching = tl.load(part + C * PIXELS + pixel, mask=is_inside & is_of_cut, other=1.0)
            reaching = tl.broadcast_to(tl.where(is_inside, reaching, 0.0)[None, :], (8, PIXELS))
            attached_coarse, attached_fine = tf32_halves(d_attached, PRECISION)
            colour_coarse, colour_fine = tf32_halves(tl.trans(d_colour), PRECISION)
            while slot < stop:
                is_in = slot + place < stop
                at_channel = g[:, None] * C + c[None, :]
                is_value = is_in[:, None] & is_channel[None, :]
                values = tl.load(channel_ptr + at_channel, mask=is_value, other=0.0)
                slot += GROUP
                next_g, next_u, next_v, next_a, next_b, next_c, next_o = load_footprints(
                    row_ptr, slot_ptr, slot + place, stop
                )
                u, v = u - x_px, v - y_px
                polynomials = coefficients(u, v, a, b, conic_c, o, PRECISION)
                alpha, raw = seen_alpha(polynomial(polynomials, at_pixels_twice, PRECISION), PRECISION)
                before, reaching = _before_each(1.0 - alpha, reaching, True)
                weight = tl.where(before * (1.0 - alpha) >= MIN_TRANSMITTANCE, alpha * before, 0.0)
                toward = exact_dot(values, attached_coarse, attached_fine, PRECISION)  # (GROUP, PIXELS)
                weighted = weight * toward
                minus_left_over, beyond = _before_each(weighted, beyond, False)
                minus_left_over += weighted
                d_alpha = before * toward + minus_left_over * inverse_of(1.0 - alpha, PRECISION)
                d_power = tl.where(weight > 0, d_alpha * raw, 0.0)
                is_used = tl.max(weight, 1) > 0
                d_values = exact_dot(weight, colour_coarse, colour_fine, PRECISION)  # (GROUP, CHANNELS)
                tl.atomic_add(
                    d_channel_ptr + at_channel, d_values, mask=is_value & is_used[:, None], sem="relaxed"
                )
                m, mx, my, mxx, mxy, myy = _moments(d_power, at_pixels, PRECISION)
                tl.atomic_add(
                    moment_ptr + 8 * g[:, None] + j[None, :],
                    _around(m, mx, my, mxx, mxy, myy, u, v),
                    mask=(is_in & is_used)[:, None] & (j < 6)[None, :],
                    sem="relaxed",
                )
                g, u, v, a, b, conic_c, o = next_g, next_u, next_v, next_a, next_b, next_c, next_o
        item = next_item
