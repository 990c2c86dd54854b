"""Reading bodies from licensed-like files and from the runtime form."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from common.body_model.data import BodyData
from common.body_model.files import (
    convert_licensed_files,
    licensed_files,
    load_body_data,
    prepare_body,
    read_body_data,
    runtime_file,
    save_body_data,
)
from common.errors import UserError
from tests.body_model.bodies import LicensedFiles, tiny_body_data, write_licensed_files, write_uv

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "prepare_body_model.py"
MODEL = "smplx/SMPLX_MALE.npz"


@pytest.fixture
def licensed(tmp_path) -> LicensedFiles:
    return write_licensed_files(tmp_path, tiny_body_data())


def assert_equal(data: BodyData, other: BodyData) -> None:
    for field in fields(BodyData):
        array, expected = getattr(data, field.name), getattr(other, field.name)
        assert array.dtype == expected.dtype, field.name
        np.testing.assert_array_equal(array, expected, err_msg=field.name)


def alter_model(path: Path, **arrays: np.ndarray) -> None:
    """Write the SMPL-X file again with some arrays exchanged."""
    with np.load(path / MODEL) as old:
        content = {name: old[name] for name in old.files if name != "part2num"}
    np.savez(path / MODEL, **(content | arrays))


def test_conversion_takes_each_array_from_its_file(licensed):
    made_of, data = tiny_body_data(), convert_licensed_files(licensed.path, "male")
    same = {"v_template", "faces", "pose_dirs", "skinning_weights", "joint_regressor", "parents", "face_uv"}
    same |= {"left_hand_mean", "right_hand_mean", "left_hand_vertices", "right_hand_vertices"}
    for name in same:
        np.testing.assert_array_equal(getattr(data, name), getattr(made_of, name), err_msg=name)
    np.testing.assert_allclose(data.vertex_uv, made_of.vertex_uv, atol=1e-6)
    expr_dirs = made_of.expr_dirs.copy()
    expr_dirs[licensed.flame_to_body] = licensed.flame_dirs[:, :, 300:350]
    np.testing.assert_allclose(data.expr_dirs, expr_dirs, rtol=1e-6)
    np.testing.assert_array_equal(data.expression_vertices, licensed.expression_vertices)
    assert data.shape_dirs.shape[2] == 100


def test_the_runtime_form_is_made_on_first_use_and_equals_the_conversion(licensed):
    converted = convert_licensed_files(licensed.path, "male")
    assert_equal(load_body_data(licensed.path, "male"), converted)
    assert runtime_file(licensed.path, "male").is_file()
    assert_equal(load_body_data(licensed.path, "male"), converted)
    assert not [p for p in licensed.path.iterdir() if p.name.startswith(".")]


def test_the_runtime_form_is_enough_without_the_licensed_files(licensed):
    converted = prepare_body(licensed.path, "male")
    for name in licensed_files("male"):
        (licensed.path / name).unlink()
    assert_equal(load_body_data(licensed.path, "male"), converted)


def test_changed_licensed_files_replace_a_stale_runtime_form(licensed):
    before = load_body_data(licensed.path, "male")
    alter_model(licensed.path, v_template=before.v_template + 1)
    os.utime(licensed.path / MODEL, ns=(10**18, 10**18))
    np.testing.assert_allclose(load_body_data(licensed.path, "male").v_template, before.v_template + 1)
    np.testing.assert_allclose(
        read_body_data(runtime_file(licensed.path, "male")).v_template, before.v_template + 1
    )


def test_a_read_only_folder_is_left_alone_with_a_warning(licensed, caplog):
    licensed.path.chmod(0o555)
    try:
        with caplog.at_level(logging.WARNING):
            data = load_body_data(licensed.path, "male")
    finally:
        licensed.path.chmod(0o755)
    assert_equal(data, convert_licensed_files(licensed.path, "male"))
    assert not runtime_file(licensed.path, "male").exists()
    assert "read-only" in caplog.text


def test_a_demo_body_serves_every_gender(tmp_path):
    data = tiny_body_data()
    save_body_data(data, tmp_path / "body.npz")
    for gender in ("male", "female", "neutral"):
        assert_equal(load_body_data(tmp_path, gender), data)


def test_the_compact_form_is_close_and_smaller(tmp_path):
    data = tiny_body_data()
    save_body_data(data, tmp_path / "full.npz")
    save_body_data(data, tmp_path / "compact.npz", compact=True)
    compact = read_body_data(tmp_path / "compact.npz")
    assert (tmp_path / "compact.npz").stat().st_size < 0.7 * (tmp_path / "full.npz").stat().st_size
    for field in fields(BodyData):
        array, expected = getattr(compact, field.name), getattr(data, field.name)
        assert array.dtype == expected.dtype
        np.testing.assert_allclose(array, expected, rtol=1e-3, atol=1e-4, err_msg=field.name)
    np.testing.assert_array_equal(compact.v_template, data.v_template)


def test_each_missing_file_is_listed_with_its_site(tmp_path):
    with pytest.raises(UserError) as error:
        load_body_data(tmp_path, "female")
    message = str(error.value)
    assert "\n" not in message
    for name in licensed_files("female"):
        assert str(tmp_path / name) in message
    assert "smpl-x.is.tue.mpg.de" in message and "flame.is.tue.mpg.de" in message


def test_only_what_is_missing_is_listed(licensed):
    (licensed.path / "flame/FLAME_NEUTRAL.pkl").unlink()
    with pytest.raises(UserError) as error:
        load_body_data(licensed.path, "male")
    assert "FLAME_NEUTRAL.pkl" in str(error.value) and "SMPLX_MALE.npz" not in str(error.value)


def test_an_unknown_gender_is_named(tmp_path):
    with pytest.raises(UserError, match="gender is 'other'"):
        load_body_data(tmp_path, "other")


def test_every_broken_file_is_named(licensed):
    for name in licensed_files("male"):
        file = licensed.path / name
        whole = file.read_bytes()
        for broken in (b"", b"no model at all\n", whole[: len(whole) // 2]):
            file.write_bytes(broken)
            with pytest.raises(UserError, match=file.name):
                load_body_data(licensed.path, "male")
        file.write_bytes(whole)
    load_body_data(licensed.path, "male")


def test_a_malicious_flame_file_is_refused(licensed):
    class Harm:
        def __reduce__(self):
            return os.system, (f"touch {licensed.path / 'marker'}",)

    (licensed.path / "flame/FLAME_NEUTRAL.pkl").write_bytes(pickle.dumps({"shapedirs": Harm()}))
    with pytest.raises(UserError, match=r"FLAME_NEUTRAL\.pkl is refused.*system"):
        load_body_data(licensed.path, "male")
    assert not (licensed.path / "marker").exists()


WRONG_MODELS = {
    "10 shape coefficients": ({"shapedirs": np.zeros((162, 3, 20))}, "SMPL-X v1.1"),
    "SMPL joints": ({"weights": np.zeros((162, 24))}, "24 joints instead of 55"),
    "not finite": ({"v_template": np.full((162, 3), np.nan)}, "v_template holds values that are not finite"),
    "other vertex count": ({"v_template": np.zeros((100, 3))}, "expected"),
    "faces beyond": ({"f": np.full((320, 3), 500, np.uint32)}, r"smplx_uv\.obj.*not the model's"),
    "no tree": ({"kintree_table": np.full((2, 55), 60, np.int64)}, "no tree"),
    "objects": ({"weights": np.array([{}], dtype=object)}, "not a readable"),
}


@pytest.mark.parametrize("name", WRONG_MODELS)
def test_wrong_model_files_are_named_with_the_fault(licensed, name):
    arrays, message = WRONG_MODELS[name]
    alter_model(licensed.path, **arrays)
    with pytest.raises(UserError, match=message) as error:
        load_body_data(licensed.path, "male")
    assert str(licensed.path) in str(error.value)


def test_files_of_different_models_do_not_mix(licensed):
    data = tiny_body_data()
    np.save(licensed.path / "smplx/SMPL-X__FLAME_vertex_ids.npy", np.arange(54) + 10000)
    with pytest.raises(UserError, match=r"FLAME"):
        load_body_data(licensed.path, "male")
    write_uv(licensed.path / "smplx/smplx_uv/smplx_uv.obj", replace(data, faces=data.faces[::-1]))
    with pytest.raises(UserError, match=r"smplx_uv\.obj.*not the model's"):
        load_body_data(licensed.path, "male")


def test_a_broken_runtime_form_is_named(tmp_path):
    file = tmp_path / "body_male.npz"
    file.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(UserError, match=r"body_male\.npz is not a readable"):
        load_body_data(tmp_path, "male")
    np.savez(file, v_template=np.zeros((3, 3)))
    with pytest.raises(UserError, match="it has no faces"):
        load_body_data(tmp_path, "male")


def test_a_runtime_form_with_ids_out_of_range_is_named(tmp_path):
    data = tiny_body_data()
    save_body_data(replace(data, faces=data.faces + 1), tmp_path / "body.npz")
    with pytest.raises(UserError, match="faces points beyond 162 vertices"):
        load_body_data(tmp_path, "male")


def run_tool(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_tool_prepares_a_body(licensed):
    result = run_tool("--human_model_path", licensed.path, "--gender", "male")
    assert result.returncode == 0, result.stderr
    assert "162 vertices" in result.stdout
    assert_equal(
        read_body_data(licensed.path / "body_male.npz"), convert_licensed_files(licensed.path, "male")
    )


def test_the_tool_ends_with_one_line_when_files_are_missing(tmp_path):
    result = run_tool("--human_model_path", tmp_path)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1 and "SMPLX_MALE.npz" in result.stderr


def test_the_tools_help_names_its_options():
    result = run_tool("--help")
    assert result.returncode == 0
    assert "--human_model_path" in result.stdout and "--gender" in result.stdout
