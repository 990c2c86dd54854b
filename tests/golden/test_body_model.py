"""The body function against the published body layer."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from common.body_model.body import BodyModel, neutral_pose_params
from common.body_model.files import convert_licensed_files
from common.body_model.identity import Identity
from common.camera import Camera
from common.joints import JOINTS, LEFT_HAND, N_JOINTS, RIGHT_HAND
from common.pose import SmplxParams, SmplxPose
from tests.golden import scene
from tests.golden.keypoints import Keypoints

TOLERANCE = 2e-5  # golden README: vertices and joints


@pytest.fixture(scope="module")
def body(golden_path):
    return BodyModel(
        convert_licensed_files(golden_path("assets/human_model_files"), "male"), n_subdivisions=2
    ).to(scene.DEVICE)


@pytest.fixture(scope="module")
def arrays(golden):
    return {name: scene.from_numpy(value) for name, value in golden("03_body_model.npz").items()}


@pytest.fixture(scope="module")
def identity(arrays):
    return Identity(arrays["id_shape_param"], arrays["id_face_offset"], arrays["id_joint_offset"])


@pytest.fixture(scope="module")
def keypoints(golden_path):
    return Keypoints.load(golden_path("assets"))


def case(arrays, i):
    names = {
        "root_pose": "global_orient",
        "body_pose": "body_pose",
        "jaw_pose": "jaw_pose",
        "leye_pose": "leye_pose",
        "reye_pose": "reye_pose",
        "lhand_pose": "left_hand_pose",
        "rhand_pose": "right_hand_pose",
    }
    shapes = {"body_pose": (21, 3), "lhand_pose": (15, 3), "rhand_pose": (15, 3)}
    poses = {own: arrays[f"in_{name}"][i].reshape(shapes.get(own, (3,))) for own, name in names.items()}
    params = SmplxParams(**poses, expr=arrays["in_expression"][i], trans=arrays["in_transl"][i])
    return params, Identity(arrays["in_betas"][i], arrays["in_face_offset"][i], arrays["in_joint_offset"][i])


def assert_close(actual, expected):
    np.testing.assert_allclose(actual.detach(), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("form", ["axis-angle", "matrices"])
@pytest.mark.parametrize("i", [0, 1])
def test_posed_body(body, arrays, i, form):
    params, identity = case(arrays, i)
    pose = params if form == "axis-angle" else SmplxPose.from_params(params)
    out = body.vertices(pose, identity, mask_root_offset=False)
    assert_close(out.vertices, arrays["out_vertices"][i])
    assert_close(out.joints, arrays["out_joints"][i, :N_JOINTS])


@pytest.mark.parametrize("i", [0, 1])
def test_keypoints_of_the_posed_body(body, arrays, keypoints, i):
    """Joints, and beyond them vertices and points on triangles, of this project's vertices."""
    params, identity = case(arrays, i)
    ours = keypoints.of(body, body.vertices(params, identity, mask_root_offset=False), params)
    assert_close(ours, arrays["out_joints"][i])


@pytest.mark.parametrize("i", [0, 1])
def test_shape_blending_alone(body, arrays, i):
    identity = Identity(arrays["in_betas"][i], torch.zeros(body.n_vertices, 3), torch.zeros(55, 3))
    shaped = body.shaped(identity)
    assert_close(shaped.vertices, arrays["out_v_shaped"][i])


def test_root_offset_is_masked_by_default(body, arrays, keypoints):
    params, who = case(arrays, 0)
    out = body.vertices(params, who)
    assert_close(out.vertices, arrays["masked_root_vertices"][0])
    assert_close(keypoints.of(body, out, params), arrays["masked_root_joints"][0])


def test_zero_pose_has_the_mean_hands(body, arrays, keypoints):
    identity = Identity(arrays["in_betas"][0], torch.zeros(body.n_vertices, 3), torch.zeros(55, 3))
    out = body.vertices(SmplxParams.zeros(), identity)
    assert_close(out.vertices, arrays["rest_hands_vertices"][0])
    assert_close(keypoints.of(body, out, SmplxParams.zeros()), arrays["rest_hands_joints"][0])
    mean = torch.zeros(55, 3)
    mean[25:] = body.hand_mean
    assert_close(mean.reshape(-1), arrays["pose_mean"])


def test_expression_directions_and_tree(body, arrays):
    np.testing.assert_array_equal(body.expr_dirs, arrays["expr_dirs_after_flame"])
    np.testing.assert_array_equal(body.parents, arrays["parents"])


@pytest.mark.parametrize("jaw", ["open", "closed"])
@pytest.mark.parametrize("who", ["id", "noid"])
def test_neutral_vertices(body, arrays, identity, jaw, who):
    low = body.neutral_vertices(identity if who == "id" else None, jaw_open=jaw == "open")
    assert_close(low, arrays[f"neutral_jaw{jaw}_{who}_lr"])
    high_name = f"neutral_jaw{jaw}_{who}_hr"
    if high_name in arrays:
        assert_close(body.subdivider.interpolate(low), arrays[high_name])


