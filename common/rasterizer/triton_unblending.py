"""Triton kernel: the backward of blending (SPEC 10), over the lists and segments that `triton_blending` left.

No postponed annotations here: Triton reads them.
"""

import triton
import triton.language as tl

from common.rasterizer.triton_pixels import (
    MAX_ALPHA,
    MIN_ALPHA,
    MIN_TRANSMITTANCE,
    PIXELS,
    cell_corner,
    exact_dot,
    exp2,
    half_of,
    inverse_of,
    log2_alpha,
    pin,
    places,
    tf32_halves,
    transmittance,
    twice,
)


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
    coarse, fine = tf32_halves(d_power, PRECISION)
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
    k, c, pixel = places(K), tl.arange(0, CHANNELS), tl.arange(0, PIXELS)
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
        left, top = cell_corner(cell, width)
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
        beyond = twice(tl.sum(d_attached * behind, 0))
        reaching = tl.load(source + C * PIXELS + pixel, mask=is_inside & ~is_whole, other=1.0)
        reaching = twice(tl.where(is_inside, reaching, 0.0))
        attached_coarse, attached_fine = tf32_halves(d_attached, PRECISION)
        colour_coarse, colour_fine = tf32_halves(tl.trans(d_colour), PRECISION)
        while slot < end:
            is_in, is_in_row = slot + k < end, slot + row < end
            upcoming = tl.load(slot_ptr + slot + 2 * K + k, mask=slot + 2 * K + k < end, other=0)
            g_of_row = tl.load(slot_ptr + slot + row, mask=is_in_row, other=0)
            at_channel = g_of_row[:, None] * C + c[None, :]
            is_value = is_in_row[:, None] & is_channel[None, :]
            values = tl.load(channel_ptr + at_channel, mask=is_value, other=0.0)
            toward = exact_dot(values, attached_coarse, attached_fine, PRECISION)  # (2 K, PIXELS)
            toward = tl.reshape(pin(toward), (K, 2, PIXELS))
            raw = exp2(log2_alpha(row_ptr, g, is_in, x_px, y_px), PRECISION)
            alpha = tl.minimum(raw, MAX_ALPHA)
            alpha = tl.where(alpha >= MIN_ALPHA, alpha, 0.0)
            after, reaching = transmittance(alpha, reaching)
            inverse = inverse_of(1.0 - alpha, PRECISION)
            before = after * inverse
            weight = tl.where(after >= MIN_TRANSMITTANCE, alpha * before, 0.0)
            weighted = weight * toward
            found = tl.sum(weighted, 0)
            left_over = beyond - tl.where(is_first, 0.0, half_of(found, 0))
            left_over = left_over[None, :, :] - tl.cumsum(weighted, 0)
            d_power = tl.where(weight > 0, (before * toward - left_over * inverse) * raw, 0.0)
            weight = pin(tl.reshape(weight, (2 * K, PIXELS)))
            d_power = pin(tl.reshape(d_power, (2 * K, PIXELS)))
            d_values = exact_dot(weight, colour_coarse, colour_fine, PRECISION)  # (2 K, CHANNELS)
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
