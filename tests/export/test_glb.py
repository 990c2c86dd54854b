"""A .glb file, read by independent readers, moves and looks like the base avatar."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from common.avatar import Avatar, apply_transforms, blend_transforms
from common.body_model.body import BodyModel
from common.body_model.files import load_body_data
from common.export.formats import FormatOptions
from common.export.model import ModelMotion, write_model
from common.export.placement import Placement
from common.export.skin import skin_of, skinning_error
from common.export.uv_texture import UvMesh, bake_texture
from common.io.image import as_png
from common.joints import JOINTS, PARENTS
from common.pose import SmplxPose
from main.config import DEMO_BODY
from tests.export.gltf import Model
from tests.tiny_person import tiny_avatar, tiny_camera, tiny_params

FPS = 25.0
ALL = FormatOptions(n_weights=8, n_expressions=50, texture_size=64)


@pytest.fixture(scope="module")
def avatar() -> Avatar:
    return tiny_avatar()


@pytest.fixture(scope="module")
def frames() -> list:
    """Three poses, each in the space of another camera."""
    cameras = [replace(tiny_camera(), t=torch.tensor([0.3, -0.2, 0.7 + 0.1 * i])) for i in range(3)]
    return [(tiny_params(i), camera) for i, camera in enumerate(cameras)]


@pytest.fixture(scope="module")
def motion(frames) -> ModelMotion:
    return ModelMotion("wave", frames, Placement.of_motion(frames[0][1], "y"), FPS)


@pytest.fixture(scope="module")
def written(avatar, motion, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("glb") / "person.glb"
    write_model(path, "person", avatar, ALL, motion)
    return path


def limited_base_mean(avatar: Avatar, params, camera, placement: Placement, n_weights: int) -> np.ndarray:
    """The base avatar of SPEC 9 with each vertex's largest weights only, placed (N, 3)."""
    pose = SmplxPose.from_params(params)
    base = avatar.neutral_vertices + avatar.mean_offset
    weights = avatar.skinning_weights(base)
    kept = weights >= weights.sort(dim=1).values[:, [-n_weights]]
    weights = weights * kept / (weights * kept).sum(1, keepdim=True)
    expression = avatar.body.expr_dirs_high @ pose.expr
    posed = apply_transforms(blend_transforms(weights, avatar.transforms(pose)), base + expression)
    return placement.points(camera.camera_to_world(posed)).numpy()


@torch.no_grad()
@pytest.mark.parametrize("n_weights", [4, 8])
def test_skinning_of_the_files_arrays_is_the_base_avatar_with_its_largest_weights(
    avatar, frames, motion, tmp_path, n_weights
):
    options = replace(ALL, n_weights=n_weights)
    write_model(tmp_path / "a.glb", "person", avatar, options, motion)
    model, vertex = Model(tmp_path / "a.glb"), UvMesh.of(avatar.body).vertex.numpy()
    for key, (params, camera) in enumerate(frames):
        expected = limited_base_mean(avatar, params, camera, motion.placement, n_weights)
        np.testing.assert_allclose(model.vertices(key), expected[vertex], atol=1e-5)


@torch.no_grad()
def test_the_stated_error_is_the_distance_from_the_avatars_base_surface(avatar, frames, motion, written):
    model, vertex = Model(written), UvMesh.of(avatar.body).vertex.numpy()
    stated = skinning_error(avatar, skin_of(avatar, 8, 50), frames).numpy()
    for key, (params, camera) in enumerate(frames):
        expected = motion.placement.points(avatar(SmplxPose.from_params(params), camera).base_mean).numpy()
        error = np.linalg.norm(model.vertices(key) - expected[vertex], axis=1)
        np.testing.assert_allclose(error, stated[key][vertex], atol=1e-5)


@torch.no_grad()
def test_without_motion_the_model_stands_in_the_neutral_pose_with_y_up(avatar, tmp_path):
    write_model(tmp_path / "a.glb", "person", avatar, ALL)
    model = Model(tmp_path / "a.glb")
    expected = (avatar.neutral_vertices + avatar.mean_offset)[UvMesh.of(avatar.body).vertex].numpy()
    np.testing.assert_allclose(model.vertices(), expected, atol=1e-5)
    assert not model.gltf.animations


@torch.no_grad()
def test_one_frame_is_the_pose_that_the_model_stands_in(avatar, motion, written, tmp_path):
    one = replace(motion, frames=motion.frames[1:2], fps=None)
    write_model(tmp_path / "a.glb", "person", avatar, ALL, one)
    model = Model(tmp_path / "a.glb")
    np.testing.assert_allclose(model.vertices(), Model(written).vertices(1), atol=1e-5)
    assert not model.gltf.animations


