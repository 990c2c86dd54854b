"""Parts, adjacency and interpolated weights against the published ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.body_model.body import BodyModel
from common.body_model.files import convert_licensed_files
from common.body_model.parts import BOUNDARY_RINGS
from common.mesh import MAX_NEIGHBOURS, unique_edges

NAMES = {
    "right_hand": "rhand",
    "left_hand": "lhand",
    "expression": "face_expr",
    "eye": "eye",
    "face": "face",
    "expression_boundary": "expr_boundary",
    "mouth_inside": "mouth_in",
    "mouth_outside": "mouth_out",
}

GROWN = ("expression_boundary", "mouth_inside", "mouth_outside")  # along neighbour lists


@pytest.fixture(scope="module")
def data(golden_path):
    return convert_licensed_files(golden_path("assets/human_model_files"), "male")


@pytest.fixture(scope="module")
def body(golden_body):
    """The body with the stored neighbour lists."""
    return golden_body


@pytest.fixture(scope="module")
def masks(golden):
    return golden("03_masks.npz")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", ["low", "high"])
def test_part(body, masks, name, level):
    part = getattr(body.parts_low if level == "low" else body.parts_high, name)
    np.testing.assert_array_equal(part, masks[f"is_{NAMES[name]}_{level[0]}r"])


def test_hands_together(body, masks):
    np.testing.assert_array_equal(body.parts_high.hand, masks["is_hand_hr"])


@pytest.mark.parametrize("name", NAMES)
def test_own_neighbour_lists_change_parts_only_near_lists_that_are_cut(data, masks, name):
    """Which of a vertex's neighbours beyond ten are dropped is arbitrary (SPEC 18); all else is the same."""
    body = BodyModel(data, 0)
    edges = unique_edges(body.faces, body.n_vertices)[0].reshape(-1)
    is_near = torch.bincount(edges, minlength=body.n_vertices) > MAX_NEIGHBOURS
    for _ in range(BOUNDARY_RINGS):  # the widest growth of a part, along all edges
        rings = edges.view(-1, 2)[is_near[edges.view(-1, 2)].any(1)]
        is_near[rings.reshape(-1)] = True
    differs = getattr(body.parts_low, name).numpy() != masks[f"is_{NAMES[name]}_lr"]
    assert not differs[~is_near.numpy()].any()
    if name not in GROWN:
        assert not differs.any()


def test_expression_and_hand_ids(data, masks):
    np.testing.assert_array_equal(data.expression_vertices, masks["expr_vertex_idx"])
    np.testing.assert_array_equal(data.right_hand_vertices, masks["rhand_vertex_idx"])
    np.testing.assert_array_equal(data.left_hand_vertices, masks["lhand_vertex_idx"])


def as_set(faces):
    """Faces without regard to their order and to the corner they begin with."""
    return {min(tuple(np.roll(face, k)) for k in range(3)) for face in np.asarray(faces)}


@pytest.mark.parametrize("side", ["right", "left"])
def test_hand_faces_are_those_of_mano(body, masks, side):
    stored = masks[f"{side[0]}hand_vertex_idx"][masks[f"{side[0]}hand_face"]]
    assert as_set(getattr(body, f"{side}_hand_faces")) == as_set(stored)


def test_kinematic_reach(body, masks):
    np.testing.assert_array_equal(body.kinematic_reach, masks["adj_joint_mask_4ring"])


def test_interpolated_weights_and_directions(body, masks):
    np.testing.assert_allclose(body.skinning_weights_high, masks["skinning_weight_orig_hr"], atol=1e-6)
    stored = masks["expr_dirs_hr"]
    np.testing.assert_allclose(body.expr_dirs_high[..., : stored.shape[2]], stored, atol=1e-6)


def test_closed_mouth_adds_faces_over_an_open_loop_of_expression_vertices(body):
    n_faces = body.faces.shape[0]
    added = body.faces_closed_mouth[n_faces:]
    np.testing.assert_array_equal(body.faces_closed_mouth[:n_faces], body.faces)
    assert added.shape[0] > 0
    assert body.parts_low.expression[added].all()


def test_published_closed_mouth_joins_expression_vertices_of_the_same_mesh(body, masks):
    """Which vertices it joins differs on purpose (SPEC 18); the face masks it gives are tested in test_renders."""
    n_faces = body.faces.shape[0]
    np.testing.assert_array_equal(masks["face_with_mouth_in"][:n_faces], body.faces)
    np.testing.assert_array_equal(masks["face_with_mouth_in"][n_faces:], masks["mouth_faces"])
    assert body.parts_low.expression[masks["mouth_faces"]].all()


def test_uv(golden, body):
    arrays = golden("06_texture_init.npz")
    np.testing.assert_allclose(body.vertex_uv, arrays["vertex_uv"], atol=1e-7)
    np.testing.assert_array_equal(body.face_uv, arrays["face_uv"])
