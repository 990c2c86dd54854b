"""The model-file unpickler reads arrays of every kind and runs nothing."""

from __future__ import annotations

import os
import pickle
import re
import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from common.body_model import pickles
from common.body_model.pickles import read_model_pickle
from common.errors import UserError
from tests.body_model.bodies import chumpy_classes

ARRAYS = {
    "float64": np.random.default_rng(0).normal(size=(4, 3, 2)),
    "float16": np.arange(6, dtype=np.float16).reshape(2, 3),
    "uint32": np.array([0, 4294967295], np.uint32),
    "int8": np.array([-1, 2], np.int8),
    "bool": np.array([True, False]),
    "big endian": np.arange(5, dtype=">f4"),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "empty": np.zeros((0, 3)),
    "no dimensions": np.array(3.5),
    "text": np.array(["jaw", "head"]),
    "bytes": np.array([b"jaw", b"head"]),
}


def written(folder: Path, content: object, protocol: int = 2) -> Path:
    path = folder / "model.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_come_back_as_they_were(tmp_path, protocol):
    content = read_model_pickle(written(tmp_path, ARRAYS, protocol))
    for name, array in ARRAYS.items():
        assert content[name].dtype == array.dtype, name
        np.testing.assert_array_equal(content[name], array)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_numbers_lists_and_scalars_come_back(tmp_path, protocol):
    model = {
        "style": "lbs",
        "n": 3,
        "nested": [1, (2.5, None)],
        "scalar": np.float32(1.5),
        "inner": {"a": True},
    }
    content = read_model_pickle(written(tmp_path, model, protocol))
    assert content == {
        "style": "lbs",
        "n": 3,
        "nested": [1, [2.5, None]],
        "scalar": 1.5,
        "inner": {"a": True},
    }


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("form", [scipy.sparse.csc_matrix, scipy.sparse.csr_matrix])
def test_sparse_matrices_become_dense(tmp_path, form, protocol):
    dense = np.random.default_rng(1).normal(size=(5, 7)) * (np.arange(7) % 3 == 0)
    content = read_model_pickle(written(tmp_path, {"J_regressor": form(dense)}, protocol))
    np.testing.assert_array_equal(content["J_regressor"], dense)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_chumpy_arrays_are_read_without_chumpy(tmp_path, protocol):
    x = np.arange(12.0)
    with chumpy_classes() as (Ch, Select):
        plain, selected = Ch(), Select()
        plain.__dict__ = {"x": x.reshape(3, 4), "_dirty_vars": {"x"}, "_parents": None}
        inner = Ch()
        inner.__dict__ = {"x": x}
        selected.__dict__ = {"a": inner, "idxs": np.array([3, 1, 2, 7]), "preferred_shape": (2, 2)}
        path = written(tmp_path, {"plain": plain, "selected": selected}, protocol)
    content = read_model_pickle(path)
    np.testing.assert_array_equal(content["plain"], x.reshape(3, 4))
    np.testing.assert_array_equal(content["selected"], [[3, 1], [2, 7]])


def test_old_module_names_are_understood(tmp_path):
    path = written(tmp_path, {"x": np.arange(3.0), "s": scipy.sparse.csc_matrix(np.eye(2))}, 0)
    old = (
        path.read_bytes()
        .replace(b"numpy._core", b"numpy.core")
        .replace(b"scipy.sparse._csc", b"scipy.sparse.csc")
    )
    path.write_bytes(old)
    content = read_model_pickle(path)
    np.testing.assert_array_equal(content["x"], [0, 1, 2])
    np.testing.assert_array_equal(content["s"], np.eye(2))


