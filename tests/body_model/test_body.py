"""The body function against the smplx package's, and its symmetries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import smplx.lbs
import torch

from common.body_model.body import BodyModel, neutral_pose_params
from common.body_model.data import BodyData
from common.body_model.identity import Identity
from common.body_model.parts import Parts, high_resolution_parts, low_resolution_parts
from common.joints import JOINTS, POSE_PARAMS
from common.mesh import NeighbourLists, Subdivider
from common.pose import SmplxParams, SmplxPose
from tests.body_model.bodies import tiny_body_data


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel(tiny_body_data(), n_subdivisions=1)


def random_params(seed: int = 0) -> SmplxParams:
    generator = torch.Generator().manual_seed(seed)
    zeros = vars(SmplxParams.zeros())
    return SmplxParams(**{n: torch.randn(v.shape, generator=generator) * 0.4 for n, v in zeros.items()})


def random_identity(body: BodyModel, seed: int = 1) -> Identity:
    generator = torch.Generator().manual_seed(seed)
    zeros = vars(Identity.zeros(body.n_vertices))
    return Identity(**{n: torch.randn(v.shape, generator=generator) * 0.05 for n, v in zeros.items()})


def test_posed_vertices_equal_those_of_the_smplx_package(body):
    params, identity = random_params(), random_identity(body)
    identity = replace(identity, joint_offset=torch.zeros(55, 3))  # which the package does not know
    axis_angle = torch.cat([getattr(params, name).reshape(-1, 3) for name in POSE_PARAMS])
    axis_angle[25:] += body.hand_mean
    vertices, joints = smplx.lbs.lbs(
        torch.cat([identity.shape[:7], params.expr])[None],
        axis_angle.reshape(1, -1),
        body.v_template + identity.face_offset,
        torch.cat([body.shape_dirs, body.expr_dirs], dim=2),
        body.pose_dirs,
        body.joint_regressor,
        body.parents,
        body.skinning_weights,
    )
    out = body.vertices(params, identity)
    torch.testing.assert_close(out.vertices, vertices[0] + params.trans, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out.joints, joints[0] + params.trans, atol=1e-5, rtol=1e-5)


def test_zero_pose_without_hand_mean_is_the_template():
    flat = np.zeros((15, 3), np.float32)
    body = BodyModel(replace(tiny_body_data(), left_hand_mean=flat, right_hand_mean=flat), 0)
    out = body.vertices(SmplxParams.zeros(), None)
    torch.testing.assert_close(out.vertices, body.v_template, atol=1e-6, rtol=0)
    torch.testing.assert_close(out.joints, body.joint_regressor @ body.v_template, atol=1e-6, rtol=0)


def test_axis_angle_and_matrices_give_the_same_body(body):
    params, identity = random_params(), random_identity(body)
    out, other = body.vertices(params, identity), body.vertices(SmplxPose.from_params(params), identity)
    torch.testing.assert_close(out.vertices, other.vertices, atol=1e-5, rtol=0)
    torch.testing.assert_close(out.joints, other.joints, atol=1e-5, rtol=0)


def test_float64_gives_the_same_body(body):
    params, identity = random_params(), random_identity(body)
    double = BodyModel(tiny_body_data(), 1).double()
    out, other = body.vertices(params, identity), double.vertices(params, identity)
    assert other.vertices.dtype == other.joints.dtype == torch.float64
    torch.testing.assert_close(out.vertices.double(), other.vertices, atol=1e-5, rtol=0)
    torch.testing.assert_close(out.joints.double(), other.joints, atol=1e-5, rtol=0)


def test_root_pose_and_trans_move_the_body_rigidly_about_the_pelvis(body):
    params, identity = random_params(), random_identity(body)
    rooted = body.vertices(replace(params, root_pose=torch.zeros(3), trans=torch.zeros(3)), identity)
    moved = body.vertices(params, identity)
    rotation = SmplxPose.from_params(params).rotation[0]
    pelvis = rooted.joints[0]
    expected = (rooted.vertices - pelvis) @ rotation.T + pelvis + params.trans
    torch.testing.assert_close(moved.vertices, expected, atol=1e-5, rtol=0)


def test_joint_offsets_move_joints_but_the_masked_root_stays(body):
    offset = torch.full((55, 3), 0.1)
    identity = Identity(torch.zeros(100), torch.zeros(body.n_vertices, 3), offset)
    plain = body.shaped(None).joints
    masked = body.shaped(identity).joints
    torch.testing.assert_close(masked[0], plain[0])
    torch.testing.assert_close(masked[1:], plain[1:] + 0.1)
    torch.testing.assert_close(body.shaped(identity, mask_root_offset=False).joints, plain + 0.1)


def renumbered(data: BodyData, new_id: np.ndarray) -> BodyData:
    """The same body with vertex i called new_id[i]."""
    old_id = np.argsort(new_id)
    rows = ("v_template", "shape_dirs", "expr_dirs", "pose_dirs", "skinning_weights")
    ids = ("faces", "left_hand_vertices", "right_hand_vertices", "expression_vertices")
    return replace(
        data,
        joint_regressor=data.joint_regressor[:, old_id],
        **{name: getattr(data, name)[old_id] for name in rows},
        **{name: new_id[getattr(data, name)] for name in ids},
    )


def test_everything_follows_a_renumbering_of_the_vertices(body):
    new_id = np.random.default_rng(3).permutation(body.n_vertices)
    other = BodyModel(renumbered(body.data, new_id), 1)
    params, identity = random_params(), random_identity(body)
    other_identity = replace(identity, face_offset=identity.face_offset[np.argsort(new_id)])
    out, other_out = body.vertices(params, identity), other.vertices(params, other_identity)
    torch.testing.assert_close(other_out.vertices[new_id], out.vertices, atol=1e-5, rtol=0)
    torch.testing.assert_close(other_out.joints, out.joints, atol=1e-5, rtol=0)
    for name, mask in vars(body.parts_low).items():
        assert torch.equal(getattr(other.parts_low, name)[new_id], mask), name
    for name, mask in vars(body.parts_high).items():
        assert getattr(other.parts_high, name).sum() == mask.sum(), name


def test_parts_are_as_their_data_say(body):
    data, low, high = body.data, body.parts_low, body.parts_high
    for part, ids in ((low.left_hand, data.left_hand_vertices), (low.right_hand, data.right_hand_vertices)):
        assert sorted(part.nonzero().squeeze(1).tolist()) == sorted(ids.tolist())
    assert torch.equal(low.hand, low.left_hand | low.right_hand)
    assert not (low.expression_boundary & ~low.expression).any()
    assert not (low.mouth_outside & low.mouth_inside).any()
    assert not (low.eye & ~low.face).any()
    for name, mask in vars(low).items():
        assert torch.equal(getattr(high, name)[: body.n_vertices], mask), name


def test_mouth_inside_faces_backwards_low_and_near_the_front():
    """The golden mesh has no vertices so near the limits: 0.015 m below the mean, 0.1 m behind the front."""
    heights = torch.tensor([0.02, 0.02, 0.02, 0.02, 0.0, -0.0155, -0.0145, -0.03, -0.03, -0.0205])
    heights[4] = -heights.sum()
    depths = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -0.0995, -0.1005, 0.0])
    template = torch.stack([torch.zeros(10), heights, depths], dim=1)
    normals = torch.tensor([0.0, 0.0, -1.0]).repeat(10, 1)
    normals[9, 2] = 1.0
    alone = NeighbourLists(torch.arange(10)[:, None], torch.zeros(10, 1))
    weights = torch.eye(55)[torch.full((10,), JOINTS.index("jaw"))]
    nothing = torch.zeros(0, dtype=torch.int64)
    parts = low_resolution_parts(template, normals, weights, nothing, nothing, torch.arange(10), alone)
    assert parts.mouth_inside.nonzero().squeeze(1).tolist() == [5, 7]


def test_eyes_and_face_of_the_fine_mesh_go_by_its_weights_other_parts_by_flags():
    """A midpoint between eye and head belongs to the eye if most of its weight is the eye's (SPEC 7)."""
    eye, head, neck = (JOINTS.index(name) for name in ("left_eye", "head", "neck"))
    weights = torch.zeros(3, 55)
    weights[0, eye], weights[1, head], weights[1, neck], weights[2, neck] = 1.0, 0.6, 0.4, 1.0
    flags = {name: torch.tensor([True, True, False]) for name in Parts.__dataclass_fields__}
    low = Parts(**{**flags, "eye": torch.tensor([True, False, False])})
    subdivider = Subdivider(np.array([[0, 1, 2]]), 3, 1)  # midpoints of 01, 02, 12
    high = high_resolution_parts(low, subdivider.interpolate(weights), subdivider)
    assert high.eye.tolist() == [True, False, False, True, False, False]
    assert high.face.tolist() == [True, True, False, True, False, False]
    assert high.expression.tolist() == [True, True, False, True, False, False]


