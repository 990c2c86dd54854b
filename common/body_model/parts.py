"""Body parts as boolean vertex masks, found from the model's own arrays (SPEC 7)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from common.joints import EYES, HEAD, JAW
from common.mesh import NeighbourLists, Subdivider, boundary_loops, fan, grow_rings

BOUNDARY_RINGS = 1 + 3
MOUTH_DEPTH_M = 0.1  # how far behind the frontmost expression vertex the mouth's inside may lie
MOUTH_BELOW_M = 0.015  # how far below the mean expression vertex it must lie
MOUTH_RINGS = 2
REACH_RINGS = 4


@dataclass(frozen=True)
class Parts:
    """Boolean masks (V,) or (N,) over the vertices of one mesh."""

    right_hand: Tensor
    left_hand: Tensor
    expression: Tensor  # moved by the expression code; not neck, not eyes
    expression_boundary: Tensor  # expression vertices near the rest of the head
    mouth_inside: Tensor
    mouth_outside: Tensor  # the ring around mouth_inside
    eye: Tensor  # eyeballs, by the largest skinning weight
    face: Tensor  # head, jaw and eyes, by the largest skinning weight

    @property
    def hand(self) -> Tensor:
        """Either hand."""
        return self.right_hand | self.left_hand

    def to(self, device: torch.device | str) -> Parts:
        """The same masks on another device."""
        return Parts(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def _is_among(dominant: Tensor, joints: tuple[int, ...]) -> Tensor:
    """Whether the joint of a vertex's largest skinning weight is one of the joints."""
    return torch.isin(dominant, torch.tensor(joints, device=dominant.device))


def _is_in(ids: Tensor, n_vertices: int) -> Tensor:
    return torch.zeros(n_vertices, dtype=torch.bool).index_fill(0, ids, True)


def _mouth_inside(
    template: Tensor, normals: Tensor, expression: Tensor, neighbours: NeighbourLists
) -> Tensor:
    """Expression vertices behind the lips: facing backwards, low and near the front, grown by two rings."""
    if not expression.any():
        return expression
    y, z = template[:, 1], template[:, 2]
    is_near_front = z > z[expression].max() - MOUTH_DEPTH_M
    is_low = y < y[expression].mean() - MOUTH_BELOW_M
    return grow_rings(expression & (normals[:, 2] < 0) & is_near_front & is_low, neighbours, MOUTH_RINGS)


def low_resolution_parts(
    template: Tensor,  # (V, 3) metres
    normals: Tensor,  # (V, 3) of the template
    skinning_weights: Tensor,  # (V, 55)
    right_hand: Tensor,  # ids
    left_hand: Tensor,  # ids
    expression_vertices: Tensor,  # ids
    neighbours: NeighbourLists,
) -> Parts:
    """Parts of the model's own mesh (SPEC 7)."""
    n_vertices = template.shape[0]
    expression = _is_in(expression_vertices, n_vertices)
    dominant = skinning_weights.argmax(1)
    face = _is_among(dominant, (HEAD, JAW, *EYES))
    mouth_inside = _mouth_inside(template, normals, expression, neighbours)
    return Parts(
        right_hand=_is_in(right_hand, n_vertices),
        left_hand=_is_in(left_hand, n_vertices),
        expression=expression,
        expression_boundary=expression & grow_rings(face & ~expression, neighbours, BOUNDARY_RINGS),
        mouth_inside=mouth_inside,
        mouth_outside=grow_rings(mouth_inside, neighbours, 1) & ~mouth_inside,
        eye=_is_among(dominant, EYES),
        face=face,
    )


def high_resolution_parts(low: Parts, skinning_weights_high: Tensor, subdivider: Subdivider) -> Parts:
    """Parts of the subdivided mesh: interpolated value exactly 1; eye, face by weights (N, 55) (SPEC 7)."""
    dominant = skinning_weights_high.argmax(1)
    by_weight = {"eye": _is_among(dominant, EYES), "face": _is_among(dominant, (HEAD, JAW, *EYES))}
    names = [f.name for f in fields(low) if f.name not in by_weight]
    return Parts(**{name: subdivider.interpolate_flag(getattr(low, name)) for name in names}, **by_weight)


def kinematic_reach(parents: Tensor) -> Tensor:
    """(55, 55) of 0 and 1: which joints are within 4 rings of each other in the kinematic graph (SPEC 9)."""
    n_joints = parents.shape[0]
    child = torch.nonzero(parents >= 0).squeeze(1)
    step = torch.eye(n_joints, dtype=torch.float64)
    step[child, parents[child]] = 1
    step[parents[child], child] = 1
    return (torch.linalg.matrix_power(step, REACH_RINGS) > 0).float()


def faces_within(faces: Tensor, mask: Tensor) -> Tensor:
    """The faces whose three vertices are all in the mask (V,)."""
    return faces[mask[faces].all(dim=1)]


def close_mouth(faces: Tensor, expression: Tensor, jaw_weight: Tensor) -> Tensor:
    """Faces with the open mouth closed: a fan over the boundary loop made of expression vertices (SPEC 7).

    Where there is none the faces come back unchanged. Of several (eye sockets, teeth) the mouth is the one that
    joins jaw and head: whose jaw weights differ most.
    """
    loops = [loop for loop in boundary_loops(faces) if expression[loop].all() and len(loop) >= 3]
    if not loops:
        return faces
    mouth = max(loops, key=lambda loop: float(jaw_weight[loop].max() - jaw_weight[loop].min()))
    return torch.cat([faces, fan(mouth)])
