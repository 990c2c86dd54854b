"""From a snapshot to an avatar that can be posed and rendered (SPEC 5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from common.avatar import Avatar
from common.body_model.body import BodyModel
from common.body_model.data import BodyData
from common.body_model.identity import Identity
from common.checkpoint import Snapshot, check_body, load_network
from common.errors import UserError
from common.mesh import as_faces, unique_edges
from common.pose_table import PoseTable
from common.skinning_field import SkinningField
from common.trainer import PersonModel
from main.config import AvatarConfig

MAX_SUBDIVISIONS = 4


def vertex_counts(data: BodyData) -> Iterator[tuple[int, int]]:
    """(number of subdivisions, number of vertices) of a body, from none to MAX_SUBDIVISIONS."""
    n_vertices, n_faces = data.n_vertices, len(data.faces)
    n_edges = len(unique_edges(as_faces(data.faces), n_vertices)[0])
    for level in range(MAX_SUBDIVISIONS + 1):
        yield level, n_vertices
        n_vertices, n_edges, n_faces = n_vertices + n_edges, 2 * n_edges + 3 * n_faces, 4 * n_faces


def subdivisions_of(snapshot: Snapshot, data: BodyData, source: Path, configured: int | None) -> int:
    """Number of subdivisions of a snapshot's avatar; UserError where body or configuration do not fit it."""
    counts = dict(vertex_counts(data))
    offsets = snapshot.network.get("persona.mean_offset", torch.empty(0))
    n_gaussians = offsets.shape[0]
    fitting = [level for level, count in counts.items() if count == n_gaussians]
    guess = configured if configured is not None else (fitting or [0])[0]
    if guess not in counts:
        raise UserError(f"--body.n_subdivisions {guess}: use 0 to {MAX_SUBDIVISIONS}")
    check_body(snapshot.network, source, data.n_vertices, counts[guess])
    return guess


def load_person(
    snapshot: Snapshot,
    source: Path,
    body: BodyModel,
    skinning_field: SkinningField,
    config: AvatarConfig,
    poses: PoseTable | None = None,
) -> PersonModel:
    """The snapshot's avatar and poses (or the given poses instead); UserError where anything does not fit."""
    check_body(snapshot.network, source, body.n_vertices, body.n_vertices_high)
    state = snapshot.part("persona.")
    avatar = Avatar(_shape_of(config, state, source), body, skinning_field, identity_of(state, source))
    load_network(avatar, state, source)
    return PersonModel(avatar, poses or PoseTable.from_state_dict(snapshot.network))


def identity_of(state: Mapping[str, Tensor], source: Path) -> Identity:
    """The identity in a snapshot's avatar (its `persona.` part); UserError if it is not there."""
    names = ("shape_param", "face_offset", "joint_offset")
    missing = [name for name in names if name not in state]
    if missing:
        raise UserError(f"{source} is not a snapshot of an avatar: persona.{missing[0]} is missing")
    return Identity(*(state[name] for name in names))


def _shape_of(config: AvatarConfig, state: Mapping[str, Tensor], source: Path) -> AvatarConfig:
    """The configuration with the tri-plane's size as in the snapshot."""
    triplane = state.get("triplane")
    if (
        triplane is None
        or triplane.ndim != 4
        or triplane.shape[0] != 3
        or triplane.shape[2] != triplane.shape[3]
    ):
        raise UserError(f"{source} is not a snapshot of an avatar: persona.triplane must be (3, C, S, S)")
    return replace(config, triplane_channels=triplane.shape[1], triplane_resolution=triplane.shape[2])
