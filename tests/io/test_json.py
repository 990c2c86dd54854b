"""Numbers in json files: what is accepted, and how everything else is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.camera import Camera
from common.errors import UserError
from common.io.json import numbers, read_json, read_json_object, read_numbers, write_json
from common.io.parameters import read_camera, read_smplx_params, write_camera, write_smplx_params
from common.pose import SmplxParams

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("value", [list(range(6)), [[0, 1], [2, 3], [4, 5]], [[[0, 1], [2, 3], [4, 5]]]])
def test_nested_and_flat_lists_are_the_same_numbers(value):
    assert torch.equal(numbers(value, (3, 2), "x"), torch.arange(6.0).reshape(3, 2))
    assert torch.equal(numbers(value, (-1, 2), "x"), torch.arange(6.0).reshape(3, 2))


@pytest.mark.parametrize(
    "value",
    [[[0, 1, 2], [3, 4, 5]], [0, 1, 2], [], None, "abc", {}, 3, [[0, 1], [2]], [True] * 6, [None] * 6],
)
def test_other_shapes_and_kinds_are_refused_by_name(value):
    with pytest.raises(UserError, match=r"^file: key .*3x2"):
        numbers(value, (3, 2), "file: key")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39, 10**400])
def test_values_that_are_no_float32_are_refused(value):
    with pytest.raises(UserError, match="file"):
        numbers([0.0, value, 1.0], (3,), "file")


@settings(max_examples=300, deadline=None)
@given(value=ANY_JSON, shape=st.sampled_from([(3,), (1,), (2, 3), (-1, 3), (21, 3)]))
def test_any_json_value_is_numbers_of_the_shape_or_a_user_error(value, shape):
    try:
        found = numbers(value, shape, "file")
    except UserError:
        return
    assert found.ndim == len(shape) and torch.isfinite(found).all()
    assert all(want in (-1, got) for want, got in zip(shape, found.shape, strict=True))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"a": ' * 5000, b"nul"])
def test_broken_json_is_a_user_error(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.json is not valid json"):
        read_json(path)


def test_missing_files_folders_and_keys_are_named(tmp_path):
    with pytest.raises(UserError, match=r"missing file: .*x\.json"):
        read_json(tmp_path / "x.json")
    with pytest.raises(UserError, match="cannot read"):
        read_json(tmp_path)
    write_json(tmp_path / "y.json", {"a": 1})
    with pytest.raises(UserError, match=r"y\.json lacks b, c"):
        read_json_object(tmp_path / "y.json", ("a", "b", "c"))


def test_arrays_and_tensors_are_written_as_lists_and_nan_is_not_written(tmp_path):
    path = tmp_path / "new" / "x.json"
    write_json(path, {"a": np.eye(2), "b": torch.tensor([1.5]), "c": np.float32(2)})
    assert json.loads(path.read_text()) == {"a": [[1, 0], [0, 1]], "b": [1.5], "c": 2}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, [float("nan")])
    assert json.loads(path.read_text())["c"] == 2, "the old file must be left alone"
    assert len(list(path.parent.iterdir())) == 1


def test_parameters_and_camera_come_back_as_written(tmp_path):
    generator = torch.Generator().manual_seed(0)
    zeros = vars(SmplxParams.zeros())
    params = SmplxParams(
        **{name: torch.randn(value.shape, generator=generator) for name, value in zeros.items()}
    )
    write_smplx_params(tmp_path / "p.json", params)
    found = read_smplx_params(tmp_path / "p.json")
    assert all(torch.equal(getattr(found, name), value) for name, value in vars(params).items())
    camera = Camera(
        torch.eye(3).flip(0).flip(1), torch.ones(3), torch.tensor([9.0, 8.0]), torch.ones(2), 3, 4
    )
    write_camera(tmp_path / "c.json", camera)
    found = read_camera(tmp_path / "c.json", 3, 4)
    assert torch.equal(found.R, camera.R) and torch.equal(found.focal, camera.focal)
    assert (found.height, found.width) == (3, 4)


def test_flat_parameter_files_are_accepted(tmp_path):
    params = SmplxParams.zeros()
    flat = {name: value.flatten().tolist() for name, value in vars(params).items()}
    write_json(tmp_path / "p.json", flat)
    assert read_smplx_params(tmp_path / "p.json").body_pose.shape == (21, 3)


def test_read_numbers_names_the_file(tmp_path):
    write_json(tmp_path / "x.json", [1, 2])
    with pytest.raises(UserError, match=r"x\.json has shape 2, expected 3"):
        read_numbers(tmp_path / "x.json", (3,))