class Calling:
    """Pickles into a call of a function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


CALLS = {
    "os.system": lambda marker: Calling(os.system, f"touch {marker}"),
    "eval": lambda marker: Calling(eval, f"open({str(marker)!r}, 'w')"),
    "getattr": lambda marker: Calling(getattr, str(marker), "encode"),
    "numpy.fromfile": lambda marker: Calling(np.fromfile, str(marker)),
    "numpy.load": lambda marker: Calling(np.load, str(marker)),
    "Path.touch": lambda marker: Calling(Path.touch, marker),
}


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", CALLS)
def test_calls_are_refused_and_not_made(tmp_path, name, protocol):
    marker = tmp_path / "marker"
    path = written(tmp_path, {"v_template": CALLS[name](marker)}, protocol)
    with pytest.raises(UserError, match=r"model\.pkl is refused: it contains .*official site"):
        read_model_pickle(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "code",
    [
        b"cnumpy\nndarray.__class__\n.",  # a way around by a dotted name
        b"cnumpy\n__builtins__\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x10core.load.tofile\x93.",
        b"ccommon.body_model.pickles\n_encode\n.",
        b"cchumpy\nch.Ch.__init__.__globals__\n.",
    ],
)
def test_detours_to_other_names_are_refused(tmp_path, code):
    path = tmp_path / "model.pkl"
    path.write_bytes(code)
    with pytest.raises(UserError, match="is refused"):
        read_model_pickle(path)


@pytest.mark.parametrize(
    "code",
    [
        b"c_codecs\nencode\n}(V__doc__\nVx\nu\x86b.",  # sets an attribute of a function
        b"c_codecs\nencode\n}(Va\nVx\nub.",
        b"ccopy_reg\n_reconstructor\n(c_codecs\nencode\nc__builtin__\nobject\nNtR.",  # of no class
        b"c_codecs\nencode\n(Vx\nVrot13\ntR.",  # another codec
        b"cnumpy\nndarray\n}(Va\nVx\nub.",  # state of a class
        b"P0\n.",  # a persistent id
        b"\x80\x02\x82\x01.",  # an extension code
        b"(lp0\ng0\na.",  # no dictionary
        b"(dp0\nVx\ng0\ns.",  # holds itself
    ],
)
def test_tricks_with_allowed_names_fail(tmp_path, code):
    path = tmp_path / "model.pkl"
    path.write_bytes(code)
    before = (dict(vars(pickles)), dict(vars(pickles._Array)))
    with pytest.raises(UserError, match="is not a readable model file"):
        read_model_pickle(path)
    assert before == (dict(vars(pickles)), dict(vars(pickles._Array)))


@pytest.mark.parametrize(
    "value",
    [
        np.array([{"a": 1}, None], dtype=object),
        np.zeros(2, dtype=[("a", "f4"), ("b", "i4")]),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        np.dtype("f4"),
    ],
    ids=["objects", "records", "dates", "a type"],
)
def test_arrays_of_other_than_numbers_and_text_are_refused(tmp_path, value):
    with pytest.raises(UserError, match="is not a readable model file"):
        read_model_pickle(written(tmp_path, {"x": value}))


JOBLIB = [Path(__file__).parent / "files" / name for name in ("joblib.pkl", "joblib_compressed.pkl")]


@pytest.mark.parametrize("path", JOBLIB, ids=lambda path: path.stem)
def test_files_written_by_joblib_are_read(path):
    """Both were written by joblib 1.6 from the values below, the second with compress=3."""
    content = read_model_pickle(path)
    assert list(content) == ["3", "4"] and content["4"] == {"a": 1}  # np.int64 and int, of a defaultdict
    person = content["3"]
    expected = {
        "rows": np.arange(12, dtype=np.float32).reshape(3, 4),
        "columns": np.arange(6.0).reshape(2, 3),  # in Fortran's order
        "none": np.zeros((0, 3)),
        "one": np.array(7),
        "ids": np.arange(5),
        "names": np.array(["a", "bc"]),
        "again": np.arange(12, dtype=np.float32).reshape(3, 4),
    }
    for name, array in expected.items():
        assert person[name].dtype == array.dtype, name
        np.testing.assert_array_equal(person[name], array)
    assert person["scalar"] == 0.5 and person["text"] == "x"
    assert person["list"][0].tolist() == [1, 1] and person["list"][1] == {"mask": b"ab"}


def check_truncated(whole: bytes, path: Path, step: int) -> None:
    """Every beginning of a file is refused with its name."""
    for n in range(0, len(whole), step):
        path.write_bytes(whole[:n])
        with pytest.raises(UserError, match=re.escape(path.name)):
            read_model_pickle(path)


def check_changed(whole: bytes, path: Path, n_changes: int) -> None:
    """A file with one byte changed is read, or refused with its name."""
    random = np.random.default_rng(0)
    for _ in range(n_changes):
        changed = bytearray(whole)
        changed[random.integers(len(whole))] = random.integers(256)
        path.write_bytes(changed)
        try:
            assert isinstance(read_model_pickle(path), dict)
        except UserError as error:
            assert path.name in str(error)


@pytest.mark.parametrize("source", JOBLIB, ids=lambda path: path.stem)
def test_broken_files_of_joblib_never_raise_anything_else(tmp_path, source):
    check_truncated(source.read_bytes(), tmp_path / "model.pkl", step=7)
    check_changed(source.read_bytes(), tmp_path / "model.pkl", n_changes=300)


def test_a_file_that_inflates_without_end_is_refused(tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(zlib.compress(pickle.dumps({"x": np.zeros(2**22)}), 9))
    with pytest.raises(UserError, match="it inflates to over 16777216 bytes"):
        read_model_pickle(path)


def test_other_factories_of_dictionaries_are_refused(tmp_path):
    path = written(tmp_path, {"x": defaultdict(set)})
    with pytest.raises(UserError, match="a dictionary made in an unexpected way"):
        read_model_pickle(path)


def test_every_truncation_is_one_clear_line(tmp_path):
    path = written(tmp_path, {"x": np.arange(4.0), "s": scipy.sparse.csc_matrix(np.eye(2))})
    check_truncated(path.read_bytes(), path, step=3)


def test_flipped_bytes_never_raise_anything_else(tmp_path):
    content = {"x": np.arange(4.0), "s": scipy.sparse.csc_matrix(np.eye(2)), "n": np.float64(1)}
    path = written(tmp_path, content)
    check_changed(path.read_bytes(), path, n_changes=500)


def test_a_missing_file_or_a_folder_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "none.pkl"):
        with pytest.raises(UserError, match=r"missing file|a folder"):
            read_model_pickle(path)
