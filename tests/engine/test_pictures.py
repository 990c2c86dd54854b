"""The engine's pictures are those of the plain path, for any pose, camera and background."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch

from common.avatar import Avatar
from common.engine import Engine, Shot, frame_source, pictures
from common.engine.plain import render_plain
from common.engine.pose_rows import PoseRow, PoseRows
from common.engine.static_avatar import StaticAvatar
from common.frame_label import draw_number
from common.io.image import to_uint8
from common.io.video import to_yuv420
from common.pose import SmplxPose
from tests.tiny_person import tiny_avatar, tiny_camera, tiny_params

HEIGHT, WIDTH = 48, 32
N_FRAMES = 20


@pytest.fixture(scope="module")
def avatar() -> Avatar:
    """An avatar whose pose-driven offsets can be seen."""
    person = tiny_avatar()
    with torch.no_grad():
        person.mean_offset_offset_net[-1].weight.mul_(10)
    return person


@pytest.fixture(scope="module")
def shots() -> list[Shot]:
    """Poses and cameras in turn, every third frame before a background."""
    backgrounds = np.random.default_rng(0).integers(0, 256, (N_FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    return [
        Shot(
            tiny_params(seed),
            tiny_camera(HEIGHT, WIDTH, is_moved=seed % 2 == 1),
            (lambda seed=seed: backgrounds[seed]) if seed % 3 == 0 else None,
        )
        for seed in range(N_FRAMES)
    ]


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    """Fewer frames at once than the tests have."""
    monkeypatch.setattr(frame_source, "CHUNK", 6)
    monkeypatch.setattr(frame_source, "BACKGROUNDS_AHEAD", 4)


def plain_picture(avatar: Avatar, shot: Shot) -> np.ndarray:
    background = 1.0
    if shot.background is not None:
        background = torch.from_numpy(shot.background()).permute(2, 0, 1).float() / 255
    return to_uint8(render_plain(avatar, shot.params, shot.camera, background))


def test_pictures_equal_the_plain_path(avatar, shots):
    drawn = list(Engine(avatar, HEIGHT, WIDTH).pictures(shots))
    assert len(drawn) == N_FRAMES
    for shot, picture in zip(shots, drawn, strict=True):
        expected = plain_picture(avatar, shot)
        assert picture.shape == (HEIGHT, WIDTH, 3) and picture.dtype == np.uint8
        assert expected.std() > 20, "the avatar is in the picture"
        assert np.abs(picture.astype(int) - expected).max() <= 1


def test_poses_change_the_offsets_and_expressions_move_the_face(avatar):
    static, rows = StaticAvatar.of(avatar), PoseRows(avatar)
    params, camera = tiny_params(3), tiny_camera()
    still = replace(params, body_pose=torch.zeros_like(params.body_pose))
    calm = replace(params, expr=torch.zeros_like(params.expr))
    posed, unbent, unmoved = (
        static.neutral_mean(PoseRow.of(row, HEIGHT, WIDTH))
        for row in rows.pack([params, still, calm], [camera] * 3)
    )
    assert (posed - unbent).abs().max() > 1e-3
    assert (posed - unmoved).abs().max() > 1e-3


def test_means_equal_the_avatars(avatar):
    static, rows = StaticAvatar.of(avatar), PoseRows(avatar)
    params, camera = tiny_params(5), tiny_camera()
    with torch.no_grad():
        expected = avatar(SmplxPose.from_params(params), camera).refined_mean
        found = static.mean(PoseRow.of(rows.pack([params], [camera])[0], HEIGHT, WIDTH))
    assert (found - expected).abs().max() < 1e-5


def test_an_avatar_without_offsets_is_drawn(avatar, shots):
    bare = tiny_avatar()
    bare.config = replace(bare.config, without_pose_offsets=True)
    (picture,) = Engine(bare, HEIGHT, WIDTH).pictures(shots[1:2])
    assert np.abs(picture.astype(int) - plain_picture(bare, shots[1])).max() <= 1


def test_the_panel_stands_on_the_left(avatar, shots):
    panel = np.random.default_rng(1).integers(0, 256, (HEIGHT, 5, 3), np.uint8)
    (alone,) = Engine(avatar, HEIGHT, WIDTH).pictures(shots[:1])
    (beside,) = Engine(avatar, HEIGHT, WIDTH, panel).pictures(shots[:1])
    np.testing.assert_array_equal(beside, np.concatenate([panel, alone], axis=1))
    with pytest.raises(ValueError, match="48 rows"):
        Engine(avatar, HEIGHT, WIDTH, panel[1:])


def test_an_engine_for_video_gives_the_planes_of_numbered_pictures(avatar, shots):
    panel = np.full((HEIGHT, 5, 3), 200, np.uint8)
    numbered = [replace(shot, number=i) for i, shot in enumerate(shots)]
    bare = Engine(avatar, HEIGHT, WIDTH, panel).pictures(shots)
    found = Engine(avatar, HEIGHT, WIDTH, panel, is_video=True).pictures(numbered)
    for i, (picture, planes) in enumerate(zip(bare, found, strict=True)):
        draw_number(picture, i)
        np.testing.assert_array_equal(planes, to_yuv420(picture))


def test_a_broken_background_is_reported(avatar, shots):
    def unreadable() -> np.ndarray:
        raise OSError("no such image")

    broken = replace(shots[0], background=unreadable)
    with pytest.raises(OSError, match="no such image"):
        list(Engine(avatar, HEIGHT, WIDTH).pictures([shots[1], broken]))


def test_kernels_that_do_not_work_leave_the_slower_engine_and_a_warning(avatar, shots, monkeypatch, caplog):
    class Broken:
        def __init__(self, *args: object) -> None:
            raise RuntimeError("no compiler")

    module = ModuleType("common.engine.gpu_drawing")
    module.GpuDrawing = Broken
    monkeypatch.setitem(sys.modules, "common.engine.gpu_drawing", module)
    static = replace(StaticAvatar.of(avatar), base=torch.empty(3, 3, device="meta"))
    monkeypatch.setattr(pictures, "_is_gpu", lambda device: True)
    drawing = pictures._drawing(static, HEIGHT, WIDTH, None, torch.zeros(1), False)
    assert isinstance(drawing, pictures.PlainDrawing)
    assert "no compiler" in caplog.text
