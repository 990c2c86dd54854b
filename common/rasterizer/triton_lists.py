"""Triton kernels: lists of Gaussians, front to back, of every tile and of every cell (SPEC 10).

Tiles of 8 x 8 pixels get sorted lists; each is split into the lists of its four cells of 4 x 4 pixels. A pair is
(Gaussian, tile); sorted by tile, then depth, those of a tile are neighbours. A list is a run of slots.
No postponed annotations here: Triton reads them.
"""

import triton
import triton.language as tl

CLASSES = tl.constexpr(16)  # of lists by their lengths; a power of two, and a multiple of 4
SHORT = tl.constexpr(9)  # half octaves of a length
LONG_CLASSES = tl.constexpr(6)  # the first ones, from 511 pairs on, which many threads split together


@triton.jit
def _field(packed, j: tl.constexpr):
    """The 16-bit field j of an int64."""
    return ((packed >> (16 * j)) & 0xFFFF).to(tl.int32)


@triton.jit(do_not_specialize=["n", "tiles_x", "n_tiles", "capacity"])
def list_pairs(
    order_ptr,  # (N,) int64 Gaussians front to back
    end_ptr,  # (N,) int64 running sum of their tile counts, in that order
    box_ptr,  # (N,) int64 cells x0, x1, y0, y1, ends exclusive, of 16 bits each
    key_ptr,  # out (capacity,) int16: tile - OFFSET; int32 if there are too many; the last tile + 1 where unused
    gaussian_ptr,  # out (capacity,) int32
    n,
    tiles_x,
    n_tiles,
    capacity,
    OFFSET: tl.constexpr,
    RANKS: tl.constexpr,  # Gaussians to a program, a power of two
    N_STEPS: tl.constexpr,  # 2^N_STEPS = RANKS
    BLOCK: tl.constexpr,  # pairs at a time
):
    """All pairs, front to back: which Gaussian, which tile. Programs beyond the Gaussians mark what is unused."""
    n_programs = (n + RANKS - 1) // RANKS
    total = tl.load(end_ptr + n - 1)
    k = tl.arange(0, BLOCK)
    if tl.program_id(0) >= n_programs:
        unused = (tl.program_id(0) - n_programs) * BLOCK + k
        is_unused = (unused < capacity) & (unused >= total)
        tl.store(
            key_ptr + unused, (n_tiles - OFFSET + unused * 0).to(key_ptr.dtype.element_ty), mask=is_unused
        )
    else:
        first = tl.program_id(0) * RANKS
        last = tl.minimum(first + RANKS, n) - 1
        pair = tl.load(end_ptr + first - 1, mask=first > 0, other=0) + k.to(tl.int64)
        stop = tl.minimum(tl.load(end_ptr + last), capacity)
        while tl.min(pair, 0) < stop:
            is_in = pair < stop
            lo = tl.zeros([BLOCK], tl.int32) + first  # the first rank whose end lies beyond the pair
            hi = tl.zeros([BLOCK], tl.int32) + last
            for _ in range(N_STEPS):
                middle = (lo + hi) // 2
                is_beyond = tl.load(end_ptr + middle, mask=is_in, other=0) > pair
                hi = tl.where(is_beyond, middle, hi)
                lo = tl.where(is_beyond, lo, tl.minimum(middle + 1, hi))
            before = tl.load(end_ptr + lo - 1, mask=is_in & (lo > 0), other=0)
            g = tl.load(order_ptr + lo, mask=is_in, other=0).to(tl.int32)
            box = tl.load(box_ptr + g, mask=is_in, other=0)
            left, top = _field(box, 0) // 2, _field(box, 2) // 2
            n_x = tl.maximum((_field(box, 1) - 1) // 2 - left + 1, 1)
            place = (pair - before).to(tl.int32)
            tile = (top + place // n_x) * tiles_x + left + place % n_x
            tl.store(key_ptr + pair, (tile - OFFSET).to(key_ptr.dtype.element_ty), mask=is_in)
            tl.store(gaussian_ptr + pair, g, mask=is_in)
            pair += BLOCK


@triton.jit
def _length_class(n):
    """0 for the longest lists, each class a factor of 1.41 shorter; CLASSES - 1 for empty ones alone."""
    half_octaves = (2.0 * tl.log2(n.to(tl.float32) + 1.0)).to(tl.int32)
    shortness = CLASSES - 2 - tl.minimum(tl.maximum(half_octaves - SHORT, 0), CLASSES - 2)
    return tl.where(n > 0, shortness, CLASSES - 1)


@triton.jit
def n_of_classes(class_ptr, first, last):
    """How many lists are of the classes from first up to, not including, last."""
    c = tl.arange(0, CLASSES)
    n = tl.load(class_ptr + c)
    return tl.sum(tl.where((c >= first) & (c < last), n, 0), 0)


@triton.jit(do_not_specialize=["n_tiles", "capacity"])
def find_lists(
    key_ptr,  # (capacity,) of `list_pairs`, sorted
    range_ptr,  # out (2, n_tiles) int32: place of the first pair, one past the last
    class_ptr,  # out (2, CLASSES) int32, zeros: the first row says how many lists there are of each length
    n_tiles,
    capacity,
    N_STEPS: tl.constexpr,  # 2^N_STEPS > capacity
    OFFSET: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The list of every tile."""
    tile = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = tile < n_tiles
    lo, hi = tl.zeros([BLOCK], tl.int32), tl.zeros([BLOCK], tl.int32) + capacity
    lo_end, hi_end = lo, hi
    for _ in range(N_STEPS):  # the first keys that are not below the tile, and not below the next one
        middle, middle_end = (lo + hi) // 2, (lo_end + hi_end) // 2
        key = tl.load(key_ptr + middle, mask=is_in & (lo < hi), other=0).to(tl.int32) + OFFSET
        key_end = tl.load(key_ptr + middle_end, mask=is_in & (lo_end < hi_end), other=0).to(tl.int32) + OFFSET
        is_below, is_below_end = (key < tile) & (lo < hi), (key_end <= tile) & (lo_end < hi_end)
        hi, hi_end = tl.where(is_below, hi, middle), tl.where(is_below_end, hi_end, middle_end)
        lo, lo_end = tl.where(is_below, middle + 1, lo), tl.where(is_below_end, middle_end + 1, lo_end)
    tl.store(range_ptr + tile, lo, mask=is_in)
    tl.store(range_ptr + n_tiles + tile, lo_end, mask=is_in)
    length_class = _length_class(lo_end - lo)
    found = tl.histogram(length_class, CLASSES, mask=is_in)
    tl.atomic_add(class_ptr + tl.arange(0, CLASSES), found, mask=found > 0, sem="relaxed")


@triton.jit(do_not_specialize=["n_tiles"])
def schedule_lists(
    range_ptr,  # (2, n_tiles) of `find_lists`
    class_ptr,  # (2, CLASSES) of `find_lists`; the second row counts what has got a place
    schedule_ptr,  # out (n_tiles,) int32 tiles, the longest lists first
    n_tiles,
    BLOCK: tl.constexpr,  # under 32768
):
    """The order in which tiles are worked at."""
    tile = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = tile < n_tiles
    n = tl.load(range_ptr + n_tiles + tile, mask=is_in, other=0) - tl.load(
        range_ptr + tile, mask=is_in, other=0
    )
    length_class = tl.where(is_in, _length_class(n), CLASSES)
    c = tl.arange(0, CLASSES)
    found, before = tl.zeros([CLASSES], tl.int32), tl.zeros([BLOCK], tl.int32)
    for four in tl.static_range(CLASSES // 4):
        field = length_class - 4 * four
        is_here = (field >= 0) & (field < 4)
        packed = tl.where(is_here, tl.full([BLOCK], 1, tl.int64) << (16 * tl.where(is_here, field, 0)), 0)
        running = tl.cumsum(packed, 0) - packed  # four counts in one sum
        before = tl.where(
            is_here, (running >> (16 * tl.where(is_here, field, 0))).to(tl.int32) & 0xFFFF, before
        )
        sums = tl.sum(packed, 0)
        for j in tl.static_range(4):
            found = tl.where(c == 4 * four + j, _field(sums, j), found)
    n_of_class = tl.load(class_ptr + c)
    first = (
        tl.cumsum(n_of_class, 0) - n_of_class + tl.atomic_add(class_ptr + CLASSES + c, found, sem="relaxed")
    )
    place = tl.gather(first, tl.minimum(length_class, CLASSES - 1), 0) + before
    tl.store(schedule_ptr + place, tile, mask=is_in)


@triton.jit
def _gaussians(pair_ptr, gaussian_ptr, place, end):
    """The Gaussians at places of the sorted keys."""
    pair = tl.load(pair_ptr + place, mask=place < end, other=0)
    return tl.load(gaussian_ptr + pair, mask=place < end, other=0)


@triton.jit(do_not_specialize=["n_tiles", "tiles_x"])
def split_lists(
    pair_ptr,  # (capacity,) int64 the pair at each place of the sorted keys
    gaussian_ptr,  # (capacity,) of `list_pairs`
    range_ptr,  # (2, n_tiles) of `find_lists`
    class_ptr,  # (2, CLASSES) of `find_lists`
    schedule_ptr,  # (n_tiles,) of `schedule_lists`
    box_ptr,  # (N,) as in `list_pairs`
    cell_slot_ptr,  # out (4 capacity,) int32; the cells of a tile have four times its run
    cell_range_ptr,  # out (2, 4 n_tiles) int32: first slot, one past the last, of cells 4 tile + 2 row + column
    n_tiles,
    tiles_x,
    ARE_LONG: tl.constexpr,  # which lists are split, others are left alone; empty ones always
    BLOCK: tl.constexpr,  # under 32768
):
    """The list of every cell, in the order of its tile's; any number of programs share the lists."""
    n_long = n_of_classes(class_ptr, 0, LONG_CLASSES)
    if ARE_LONG:
        place, stop = tl.program_id(0), n_long
    else:
        place, stop = n_long + tl.program_id(0), n_long + n_of_classes(class_ptr, LONG_CLASSES, CLASSES - 1)
    while place < stop:
        tile = tl.load(schedule_ptr + place)
        slot = tl.load(range_ptr + tile)
        end = tl.load(range_ptr + n_tiles + tile)
        left, top = tile % tiles_x * 2, tile // tiles_x * 2
        start0, n = 4 * slot, end - slot
        start1, start2, start3 = start0 + n, start0 + 2 * n, start0 + 3 * n
        n0, n1, n2, n3 = n * 0, n * 0, n * 0, n * 0
        lane = tl.arange(0, BLOCK)
        g = _gaussians(pair_ptr, gaussian_ptr, slot + lane, end)
        box = tl.load(box_ptr + g, mask=slot + lane < end, other=0)
        next_g = _gaussians(pair_ptr, gaussian_ptr, slot + BLOCK + lane, end)
        while slot < end:  # what is loaded here is used one and two rounds later
            next_box = tl.load(box_ptr + next_g, mask=slot + BLOCK + lane < end, other=0)
            next_but_one = _gaussians(pair_ptr, gaussian_ptr, slot + 2 * BLOCK + lane, end)
            is_in = slot + lane < end
            in_left, in_right = is_in & (_field(box, 0) <= left), is_in & (_field(box, 1) > left + 1)
            in_top, in_bottom = _field(box, 2) <= top, _field(box, 3) > top + 1
            is_0, is_1, is_2, is_3 = (
                in_left & in_top,
                in_right & in_top,
                in_left & in_bottom,
                in_right & in_bottom,
            )
            packed = is_0.to(tl.int64) + (is_1.to(tl.int64) << 16)  # four counts in one running sum
            packed += (is_2.to(tl.int64) << 32) + (is_3.to(tl.int64) << 48)
            before = tl.cumsum(packed, 0) - packed
            tl.store(cell_slot_ptr + start0 + n0 + _field(before, 0), g, mask=is_0)
            tl.store(cell_slot_ptr + start1 + n1 + _field(before, 1), g, mask=is_1)
            tl.store(cell_slot_ptr + start2 + n2 + _field(before, 2), g, mask=is_2)
            tl.store(cell_slot_ptr + start3 + n3 + _field(before, 3), g, mask=is_3)
            found = tl.sum(packed, 0)
            n0, n1 = n0 + _field(found, 0), n1 + _field(found, 1)
            n2, n3 = n2 + _field(found, 2), n3 + _field(found, 3)
            g, box, next_g = next_g, next_box, next_but_one
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
        place += tl.num_programs(0)