def test_skeleton_has_the_55_named_joints_and_the_clip_a_key_a_frame(written):
    model = Model(written)
    nodes = model.gltf.nodes
    assert [nodes[joint].name for joint in model.skin.joints] == list(JOINTS)
    parents = {child: i for i, node in enumerate(nodes) for child in node.children or []}
    assert [parents.get(i, -1) for i in range(len(JOINTS))] == list(PARENTS)
    np.testing.assert_allclose(model.times(), np.arange(3) / FPS, atol=1e-6)
    paths = [path for _, path in model.channels(0)]
    assert sorted(paths) == ["rotation"] * 55 + ["translation", "weights"]
    assert model.gltf.animations[0].name == "wave"


def test_weights_sum_to_one_with_the_largest_first_and_unused_slots_empty(written):
    model = Model(written)
    np.testing.assert_allclose(model.weights.sum(1), 1, atol=1e-6)
    sets = np.concatenate([model.attribute("WEIGHTS_0"), model.attribute("WEIGHTS_1")], axis=1)
    assert (np.diff(sets, axis=1) <= 0).all()
    joints = np.concatenate([model.attribute("JOINTS_0"), model.attribute("JOINTS_1")], axis=1)
    assert (joints[sets == 0] == 0).all()


def test_trimesh_opens_the_file_with_its_texture_and_surface(avatar, written):
    scene = trimesh.load(written, process=False)
    (mesh,) = scene.geometry.values()
    assert mesh.visual.uv.shape == (len(mesh.vertices), 2)
    assert mesh.visual.material.baseColorTexture.size == (64, 64)
    bind = (avatar.neutral_vertices + avatar.mean_offset).detach().numpy()
    expected = bind[avatar.body.faces_high.numpy()]
    np.testing.assert_allclose(mesh.vertices[mesh.faces], expected, atol=1e-6)
    assert trimesh.triangles.area(mesh.triangles).min() > 0


def test_quaternions_of_neighbouring_keys_never_point_apart(written):
    model = Model(written)
    keys = [model.channels(key) for key in range(3)]
    for joint in range(55):
        q = np.stack([key[(joint, "rotation")] for key in keys])
        assert ((q[1:] * q[:-1]).sum(1) >= 0).all()


def test_normals_have_unit_length(written):
    np.testing.assert_allclose(np.linalg.norm(Model(written).attribute("NORMAL"), axis=1), 1, atol=1e-5)


@pytest.fixture(scope="module")
def demo_body() -> BodyModel:
    return BodyModel(load_body_data(DEMO_BODY, "male"), 0)


def test_texture_shows_the_vertices_colours_at_their_uv(demo_body):
    mesh = UvMesh.of(demo_body)
    colors = (demo_body.v_template - demo_body.v_template.amin(0)).clamp(0, 1)
    texture = bake_texture(mesh, colors, 1024)
    image = np.asarray(Image.open(io.BytesIO(as_png(texture)))) / 255.0
    texel = (mesh.uv.numpy() * 1024 - 0.5).round().clip(0, 1023).astype(int)
    error = np.abs(image[texel[:, 1], texel[:, 0]] - colors[mesh.vertex].numpy()).max(1)
    assert np.quantile(error, 0.99) < 3 / 255
    assert (image.sum(2) > 0).mean() > 0.999  # gaps between the islands are filled


@pytest.mark.parametrize("levels", [0, 1])
def test_cut_mesh_is_the_bodys_surface_with_one_uv_a_vertex(demo_body, levels):
    body = demo_body if levels == 0 else BodyModel(demo_body.data, levels)
    mesh = UvMesh.of(body)
    assert torch.equal(mesh.vertex[mesh.faces], body.faces_high)
    pairs = torch.cat([mesh.vertex[:, None].float(), mesh.uv], dim=1)
    assert len(torch.unique(mesh.faces)) == len(mesh.vertex) == len(torch.unique(pairs, dim=0))
    assert len(mesh.vertex) < 1.1 * body.n_vertices_high  # cut at seams only
    corners = body.vertex_uv[body.face_uv]
    if levels == 0:
        assert torch.equal(mesh.uv[mesh.faces], corners)
    else:  # the middle triangle of every face joins the midpoints of its edges in UV space too
        middle = mesh.uv[mesh.faces[-len(corners) :]].mean(1)
        torch.testing.assert_close(middle, corners.mean(1), rtol=0, atol=1e-6)
