"""The skinning field as built and as looked up, against 04_skinning_field, 05_persona and 05_out_of_field."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from common.body_model.body import BodyModel
from common.body_model.files import convert_licensed_files
from common.skinning_field import SkinningField, build_skinning_field
from main.config import FieldConfig
from tests.golden import scene
from tests.golden.scene import build_field

Arrays = dict[str, np.ndarray]
Golden = Callable[[str], Arrays]
ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "diffused_skinning_weights" / "make_skinning_weight.py"
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def stored(golden: Golden) -> Arrays:
    return golden("04_skinning_field.npz")


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_grid_coordinates(stored: Arrays, case: str, tmp_path: Path) -> None:
    build_field(stored, case).save(tmp_path)
    for axis in "xyz":
        found = np.load(tmp_path / f"skinning_grid_coords_{axis}.npy")
        np.testing.assert_allclose(found, stored[f"coord_{axis}_{case}"], atol=1e-6)


@pytest.mark.parametrize("case", ["a", "c"])
def test_whole_field(stored: Arrays, case: str) -> None:
    np.testing.assert_allclose(
        build_field(stored, case).weights.numpy(), stored[f"field_{case}"], atol=TOLERANCE
    )


def test_field_after_few_iterations(stored: Arrays) -> None:
    found = build_field(stored, "b").weights.flatten(0, 2)[scene.from_numpy(stored["field_b_flat_idx"])]
    np.testing.assert_allclose(found.numpy(), stored["field_b_sample"], atol=TOLERANCE)


def test_empty_cells_are_the_stored_ones(stored: Arrays) -> None:
    assert np.array_equal(
        build_field(stored, "c").weights.numpy().sum(-1) == 0, stored["field_c"].sum(-1) == 0
    )


def test_the_tool_makes_the_stored_field(
    stored: Arrays, golden_field: SkinningField, golden_path: Callable, tmp_path: Path
) -> None:
    """Body files to field: neutral gender, neutral pose with mean hands, closed jaw."""
    resolution = len(stored["coord_x_a"])
    models = shutil.copytree(golden_path("assets/human_model_files"), tmp_path / "models")
    command = [sys.executable, TOOL, "--human_model_path", models, "--output", tmp_path]
    subprocess.run([*command, "--resolution", str(resolution)], check=True, cwd=tmp_path, env=os.environ)
    found = SkinningField.load(tmp_path)
    # Posing the body moves vertices by rounding, and single grid points at the threshold may fall in or out.
    difference = (found.weights - golden_field.weights).abs().amax(-1)
    assert (difference > 1e-4).float().mean() < 1e-3
    scene.assert_close(found.upper, golden_field.upper, atol=2e-5, rtol=0)


def test_fixed_cells_are_those_near_a_vertex(stored: Arrays) -> None:
    """No diffusion: what has weights is fixed. Single cells lie at the threshold to rounding."""
    resolution, _, threshold, expansion = stored["args_a"].tolist()
    settings = FieldConfig(int(resolution), 0, threshold, expansion)
    vertices, weights = scene.from_numpy(stored["verts"]), scene.from_numpy(stored["weights"])
    found = build_skinning_field(vertices, weights, settings, progress=False).weights.sum(-1) > 0.5
    assert (found.numpy() != stored["fixed_cells_a"]).sum() <= 2


def test_vertices_and_weights_are_the_neutral_body(stored: Arrays, golden_path: Callable) -> None:
    data = convert_licensed_files(golden_path("assets/human_model_files"), "neutral")
    body = BodyModel(data, 0)
    np.testing.assert_allclose(body.neutral_vertices(None, jaw_open=False), stored["verts"], atol=2e-5)
    np.testing.assert_array_equal(body.skinning_weights, stored["weights"])
    np.testing.assert_allclose(body.neutral_pose_params(False).body_pose, stored["body_pose"], atol=1e-7)
    hands = np.stack([stored["hand_mean_left"], stored["hand_mean_right"]])
    np.testing.assert_array_equal(body.hand_mean.reshape(2, -1), hands)


def looked_up(avatar: Arrays) -> np.ndarray:
    """Rows that take their weights from the field: neither hand nor face."""
    return ~(avatar["is_hand"] | avatar["is_face"])


def base_positions(avatar: Arrays) -> Tensor:
    return scene.from_numpy(avatar["vert_neutral_pose"] + avatar["mean_offset"])


def scales(avatar: Arrays) -> Tensor:
    return scene.from_numpy(avatar["scale"][:, :1])


def test_base_weights(golden_field: SkinningField, golden: Golden, dtype: torch.dtype) -> None:
    avatar = golden("05_persona.npz")
    field = copy.deepcopy(golden_field).to(dtype)
    found = field.sample(base_positions(avatar).to(dtype), scales(avatar).to(dtype)).numpy()
    rows = looked_up(avatar)
    np.testing.assert_allclose(found[rows], avatar["skinning_weight"][rows], atol=TOLERANCE)


def test_refined_weights(golden_field: SkinningField, golden_body: BodyModel, golden: Golden) -> None:
    avatar = golden("05_persona.npz")
    expression = golden_body.expr_dirs_high @ scene.from_numpy(avatar["smplx_expr"])
    refined = base_positions(avatar) + scene.from_numpy(avatar["mean_offset_offset"]) + expression
    index = avatar["sample_idx"]
    found = golden_field.sample(refined[index], scales(avatar)[index]).numpy()
    rows = looked_up(avatar)[index]
    np.testing.assert_allclose(found[rows], avatar["skinning_weight_refined_sample"][rows], atol=TOLERANCE)


def test_gaussians_far_outside_keep_weights(golden_field: SkinningField, golden: Golden) -> None:
    """Deliberate difference (SPEC 18): the published weights are all zero there."""
    avatar, outside = golden("05_persona.npz"), golden("05_out_of_field.npz")
    assert (outside["skinning_weight"] == 0).all()
    index = outside["vertex_idx"]
    mean = base_positions(avatar)[index] + scene.from_numpy(outside["added_offset"])
    scale = scales(avatar)[index]
    found = golden_field.sample(mean, scale)
    farther = golden_field.sample(mean + scene.from_numpy(outside["added_offset"]), scale)
    scene.assert_close(found.sum(1), torch.ones(len(index)))
    scene.assert_close(found, farther)
