"""The engine's kernels against its torch functions: on a GPU, or in Triton's interpreter (test_interpreted.py)."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")
HAS_GPU = torch.cuda.is_available()
if not HAS_GPU and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("no CUDA device; test_interpreted.py runs these tests", allow_module_level=True)

from common import frame_label
from common.engine import Engine, Shot, posing_triton
from common.engine.picture_triton import compose, draw_number, write_planes
from common.engine.plain import render_plain
from common.engine.pose_rows import PoseRow, PoseRows
from common.engine.posing_triton import TritonNet, TritonPosing
from common.engine.static_avatar import StaticAvatar
from common.frame_label import digit_coverage, digits_of
from common.io.image import to_uint8
from common.rasterizer import triton_tile_lists
from common.yuv420 import planes_size
from tests.slow_yuv420 import ROUNDED, slow_planes
from tests.tiny_person import tiny_avatar, tiny_camera, tiny_params

DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
HEIGHT, WIDTH = 48, 32
needs_gpu = pytest.mark.skipif(not HAS_GPU, reason="needs a CUDA device")


@pytest.fixture(scope="module")
def avatar():
    """An avatar whose pose-driven offsets are large."""
    person = tiny_avatar()
    with torch.no_grad():
        person.mean_offset_offset_net[-1].weight.mul_(10)
    return person.to(DEVICE)


@pytest.mark.parametrize(("n_terms", "tolerance"), [(3, 1e-6), (1, 1e-3)])
@torch.no_grad()
def test_offsets(avatar, n_terms, tolerance):
    net = StaticAvatar.of(avatar).net
    row = PoseRows(avatar).pack([tiny_params(1)], [tiny_camera()])[0].to(DEVICE)
    pose_6d = PoseRow.of(row, HEIGHT, WIDTH).pose_6d
    expected = net.offset(pose_6d)
    found = TritonNet(net, n_terms).offset(pose_6d)
    assert (found - expected).abs().max() < tolerance * expected.abs().max()


@torch.no_grad()
def test_means_with_a_grid_point_that_is_not_prepared(avatar, monkeypatch):
    if not HAS_GPU:
        monkeypatch.setattr(posing_triton, "POSE_BLOCK", 256)  # the interpreter is slow by programs
    static = StaticAvatar.of(avatar)
    row = PoseRows(avatar).pack([tiny_params(2)], [tiny_camera()])[0].to(DEVICE)
    pose, posing = PoseRow.of(row, HEIGHT, WIDTH), TritonPosing(static)
    expected = static.mean(pose)
    neutral, field = static.neutral_mean(pose)[0], static.field
    size = torch.tensor(field.weights.shape[:3], device=DEVICE)
    cell = ((neutral - field.lower) / (field.upper - field.lower) * (size - 1)).floor().long()
    x, y, z = cell.clamp(torch.zeros_like(size), size - 2).tolist()
    posing.node_row[(x * int(size[1]) + y) * int(size[2]) + z] = -1
    posing.check(pose)
    assert (posing.out - expected).abs().max() < 1e-5
    assert 0 < int((posing.is_missing != 0).sum()) < len(posing.is_missing)


@torch.no_grad()
def test_kernels_that_are_wrong_are_noticed(avatar, monkeypatch):
    static = StaticAvatar.of(avatar)
    row = PoseRows(avatar).pack([tiny_params(2)], [tiny_camera()])[0].to(DEVICE)
    posing = TritonPosing(static)
    for wrong in (torch.zeros_like(static.base), torch.full_like(static.base, torch.nan)):
        monkeypatch.setattr(posing, "mean", lambda pose, wrong=wrong: wrong)
        with pytest.raises(RuntimeError, match="off by"):
            posing.check(PoseRow.of(row, HEIGHT, WIDTH))


@pytest.mark.parametrize("has_background", [False, True])
def test_composition(has_background):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(4, 7, 9, generator=generator) * 1.2 - 0.1
    background = torch.randint(0, 256, (7, 9, 3), generator=generator, dtype=torch.uint8)
    picture = torch.full((7, 15, 3), 77, dtype=torch.uint8, device=DEVICE)
    is_broken = torch.ones(1, dtype=torch.uint8, device=DEVICE)
    compose(image.to(DEVICE), background.to(DEVICE) if has_background else None, picture, 6, is_broken)
    behind = background.permute(2, 0, 1).float() / 255 if has_background else 1.0
    expected = to_uint8(image[:3] + behind * (1 - image[3:]))
    found = picture.cpu().numpy()
    assert np.abs(found[:, 6:].astype(int) - expected).max() <= 1
    assert (found[:, :6] == 77).all() and not int(is_broken)
    compose(image.fill_(torch.nan).to(DEVICE), None, picture, 6, is_broken)
    assert int(is_broken)


@pytest.mark.parametrize(("height", "width"), [(6, 10), (7, 9), (2, 2), (1, 1), (34, 47)])
def test_video_planes_are_those_of_the_slow_twin(height, width):
    picture = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(0))
    picture = picture.to(torch.uint8)
    planes = torch.zeros(planes_size(height, width), dtype=torch.uint8, device=DEVICE)
    write_planes(picture.to(DEVICE), planes)
    assert np.abs(planes.cpu().numpy() - slow_planes(picture.numpy())).max() < ROUNDED


@pytest.mark.parametrize("panel_width", [0, 9, 60])
@pytest.mark.parametrize("height", [12, 40])
def test_numbers_are_drawn_as_on_the_cpu_and_leave_nothing_behind(height, panel_width):
    generator = np.random.default_rng(0)
    panel = generator.integers(0, 256, (height, panel_width, 3), np.uint8)
    coverage = torch.from_numpy(digit_coverage(height)).to(DEVICE)
    found = torch.zeros(height, 75, 3, dtype=torch.uint8, device=DEVICE)
    found[:, :panel_width] = torch.from_numpy(panel).to(DEVICE)
    for value in (1234567890, 7, None):
        expected = generator.integers(0, 256, (height, 75, 3), np.uint8)
        found[:, panel_width:] = torch.from_numpy(expected[:, panel_width:]).to(DEVICE)
        expected[:, :panel_width] = panel
        if value is not None:
            frame_label.draw_number(expected, value)
        digits = torch.tensor(digits_of(value), device=DEVICE)
        draw_number(found, torch.from_numpy(panel).to(DEVICE) if panel_width else None, digits, coverage)
        np.testing.assert_array_equal(found.cpu().numpy(), expected)


@needs_gpu
@pytest.mark.parametrize(("height", "width"), [(HEIGHT, WIDTH), (HEIGHT + 1, WIDTH + 1)])
def test_an_engine_for_video_gives_the_planes_of_its_pictures(avatar, height, width):
    panel = np.random.default_rng(0).integers(0, 256, (height, 6, 3), np.uint8)
    shots = [Shot(tiny_params(i), tiny_camera(height, width), number=i) for i in range(20)]
    pictures = Engine(avatar, height, width, panel).pictures(shots)
    found = Engine(avatar, height, width, panel, is_video=True).pictures(shots)
    for picture, planes in zip(pictures, found, strict=True):
        assert np.abs(planes - slow_planes(picture)).max() < ROUNDED


@needs_gpu
def test_pictures_equal_the_plain_path(avatar):
    backgrounds = np.random.default_rng(0).integers(0, 256, (40, HEIGHT, WIDTH, 3), np.uint8)
    shots = [
        Shot(tiny_params(i), tiny_camera(), (lambda i=i: backgrounds[i]) if i % 3 == 0 else None)
        for i in range(40)
    ]
    pictures = list(Engine(avatar, HEIGHT, WIDTH).pictures(shots))
    for shot, picture in zip(shots, pictures, strict=True):
        background = 1.0
        if shot.background is not None:
            background = torch.from_numpy(shot.background()).permute(2, 0, 1).float() / 255
        plain = to_uint8(render_plain(avatar, shot.params, shot.camera, background))
        assert np.abs(picture.astype(int) - plain).max() <= 1


@needs_gpu
def test_a_frame_that_needs_more_room_is_drawn_again(avatar, monkeypatch):
    monkeypatch.setattr(triton_tile_lists, "ROUNDING", 64)
    far = replace(tiny_params(0), trans=torch.tensor([0.0, 0.0, 30.0]))
    near = replace(tiny_params(0), trans=torch.tensor([0.0, 0.0, 1.2]))
    beside = replace(
        tiny_params(0), trans=torch.tensor([0.3, 0.5, 3.0])
    )  # nothing is drawn in the upper left corner
    shots = [Shot(params, tiny_camera(480, 320)) for params in (far, beside, far, near, far)]
    pictures = list(Engine(avatar, 480, 320).pictures(shots))
    assert (pictures[1][0] == 255).all() and (pictures[1] < 255).any()
    for shot, picture in zip(shots, pictures, strict=True):
        plain = to_uint8(render_plain(avatar, shot.params, shot.camera))
        assert np.abs(picture.astype(int) - plain).max() <= 1
