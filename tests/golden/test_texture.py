"""Initial colours and scales against 06_texture_init."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from common.avatar import Avatar
from common.body_model.body import BodyModel
from common.body_model.files import convert_licensed_files
from common.body_model.identity import Identity
from common.mesh import Subdivider
from common.skinning_field import SkinningField
from common.texture import initial_log_scale, sample_subdivided, sample_vertex_colors, to_logit, vertex_uv
from main.config import AvatarConfig
from tests.golden import scene

Tensors = dict[str, Tensor]
LAYERS = [
    ("texture", "rgb_logit"),
    ("texture", "rgb_orig_logit"),
    ("texture_gen", "rgb_aux_logit"),
    ("seg", "seg_logit"),
]


@pytest.fixture(scope="module")
def stored(golden: Callable[[str], dict[str, np.ndarray]]) -> Tensors:
    return {name: scene.from_numpy(array) for name, array in golden("06_texture_init.npz").items()}


def assert_same_colors(color: Tensor, stored_logit: Tensor) -> None:
    scene.assert_close(to_logit(color).sigmoid(), stored_logit.sigmoid(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("texture", "logit"), LAYERS)
def test_colors_from_the_stored_mesh(stored: Tensors, texture: str, logit: str) -> None:
    n_vertices = int(stored["faces_lr"].max()) + 1
    subdivider = Subdivider(stored["faces_lr"], n_vertices, levels=2)
    uv, is_seam = vertex_uv(stored["faces_lr"], stored["face_uv"], stored["vertex_uv"], n_vertices)
    assert is_seam.any() and not is_seam.all()
    assert_same_colors(sample_subdivided(stored[texture], uv, is_seam, subdivider.interpolate), stored[logit])


@pytest.mark.parametrize(("texture", "logit"), LAYERS)
def test_colors_from_the_body_files(stored: Tensors, golden_path: Callable, texture: str, logit: str) -> None:
    body = BodyModel(
        convert_licensed_files(golden_path("assets/human_model_files"), "male"), n_subdivisions=2
    ).to(scene.DEVICE)
    assert_same_colors(sample_vertex_colors(stored[texture], body), stored[logit])


def test_scale_points_are_the_neutral_body_with_open_jaw(
    stored: Tensors, golden: Callable, golden_body: BodyModel
) -> None:
    arrays = golden("03_body_model.npz")
    identity = Identity(
        *(scene.from_numpy(arrays[f"id_{n}"]) for n in ("shape_param", "face_offset", "joint_offset"))
    )
    for name, who in (("scale_points", identity), ("pos_enc_vert", None)):
        vertices = golden_body.subdivider.interpolate(golden_body.neutral_vertices(who, jaw_open=True))
        scene.assert_close(vertices, stored[name], atol=2e-5, rtol=0)


def test_offsets_begin_at_zero(stored: Tensors, golden_body: BodyModel, golden_field: SkinningField) -> None:
    identity = Identity.zeros(golden_body.n_vertices)
    avatar = Avatar(AvatarConfig(triplane_resolution=2), golden_body, golden_field, identity)
    assert torch.equal(avatar.mean_offset, stored["mean_offset"])


def test_scales(stored: Tensors) -> None:
    scene.assert_close(initial_log_scale(stored["scale_points"]), stored["scale_log"], atol=2e-5, rtol=0)
