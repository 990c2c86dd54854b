"""Launches of the kernels that list the Gaussians of every tile and cell, and how much room the lists get (SPEC 10)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from common.rasterizer import triton_lists
from common.rasterizer.triton_footprints import Footprints

CELLS = 4  # of a tile: 4 x 4 pixels each, which one program blends
MAX_PAIRS = 2**28  # memory: about 40 bytes a pair, more with many channels
SPARE = 1.15  # capacity over what was last needed
GRAPH_SPARE = 1.1  # again, for what a graph's other frames need
ROUNDING = 16384  # of capacities
FIRST_GUESS = 3  # pairs for every Gaussian
LARGEST_INT16 = 2**15 - 1
PAIR_RANKS = 128  # Gaussians whose pairs one program lists
PAIR_BLOCK = 512  # pairs at a time
FIND_BLOCK = 128
SCHEDULE_BLOCK = 1024
LONG_BLOCK, LONG_WARPS = 1024, 16
SHORT_BLOCK = 128
SPLITTING = 24  # warps on every multiprocessor
CLASSES: int = triton_lists.CLASSES.value


@dataclass(frozen=True)
class Lists:
    """Which Gaussians touch each cell, front to back."""

    slot: Tensor  # (4 capacity,) int32
    range: Tensor  # (2, n_cells) int32
    schedule: Tensor  # (n_tiles,) tiles, the longest lists first, empty ones last; these have no ranges
    classes: Tensor  # (2, CLASSES) in the first row, how many tiles have a list of each length


def list_gaussians(footprints: Footprints, tiles_x: int, n_tiles: int, capacity: int) -> Lists:
    """The lists, with room for `capacity` pairs of a Gaussian and a tile."""
    device, n = footprints.row.device, len(footprints.order)
    is_short = n_tiles <= 2 * LARGEST_INT16
    offset = LARGEST_INT16 + 1 if is_short else 0
    key = torch.empty(capacity, dtype=torch.int16 if is_short else torch.int32, device=device)
    gaussian = torch.empty(capacity, dtype=torch.int32, device=device)
    n_programs = -(-n // PAIR_RANKS) + -(-capacity // PAIR_BLOCK)
    triton_lists.list_pairs[(n_programs,)](
        footprints.order,
        footprints.end,
        footprints.box,
        key,
        gaussian,
        n,
        tiles_x,
        n_tiles,
        capacity,
        OFFSET=offset,
        RANKS=PAIR_RANKS,
        N_STEPS=PAIR_RANKS.bit_length() - 1,
        BLOCK=PAIR_BLOCK,
    )
    key, pair = torch.sort(key, stable=True)
    ranges = torch.empty(2, n_tiles, dtype=torch.int32, device=device)
    schedule = torch.empty(n_tiles, dtype=torch.int32, device=device)
    classes = torch.zeros(2, CLASSES, dtype=torch.int32, device=device)
    triton_lists.find_lists[(-(-n_tiles // FIND_BLOCK),)](
        key,
        ranges,
        classes,
        n_tiles,
        capacity,
        N_STEPS=capacity.bit_length(),
        OFFSET=offset,
        BLOCK=FIND_BLOCK,
    )
    # The longest lists decide how long a call takes.
    triton_lists.schedule_lists[(-(-n_tiles // SCHEDULE_BLOCK),)](
        ranges, classes, schedule, n_tiles, BLOCK=SCHEDULE_BLOCK
    )
    cell_slot = torch.empty(CELLS * capacity, dtype=torch.int32, device=device)
    cell_ranges = torch.empty(2, CELLS * n_tiles, dtype=torch.int32, device=device)
    n_processors = n_multiprocessors(device)
    for are_long, block, n_warps in ((True, LONG_BLOCK, LONG_WARPS), (False, SHORT_BLOCK, 1)):
        triton_lists.split_lists[(SPLITTING // n_warps * n_processors,)](
            pair,
            gaussian,
            ranges,
            classes,
            schedule,
            footprints.box,
            cell_slot,
            cell_ranges,
            n_tiles,
            tiles_x,
            ARE_LONG=are_long,
            BLOCK=block,
            num_warps=n_warps,
        )
    return Lists(cell_slot, cell_ranges, schedule, classes)


def rounded(n_pairs: float, spare: float = SPARE) -> int:
    """A capacity for so many pairs and some more."""
    return max(-(-int(spare * n_pairs) // ROUNDING), 1) * ROUNDING


@lru_cache(maxsize=8)
def n_multiprocessors(device: torch.device) -> int:
    """How many the device has; 1 without a GPU."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count
