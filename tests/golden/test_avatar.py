"""The avatar's forward and gradients against the published system's (golden 05)."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from common.avatar import Avatar, PosedAvatar
from common.camera import Camera
from common.pose import SmplxPose
from tests.golden import scene

EXACT = {"rtol": 2e-5, "atol": 2e-5}
ROUNDING = 1e-6  # relative, of weights: the sums over them round about as much


@pytest.fixture(scope="module")
def arrays(golden):
    return golden("05_persona.npz")


@pytest.fixture(scope="module")
def avatar(golden, golden_body, golden_field, dtype) -> Avatar:
    loaded = scene.load_avatar(golden_body, golden_field, golden("05_persona_state.npz"))
    return scene.in_dtype(loaded, dtype)


@pytest.fixture(scope="module")
def camera(arrays, dtype) -> Camera:
    return scene.camera_of(arrays, 1, 1).to(dtype)  # posing asks for no image size


@pytest.fixture(scope="module")
def pose(arrays, dtype) -> SmplxPose:
    return SmplxPose.from_params(scene.params_of(arrays).to(dtype))


@pytest.fixture(scope="module")
def posed(avatar, pose, camera, dtype) -> PosedAvatar:
    posed = avatar(pose, camera)
    assert posed.refined_mean.dtype == dtype
    return posed


def assert_near(actual, expected, **tolerance):
    """Equal to a stored array, in whichever precision it was computed."""
    scene.assert_close(actual, scene.tensor(expected).to(actual.dtype), **(tolerance or EXACT))


def test_identity_constants(avatar, arrays):
    assert_near(avatar.neutral_vertices, arrays["vert_neutral_pose"])
    assert_near(avatar.zero_pose_joints, arrays["joint_zero_pose"])
    template = scene.tensor(arrays["pos_enc_vert"])
    scene.assert_close(avatar.triplane_points.float(), template - template.mean(0), **EXACT)


def test_parts_of_the_gaussians(avatar, arrays):
    parts = avatar.body.parts_high
    for name, mask in (
        *(("is_hand", parts.hand), ("is_face", parts.face)),
        *(("is_face_expr", parts.expression), ("is_eye", parts.eye)),
    ):
        np.testing.assert_array_equal(mask, arrays[name])


def test_skinning_weights_of_base_and_refined(avatar, arrays, pose):
    base = avatar.neutral_vertices + avatar.mean_offset
    weights = avatar.skinning_weights(base)
    assert_near(weights, arrays["skinning_weight"])
    np.testing.assert_array_equal(weights.argmax(1).numpy(), arrays["joint_idx_argmax"])
    expression = avatar.body.expr_dirs_high @ pose.expr
    refined = base + scene.tensor(arrays["mean_offset_offset"]) + expression
    sampled = avatar.skinning_weights(refined)[scene.tensor(arrays["sample_idx"])]
    assert_near(sampled, arrays["skinning_weight_refined_sample"])


def test_triplane_features(avatar, arrays):
    rows = {int(vertex): row for row, vertex in enumerate(avatar.moving_index)}
    samples = [(rows[int(v)], i) for i, v in enumerate(arrays["sample_idx"]) if int(v) in rows]
    moving, index = (list(column) for column in zip(*samples, strict=True))
    # 2e-5 as the golden README has it: the places of the queries are rounded, and not alike on all processors.
    assert_near(avatar.triplane_features()[moving], arrays["tri_feat_sample"][index], rtol=2e-5, atol=2e-5)


def test_pose_offset(avatar, arrays, pose):
    offset = avatar.pose_offset(pose, scene.tensor(arrays["skinning_weight"]))
    assert_near(offset, arrays["mean_offset_offset"], rtol=0, atol=1e-6)


def test_joint_transforms(avatar, arrays, pose):
    assert_near(avatar.transforms(pose), arrays["transform_mat_joint"])


def test_posed_means_and_appearance(posed, arrays):
    assert_near(posed.base_mean, arrays["mean_3d"])
    assert_near(posed.refined_mean, arrays["mean_3d_refined"])
    assert_near(posed.vertices, arrays["vert"])
    assert_near(posed.scale.expand(-1, 3), arrays["scale"])
    assert_near(posed.appearance.rgb, arrays["rgb"])


def test_gaussians_are_isotropic_and_opaque(posed, arrays):
    """What this project leaves out is a constant in the published system."""
    assert posed.base.rotation is None and (arrays["rotation"] == [1, 0, 0, 0]).all()
    assert posed.base.opacity is None and (arrays["opacity"] == 1).all()


def samples_on_grid_planes(avatar: Avatar, margin: float = 1e-5) -> Tensor:
    """Gaussians (N,) with a field sample on a grid plane, where the trilinear field has two derivatives."""
    field, mean = avatar.skinning_field, avatar.neutral_vertices + avatar.mean_offset.detach()
    cells = torch.tensor(field.weights.shape[:3]) - 1
    points = (mean - field.lower) / (field.upper - field.lower) * cells
    steps = avatar.scale.detach().exp() / (field.upper - field.lower) * cells
    samples = torch.stack([points + k * steps for k in (-2, -1, 0, 1, 2)])
    return ((samples - samples.round()).abs() < margin).any(0).any(1)


@pytest.mark.parametrize("refined", [True, False])
def test_parameters_without_gradient(avatar, posed, golden_path, refined):
    mean = posed.refined_mean if refined else posed.base_mean
    parameters = dict(avatar.named_parameters())
    grads = torch.autograd.grad(mean.sum(), list(parameters.values()), allow_unused=True, retain_graph=True)
    without = {name for name, grad in zip(parameters, grads, strict=True) if grad is None or not grad.any()}
    stored = json.loads(golden_path("05_no_gradient.json").read_text())
    assert without == set(stored[f"no_gradient_{'refined' if refined else 'unrefined'}"])


def own_gradient_changes(avatar: Avatar, gradients: Callable[[], dict[str, Tensor]]) -> dict[str, float]:
    """How far our own gradients move when the offset net's weights do by rounding: much where a ReLU is at 0."""
    net, largest = list(avatar.mean_offset_offset_net.parameters()), defaultdict(float)
    kept, still = [weight.detach().clone() for weight in net], gradients()
    for seed in range(scene.N_JITTERS):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight, value in zip(net, kept, strict=True):
                noise = torch.randn(value.shape, generator=generator).to(value)
                weight.copy_(value * (1 + ROUNDING * noise))
        for name, grad in gradients().items():
            largest[name] = max(largest[name], scene.relative_error(grad, still[name]))
    with torch.no_grad():
        for weight, value in zip(net, kept, strict=True):
            weight.copy_(value)
    return largest


