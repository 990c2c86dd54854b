"""Launches of the kernels that list the Gaussians of every tile and cell, and how much room the lists get (SPEC 10)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from common.rasterizer import triton_lists
from common.rasterizer.triton_footprints import BLOCK as RUN
from common.rasterizer.triton_footprints import Footprints

CELLS: int = triton_lists.CELLS.value  # of a tile: 4 x 4 pixels each
N_COUNTS: int = triton_lists.N_COUNTS.value
# Memory: about 90 bytes a pair, more with many channels. 16 slots a pair are counted in 32 bits.
MAX_PAIRS = 2**26
SPARE = 1.15  # capacity over what was last needed
GRAPH_SPARE = 1.1  # again, for what a graph's other frames need
ROUNDING = 16384  # of capacities
FIRST_GUESS = 2  # pairs for every Gaussian
CHUNK = 1024  # pairs of a tile's list that are worked at together, at most; a power of two
SPLIT_ROWS, SPLIT_WARPS = 2, 4  # rows of a chunk's cells that one program lists, and with how many warps
PAIR_BLOCK, ARRANGED = 256, 128  # pairs at a time
CUT_BLOCK = 128  # tiles
KEY_BITS = 31  # of the sorted keys, which are not negative: the tile's number, then the depth


@dataclass(frozen=True)
class Lists:
    """Which Gaussians touch each cell, front to back: of every chunk of a tile's list the cells' lists."""

    slot: Tensor  # (16 capacity,) int32 Gaussians
    counts: Tensor  # (3,) int32 chunks of tiles that are cut, tiles that are not, tiles that are
    ticket: Tensor  # (1,) int32 0: what `blend` counts its work with
    chunk: Tensor  # (room + n_tiles, 4) int32 tile, first pair, pairs, tile's first chunk; whole tiles from `room` on
    cut: Tensor  # (room, 2) int32 first chunk and number of chunks of every tile that is cut
    length: Tensor  # (room + n_tiles, 16) int32 lengths of the cells' lists
    room: int  # for chunks of tiles that are cut


@lru_cache(maxsize=64)
def _runs(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """First Gaussian of every run, and one past the last Gaussian."""
    firsts, first = [], 0
    for size in sizes:
        firsts += list(range(first, first + size, RUN))
        first += size
    return torch.tensor([*firsts, first], dtype=torch.int32, device=device)


def list_gaussians(footprints: Footprints, tiles_x: int, n_tiles: int, capacity: int) -> Lists:
    """The lists, with room for `capacity` pairs of a Gaussian and a tile."""
    device = footprints.row.device
    runs, depth_bits = _runs(footprints.sizes, device), KEY_BITS - n_tiles.bit_length()
    key, gaussian, ordered = (torch.empty(capacity, dtype=torch.int32, device=device) for _ in range(3))
    n_runs = len(runs) - 1
    triton_lists.list_pairs[(n_runs + -(-capacity // PAIR_BLOCK),)](
        runs,
        footprints.end,
        footprints.count,
        footprints.box,
        footprints.row,
        footprints.total,
        footprints.depth,
        key,
        gaussian,
        n_runs,
        tiles_x,
        n_tiles,
        capacity,
        DEPTH_BITS=depth_bits,
        N_STEPS=RUN.bit_length() - 1,
        BLOCK=PAIR_BLOCK,
    )
    key, pair = torch.sort(key)
    sizes = [N_COUNTS, 1, 2 * n_tiles]
    counts, ticket, ranges = torch.zeros(sum(sizes), dtype=torch.int32, device=device).split(sizes)
    triton_lists.arrange_pairs[(-(-capacity // ARRANGED),)](
        key,
        pair,
        gaussian,
        footprints.row,
        ordered,
        ranges,
        n_tiles,
        capacity,
        DEPTH_BITS=depth_bits,
        BLOCK=ARRANGED,
    )
    room = 2 * capacity // CHUNK + 1
    chunk = torch.empty(room + n_tiles, 4, dtype=torch.int32, device=device)
    cut = torch.empty(room, 2, dtype=torch.int32, device=device)
    triton_lists.cut_tiles[(-(-n_tiles // CUT_BLOCK),)](
        ranges, counts, chunk, cut, n_tiles, room, CHUNK=CHUNK, BLOCK=CUT_BLOCK
    )
    slot = torch.empty(CELLS * capacity, dtype=torch.int32, device=device)
    length = torch.empty(room + n_tiles, CELLS, dtype=torch.int32, device=device)
    triton_lists.split_chunks[(room + n_tiles, 4 // SPLIT_ROWS)](
        ordered,
        footprints.box,
        counts,
        chunk,
        slot,
        length,
        room,
        tiles_x,
        CHUNK=CHUNK,
        ROWS=SPLIT_ROWS,
        num_warps=SPLIT_WARPS,
    )
    return Lists(slot, counts, ticket, chunk, cut, length, room)


def rounded(n_pairs: float, spare: float = SPARE) -> int:
    """A capacity for so many pairs and some more."""
    return max(-(-int(spare * n_pairs) // ROUNDING), 1) * ROUNDING
