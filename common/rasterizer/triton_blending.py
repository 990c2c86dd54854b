"""Triton kernels: blending of the cells' lists (SPEC 10).

One program blends the list of a chunk's cell, GROUP Gaussians at a time. Tiles with long lists have several chunks:
first what each lets through is found, then all are blended side by side, then they are added up. The backward takes
the same chunks. No postponed annotations here: Triton reads them.
"""

import triton
import triton.language as tl

from common.rasterizer.triton_lists import CELLS
from common.rasterizer.triton_pixels import (
    CENTRE_PX,
    GROUP,
    MIN_TRANSMITTANCE,
    PIXELS,
    cell_corner,
    coefficients,
    exact_dot,
    load_footprints,
    polynomial,
    scan_step,
    seen_alpha,
    tf32_halves,
    times,
)


@triton.jit
def chunk_of(item, counts_ptr, room):
    """The chunk of an item, which is one of its cells, and whether its tile is cut; chunks of those come first."""
    n_of_cut = tl.load(counts_ptr) * CELLS
    is_of_cut = item < n_of_cut
    return tl.where(is_of_cut, item // CELLS, room + (item - n_of_cut) // CELLS), is_of_cut


@triton.jit
def n_items(counts_ptr):
    """Cells of chunks there are."""
    return (tl.load(counts_ptr) + tl.load(counts_ptr + 1)) * CELLS


@triton.jit
def first_slot_of(item, chunk, chunk_ptr):
    """First slot of the list of an item."""
    return tl.load(chunk_ptr + 4 * chunk + 1) * CELLS + item % CELLS * tl.load(chunk_ptr + 4 * chunk + 2)


@triton.jit
def list_of(item, chunk, chunk_ptr, length_ptr):
    """First slot and length of the list of an item."""
    return first_slot_of(item, chunk, chunk_ptr), tl.load(length_ptr + chunk * CELLS + item % CELLS)


@triton.jit(do_not_specialize=["capacity"])
def fill(
    background_ptr,  # (C,)
    total_ptr,  # as in `blend`
    image_ptr,  # out (C, n_pixels)
    capacity,
    n_pixels,
    BLOCK: tl.constexpr,
):
    """An image of the background; not a number where more pairs are than fit into the lists."""
    channel, at = tl.program_id(1), tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    colour = tl.zeros([BLOCK], tl.float32) + tl.load(background_ptr + channel)
    colour = tl.where(tl.load(total_ptr) > capacity, float("nan"), colour)
    tl.store(image_ptr + channel.to(tl.int64) * n_pixels + at, colour, mask=at < n_pixels)


@triton.jit(do_not_specialize=["room", "tiles_x"])
def attenuate(
    slot_ptr,  # these four: Lists
    counts_ptr,
    chunk_ptr,
    length_ptr,
    row_ptr,  # (N, 8)
    basis_ptr,  # (16, PIXELS) basis of the polynomials, for both halves of coefficients
    passing_ptr,  # out (room, CELLS, PIXELS) what every chunk of a tile that is cut lets through, but for its last one
    room,
    tiles_x,
    BLOCK: tl.constexpr,  # Gaussians at a time
    PRECISION: tl.constexpr,
):
    """The product of 1 - alpha over each list, a list to a program."""
    pixel, k, j = tl.arange(0, PIXELS), tl.arange(0, BLOCK), tl.arange(0, 16)
    item = tl.program_id(0)
    chunk, n_chunks = item // CELLS, tl.load(counts_ptr)
    first = tl.load(chunk_ptr + 4 * chunk + 3, mask=chunk < n_chunks, other=-1)
    of_next = tl.load(chunk_ptr + 4 * chunk + 7, mask=chunk + 1 < n_chunks, other=-1)
    if (first >= 0) & (first == of_next):
        at_pixels = tl.load(basis_ptr + j[None, :] * PIXELS + pixel[:, None])
        left, top = cell_corner(tl.load(chunk_ptr + 4 * chunk), item % CELLS, tiles_x)
        x_px, y_px = left.to(tl.float32) + CENTRE_PX, top.to(tl.float32) + CENTRE_PX
        slot, n = list_of(item, chunk, chunk_ptr, length_ptr)
        passing = tl.full([PIXELS, BLOCK], 1.0, tl.float32)
        stop = slot + n
        _g, u, v, a, b, c, o = load_footprints(row_ptr, slot_ptr, slot + k, stop)
        while slot < stop:
            slot += BLOCK
            _g, next_u, next_v, next_a, next_b, next_c, next_o = load_footprints(
                row_ptr, slot_ptr, slot + k, stop
            )
            polynomials = tl.trans(coefficients(u - x_px, v - y_px, a, b, c, o, PRECISION))
            alpha, _raw = seen_alpha(polynomial(at_pixels, polynomials, PRECISION), PRECISION)
            passing *= 1.0 - alpha
            u, v, a, b, c, o = next_u, next_v, next_a, next_b, next_c, next_o
        tl.store(passing_ptr + item * PIXELS + pixel, tl.reduce(passing, 1, times))


@triton.jit
def _reaching(passing_ptr, item, first_item):
    """What the chunks of a tile's cell from first_item up to, not including, item let through."""
    j, pixel = tl.arange(0, 16), tl.arange(0, PIXELS)
    reaching = tl.full([PIXELS], 1.0, tl.float32)
    while first_item < item:
        other = first_item + j * CELLS
        at = other[:, None] * PIXELS + pixel[None, :]
        passing = tl.load(passing_ptr + at, mask=(other < item)[:, None], other=1.0)
        reaching *= tl.reduce(passing, 0, times)
        first_item += 16 * CELLS
    return reaching


@triton.jit
def _halves(runs):
    """The first of each two neighbours, and both multiplied."""
    first, second = tl.split(runs)
    return first, first * second


@triton.jit
def _before_each(passing, reaching):
    """What reaches each Gaussian (PIXELS, GROUP) and what passes them all, like `reaching`; columns are `_places`.

    reaching: (PIXELS, 4), the same four times.
    """
    # The last axes are the eight of a thread.
    runs = tl.permute(tl.reshape(passing, (PIXELS, 2, 2, 4, 2)), (0, 3, 1, 2, 4))
    first, runs = _halves(runs)
    second, runs = _halves(runs)
    third, run = _halves(runs)  # run: (PIXELS, 4)
    i = tl.arange(0, 2)
    run = tl.reshape(run, (PIXELS, 2, 2))
    before = tl.reshape(reaching, (PIXELS, 2, 2))
    run, before = scan_step(run, before, i[None, None, :], 2, True)
    run, before = scan_step(run, before, i[None, :, None], 1, True)
    before = tl.reshape(before, (PIXELS, 4))
    before = tl.join(before, before * third)
    before = tl.join(before, before * second)
    before = tl.join(before, before * first)
    before = tl.reshape(tl.permute(before, (0, 2, 3, 1, 4)), (PIXELS, GROUP))
    return before, reaching * tl.reshape(run, (PIXELS, 4))


@triton.jit
def _places():
    """Place in the list of each column (GROUP,): a thread's columns are neighbours."""
    k = tl.arange(0, GROUP)
    return k % 8 // 2 * (GROUP // 4) + k // 8 * 2 + k % 2


@triton.jit(do_not_specialize=["room", "capacity", "tiles_x"])
def blend(
    slot_ptr,  # these four: Lists
    counts_ptr,
    chunk_ptr,
    length_ptr,
    row_ptr,  # (N, 8)
    channel_ptr,  # (N, C)
    background_ptr,  # (C,)
    total_ptr,  # int64 number of pairs; beyond the capacity, lists are incomplete and the image is NaN
    basis_ptr,  # as in `attenuate`
    passing_ptr,  # (room, CELLS, PIXELS) of `attenuate`
    ticket_ptr,  # (1,) int32, 0: the next list that no program has taken
    image_ptr,  # out (C, H, W), the background where no list is
    used_ptr,  # out (room + n_tiles, CELLS) int32 how much of every list was looked at
    part_ptr,  # out (room, CELLS, C + 2, PIXELS) of used lists of cut tiles: colours, what reaches them, sum of weights
    room,
    capacity,
    tiles_x,
    width,
    height,
    C,
    CHANNELS: tl.constexpr,  # power of two >= C, at least 8
    PRECISION: tl.constexpr,
):
    """Blend each list front to back; any number of programs take one after the other."""
    pixel, c, place, j = tl.arange(0, PIXELS), tl.arange(0, CHANNELS), _places(), tl.arange(0, 16)
    at_pixels, is_channel = tl.load(basis_ptr + j[None, :] * PIXELS + pixel[:, None]), c < C
    end, item = n_items(counts_ptr), tl.atomic_add(ticket_ptr, 1, sem="relaxed")
    while item < end:
        next_item = tl.atomic_add(ticket_ptr, 1, sem="relaxed")
        chunk, is_of_cut = chunk_of(item, counts_ptr, room)
        slot, n = list_of(item, chunk, chunk_ptr, length_ptr)
        start = slot
        if n > 0:
            left, top = cell_corner(tl.load(chunk_ptr + 4 * chunk), item % CELLS, tiles_x)
            x, y = left + pixel % 4, top + pixel // 4
            is_inside = (x < width) & (y < height)
            first_item = tl.where(is_of_cut, tl.load(chunk_ptr + 4 * chunk + 3) * CELLS + item % CELLS, item)
            arriving = _reaching(passing_ptr, item, first_item)  # transmittance as if pixels were never done
            arriving = tl.where(is_inside, arriving, 0.0)
            if tl.max(arriving, 0) >= MIN_TRANSMITTANCE:
                stop = slot + n
                last = stop
                g, u, v, a, b, conic_c, o = load_footprints(row_ptr, slot_ptr, slot + place, last)
                x_px, y_px = left.to(tl.float32) + CENTRE_PX, top.to(tl.float32) + CENTRE_PX
                reaching = tl.broadcast_to(arriving[:, None], (PIXELS, 4))
                blended = tl.zeros([PIXELS, 1], tl.float32)
                colour = tl.zeros([PIXELS, CHANNELS], tl.float32)
                while slot < stop:
                    is_value = (slot + place < last)[:, None] & is_channel[None, :]
                    values = tl.load(channel_ptr + g[:, None] * C + c[None, :], mask=is_value, other=0.0)
                    slot += GROUP
                    next_g, next_u, next_v, next_a, next_b, next_c, next_o = load_footprints(
                        row_ptr, slot_ptr, slot + place, last
                    )
                    polynomials = tl.trans(coefficients(u - x_px, v - y_px, a, b, conic_c, o, PRECISION))
                    alpha, _raw = seen_alpha(polynomial(at_pixels, polynomials, PRECISION), PRECISION)
                    before, reaching = _before_each(1.0 - alpha, reaching)
                    weight = tl.where(before * (1.0 - alpha) >= MIN_TRANSMITTANCE, alpha * before, 0.0)
                    blended += tl.sum(weight, 1, keep_dims=True)
                    coarse, fine = tf32_halves(values, PRECISION)
                    colour += exact_dot(weight, coarse, fine, PRECISION)
                    g, u, v, a, b, conic_c, o = next_g, next_u, next_v, next_a, next_b, next_c, next_o
                    is_done = tl.max(tl.max(reaching, 0), 0) < MIN_TRANSMITTANCE
                    stop = tl.where(is_done, tl.minimum(slot, stop), stop)
                slot = tl.minimum(slot, last)
                if is_of_cut:
                    part = part_ptr + item.to(tl.int64) * (C + 2) * PIXELS
                    is_part = (pixel[:, None] >= 0) & is_channel[None, :]
                    tl.store(part + c[None, :] * PIXELS + pixel[:, None], colour, mask=is_part)
                    tl.store(part + C * PIXELS + pixel, arriving)
                    tl.store(part + (C + 1) * PIXELS + pixel[:, None], blended)
                else:
                    background = tl.load(background_ptr + c, mask=is_channel, other=0.0)
                    colour += background[None, :] * (1.0 - blended)
                    colour = tl.where(tl.load(total_ptr) > capacity, float("nan"), colour)
                    target = image_ptr + (c[None, :].to(tl.int64) * height + y[:, None]) * width + x[:, None]
                    tl.store(target, colour, mask=is_inside[:, None] & is_channel[None, :])
        tl.store(used_ptr + chunk * CELLS + item % CELLS, slot - start)
        item = next_item


@triton.jit(do_not_specialize=["tiles_x", "capacity"])
def join_chunks(
    counts_ptr,  # these three: Lists
    chunk_ptr,
    cut_ptr,
    used_ptr,  # (room + n_tiles, CELLS) of `blend`
    part_ptr,  # (room, CELLS, C + 2, PIXELS) of `blend`
    background_ptr,  # (C,)
    total_ptr,  # as in `blend`
    image_ptr,  # out (C, H, W)
    capacity,
    tiles_x,
    width,
    height,
    C,
    CHANNELS: tl.constexpr,  # of a program
):
    """Add up the chunks of every tile that is cut; any number of programs share the cells."""
    c, pixel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS), tl.arange(0, PIXELS)
    is_part = (c < C)[:, None] & (pixel[None, :] >= 0)
    background = tl.load(background_ptr + c, mask=c < C, other=0.0)
    place, end = tl.program_id(0), tl.load(counts_ptr + 2) * CELLS
    while place < end:
        cell = place % CELLS
        chunk, n = tl.load(cut_ptr + 2 * (place // CELLS)), tl.load(cut_ptr + 2 * (place // CELLS) + 1)
        left, top = cell_corner(tl.load(chunk_ptr + 4 * chunk), cell, tiles_x)
        x, y = left + pixel % 4, top + pixel // 4
        colour, blended = tl.zeros([CHANNELS, PIXELS], tl.float32), tl.zeros([PIXELS], tl.float32)
        stop = chunk + n
        while chunk < stop:
            is_used = tl.load(used_ptr + chunk * CELLS + cell) > 0
            part = part_ptr + (chunk * CELLS + cell).to(tl.int64) * (C + 2) * PIXELS
            colour += tl.load(part + c[:, None] * PIXELS + pixel[None, :], mask=is_part & is_used, other=0.0)
            blended += tl.load(part + (C + 1) * PIXELS + pixel, mask=(pixel >= 0) & is_used, other=0.0)
            chunk += 1
        colour += background[:, None] * (1.0 - blended)[None, :]
        colour = tl.where(tl.load(total_ptr) > capacity, float("nan"), colour)
        target = image_ptr + (c[:, None].to(tl.int64) * height + y[None, :]) * width + x[None, :]
        tl.store(target, colour, mask=is_part & ((x < width) & (y < height))[None, :])
        place += tl.num_programs(0)