def test_hand_faces_join_hand_vertices_only(body):
    is_hand = body.parts_low.left_hand
    inside = [face for face in body.faces.tolist() if all(is_hand[v] for v in face)]
    assert body.left_hand_faces.tolist() == inside


def test_a_closed_head_keeps_its_faces_and_an_open_mouth_is_closed(body):
    assert torch.equal(body.faces_closed_mouth, body.faces)
    data = body.data
    is_expression = np.isin(np.arange(data.n_vertices), data.expression_vertices)
    around = [data.faces[(data.faces == v).any(1)] for v in range(data.n_vertices)]
    mouth = next(v for v in range(data.n_vertices) if is_expression[around[v]].all())
    kept = ~(data.faces == mouth).any(1)
    opened = BodyModel(replace(data, faces=data.faces[kept], face_uv=data.face_uv[kept]), 0)
    n_added = opened.faces_closed_mouth.shape[0] - opened.faces.shape[0]
    assert n_added == (~kept).sum() - 2
    assert set(opened.faces_closed_mouth[-n_added:].flatten().tolist()) == set(around[mouth].flat) - {mouth}


def test_kinematic_reach_is_four_steps_in_the_tree(body):
    parents = body.parents.tolist()

    def ancestors(i):
        return [i, *ancestors(parents[i])] if i >= 0 else []

    for i in range(55):
        for j in range(55):
            a, b = ancestors(i), ancestors(j)
            common = next(k for k in a if k in b)
            n_steps = a.index(common) + b.index(common)
            assert bool(body.kinematic_reach[i, j]) == (n_steps <= 4)


