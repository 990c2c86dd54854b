"""Triton kernels: lists of Gaussians, front to back, of every tile and of every cell (SPEC 10).

Tiles of 8 x 8 pixels get sorted lists; each is split into the lists of its four cells of 4 x 4 pixels. A pair is
(Gaussian, tile); sorted by tile, then depth, pairs become slots: a list is a run of slots.
No postponed annotations here: Triton reads them.
"""

import triton
import triton.language as tl


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


@triton.jit(do_not_specialize=["n_tiles"])
def rank_lists(
    range_ptr,  # (2, n_tiles) of `list_slots`
    rank_ptr,  # out (n_tiles,) uint8: the longer the list, the smaller
    n_tiles,
    BLOCK: tl.constexpr,
):
    """Ranks of the tiles by the logarithm of their lists' lengths, in steps of 4 %."""
    tile = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_in = tile < n_tiles
    first = tl.load(range_ptr + tile, mask=is_in, other=0)
    n = tl.load(range_ptr + n_tiles + tile, mask=is_in, other=0) - first
    rank = 255.0 - tl.minimum(16.0 * tl.log2(n.to(tl.float32) + 1.0), 255.0)
    tl.store(rank_ptr + tile, rank.to(tl.int32).to(tl.uint8), mask=is_in)


@triton.jit
def _field(packed, j: tl.constexpr):
    """The 16-bit field j of an int64."""
    return ((packed >> (16 * j)) & 0xFFFF).to(tl.int32)


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
    BLOCK: tl.constexpr,  # under 32768
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