@pytest.mark.parametrize("refined", [True, False])
def test_gradients(avatar, arrays, camera, golden, refined):
    """Tolerances of the golden README: early layers and tri-plane 5e-3 (one ReLU unit sits on its threshold).

    In float64 that unit takes the other branch, so that layers 6 and 7 after it have 5e-3 too. In other arrays it may
    be another layer's: then our own gradients move as much when the weights do by rounding.
    """
    expected = golden("05_persona_grads.npz")
    prefix = "grad" if refined else "grad_unrefined"
    random = scene.tensor(expected["random_weight"])
    params = scene.params_of(arrays).to(avatar.mean_offset.dtype)
    leaves = {name: getattr(params, name).requires_grad_(True) for name in vars(params)}
    parameters = dict(avatar.named_parameters())

    def posed_mean() -> Tensor:
        posed = avatar(SmplxPose.from_params(params), camera)
        return posed.refined_mean if refined else posed.base_mean

    def gradients() -> dict[str, Tensor]:
        wanted = {f"{prefix}_pose.{name}": leaf for name, leaf in leaves.items()}
        wanted |= {f"{prefix}.{name}": parameter for name, parameter in parameters.items()}
        found = torch.autograd.grad(
            (posed_mean() * random).sum(), list(wanted.values()), allow_unused=True, materialize_grads=True
        )
        return dict(zip(wanted, found, strict=True))

    mean = posed_mean().detach()
    # A sum of some 10^4 terms of either sign: its rounding is that of their absolute values.
    rounding = 1e-6 * float((mean * random).abs().sum())
    loss = float(expected["loss_refined" if refined else "loss_unrefined"])
    assert float((mean * random).sum()) == pytest.approx(loss, abs=rounding, rel=1e-4)
    found, errors, tolerances = gradients(), {}, {}
    smooth = ~samples_on_grid_planes(avatar)
    assert smooth.float().mean() > 0.99
    early = (0, 1, 3, 4) if mean.dtype == torch.float32 else (0, 1, 3, 4, 6, 7)
    loose = (f"{prefix}.triplane", *(f"{prefix}.mean_offset_offset_net.{i}." for i in early))
    for name, grad in found.items():
        if name not in expected:
            assert not grad.any(), name
            continue
        rows = smooth.numpy() if name == f"{prefix}.mean_offset" else slice(None)
        errors[name] = scene.relative_error(grad[rows], expected[name][rows])
        of_net = "_net." in name or name.endswith(".triplane")
        tolerances[name] = 5e-3 if name.startswith(loose) else 3e-4 if of_net else 1e-4
    if any(error >= tolerances[name] for name, error in errors.items()):
        own = own_gradient_changes(avatar, gradients)
        failures = {n: (e, own[n]) for n, e in errors.items() if e >= max(tolerances[n], 2 * own[n])}
        assert not failures


def test_gaussian_outside_the_field_stays_with_the_body(avatar, arrays, camera, golden):
    """SPEC 18: the published system drops such a Gaussian into the camera; here it keeps border weights."""
    outside = golden("05_out_of_field.npz")
    index = scene.tensor(outside["vertex_idx"])
    with torch.no_grad():
        mean = avatar.neutral_vertices + avatar.mean_offset
        mean[index] += scene.tensor(outside["added_offset"])
        weights = avatar.skinning_weights(mean)[index]
    scene.assert_close(weights.sum(1), torch.ones_like(weights[:, 0]), rtol=0, atol=1e-5)
    centre = camera.camera_to_world(torch.zeros_like(camera.t))
    assert_near(centre, outside["camera_centre_world"])
    for name in ("mean_3d", "mean_3d_refined"):  # where the published Gaussian goes
        np.testing.assert_allclose(outside[name], np.broadcast_to(centre.float(), (len(index), 3)), atol=2e-5)
    assert (outside["joint_idx_argmax"] == 0).all()
    assert not np.allclose(outside["mean_3d"], arrays["mean_3d"][outside["vertex_idx"]], atol=0.1)
