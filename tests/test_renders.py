"""What is rendered, and what sends gradient where (SPEC 11)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from common.avatar import Avatar, PosedAvatar
from common.camera import Camera
from common.mesh import vertex_normals
from common.pose import SmplxPose
from common.renders import (
    BoundarySettings,
    Channel,
    TrainingRenders,
    boundary_channel,
    face_mesh_masks,
    hand_mesh_mask,
    over,
    render,
    render_fit,
    render_training,
    render_view,
)

SETTINGS = BoundarySettings(threshold=0.02, ratio=0.015, ratio_patch=0.06)


@pytest.fixture(scope="module")
def posed(avatar: Avatar, pose: SmplxPose, camera: Camera) -> PosedAvatar:
    return avatar(pose, camera)


@pytest.fixture(scope="module")
def vertices(avatar: Avatar, pose: SmplxPose, camera: Camera) -> Tensor:
    return avatar.body_vertices(pose, camera)


@pytest.fixture(scope="module")
def face_camera(camera: Camera) -> Camera:
    bbox = torch.tensor([8.0, 4.0, 16.0, 40.0], dtype=torch.float64)
    return camera.crop(bbox, 24, 24)


@pytest.fixture(scope="module")
def initial(avatar: Avatar) -> Tensor:
    return torch.sigmoid(avatar.rgb.detach()).roll(1, 0)


@pytest.fixture(scope="module")
def captured(avatar, posed, vertices, camera, face_camera, initial) -> TrainingRenders:
    return render_training(posed, lambda: vertices, avatar.body, camera, initial, face_camera, SETTINGS)


def test_over_puts_a_premultiplied_image_on_a_background():
    image, mask = torch.tensor([0.0, 0.3, 0.6]).view(3, 1, 1), torch.tensor([[[0.75]]])
    assert_close(over(image, mask, 1.0).flatten(), torch.tensor([0.25, 0.55, 0.85]))
    background = torch.tensor([0.4, 0.0, 0.2]).view(3, 1, 1)
    assert_close(over(image, mask, background).flatten(), torch.tensor([0.1, 0.3, 0.65]))


def test_one_pass_equals_a_pass_for_each_channel(posed, camera):
    gaussians = posed.refined
    channels = {
        "rgb": Channel(gaussians.rgb),
        "one": Channel(torch.ones_like(gaussians.scale), is_detached=True),
        "seg": Channel(posed.appearance.seg),
    }
    together = render(gaussians, camera, channels)
    assert together.keys() == channels.keys()
    for name, channel in channels.items():
        assert_close(together[name], render(gaussians, camera, {name: channel})[name], rtol=0, atol=1e-12)


def test_depth_is_camera_z_weighted_by_the_mask(avatar, posed, camera):
    flat = replace(posed, base_mean=posed.base_mean.detach().clone())
    z = camera.world_to_camera(flat.base_mean)[:, 2]
    view = render_view(flat.base, avatar.body, camera)
    inside = view["mask"] > 0.5
    depth = view["depth"][inside] / view["mask"][inside]
    assert inside.any()
    assert z.min() <= depth.min() and depth.max() <= z.max()


def test_normals_of_a_ball_point_right_up_and_towards_the_camera(avatar, posed, camera):
    body = avatar.body
    sphere = body.v_template / body.v_template.amax(0)  # the tiny body is a stretched sphere
    ball = torch.nn.functional.normalize(body.subdivider.interpolate(sphere)) * 0.6
    assert_close(vertex_normals(ball, body.faces_high), ball / 0.6, rtol=0, atol=0.2)
    in_front = camera.camera_to_world(ball + ball.new_tensor([0.0, 0.0, 3.0]))
    scale = torch.full_like(posed.scale, 0.05)
    view = render_view(replace(posed, base_mean=in_front, scale=scale).base, body, camera)
    right, up, towards = view["normal"] * 2 - 1
    half, middle = camera.height // 2, camera.width // 2
    assert (towards[half - 4 : half + 4, middle - 4 : middle + 4] > 0.8).all()
    assert (up[half - 10 : half - 4, middle] > 0.1).all() and (up[half + 4 : half + 10, middle] < -0.1).all()
    assert (right[half, middle + 4 : middle + 10] > 0.1).all()
    assert (right[half, middle - 10 : middle - 4] < -0.1).all()


def test_normals_are_zero_where_nothing_is(avatar, posed, camera):
    view = render_view(posed.base, avatar.body, camera)
    assert (view["mask"] == 0).any()
    assert (view["normal"][:, view["mask"][0] == 0] == 0).all()


# Which renders send gradient to what: geometry (offsets, scale, pose), own colour, auxiliary colour, parts.
GRADIENTS = {
    "base.image": "geometry rgb",
    "base.mask": "geometry",
    "base.image_aux": "rgb_aux",
    "base.image_detached": "rgb",
    "base.normal": "geometry",
    "base.seg": "geometry seg",
    "refined.image": "geometry rgb",
    "refined.image_aux": "rgb_aux",
    "refined.image_detached": "rgb",
    "refined.seg": "geometry seg",
    "face.image_initial": "geometry",
    "face.mask": "geometry",
    "face.eye_mask": "geometry",
    "hands.image": "rgb",
    "hands.mask": "geometry",
    "photo.patch.image": "geometry rgb",
    "photo.patch.image_aux": "geometry rgb_aux",
    "photo.patch.image_initial": "geometry",
    "photo.patch.image_detached": "rgb",
    "photo.patch.mask": "geometry",
    "hand_mesh_mask": "",
    "eye_mesh_mask": "",
    "photo.patch_face_mask": "",
    "photo.boundaries.base": "",
    "photo.boundaries.refined": "",
    "photo.boundaries.patch": "",
}


def attribute(value: object, path: str) -> Tensor:
    for name in path.split("."):
        value = getattr(value, name)
    assert isinstance(value, Tensor)
    return value


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_reach_what_they_should_and_nothing_else(avatar, captured, name):
    image = attribute(captured, name)
    assert (image != 0).any()
    leaves = {
        "geometry": (avatar.mean_offset, avatar.scale),
        "rgb": (avatar.rgb,),
        "rgb_aux": (avatar.rgb_aux,),
        "seg": (avatar.seg,),
    }
    reached = set()
    if image.requires_grad:
        weight = torch.rand(image.shape, generator=torch.Generator().manual_seed(0), dtype=image.dtype)
        flat = [leaf for group in leaves.values() for leaf in group]
        grads = iter(torch.autograd.grad((image * weight).sum(), flat, retain_graph=True, allow_unused=True))
        for group, members in leaves.items():
            some = [
                grad is not None and bool(grad.abs().max() > 0) for grad in (next(grads) for _ in members)
            ]
            if any(some):
                reached.add(group)
    assert reached == set(GRADIENTS[name].split())


def test_depth_sends_gradient_along_the_view_only_through_its_values(posed, avatar, camera):
    """The splats' places and sizes get none; the depths themselves do (SPEC 11)."""
    mean = posed.base_mean.detach().requires_grad_()
    scale = posed.scale.detach().requires_grad_()
    still = replace(posed, base_mean=mean, scale=scale)
    depth = render_view(still.base, avatar.body, camera)["depth"]
    grad_mean, grad_scale = torch.autograd.grad(depth.sum(), [mean, scale], allow_unused=True)
    in_camera = camera.rotate_to_camera(grad_mean)
    assert in_camera[:, :2].abs().max() < 1e-12
    assert in_camera[:, 2].max() > 0
    assert grad_scale is None or not grad_scale.any()