def test_neutral_pose_itself(arrays):
    params = neutral_pose_params(jaw_open=True)
    assert_close(params.body_pose, arrays["neutral_body_pose"])
    assert_close(params.jaw_pose, arrays["neutral_jaw_pose"])
    assert_close(neutral_pose_params(jaw_open=False).jaw_pose, torch.zeros(3))


def test_neutral_joints(body, arrays, identity):
    out = body.vertices(body.neutral_pose_params(jaw_open=False), identity, mask_root_offset=False)
    assert_close(out.joints, arrays["neutral_jawclosed_id_joints"])


def test_zero_pose(body, arrays, identity):
    assert_close(body.zero_pose_joints(identity), arrays["zero_pose_joints"])
    vertices = body.vertices(SmplxParams.zeros(), identity).vertices
    assert_close(vertices, arrays["zero_pose_lr"])


def test_zero_pose_on_the_subdivided_mesh(body, golden, identity):
    vertices = body.vertices(SmplxParams.zeros(), identity).vertices
    assert_close(body.subdivider.interpolate(vertices), golden("03_body_model.npz")["zero_pose_hr"])


def test_world_space(body, arrays, identity):
    names = SmplxParams.__dataclass_fields__
    params = SmplxParams(**{name: arrays[f"world_in_{name}"] for name in names})
    camera = Camera(
        arrays["world_cam_R"],
        arrays["world_cam_t"],
        arrays["world_cam_focal"],
        arrays["world_cam_princpt"],
        1,
        1,
    )
    vertices = body.vertices(params, identity).vertices
    assert_close(camera.camera_to_world(vertices), arrays["world_vertices_lr"])


def test_keypoints_in_world_space(body, arrays, identity, keypoints):
    params = SmplxParams(**{name: arrays[f"world_in_{name}"] for name in SmplxParams.__dataclass_fields__})
    camera = Camera(*(arrays[f"world_cam_{name}"] for name in ("R", "t", "focal", "princpt")), 1, 1)
    ours = keypoints.of(body, body.vertices(params, identity), params)
    assert_close(camera.camera_to_world(ours[arrays["kpt_idx"]]), arrays["world_kpt"])


def test_keypoints_of_the_face_part(body, arrays, keypoints):
    """Both eyes and all points of the face but those on its contour; the eyes are on the body's eyes."""
    first = N_JOINTS + len(keypoints.vertex)
    eyes = torch.tensor([keypoints.vertex_names[name] for name in ("leye", "reye")])
    assert body.parts_low.eye[eyes].all()
    is_eye = torch.isin(arrays["kpt_idx"], N_JOINTS + torch.isin(keypoints.vertex, eyes).nonzero())
    is_inside = (arrays["kpt_idx"] >= first) & (arrays["kpt_idx"] < keypoints.n_without_contour)
    assert torch.equal((is_eye | is_inside).nonzero().squeeze(1), arrays["kpt_face_part_idx"])


def test_root_offset_that_is_masked(body, arrays, identity):
    masked = replace(identity, joint_offset=arrays["id_joint_offset_root_masked"])
    ours = body.shaped(identity).joints
    assert torch.equal(ours, body.shaped(masked, mask_root_offset=False).joints)


def full_name(published):
    """A published name as words of the joint table, without underscores: L_Index_1 -> leftindex1."""
    side, _, rest = published.lower().partition("_")
    shown = {"l": "left", "r": "right"}
    return (f"{shown[side]}{rest}" if side in shown else published.lower()).replace("_", "")


def test_joint_names(golden_path):
    names = json.loads(golden_path("03_names.json").read_text())
    assert [full_name(name) for name in names["joint_name"]] == [name.replace("_", "") for name in JOINTS]
    parts = {"body": range(22), "face": range(22, 25), "lhand": LEFT_HAND, "rhand": RIGHT_HAND}
    assert names["part_idx"] == {name: list(index) for name, index in parts.items()}


def test_names_of_the_keypoints_that_are_joints(golden_path, arrays):
    names = json.loads(golden_path("03_names.json").read_text())["kpt_name"]
    pairs = [(name, JOINTS[i]) for name, i in zip(names, arrays["kpt_idx"], strict=True) if i < N_JOINTS]
    assert pairs
    assert [full_name(name) for name, _ in pairs] == [joint.replace("_", "") for _, joint in pairs]


@pytest.mark.parametrize("i", [0, 1])
def test_float64_agrees_with_the_stored_float32(golden_path, arrays, identity, i):
    body = BodyModel(convert_licensed_files(golden_path("assets/human_model_files"), "male"), 0)
    body = body.to(scene.DEVICE).double()
    out = body.vertices(*case(arrays, i), mask_root_offset=False)
    assert out.vertices.dtype == torch.float64
    assert_close(out.vertices, arrays["out_vertices"][i])
    assert_close(out.joints, arrays["out_joints"][i, :N_JOINTS])
    assert_close(body.vertices(*case(arrays, 0)).vertices, arrays["masked_root_vertices"][0])
    assert_close(body.neutral_vertices(identity, jaw_open=True), arrays["neutral_jawopen_id_lr"])
    assert_close(body.zero_pose_joints(identity), arrays["zero_pose_joints"])