def test_neutral_pose_spreads_the_legs_and_opens_the_jaw_only_if_asked(body):
    for jaw_open in (False, True):
        rotation = SmplxPose.from_params(neutral_pose_params(jaw_open)).rotation
        turned = (rotation - torch.eye(3)).abs().amax((1, 2)) > 1e-6
        assert turned.nonzero().squeeze(1).tolist() == ([1, 2, 22] if jaw_open else [1, 2])
    opened, closed = (body.neutral_vertices(None, jaw_open) for jaw_open in (True, False))
    assert (opened - closed).abs().max() > 0.01


def test_gradients_reach_pose_and_identity_also_at_rest(body):
    params = SmplxParams.zeros()
    leaves = {name: value.clone().requires_grad_() for name, value in vars(params).items()}
    identity = Identity(*(v.requires_grad_() for v in vars(Identity.zeros(body.n_vertices)).values()))
    for pose in (SmplxParams(**leaves), SmplxPose.from_params(SmplxParams(**leaves))):
        inputs = [*leaves.values(), *vars(identity).values()]
        weights = torch.linspace(-1, 1, body.n_vertices * 3).reshape(-1, 3)
        grads = torch.autograd.grad((body.vertices(pose, identity).vertices * weights).sum(), inputs)
        assert all(g.isfinite().all() and g.abs().max() > 0 for g in grads)


def test_posing_has_exact_gradients():
    body = BodyModel(tiny_body_data(), 0).double()
    params = random_params().to(torch.float64)

    def joints(body_pose, expr, lhand_pose):
        pose = replace(params, body_pose=body_pose, expr=expr, lhand_pose=lhand_pose)
        return body.vertices(pose, None).joints[20:30]

    leaves = (t.clone().requires_grad_() for t in (params.body_pose, params.expr, params.lhand_pose))
    assert torch.autograd.gradcheck(joints, tuple(leaves))


def test_bodies_without_pose_directions_or_subdivision_work():
    data = tiny_body_data()
    body = BodyModel(replace(data, pose_dirs=data.pose_dirs[:, :, :0]), 0)
    assert body.vertices(random_params(), None).vertices.isfinite().all()
    assert body.n_vertices_high == body.n_vertices
    assert torch.equal(body.faces_high, body.faces)


def test_nothing_of_the_body_is_saved(body):
    assert not body.state_dict()


def test_another_bodys_identity_is_refused_with_both_counts(body):
    with pytest.raises(ValueError, match=r"161 vertices.*162"):
        body.vertices(SmplxParams.zeros(), Identity.zeros(body.n_vertices - 1))
    with pytest.raises(ValueError, match="identity of shapes"):
        Identity(torch.zeros(10), torch.zeros(162, 3), torch.zeros(55, 3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_same_body(body):
    params, identity = random_params(), random_identity(body)
    device = BodyModel(tiny_body_data(), 1).cuda()
    out, other = body.vertices(params, identity), device.vertices(params, identity)
    torch.testing.assert_close(out.vertices, other.vertices.cpu(), atol=1e-5, rtol=0)


def test_expression_shapes_of_the_fine_mesh_are_made_on_first_use_for_all_that_comes():
    body = BodyModel(tiny_body_data(), n_subdivisions=1)
    expr = torch.randn(50, generator=torch.Generator().manual_seed(3), requires_grad=True)
    with torch.inference_mode():
        made = body.expr_dirs_high
    torch.testing.assert_close(made, body.subdivider.interpolate(body.expr_dirs), atol=0, rtol=0)
    (body.expr_dirs_high @ expr).sum().backward()
    assert expr.grad is not None and body.expr_dirs_high is made
    assert body.double().expr_dirs_high.dtype == torch.float64 and not body.state_dict()
    assert BodyModel(tiny_body_data(), n_subdivisions=1).double().expr_dirs_high.dtype == torch.float64
