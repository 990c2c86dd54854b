"""The viewer's state decides what is shown: poses, edits, colours, places."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import roma
import torch

from common.avatar import Avatar
from common.camera import Camera
from common.joints import JOINTS, joint_index
from common.pose import SmplxPose
from common.renders import normal_channel
from common.viewer.scene import Scene
from common.viewer.state import PoseEdit, ViewerState, bounded, checked_edit, edited
from common.viewer.track import track_of
from tests.tiny_person import tiny_avatar, tiny_camera, tiny_params

N_FRAMES = 4


@pytest.fixture(scope="module")
def avatar() -> Avatar:
    """A tiny person."""
    return tiny_avatar()


@pytest.fixture
def scene(avatar: Avatar) -> Scene:
    """A motion whose camera turns and moves, and whose person walks away."""
    frames = []
    for i in range(N_FRAMES):
        params, camera = tiny_params(seed=i), tiny_camera()
        turn = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.3 * i, 0.1 * i]))
        camera = replace(camera, R=turn @ camera.R, t=camera.t + 0.1 * i)
        frames.append(SimpleNamespace(params=replace(params, trans=params.trans + 0.4 * i), camera=camera))
    return Scene(avatar, track_of(avatar, SimpleNamespace(name="walk", frames=frames), 30.0))


def assert_close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("is_refined", [True, False])
@pytest.mark.parametrize("frame", range(N_FRAMES))
def test_a_frame_without_edits_is_the_avatar_in_the_motions_pose(scene, avatar, frame, is_refined):
    shown = scene.gaussians(ViewerState(frame=frame, is_refined=is_refined), scene.track.camera)
    with torch.no_grad():
        posed = avatar(*scene.track.pose(frame))
    expected = posed.refined if is_refined else posed.base
    for name in ("mean", "scale", "rgb"):
        assert_close(getattr(shown, name), getattr(expected, name))


def test_what_is_shown_does_not_depend_on_what_was_shown_before(scene, avatar):
    states = [
        ViewerState(frame=frame, is_refined=is_refined, stays_in_place=stays, edit=edit)
        for frame in (0, 2, None)
        for is_refined in (True, False)
        for stays in (False, True)
        for edit in (PoseEdit(), PoseEdit({"left_elbow": (10.0, 50.0, 0.0)}, {1: 1.0}))
    ]
    alone = [Scene(avatar, scene.track).mean(state) for state in states]
    for order in (range(len(states)), reversed(range(len(states)))):
        for i in order:
            assert torch.equal(scene.mean(states[i]), alone[i])


def test_only_as_many_frames_are_kept_as_there_is_room_for(scene, monkeypatch):
    scene._n_kept = 2
    first = scene.mean(ViewerState(frame=0))
    assert scene.mean(ViewerState(frame=0)) is first
    for frame in range(N_FRAMES):
        scene.mean(ViewerState(frame=frame))
        assert len(scene._kept) <= 2


def test_an_edit_turns_the_joint_about_its_own_axes_in_the_order_x_y_z():
    pose = SmplxPose.from_params(tiny_params(seed=1))
    turned = edited(pose, PoseEdit({"left_knee": (20.0, -30.0, 40.0)}, {3: 0.5}))
    knee = joint_index("left_knee")
    x, y, z = (
        roma.rotvec_to_rotmat(torch.deg2rad(torch.tensor(axis)))
        for axis in ([20.0, 0, 0], [0, -30.0, 0], [0, 0, 40.0])
    )
    assert_close(turned.rotation[knee], pose.rotation[knee] @ x @ y @ z)
    others = [i for i in range(len(JOINTS)) if i != knee]
    assert torch.equal(turned.rotation[others], pose.rotation[others])
    assert_close(turned.expr - pose.expr, torch.nn.functional.one_hot(torch.tensor(3), 50) * 0.5)


def test_an_edit_moves_only_what_hangs_on_the_joint(scene):
    rest = ViewerState(frame=0, is_refined=False)
    moved = replace(rest, edit=PoseEdit({"head": (0.0, 40.0, 0.0)}))
    distance = (scene.mean(moved) - scene.mean(rest)).norm(dim=1)
    weights = scene.avatar.skinning_weights(scene.avatar.neutral_vertices + scene.avatar.mean_offset)
    head = [JOINTS.index(name) for name in ("head", "jaw", "left_eye", "right_eye")]
    hangs_on_head = weights[:, head].sum(1)
    assert distance[hangs_on_head > 0.5].mean() > 0.01
    assert distance[hangs_on_head == 0].numel() == 0 or distance[hangs_on_head == 0].max() < 1e-5


def test_values_that_no_slider_can_have_are_brought_into_range():
    assert bounded(float("nan"), -3.0, 3.0) == 0.0
    assert bounded(float("inf"), 1.0, 3.0) == 1.0
    assert bounded(7.0, -3.0, 3.0) == 3.0
    edit = checked_edit(
        {"../../etc": (1.0, 0.0, 0.0), "neck": (1.0, 0.0, 0.0), "jaw": (0.0, 0.0, 0.0)}, {99: 1.0, 2: 1.0}
    )
    assert edit == PoseEdit({"neck": (1.0, 0.0, 0.0)}, {2: 1.0})
    pose = edited(
        SmplxPose.from_params(tiny_params(0)), PoseEdit({"neck": (float("nan"), 1e30, 0.0)}, {0: 1e30})
    )
    assert torch.isfinite(pose.rotation).all() and pose.expr.abs().max() < 10


def test_staying_in_place_keeps_the_pelvis_above_its_first_place(scene):
    up = -scene.track.camera.R[1]
    pelves = [scene.pelvis(ViewerState(frame=i, stays_in_place=True)) for i in range(N_FRAMES)]
    for frame, pelvis in enumerate(pelves):
        way = pelvis - pelves[0]
        assert_close(way, (way @ up) * up)
        free = ViewerState(frame=frame)
        kept = replace(free, stays_in_place=True)
        assert_close(
            scene.mean(kept) - scene.mean(free),
            (pelvis - scene.pelvis(free)).expand(len(scene.mean(free)), 3),
        )
    assert (scene.pelvis(ViewerState(frame=3)) - pelves[3]).norm() > 0.3


def test_the_neutral_pose_stands_upright_where_the_motion_begins(scene):
    camera = scene.track.camera
    pelvis = scene.pelvis(ViewerState(frame=None))
    assert_close(pelvis, scene.pelvis(ViewerState(frame=0)))
    in_camera = camera.world_to_camera(scene.mean(ViewerState(frame=None)))
    head = scene.avatar.body.parts_high.face
    assert in_camera[head, 1].mean() < camera.world_to_camera(pelvis)[1] - 0.3  # y is down


def test_without_a_motion_there_is_the_neutral_pose(avatar):
    scene = Scene(avatar, track_of(avatar, None, 30.0))
    assert torch.equal(scene.mean(ViewerState(frame=3)), scene.mean(ViewerState(frame=None)))
    pixels = scene.track.camera.project(scene.mean(ViewerState()))
    assert (pixels > 0).all() and (pixels < scene.track.camera.height).all()


def test_normals_are_those_of_the_normal_maps(scene, avatar):
    eye: Camera = tiny_camera()
    shown = scene.gaussians(ViewerState(frame=1, look="normal"), eye)
    expected = normal_channel(shown.mean, avatar.body, eye).value
    assert_close(shown.rgb, (expected + 1) / 2)


def test_depth_is_white_at_the_nearest_and_black_at_the_farthest_gaussian(scene):
    eye = tiny_camera()
    shown = scene.gaussians(ViewerState(frame=1, look="depth"), eye)
    depth = eye.world_to_camera(shown.mean)[:, 2]
    assert shown.rgb[depth.argmin()].tolist() == [1, 1, 1] and shown.rgb[depth.argmax()].tolist() == [0, 0, 0]
    middle = depth.argsort()[len(depth) // 2]
    expected = (depth.max() - depth[middle]) / (depth.max() - depth.min())
    assert_close(shown.rgb[middle], expected.expand(3))


def test_parts_are_the_avatars_part_colours(scene, avatar):
    shown = scene.gaussians(ViewerState(frame=1, look="parts"), tiny_camera())
    assert_close(shown.rgb, torch.sigmoid(avatar.seg))
