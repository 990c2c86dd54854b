"""Triton kernels: which Gaussians touch each cell of 4 x 4 pixels, front to back (SPEC 10).

Every (Gaussian, tile) pair gets a key of the tile and the depth, which are sorted together. A tile's list is cut into
chunks that are looked at side by side, and each chunk is split into the lists of the tile's cells.
No postponed annotations here: Triton reads them.
"""

import triton
import triton.language as tl

CELLS = tl.constexpr(16)  # of a tile of 16 x 16 pixels
N_COUNTS = tl.constexpr(3)  # chunks of tiles that are cut, tiles that are not, tiles that are
FARTHEST = tl.constexpr(0x7F800000)  # bits of infinity


@triton.jit
def _field(packed, j: tl.constexpr):
    """The 16-bit field j of an int64."""
    return ((packed >> (16 * j)) & 0xFFFF).to(tl.int32)


@triton.jit(do_not_specialize=["n_runs", "tiles_x", "n_tiles", "capacity"])
def list_pairs(
    run_ptr,  # (n_runs + 1,) int32 first Gaussian of every run
    end_ptr,  # (N,) int64 running sum of tile counts, within each run
    count_ptr,  # (N,) int32 tiles that a Gaussian touches
    box_ptr,  # (N,) int64 cells x0, x1, y0, y1, ends exclusive, of 16 bits each
    row_ptr,  # (N, 8) of `project`: the last column is the depth
    total_ptr,  # int64 number of pairs
    depth_ptr,  # (2,) int32 bits of the largest depth, and of the smallest subtracted from FARTHEST
    key_ptr,  # out (capacity,) int32: the tile, then DEPTH_BITS of the depth; beyond all others where unused
    gaussian_ptr,  # out (capacity,) int32
    n_runs,
    tiles_x,
    n_tiles,
    capacity,
    DEPTH_BITS: tl.constexpr,
    N_STEPS: tl.constexpr,  # 2^N_STEPS >= Gaussians of any run
    BLOCK: tl.constexpr,  # pairs at a time
):
    """All pairs, in any order, a run to a program. Programs beyond the runs mark what is unused."""
    k = tl.arange(0, BLOCK)
    if tl.program_id(0) >= n_runs:
        unused = (tl.program_id(0) - n_runs) * BLOCK + k
        is_unused = (unused < capacity) & (unused >= tl.load(total_ptr))
        tl.store(key_ptr + unused, tl.full([BLOCK], 1, tl.int32) * (n_tiles << DEPTH_BITS), mask=is_unused)
    else:
        first = tl.load(run_ptr + tl.program_id(0))
        last = tl.load(run_ptr + tl.program_id(0) + 1) - 1
        pair = tl.load(end_ptr + first) - tl.load(count_ptr + first) + k.to(tl.int64)
        stop = tl.minimum(tl.load(end_ptr + last), capacity)
        farthest = tl.load(depth_ptr).to(tl.float32, bitcast=True)
        nearest = (-(tl.load(depth_ptr + 1) - FARTHEST)).to(tl.float32, bitcast=True)
        scale = ((1 << DEPTH_BITS) - 1) / tl.maximum(
            farthest - nearest, 1e-20
        )  # finite also if all are as far
        while tl.min(pair, 0) < stop:
            is_in = pair < stop
            lo = tl.zeros([BLOCK], tl.int32) + first  # the first Gaussian whose end lies beyond the pair
            hi = tl.zeros([BLOCK], tl.int32) + last
            for _ in range(N_STEPS):
                middle = (lo + hi) // 2
                is_beyond = tl.load(end_ptr + middle, mask=is_in, other=0) > pair
                hi = tl.where(is_beyond, middle, hi)
                lo = tl.where(is_beyond, lo, tl.minimum(middle + 1, hi))
            before = tl.load(end_ptr + lo, mask=is_in, other=0) - tl.load(count_ptr + lo, mask=is_in, other=0)
            box = tl.load(box_ptr + lo, mask=is_in, other=0)
            depth = tl.load(row_ptr + 8 * lo + 7, mask=is_in, other=0.0)
            step = tl.minimum(((depth - nearest) * scale).to(tl.int32), (1 << DEPTH_BITS) - 1)
            left, top = _field(box, 0) // 4, _field(box, 2) // 4
            n_x = tl.maximum((_field(box, 1) - 1) // 4 - left + 1, 1)
            place = (pair - before).to(tl.int32)
            tile = (top + place // n_x) * tiles_x + left + place % n_x
            tl.store(key_ptr + pair, (tile << DEPTH_BITS) + step, mask=is_in)
            tl.store(gaussian_ptr + pair, lo, mask=is_in)
            pair += BLOCK


@triton.jit
def _is_before(depth, g, other_depth, other):
    """Whether one Gaussian lies before another; of two at the same depth, the first one does."""
    return (depth < other_depth) | ((depth == other_depth) & (g < other))


@triton.jit(do_not_specialize=["n_tiles", "capacity"])
def arrange_pairs(
    key_ptr,  # (capacity,) of `list_pairs`, sorted
    pair_ptr,  # (capacity,) int64 the pair of each sorted key
    gaussian_ptr,  # (capacity,) of `list_pairs`
    row_ptr,  # (N, 8)
    ordered_ptr,  # out (capacity,) int32 Gaussians, tile by tile, front to back
    range_ptr,  # out (2, n_tiles) int32, zeros: place of a tile's first pair, one past the last
    n_tiles,
    capacity,
    DEPTH_BITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The Gaussians of the sorted keys; those whose keys are equal are put into the order of their depths.

    Each looks at all of its key; of a body they are a few, but on a plane of one depth all of a tile.
    """
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    nothing = n_tiles << DEPTH_BITS
    key = tl.load(key_ptr + i, mask=i < capacity, other=nothing)
    is_in = key < nothing
    previous = tl.load(key_ptr + i - 1, mask=is_in & (i > 0), other=-1)
    following = tl.load(key_ptr + i + 1, mask=is_in & (i + 1 < capacity), other=nothing)
    tile = key >> DEPTH_BITS
    tl.store(range_ptr + tile, i, mask=is_in & (previous >> DEPTH_BITS != tile))
    tl.store(range_ptr + n_tiles + tile, i + 1, mask=is_in & (following >> DEPTH_BITS != tile))
    g = tl.load(gaussian_ptr + tl.load(pair_ptr + i, mask=is_in, other=0), mask=is_in, other=0)
    is_left, is_right = is_in & (previous == key), is_in & (following == key)
    depth = tl.load(row_ptr + 8 * g + 7, mask=is_left | is_right, other=0.0)
    place, far = i, 1
    while tl.max((is_left | is_right).to(tl.int32), 0) > 0:
        left = tl.load(
            gaussian_ptr + tl.load(pair_ptr + i - far, mask=is_left, other=0), mask=is_left, other=0
        )
        right = tl.load(
            gaussian_ptr + tl.load(pair_ptr + i + far, mask=is_right, other=0), mask=is_right, other=0
        )
        left_depth = tl.load(row_ptr + 8 * left + 7, mask=is_left, other=0.0)
        right_depth = tl.load(row_ptr + 8 * right + 7, mask=is_right, other=0.0)
        place -= (is_left & _is_before(depth, g, left_depth, left)).to(tl.int32)
        place += (is_right & _is_before(right_depth, right, depth, g)).to(tl.int32)
        far += 1
        is_left &= i >= far
        is_left &= tl.load(key_ptr + i - far, mask=is_left, other=-1) == key
        is_right &= i + far < capacity
        is_right &= tl.load(key_ptr + i + far, mask=is_right, other=-1) == key
    tl.store(ordered_ptr + place, g, mask=is_in)


@triton.jit(do_not_specialize=["n_tiles", "room"])
def cut_tiles(
    range_ptr,  # (2, n_tiles) of `arrange_pairs`
    counts_ptr,  # out (N_COUNTS,) int32, zeros
    chunk_ptr,  # out (room + n_tiles, 4) int32 tile, first pair, number of pairs, first chunk of the tile
    cut_ptr,  # out (room, 2) int32 first chunk and number of chunks of every tile that is cut
    n_tiles,
    room,
    CHUNK: tl.constexpr,  # pairs, at most
    BLOCK: tl.constexpr,
):
    """Cut long lists into chunks that are worked at side by side. The chunks of other tiles are those from `room`."""
    tile = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    first = tl.load(range_ptr + tile, mask=tile < n_tiles, other=0)
    n = tl.load(range_ptr + n_tiles + tile, mask=tile < n_tiles, other=0) - first
    n_chunks = (n + CHUNK - 1) // CHUNK
    is_whole, is_cut = n_chunks == 1, n_chunks > 1
    n_of_cut = tl.where(is_cut, n_chunks, 0)
    chunk = tl.cumsum(n_of_cut, 0) - n_of_cut + tl.atomic_add(counts_ptr, tl.sum(n_of_cut, 0), sem="relaxed")
    whole, cut = is_whole.to(tl.int32), is_cut.to(tl.int32)
    whole = tl.cumsum(whole, 0) - whole + tl.atomic_add(counts_ptr + 1, tl.sum(whole, 0), sem="relaxed")
    cut = tl.cumsum(cut, 0) - cut + tl.atomic_add(counts_ptr + 2, tl.sum(cut, 0), sem="relaxed")
    tl.store(cut_ptr + 2 * cut, chunk, mask=is_cut)
    tl.store(cut_ptr + 2 * cut + 1, n_chunks, mask=is_cut)
    target = chunk_ptr + 4 * (room + whole)
    tl.store(target, tile, mask=is_whole)
    tl.store(target + 1, first, mask=is_whole)
    tl.store(target + 2, n, mask=is_whole)
    tl.store(target + 3, room + whole, mask=is_whole)
    size = (n + n_chunks - 1) // tl.maximum(n_chunks, 1)
    k = 0
    while k < tl.max(n_of_cut, 0):
        is_here = k < n_of_cut
        target = chunk_ptr + 4 * (chunk + k)
        tl.store(target, tile, mask=is_here)
        tl.store(target + 1, first + k * size, mask=is_here)
        tl.store(target + 2, tl.minimum(size, n - k * size), mask=is_here)
        tl.store(target + 3, chunk, mask=is_here)
        k += 1


@triton.jit
def _counts_before(x):
    """Running sum of x (n,) without itself, and the sum of all; four neighbours are added up within a thread."""
    first, second = tl.split(tl.reshape(x, (x.shape[0] // 4, 2, 2)))
    third, fourth = tl.split(first + second)
    four = third + fourth
    running = tl.cumsum(four, 0)
    before = running - four
    before = tl.join(before, before + third)
    before = tl.join(before, before + first)
    return tl.reshape(before, (x.shape[0],)), tl.max(running, 0)


@triton.jit
def _bits(lo, hi):
    """Bits lo to hi - 1, of four."""
    lo, hi = tl.minimum(tl.maximum(lo, 0), 4), tl.minimum(tl.maximum(hi, 0), 4)
    return (tl.full(hi.shape, 15, tl.int32) >> (-(hi - 4))) & (tl.full(lo.shape, 15, tl.int32) << lo)


@triton.jit(do_not_specialize=["room", "tiles_x"])
def split_chunks(
    ordered_ptr,  # (capacity,) of `arrange_pairs`
    box_ptr,  # (N,) as in `list_pairs`
    counts_ptr,  # (N_COUNTS,) of `cut_tiles`
    chunk_ptr,  # (room + n_tiles, 4) of `cut_tiles`
    slot_ptr,  # out (CELLS capacity,) int32 the lists of a chunk's cells: each has as much room as the chunk has pairs
    length_ptr,  # out (room + n_tiles, CELLS) int32 lengths of these lists
    room,
    tiles_x,
    CHUNK: tl.constexpr,  # a power of two under 32768
    ROWS: tl.constexpr,  # of cells
):
    """The lists of the cells of a chunk, in the order of its tile's; some rows of a chunk's cells to a program."""
    chunk, rows = tl.program_id(0), tl.program_id(1) * ROWS
    is_there = chunk < tl.where(chunk < room, tl.load(counts_ptr), room + tl.load(counts_ptr + 1))
    if is_there:
        tile = tl.load(chunk_ptr + 4 * chunk)
        first = tl.load(chunk_ptr + 4 * chunk + 1)
        n = tl.load(chunk_ptr + 4 * chunk + 2)
        k = tl.arange(0, CHUNK)
        g = tl.load(ordered_ptr + first + k, mask=k < n, other=0)
        box = tl.load(box_ptr + g, mask=k < n, other=0)  # nothing is in an empty box
        left, top = tile % tiles_x * 4, tile // tiles_x * 4 + rows
        columns = _bits(_field(box, 0) - left, _field(box, 1) - left)
        y0, y1 = _field(box, 2) - top, _field(box, 3) - top
        for y in tl.static_range(ROWS):
            in_row = tl.where((y0 <= y) & (y < y1), columns, 0)
            for x in tl.static_range(0, 4, 2):
                in_two = in_row >> x
                before, found = _counts_before((in_two & 1) + ((in_two & 2) << 15))  # two counts in one
                cell = 4 * (rows + y) + x
                target = slot_ptr + (first * CELLS + cell * n)
                tl.store(target + (before & 0xFFFF), g, mask=(in_two & 1) > 0)
                tl.store(target + n + (before >> 16), g, mask=(in_two & 2) > 0)
                tl.store(length_ptr + chunk * CELLS + cell, found & 0xFFFF)
                tl.store(length_ptr + chunk * CELLS + cell + 1, found >> 16)
