"""The avatar against slow twins in plain loops, known answers and numerical gradients (SPEC 9)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from common.avatar import Avatar, PosedAvatar, blend_transforms
from common.camera import Camera
from common.joints import PARENTS
from common.pose import SmplxPose, rotation_to_6d
from tests.tiny_person import tiny_avatar, tiny_camera

EXACT = {"rtol": 0.0, "atol": 1e-9}
EVERY = 3  # the slow net visits every third vertex


@pytest.fixture(scope="module")
def posed(avatar: Avatar, pose: SmplxPose, camera: Camera) -> PosedAvatar:
    with torch.no_grad():
        return avatar(pose, camera)


def plane_value(plane: Tensor, x: float, y: float) -> Tensor:
    """Bilinear value (C,) of a plane (C, S, S) over [-1, 1], x along columns, pixel centres inside; 0 beyond."""
    size = plane.shape[-1]
    column, row = ((c + 1) / 2 * size - 0.5 for c in (x, y))
    value = torch.zeros_like(plane[:, 0, 0])
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            if 0 <= i < size and 0 <= j < size:
                value += plane[:, i, j] * (1 - abs(row - i)) * (1 - abs(column - j))
    return value


def slow_triplane_features(avatar: Avatar, vertex: int) -> Tensor:
    """96 features of one vertex: planes xy, xz, yz."""
    x, y, z = avatar.triplane_points[vertex].tolist()
    xy, xz, yz = avatar.triplane
    return torch.cat([plane_value(xy, x, y), plane_value(xz, x, z), plane_value(yz, y, z)])


def rings_apart(a: int, b: int) -> int:
    """Number of bones between two joints."""

    def chain(joint: int) -> list[int]:
        return [joint] if PARENTS[joint] < 0 else [joint, *chain(PARENTS[joint])]

    common = next(joint for joint in chain(a) if joint in chain(b))
    return chain(a).index(common) + chain(b).index(common)


def slow_pose_offset(avatar: Avatar, pose: SmplxPose, weights: Tensor) -> Tensor:
    """Some vertices' own 96 + 126 features through the whole net."""
    parts = avatar.body.parts_high
    offsets = []
    for vertex in range(0, len(weights), EVERY):
        if parts.hand[vertex] or parts.expression[vertex] or parts.eye[vertex]:
            offsets.append(torch.zeros(3, dtype=weights.dtype))
            continue
        dominant = int(weights[vertex].argmax())
        six = [
            rotation_to_6d(pose.rotation[joint]) * (rings_apart(dominant, joint) <= 4)
            for joint in range(1, 22)
        ]
        features = torch.cat([slow_triplane_features(avatar, vertex), *six])
        assert features.shape == (96 + 126,)
        offsets.append(avatar.mean_offset_offset_net(features[None])[0] / 100)
    return torch.stack(offsets)


@torch.no_grad()
def test_pose_offset_equals_the_whole_net_vertex_by_vertex(avatar, pose):
    weights = avatar.skinning_weights(avatar.neutral_vertices + avatar.mean_offset)
    assert len(weights.argmax(1).unique()) > 10  # many different dominant joints
    offset = avatar.pose_offset(pose, weights)
    assert offset.abs().max() > 1e-4
    assert_close(offset[::EVERY], slow_pose_offset(avatar, pose, weights), **EXACT)


@torch.no_grad()
def test_triplane_points_are_centred_and_span_a_two_metre_cube(avatar):
    open_jaw = avatar.body.subdivider.interpolate(avatar.body.neutral_vertices(None, jaw_open=True))
    assert_close(avatar.triplane_points.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-7, rtol=0)
    assert_close(avatar.triplane_points, open_jaw - open_jaw.mean(0), atol=1e-6, rtol=0)


def test_pose_features_are_constants(avatar, pose):
    rotation = pose.rotation.clone().requires_grad_()
    weights = avatar.skinning_weights(avatar.neutral_vertices).detach()
    offset = avatar.pose_offset(SmplxPose(rotation, pose.expr, pose.trans), weights)
    grads = torch.autograd.grad(offset.sum(), [rotation, avatar.triplane], allow_unused=True)
    assert grads[0] is None
    assert grads[1].abs().max() > 0


def slow_skinning(
    points: Tensor, weights: Tensor, pose: SmplxPose, avatar: Avatar, neutral: SmplxPose, camera: Camera
) -> Tensor:
    """Neutral pose -> zero pose -> target pose by chains of 4x4 matrices, then camera -> world, point by point."""

    def chain(rotation: Tensor) -> list[np.ndarray]:
        """Transforms of the joints from the zero pose."""
        joints, result = avatar.zero_pose_joints.numpy(), []
        for joint, parent in enumerate(PARENTS):
            about = np.eye(4)
            about[:3, :3] = rotation[joint].numpy()
            about[:3, 3] = joints[joint] - about[:3, :3] @ joints[joint]
            result.append(about if parent < 0 else result[parent] @ about)
        return result

    to_target, to_neutral = chain(pose.rotation), chain(neutral.rotation)
    out = []
    for point, weight in zip(points.numpy(), weights.numpy(), strict=True):
        blended = sum(
            w * (a @ np.linalg.inv(b)) for w, a, b in zip(weight, to_target, to_neutral, strict=True)
        )
        in_camera = blended[:3, :3] @ point + blended[:3, 3] + weight.sum() * pose.trans.numpy()
        out.append(camera.R.numpy().T @ (in_camera - camera.t.numpy()))
    return torch.from_numpy(np.array(out))


