"""Textures unwrapped from pictures of a body whose colours are known: right where seen, plausible elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.body_model.body import BodyModel
from common.body_model.files import load_body_data
from common.camera import Camera
from common.errors import UserError
from common.pose import SmplxParams
from common.rasterizer.mesh import interpolate_mesh, rasterize_mesh
from common.subject_textures import (
    chosen_frames,
    find_hand_colors,
    texture_files,
    unwrap_split,
    write_textures,
)
from common.unwrapping import UnwrappedTextures, Unwrapping, UnwrapSettings, View, color_codes, colors_of
from common.uv_map import TexturedMesh, UvMap
from data.dataset import Subject
from data.frame import FrameFiles
from main.config import DEMO_BODY
from tests.data.tiny_subject import write_params

HEIGHT, WIDTH, SIZE = 192, 144, 96
SKIN, HAND = np.array([1.0, 0.8, 0.6]), np.array([1.0, 0.2, 0.4])  # part colours, 8-bit exact


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel(load_body_data(DEMO_BODY, "male"), 0)


@pytest.fixture(scope="module")
def mesh(body) -> TexturedMesh:
    return TexturedMesh.of(body)


@pytest.fixture(scope="module")
def uv_map(mesh) -> UvMap:
    return UvMap.of(mesh, SIZE)


def paint(positions: np.ndarray) -> np.ndarray:
    """A smooth colour of every place of the unposed body."""
    return (0.5 + 0.4 * np.sin(positions * (4.0, 3.0, 5.0) + (0.0, 1.0, 2.0))).astype(np.float32)


def rest(body: BodyModel) -> np.ndarray:
    return body.shaped(None).vertices.numpy()


def picture(body: BodyModel, turn: float) -> View:
    """The painted body turned about its upright axis, on a white wall."""
    params = SmplxParams.zeros()
    params.root_pose[:] = torch.tensor([torch.pi * np.cos(turn / 2), 0.0, torch.pi * np.sin(turn / 2)])
    params.trans[2] = 3.0
    camera = Camera.identity((230.0, 230.0), (WIDTH / 2, HEIGHT / 2 - 15), HEIGHT, WIDTH)
    vertices = body.vertices(params, None).vertices
    fragments = rasterize_mesh(vertices, body.faces, camera)
    mask = (fragments.face_index >= 0).numpy()
    image = interpolate_mesh(fragments, torch.from_numpy(paint(rest(body)))).permute(1, 2, 0).numpy()
    image[~mask] = 1
    hand = interpolate_mesh(fragments, body.parts_low.hand.float()[:, None])[0].numpy() > 0.5
    parts = np.where(hand[..., None], HAND, SKIN) * mask[..., None]
    return View(vertices, camera, image, parts.astype(np.float32), mask, hand)


def unwrap(
    body: BodyModel, mesh: TexturedMesh, uv_map: UvMap, views: list[View], **settings: object
) -> UnwrappedTextures:
    unwrapping = Unwrapping(mesh, uv_map, rest(body), body.parts_low.hand.numpy(), UnwrapSettings(**settings))
    for view in views:
        unwrapping.add(view)
    return unwrapping.finish()


def true_texture(body: BodyModel, mesh: TexturedMesh, uv_map: UvMap) -> np.ndarray:
    return uv_map.image(paint(uv_map.hits.mix(rest(body), mesh.faces.numpy())))


def test_seen_texels_have_the_painted_colour_and_only_the_front_is_seen_from_the_front(body, mesh, uv_map):
    front = unwrap(body, mesh, uv_map, [picture(body, 0.0)])
    error = np.abs(front.color - true_texture(body, mesh, uv_map)).max(2)
    assert 0.2 < front.share_seen < 0.5
    assert np.quantile(error[front.is_seen], 0.99) < 0.03
    normals = uv_map.hits.mix(mesh.normals(torch.from_numpy(rest(body))), mesh.faces.numpy())
    seen = front.is_seen[uv_map.hits.is_hit]
    assert (normals[seen, 2] > 0).mean() > 0.97  # the body's front is +z


def test_more_views_see_more_and_agree_with_the_truth(body, mesh, uv_map):
    front = unwrap(body, mesh, uv_map, [picture(body, 0.0)])
    around = unwrap(body, mesh, uv_map, [picture(body, turn) for turn in np.arange(6) * np.pi / 3])
    assert around.share_seen > front.share_seen + 0.3
    error = np.abs(around.color - true_texture(body, mesh, uv_map)).max(2)
    assert np.quantile(error[around.is_seen], 0.99) < 0.03
    assert (front.is_seen & ~around.is_seen).sum() == 0


def test_unseen_texels_take_colours_from_near_places_of_the_body(body, mesh, uv_map):
    truth = true_texture(body, mesh, uv_map)
    filled = unwrap(body, mesh, uv_map, [picture(body, turn) for turn in (0.0, np.pi)], n_fill=8)
    unseen = uv_map.hits.is_hit & ~filled.is_seen
    error = np.abs(filled.color - truth).mean(2)
    guess = np.abs(filled.color[filled.is_seen].mean(0) - truth).mean(2)
    assert error[unseen].mean() < 0.4 * guess[unseen].mean()
    assert np.isfinite(filled.color).all() and filled.color.min() >= 0 and filled.color.max() <= 1


def test_one_view_with_wrong_colours_hardly_counts_if_the_mean_is_robust(body, mesh, uv_map):
    views = [picture(body, turn) for turn in (-0.3, -0.1, 0.1, 0.3)]
    views[2] = replace(views[2], image=np.ones_like(views[2].image))
    truth = true_texture(body, mesh, uv_map)
    plain, robust = (unwrap(body, mesh, uv_map, views, sharpness=2, n_robust_rounds=n) for n in (0, 10))
    in_all = unwrap(body, mesh, uv_map, [picture(body, 0.1)]).is_seen & plain.is_seen
    errors = [np.abs(textures.color - truth)[in_all].mean() for textures in (plain, robust)]
    assert errors[0] > 0.08 and errors[1] < 0.4 * errors[0]


def test_views_vote_on_a_part_and_those_that_disagree_give_no_colour(body, mesh, uv_map):
    views = [picture(body, turn) for turn in (-0.2, 0.0, 0.2)]
    wrong = np.broadcast_to(HAND, views[1].part_colors.shape).astype(np.float32)
    views[1] = replace(views[1], part_colors=wrong, image=np.ones_like(views[1].image))
    front = unwrap(body, mesh, uv_map, [views[0]]).is_seen & unwrap(body, mesh, uv_map, [views[2]]).is_seen
    body_texels = front & ~uv_map.mask(
        uv_map.hits.mix(body.parts_low.hand.numpy()[:, None], mesh.faces.numpy())[:, 0] > 0.3
    )
    voted = unwrap(body, mesh, uv_map, views, is_part_voted=True)
    by_best = unwrap(body, mesh, uv_map, views)
    np.testing.assert_allclose(
        voted.part_color[body_texels], np.broadcast_to(SKIN, (body_texels.sum(), 3)), atol=1e-6
    )
    assert (np.abs(by_best.part_color[body_texels] - SKIN).max(1) > 0.1).mean() > 0.1
    error = np.abs(voted.color - true_texture(body, mesh, uv_map)).max(2)
    assert np.quantile(error[body_texels], 0.99) < 0.03


def test_colour_codes_are_exact_both_ways():
    colors = np.random.default_rng(0).integers(0, 256, (50, 3)) / 255
    np.testing.assert_allclose(colors_of(color_codes(colors)), colors, atol=1e-6)
    assert len(np.unique(color_codes(colors))) == len(np.unique(colors, axis=0))


def test_frames_are_chosen_evenly():
    assert chosen_frames([3, 5, 9], 5) == [3, 5, 9]
    assert chosen_frames(list(range(0, 100, 2)), 3) == [0, 48, 98]


@pytest.fixture
def subject(demo_copy) -> Subject:
    return demo_copy


@pytest.mark.parametrize("split", ["captured", "generated_0"])
def test_a_subject_s_unwrapped_textures_are_close_to_its_makers_and_can_be_trained_with(subject, body, split):
    made = Subject(subject.root).textures()
    frames = subject.frames(split)
    textures = unwrap_split(subject, split, frames, body, made.rgb.shape[1])
    for path in texture_files(subject.root / split):
        path.unlink(missing_ok=True)
    write_textures(subject.root / split, textures)
    assert subject.problems() == []
    found = subject.textures()
    difference = (found.rgb if split == "captured" else found.rgb_aux) - (
        made.rgb if split == "captured" else made.rgb_aux
    )
    assert float(difference.abs().mean()) < 0.03


def test_hands_are_told_by_the_part_colours_that_lie_on_them(subject, body):
    from common.demo.subject_wardrobe import PART_COLORS, PART_INDEX

    files = [FrameFiles(subject.root, "captured", 0)]
    expected = color_codes(PART_COLORS[[PART_INDEX["left_hand"], PART_INDEX["right_hand"]]] / 255)
    assert set(find_hand_colors(files, body, subject.identity)) == set(expected)


def test_a_body_that_is_not_on_the_person_is_refused(subject, body):
    write_params(subject.root / "captured", 0, np.random.default_rng(0))  # at the camera
    with pytest.raises(UserError, match=r"captured: no texel .*doctor\.py --subject_id S"):
        unwrap_split(subject, "captured", [0], body, 64)