def test_face_renders_are_black_outside_the_face_but_occluded_by_all(avatar, posed, captured, camera):
    parts = avatar.body.parts_high
    is_face = (parts.expression | parts.eye)[:, None]
    colour = Channel(posed.appearance.rgb * is_face)
    assert_close(captured.face.image, render(posed.base, camera, {"face": colour})["face"])
    face_alone = posed.base.select(is_face[:, 0])
    alone = render(face_alone, camera, {"one": Channel(torch.ones_like(face_alone.scale))})["one"]
    assert (captured.face.mask <= alone + 1e-9).all()
    assert captured.face.mask.sum() < alone.sum()


def test_hands_are_rendered_alone_right_first(avatar, posed, captured, camera):
    parts = avatar.body.parts_high
    for i, is_hand in enumerate((parts.right_hand, parts.left_hand)):
        hand = posed.base.select(is_hand)
        alone = render(hand, camera, {"rgb": Channel(hand.rgb), "one": Channel(torch.ones_like(hand.scale))})
        assert_close(captured.hands.image[3 * i : 3 * i + 3], alone["rgb"])
        assert_close(captured.hands.mask[i : i + 1], alone["one"])


def test_refined_renders_come_from_the_refined_means(avatar, posed, captured, camera):
    refined = render_view(posed.refined, avatar.body, camera)
    assert_close(captured.refined.image, refined["image"])
    assert_close(captured.refined.normal, refined["normal"])
    seg = render(posed.refined, camera, {"seg": Channel(posed.appearance.seg)})["seg"]
    assert_close(captured.refined.seg, seg)
    assert (captured.base.seg - captured.refined.seg).abs().max() > 1e-3


