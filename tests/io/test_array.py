"""Arrays in .npy files: broken and hostile ones are refused before memory is taken."""

from __future__ import annotations

import io
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.io.array import open_array, read_array, write_array


class _Bomb:
    def __reduce__(self):
        return os.mkdir, ("bomb",)


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, bool, np.uint8, np.int64])
def test_written_array_comes_back_exactly(tmp_path, dtype):
    array = np.random.default_rng(0).integers(0, 2, (3, 4)).astype(dtype)
    write_array(tmp_path / "new" / "a.npy", array)
    found = read_array(tmp_path / "new" / "a.npy", (3, 4))
    assert found.dtype == dtype and type(found) is np.ndarray
    np.testing.assert_array_equal(found, array)
    assert found.flags.writeable


def test_wrong_shape_and_missing_file_are_named(tmp_path):
    write_array(tmp_path / "a.npy", np.zeros((3, 4)))
    with pytest.raises(UserError, match=r"a\.npy has shape \(3, 4\), expected \(4, 3\)"):
        open_array(tmp_path / "a.npy", (4, 3))
    with pytest.raises(UserError, match=r"missing file: .*b\.npy"):
        open_array(tmp_path / "b.npy")


def test_pickled_objects_are_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "a.npy", np.array([_Bomb()], dtype=object), allow_pickle=True)
    (tmp_path / "b.npy").write_bytes(pickle.dumps(_Bomb()))
    np.savez(tmp_path / "c.npz", x=np.zeros(3))
    (tmp_path / "c.npz").rename(tmp_path / "c.npy")
    for name in "abc":
        with pytest.raises(UserError, match=rf"{name}\.npy"):
            read_array(tmp_path / f"{name}.npy")
    assert not (tmp_path / "bomb").exists()


def test_declared_size_beyond_the_file_is_refused_without_taking_memory(tmp_path):
    header = _npy(np.zeros((7, 5), dtype=np.float32))
    huge = header.replace(b"(7, 5), }              ", b"(999999, 999999, 99), }")
    assert len(huge) == len(header) and huge != header
    (tmp_path / "a.npy").write_bytes(huge)
    with pytest.raises(UserError, match=r"a\.npy is truncated"):
        read_array(tmp_path / "a.npy")


def test_text_columns_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array(["x", "y"]))
    with pytest.raises(UserError, match="expected numbers"):
        read_array(tmp_path / "a.npy")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_mutated_arrays_load_or_are_user_errors(tmp_path_factory, data):
    content = bytearray(_npy(np.arange(35, dtype=np.float32).reshape(7, 5)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("fuzz") / "a.npy"
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        read_array(path)
    except UserError as error:
        assert "a.npy" in str(error)
