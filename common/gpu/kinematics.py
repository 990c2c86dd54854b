"""Forward kinematics with one product a level of the tree instead of one a joint (SPEC 9)."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor


def rigid_transforms(rotation: Tensor, joints: Tensor, parents: Tensor) -> tuple[Tensor, Tensor]:
    """As smplx's `batch_rigid_transform` for one body: posed joints (J, 3), transforms (J, 4, 4).

    rotation (J, 3, 3); joints (J, 3); parents (J,) on the CPU, each before its children.
    """
    levels = _levels(tuple(parents.tolist()), joints.device)
    relative = joints - joints.index_select(0, levels.parent) * levels.has_parent
    local = F.pad(torch.cat([rotation, relative[:, :, None]], 2), (0, 0, 0, 1))
    local = local + levels.corner
    done = [local.index_select(0, levels.members[0])]
    for members, parent_in_level in zip(levels.members[1:], levels.parents_in_level, strict=True):
        done.append(done[-1].index_select(0, parent_in_level) @ local.index_select(0, members))
    world = torch.cat(done).index_select(0, levels.place)
    posed = world[:, :3, 3]
    moved = (world[:, :3, :3] @ joints[:, :, None])[:, :, 0]
    return posed, world - F.pad(moved[:, :, None], (3, 0, 0, 1))


class _Levels:
    """The joints of a tree by their distance from the root."""

    def __init__(self, parents: tuple[int, ...], device: torch.device) -> None:
        depth: list[int] = []
        for parent in parents:
            depth.append(depth[parent] + 1 if parent >= 0 else 0)
        members = [[j for j, d in enumerate(depth) if d == level] for level in range(max(depth) + 1)]
        order = [j for level in members for j in level]

        def ids(values: list[int]) -> Tensor:
            return torch.tensor(values, device=device)

        self.members = [ids(level) for level in members]
        self.parents_in_level = [
            ids([above.index(parents[j]) for j in level]) for above, level in pairwise(members)
        ]
        self.place = ids([order.index(j) for j in range(len(parents))])
        self.parent = ids([max(parent, 0) for parent in parents])
        self.has_parent = torch.tensor([[float(parent >= 0)] for parent in parents], device=device)
        self.corner = F.pad(torch.ones(1, 1, device=device), (3, 0, 3, 0))


@lru_cache(maxsize=8)
def _levels(parents: tuple[int, ...], device: torch.device) -> _Levels:
    with torch.inference_mode(False):
        return _Levels(parents, device)