def test_patch_is_the_same_scene_through_the_face_camera(posed, captured, face_camera):
    rgb = render(posed.base, face_camera, {"rgb": Channel(posed.base.rgb)})["rgb"]
    assert_close(captured.photo.patch.image_detached, rgb)
    assert captured.photo.patch.mask.shape == (1, 24, 24)


def test_generated_frames_have_no_photo_renders(avatar, posed, vertices, camera, initial, captured):
    generated = render_training(posed, lambda: vertices, avatar.body, camera, initial, None, SETTINGS)
    assert generated.photo is None
    assert_close(generated.refined.image, captured.refined.image)
    assert_close(generated.face.image_initial, captured.face.image_initial)


def test_fitting_renders_are_those_of_training(avatar, posed, camera, captured):
    fit = render_fit(posed, avatar.body, camera)
    for name in ("image", "mask", "depth", "normal", "seg"):
        assert_close(getattr(fit.base, name), getattr(captured.base, name))
        assert_close(getattr(fit.refined, name), getattr(captured.refined, name))


def test_boundary_colours_are_centred_positions_in_metres():
    positions = torch.tensor([[0.0, 1.0, 2.0], [0.5, 1.0, -2.0]], requires_grad=True)
    channel = boundary_channel(positions)
    assert channel.is_detached and not channel.value.requires_grad
    assert_close(channel.value, torch.tensor([[0.375, 0.5, 1.5], [0.625, 0.5, -0.5]]))


def test_hand_mesh_masks_show_their_own_triangles_only(avatar, vertices, camera):
    masks = hand_mesh_mask(vertices, avatar.body, camera)
    assert masks.shape == (2, camera.height, camera.width)
    for mask, is_hand in zip(
        masks, (avatar.body.parts_low.right_hand, avatar.body.parts_low.left_hand), strict=True
    ):
        pixels = camera.project(vertices[is_hand])
        rows, columns = (mask > 0).nonzero(as_tuple=True)
        assert len(rows) > 0
        assert pixels[:, 0].min() - 1 <= columns.min() and columns.max() <= pixels[:, 0].max() + 1
        assert pixels[:, 1].min() - 1 <= rows.min() and rows.max() <= pixels[:, 1].max() + 1


def test_face_mesh_masks_know_what_hides_the_face(avatar, vertices, camera):
    face, eye = face_mesh_masks(vertices, avatar.body, camera)
    assert (eye <= face + 1e-12).all()
    assert face.max() > 0
    centre = vertices.mean(0)
    behind = replace(camera, R=camera.R * camera.R.new_tensor([[-1.0], [1.0], [-1.0]]))
    turned = replace(
        behind, t=camera.t - (behind.R - camera.R) @ centre
    )  # half a turn about the body's middle
    assert not torch.equal(face_mesh_masks(vertices, avatar.body, turned)[0], face)