@torch.no_grad()
def test_posed_means_equal_slow_skinning(avatar, pose, camera, posed):
    """Base weights are looked up without the expression, refined ones with it (published quirk)."""
    neutral = SmplxPose.from_params(avatar.body.neutral_pose_params(jaw_open=False))
    expression = avatar.body.expr_dirs_high @ pose.expr
    base = avatar.neutral_vertices + avatar.mean_offset
    weights = avatar.skinning_weights(base)
    refined = base + avatar.pose_offset(pose, weights)
    weights_refined = avatar.skinning_weights(refined + expression)
    assert (weights - weights_refined).abs().max() > 1e-3
    for mean, points, blend in (
        (posed.vertices, avatar.neutral_vertices + expression, weights),
        (posed.base_mean, base + expression, weights),
        (posed.refined_mean, refined + expression, weights_refined),
    ):
        # The inverse of the neutral transforms was taken in float32.
        assert_close(mean, slow_skinning(points, blend, pose, avatar, neutral, camera), rtol=0, atol=2e-6)


@torch.no_grad()
def test_the_neutral_pose_leaves_the_avatar_where_it_is(avatar):
    params = avatar.body.neutral_pose_params(jaw_open=False).to(torch.float64)
    posed = avatar(SmplxPose.from_params(params), tiny_camera(is_moved=False, dtype=torch.float64))
    assert_close(posed.base_mean, posed.base_neutral, rtol=0, atol=1e-6)
    assert_close(posed.vertices, avatar.neutral_vertices, rtol=0, atol=1e-6)


@torch.no_grad()
def test_hands_and_face_keep_the_bodys_own_weights(avatar):
    weights, parts = avatar.skinning_weights(avatar.neutral_vertices), avatar.body.parts_high
    own = parts.hand | parts.face
    assert own.any() and not own.all()
    assert torch.equal(weights[own], avatar.body.skinning_weights_high[own])
    field = avatar.skinning_field.sample(avatar.neutral_vertices[~own], avatar.scale.exp()[~own])
    assert torch.equal(weights[~own], field)


def test_gradients_equal_finite_differences(avatar, pose, camera):
    """Of everything that moves the means; mean_offset also acts through the skinning weight lookup.

    Base means only for the pose: the pose features of the refined ones are constants (SPEC 9).
    """
    generator = torch.Generator().manual_seed(0)
    out_weight = torch.randn(avatar.mean_offset.shape, generator=generator, dtype=torch.float64)

    def value(offset: Tensor, rotation: Tensor, expr: Tensor, trans: Tensor) -> Tensor:
        parameters = {"mean_offset": offset}
        posed = torch.func.functional_call(
            avatar, parameters, (SmplxPose(rotation, expr, trans), camera), strict=False
        )
        return (posed.base_mean * out_weight).sum()

    leaves = [avatar.mean_offset.detach(), pose.rotation, pose.expr, pose.trans]
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    grads = torch.autograd.grad(value(*leaves), leaves)
    for i, grad in enumerate(grads):
        direction = torch.randn(grad.shape, generator=generator, dtype=torch.float64)
        step = 1e-7
        moved = [
            [leaf + sign * step * direction if k == i else leaf for k, leaf in enumerate(leaves)]
            for sign in (1, -1)
        ]
        with torch.no_grad():
            numerical = (value(*moved[0]) - value(*moved[1])) / (2 * step)
        assert float((grad * direction).sum()) == pytest.approx(float(numerical), rel=1e-4)


def test_blending_weights_that_are_one_hot_picks_the_transform():
    transforms = torch.randn(55, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(blend_transforms(torch.eye(55), transforms), transforms[:, :3])


def test_body_vertices_are_the_body_function_in_world_space_without_gradient(avatar, pose, camera):
    vertices = avatar.body_vertices(pose, camera)
    assert not vertices.requires_grad
    expected = avatar.body.vertices(pose, avatar.identity).vertices
    assert_close(camera.world_to_camera(vertices), expected, **EXACT)


def test_snapshot_keys_are_the_published_ones(avatar):
    linear, norm = (0, 3, 6, 9), (1, 4, 7)
    net = {f"mean_offset_offset_net.{i}.{kind}" for i in linear + norm for kind in ("weight", "bias")}
    parameters = {"triplane", "mean_offset", "scale", "rgb", "rgb_aux", "seg"}
    assert set(avatar.state_dict()) == net | parameters | {"shape_param", "face_offset", "joint_offset"}
    assert dict(avatar.named_parameters()).keys() == net | parameters


def test_a_state_dict_makes_the_same_avatar(avatar, pose, camera, posed):
    other = tiny_avatar(seed=0).double()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    other.load_state_dict(avatar.state_dict())
    assert torch.equal(other(pose, camera).refined_mean, posed.refined_mean)
