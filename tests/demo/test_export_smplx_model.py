"""A body written as a plain SMPL-X model file poses through the unmodified `smplx` package as here (SPEC 16)."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.body_model.body import BodyModel
from common.body_model.export import export_smplx_model
from common.body_model.files import load_body_data
from common.body_model.identity import Identity
from common.errors import UserError
from common.joints import N_JOINTS
from common.pose import SmplxParams

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def body():
    return load_body_data(ROOT / "data" / "demo_body", "neutral")


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """Folder with smplx/SMPLX_NEUTRAL.npz, written by the command."""
    folder = tmp_path_factory.mktemp("models")
    command = [
        sys.executable,
        "tools/export_smplx_model.py",
        "--output",
        folder / "smplx" / "SMPLX_NEUTRAL.npz",
    ]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    return folder


def random_params(seed: int) -> SmplxParams:
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: value.shape for name, value in vars(SmplxParams.zeros()).items()}
    return SmplxParams(
        **{name: 0.4 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    )


def test_exported_body_poses_identically(body, exported):
    import smplx

    theirs = smplx.create(
        str(exported), model_type="smplx", gender="neutral", ext="npz", use_pca=False, num_betas=16,
        num_expression_coeffs=50,
    )  # fmt: skip
    ours = BodyModel(body, n_subdivisions=0)
    assert np.array_equal(theirs.faces.astype(np.int64), body.faces)
    params = random_params(seed=2)
    shape = torch.randn(16, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        output = theirs(
            betas=shape[None], expression=params.expr[None], transl=params.trans[None],
            global_orient=params.root_pose[None], body_pose=params.body_pose.reshape(1, -1),
            jaw_pose=params.jaw_pose[None], leye_pose=params.leye_pose[None], reye_pose=params.reye_pose[None],
            left_hand_pose=params.lhand_pose.reshape(1, -1), right_hand_pose=params.rhand_pose.reshape(1, -1),
        )  # fmt: skip
    who = Identity(
        torch.cat([shape, torch.zeros(84)]), torch.zeros(body.n_vertices, 3), torch.zeros(N_JOINTS, 3)
    )
    mine = ours.vertices(params, who)
    assert (output.vertices[0] - mine.vertices).abs().max() < 2e-5
    assert (output.joints[0, :N_JOINTS] - mine.joints).abs().max() < 2e-5


def test_small_bodies_and_odd_names_are_refused(body, tmp_path):
    with pytest.raises(UserError, match="SMPLX_NEUTRAL"):
        export_smplx_model(body, tmp_path / "body.npz")
    small = replace(body, v_template=body.v_template[:5000])
    with pytest.raises(UserError, match="9930"):
        export_smplx_model(small, tmp_path / "SMPLX_NEUTRAL.npz")
