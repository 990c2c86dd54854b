"""The pose table against the published parameter dict (golden 09)."""

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
import pytest
import torch

from common.io.parameters import SMPLX_SHAPES
from common.pose import SmplxParams
from common.pose_table import PoseTable
from tests.golden import scene


@pytest.fixture(scope="module")
def arrays(golden):
    return golden("09_smplx_param_dict.npz")


@pytest.fixture(scope="module")
def table(arrays) -> PoseTable:
    params: dict[str, dict[int, SmplxParams]] = defaultdict(dict)
    for split, frame in _frames(arrays):
        values = {name: torch.tensor(arrays[f"in.{split}.{frame}.{name}"]) for name in SMPLX_SHAPES}
        params[split][frame] = SmplxParams(**values)
    return PoseTable(params)


def _frames(arrays) -> list[tuple[str, int]]:
    keys = [key.split(".") for key in arrays if key.startswith("in.") and key.endswith(".trans")]
    return [(split, int(frame)) for _, split, frame, _ in keys]


def test_stored_values_are_the_published_6d(arrays, table):
    for split, frame in _frames(arrays):
        for name, value in table.stored(split, frame).items():
            expected = arrays[f"stored.{split}.{frame}.{name}"]
            np.testing.assert_allclose(value.detach().numpy(), expected, atol=1e-6, err_msg=name)


def test_axis_angle_comes_back_as_published_up_to_the_sign_of_half_turns(arrays, table):
    for split, frame in _frames(arrays):
        out = table.params(split, frame)
        for name in SMPLX_SHAPES:
            expected = torch.tensor(arrays[f"out.{split}.{frame}.{name}"])
            found = getattr(out, name).detach()
            assert found.shape == expected.shape
            if name in ("expr", "trans"):
                assert torch.equal(found, expected)
                continue
            expected, found = expected.reshape(-1, 3), found.reshape(-1, 3)
            half_turn = expected.norm(dim=-1) > torch.pi - 1e-3  # r and -r are one rotation there
            aligned = torch.where((half_turn & ((found * expected).sum(-1) < 0))[:, None], -found, found)
            scene.assert_close(aligned, expected, atol=3e-4, rtol=0)


def test_gradient_through_the_round_trip_is_the_published_one(arrays, table):
    _, split, frame, _ = next(key for key in arrays if key.startswith("grad.")).split(".")
    table.zero_grad()
    out = table.params(split, int(frame))
    loss = sum((getattr(out, name) * torch.tensor(arrays[f"gradw.{name}"])).sum() for name in SMPLX_SHAPES)
    loss.backward()
    for name, value in table.stored(split, int(frame)).items():
        expected = torch.tensor(arrays[f"grad.{split}.{frame}.{name}"])
        assert (value.grad - expected).norm() <= 1e-4 * expected.norm(), name


def test_keys_shapes_and_groups_are_the_published_ones(golden_path, table):
    schedule = json.loads(golden_path("09_schedule.json").read_text())
    keys = {key: list(value.shape) for key, value in table.state_dict().items()}
    assert keys == schedule["param_dict_state_keys"]
    groups = [
        {"name": group["name"], "lr": group["lr"], "shape": list(group["params"][0].shape)}
        for group in table.parameter_groups(lr=1e-3, hand_lr=1e-4)
    ]
    assert groups == schedule["param_dict_groups"]
