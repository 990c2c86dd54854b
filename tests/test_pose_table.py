"""The pose table: keys, round trips, and what an optimiser does to it."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from common.errors import UserError
from common.io.parameters import SMPLX_SHAPES
from common.pose import SmplxParams, SmplxPose
from common.pose_table import PREFIX, PoseTable, pose_of_row


def _params(seed: int, scale: float = 0.5) -> SmplxParams:
    generator = torch.Generator().manual_seed(seed)
    values = {name: scale * torch.randn(shape, generator=generator) for name, shape in SMPLX_SHAPES.items()}
    return SmplxParams(**values)


@pytest.fixture
def table() -> PoseTable:
    return PoseTable({"captured": {0: _params(0)}, "generated_0": {10: _params(1), 2: _params(2)}})


def test_frames_are_numeric_and_parameters_in_published_order(table):
    assert table.splits == ("captured", "generated_0")
    assert table.frames("generated_0") == [2, 10] and table.frames("test") == []
    assert ("generated_0", 10) in table and ("generated_0", 3) not in table and ("test", 0) not in table
    keys = [key for key in table.state_dict() if key.startswith("smplx_params.generated_0.2.")]
    assert keys == [f"smplx_params.generated_0.2.{name}" for name in SMPLX_SHAPES]


def test_small_rotations_survive_the_round_trip(table):
    found, expected = table.params("generated_0", 10), _params(1)
    for name, shape in SMPLX_SHAPES.items():
        assert getattr(found, name).shape == shape
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=2e-6, rtol=1e-5)


def test_large_rotations_come_back_as_the_same_rotation_within_pi():
    params = _params(3, scale=3.0)
    found = PoseTable({"test": {0: params}}).params("test", 0)
    assert found.body_pose.norm(dim=-1).max() <= math.pi + 1e-5
    expected = SmplxPose.from_params(params).rotation
    torch.testing.assert_close(SmplxPose.from_params(found).rotation, expected, atol=5e-6, rtol=0)


def test_pose_is_the_matrix_form_of_the_parameters(table):
    pose, expected = table.pose("captured", 0), SmplxPose.from_params(_params(0))
    torch.testing.assert_close(pose.rotation, expected.rotation, atol=1e-6, rtol=0)
    assert torch.equal(pose.expr, expected.expr) and torch.equal(pose.trans, expected.trans)
    assert pose.rotation.shape == (55, 3, 3)


def test_pose_stays_a_rotation_whatever_the_optimiser_does_to_the_6d_values(table):
    with torch.no_grad():
        for parameter in table.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4)))
    rotation = table.pose("captured", 0).rotation
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(55, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(55), atol=1e-5, rtol=0)


def test_gradient_reaches_the_frame_s_own_6d_parameters_only(table):
    table.double()
    table.pose("generated_0", 2).rotation.pow(3).sum().backward()
    for split, frame in table.named_frames():
        for name, parameter in table.stored(split, frame).items():
            has_gradient = (split, frame) == ("generated_0", 2) and name not in ("expr", "trans")
            assert (parameter.grad is not None) == has_gradient


def test_adam_leaves_frames_without_gradient_and_their_state_untouched(table):
    optimizer = torch.optim.Adam(table.parameter_groups(1e-3, 1e-4), lr=0.0, eps=1e-15)
    before = {key: value.clone() for key, value in table.state_dict().items()}
    for frame in (2, 2, 10):
        optimizer.zero_grad(set_to_none=True)
        table.pose("generated_0", frame).rotation.pow(3).sum().backward()
        optimizer.step()
    after = table.state_dict()
    steps = {
        frame: optimizer.state[table.stored("generated_0", frame)["body_pose"]]["step"] for frame in (2, 10)
    }
    assert {frame: int(step) for frame, step in steps.items()} == {2: 2, 10: 1}
    for key, value in before.items():
        is_untouched = ".captured." in key or key.endswith(("expr", "trans"))
        assert torch.equal(after[key], value) == is_untouched, key
    assert not optimizer.state[table.stored("captured", 0)["body_pose"]]


def test_groups_have_one_parameter_each_and_hands_their_own_rate(table):
    groups = table.parameter_groups(lr=1.0, hand_lr=0.5)
    assert len(groups) == len(list(table.parameters())) == 3 * len(SMPLX_SHAPES)
    assert {group["name"]: group["lr"] for group in groups}["smplx_param_lhand_pose_generated_0_10"] == 0.5
    assert {group["lr"] for group in groups if "hand" not in group["name"]} == {1.0}


def test_table_is_rebuilt_from_a_network_s_keys_alone(table):
    network = {PREFIX + key: value for key, value in table.state_dict().items()}
    rebuilt = PoseTable.from_state_dict({**network, "persona.rgb": torch.zeros(3)})
    assert rebuilt.state_dict().keys() == table.state_dict().keys()
    assert all(torch.equal(rebuilt.state_dict()[key], value) for key, value in table.state_dict().items())
    assert all(isinstance(parameter, nn.Parameter) for parameter in rebuilt.parameters())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("smplx_params.captured.0.nose_pose", torch.zeros(6), "nose_pose is not"),
        ("smplx_params.captured.00.trans", torch.zeros(3), "is not <split>"),
        ("smplx_params.keys.0.trans", torch.zeros(3), "is not <split>"),
        ("smplx_params.forward.0.trans", torch.zeros(3), "is not <split>"),
        ("smplx_params.captured.0.trans", torch.zeros(4), r"trans has shape \(4,\), expected \(3,\)"),
        ("smplx_params.test.5.trans", torch.zeros(3), "lacks root_pose, body_pose.* of .*test.5"),
        ("other", torch.zeros(3), "other is not <split>"),
    ],
)
def test_keys_that_are_no_table_s_are_refused_by_name(table, key, value, message):
    network = {PREFIX + key: value for key, value in table.state_dict().items()}
    with pytest.raises(UserError, match=message):
        PoseTable.from_state_dict({**network, PREFIX + key: value})


def test_asking_for_a_frame_that_is_not_there_says_which_are(table):
    with pytest.raises(KeyError, match=r"generated_0 frame 3; there are \[2, 10\]"):
        table.pose("generated_0", 3)


def test_packed_rows_and_parameters_are_one(table):
    before = {key: value.clone() for key, value in table.state_dict().items()}
    rows = table.pack()
    assert all(torch.equal(table.state_dict()[key], value) for key, value in before.items())
    frame = list(table.named_frames()).index(("generated_0", 10))
    expected = table.pose("generated_0", 10)
    found = pose_of_row(rows[frame])
    assert torch.equal(found.rotation, expected.rotation) and torch.equal(found.expr, expected.expr)
    assert torch.equal(found.trans, expected.trans)
    rows[frame] += 1.0
    assert torch.equal(
        table.stored("generated_0", 10)["trans"], before["smplx_params.generated_0.10.trans"] + 1
    )
    assert torch.equal(table.stored("generated_0", 2)["trans"], before["smplx_params.generated_0.2.trans"])


def test_a_packed_table_moves_in_one_piece_and_stays_packed(table):
    before = {key: value.clone() for key, value in table.state_dict().items()}
    parameters = dict(table.named_parameters())
    table.pack()
    table.double()
    rows = table.pack()
    assert rows.dtype == torch.float64 and dict(table.named_parameters()).keys() == parameters.keys()
    for key, value in table.named_parameters():
        assert value is parameters[key] and torch.equal(value, before[key].double())
        assert value.untyped_storage().data_ptr() == rows.untyped_storage().data_ptr()
    table.load_state_dict({key: value + 1 for key, value in before.items()})
    frame = list(table.named_frames()).index(("generated_0", 10))
    assert torch.equal(pose_of_row(rows[frame]).trans, before["smplx_params.generated_0.10.trans"] + 1)
    parameters["smplx_params.generated_0.10.trans"].grad = torch.ones(3, dtype=torch.float64)
    table.float()
    assert parameters["smplx_params.generated_0.10.trans"].grad.dtype == torch.float32
    assert torch.equal(table.pack()[frame], rows[frame].float())


def test_a_copy_of_a_packed_table_is_a_table_of_its_own(table):
    table.pack()
    other = copy.deepcopy(table)
    with torch.no_grad():
        other.stored("generated_0", 10)["trans"].add_(5)
    frame = list(table.named_frames()).index(("generated_0", 10))
    expected = table.stored("generated_0", 10)["trans"] + 5
    assert torch.equal(pose_of_row(other.pack()[frame]).trans, expected)
    assert torch.equal(other.double().stored("generated_0", 10)["trans"], expected.double())
