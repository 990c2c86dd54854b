"""Wrong, exchanged, truncated and missing body model files are told apart, each with what to do."""

from __future__ import annotations

import io
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.body_model.files import EXPR_START, save_body_data
from common.body_model.pickles import read_model_pickle
from common.doctor.body_files import ModelFacts, check_body_files
from common.doctor.findings import Findings
from common.io.npz import npz_shapes
from tests.body_model.bodies import tiny_body_data, write_licensed_files, write_uv

GENDERS = ("male", "neutral")
MALE, NEUTRAL, FEMALE = (f"smplx/SMPLX_{gender}.npz" for gender in ("MALE", "NEUTRAL", "FEMALE"))
FLAME_IDS = "smplx/SMPL-X__FLAME_vertex_ids.npy"
HAND_IDS = "smplx/MANO_SMPLX_vertex_ids.pkl"
UV = "smplx/smplx_uv/smplx_uv.obj"
NEW, OLD = "flame/FLAME_NEUTRAL.pkl", "flame/2019/generic_model.pkl"


def rewrite(path: Path, **arrays: np.ndarray) -> None:
    """Write an .npz again with some arrays exchanged or added."""
    with np.load(path) as stored:
        content = {name: stored[name] for name in stored.files if name != "part2num"}
    np.savez(path, **(content | arrays))


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    """The licensed layout with a tiny body, in all three genders; the male body is the tallest."""
    folder = tmp_path_factory.mktemp("models") / "M"
    write_licensed_files(folder, tiny_body_data())
    template = tiny_body_data().v_template
    for name, scale in ((NEUTRAL, 0.98), (FEMALE, 0.95)):
        shutil.copy(folder / MALE, folder / name)
        rewrite(folder / name, v_template=template * scale)
    return folder


@pytest.fixture(scope="module")
def facts() -> ModelFacts:
    data = tiny_body_data()
    assert len(data.left_hand_vertices) == len(data.right_hand_vertices)
    return ModelFacts(
        n_vertices=data.n_vertices,
        n_faces=len(data.faces),
        n_uv=len(data.vertex_uv),
        n_flame=data.n_vertices // 3,
        n_hand=len(data.left_hand_vertices),
    )


@pytest.fixture
def models(pristine, tmp_path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "M"))


def look(folder: Path, facts: ModelFacts, is_needed: bool = True) -> Findings:
    findings = Findings()
    check_body_files(findings, folder, GENDERS, is_needed, facts)
    return findings


def test_intact_files_of_every_gender_are_fine_and_said_to_fit_together(models, facts):
    findings = look(models, facts)
    assert findings.worst == "ok", findings.entries
    assert sum(entry.check == "SMPL-X file" for entry in findings.entries) == 3
    texts = [entry.text for entry in findings.entries]
    assert {"make the male body", "make the neutral body"} <= set(texts)


def _halve(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(
        (folder / name).read_bytes()[: (folder / name).stat().st_size // 2]
    )


def _copy(source: str, target: str) -> Callable[[Path], object]:
    return lambda folder: shutil.copy(folder / source, folder / target)


def _swap(first: str, second: str) -> Callable[[Path], None]:
    def swap(folder: Path) -> None:
        content = [(folder / name).read_bytes() for name in (first, second)]
        for name, data in zip((second, first), content, strict=True):
            (folder / name).write_bytes(data)

    return swap


def _change(name: str, **arrays: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder / name, **arrays)


def _hands(**changed: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        content = read_model_pickle(folder / HAND_IDS) | changed
        (folder / HAND_IDS).write_bytes(pickle.dumps(content))

    return change


def _without_still_vertices(folder: Path) -> None:
    model = read_model_pickle(folder / OLD)
    model["shapedirs"][:, :, EXPR_START] += 1
    (folder / OLD).write_bytes(pickle.dumps({name: model[name] for name in ("shapedirs", "weights")}))


def _other_uv(folder: Path) -> None:
    data = tiny_body_data()
    write_uv(folder / UV, replace(data, vertex_uv=data.vertex_uv[:-1]))


DATA = tiny_body_data()
N = DATA.n_vertices
DAMAGES: dict[str, tuple[Callable[[Path], object], str, str, str]] = {
    "missing": (lambda folder: (folder / OLD).unlink(), "missing file", "generic_model.pkl", "FLAME 2019"),
    "truncated model": (_halve(MALE), "SMPL-X file", "SMPLX_MALE.npz is not a readable .npz", "SMPL-X v1.1"),
    "truncated FLAME": (_halve(NEW), "FLAME file", "FLAME_NEUTRAL.pkl is not a readable", "download"),
    "truncated ids": (_halve(FLAME_IDS), "FLAME ids", "FLAME_vertex_ids.npy is truncated", "vertex indices"),
    "10 shape coefficients": (
        _change(MALE, shapedirs=np.zeros((N, 3, 20))),
        "SMPL-X file", "the older file with 10 shape and 10 expression coefficients", "SMPL-X v1.1",
    ),
    "SMPL": (_change(MALE, weights=np.zeros((N, 24))), "SMPL-X file", "24 joints: this is SMPL", "SMPL-X v1.1"),
    "SMPL+H": (_change(MALE, weights=np.zeros((N, 52))), "SMPL-X file", "52 joints: this is SMPL+H", "v1.1"),
    "another mesh": (
        _change(NEUTRAL, v_template=np.zeros((N + 1, 3))), "SMPL-X file", f"v_template ({N + 1}, 3)", "v1.1"
    ),
    "one file twice": (
        _copy(MALE, NEUTRAL), "gender", "SMPLX_MALE.npz and SMPLX_NEUTRAL.npz hold the same body", "v1.1"
    ),
    "another gender's name in it": (
        _change(MALE, gender=np.array("female")), "gender", "SMPLX_MALE.npz says of itself", "v1.1"
    ),
    "genders exchanged": (_swap(MALE, FEMALE), "gender", "the male body is smaller", "v1.1"),
    "hand ids too few": (_hands(left_hand=DATA.left_hand_vertices[1:]), "hand ids", "instead of", "vertex indices"),
    "hand ids of both sides equal": (
        _hands(left_hand=DATA.right_hand_vertices), "hand ids", "vertices in common", "vertex indices"
    ),
    "no hand": (
        lambda folder: (folder / HAND_IDS).write_bytes(pickle.dumps({"right_hand": DATA.right_hand_vertices})),
        "hand ids", "no 'left_hand'", "vertex indices",
    ),
    "FLAME ids beyond the body": (
        lambda folder: np.save(folder / FLAME_IDS, np.arange(N // 3) + N), "FLAME ids", "the body has", "vertex indices"
    ),
    "FLAME ids twice": (
        lambda folder: np.save(folder / FLAME_IDS, np.zeros(N // 3, int)), "FLAME ids", "twice", "vertex indices"
    ),
    "another UV map": (_other_uv, "UV map", "UV coordinates instead of", "UV map"),
    "FLAME 2020 twice": (_copy(NEW, OLD), "FLAME version", "hold the same model", "FLAME 2020 and FLAME 2019"),
    "FLAME exchanged": (_swap(NEW, OLD), "FLAME version", "are the two exchanged", "FLAME 2020 and FLAME 2019"),
    "another FLAME 2019": (_without_still_vertices, "FLAME version", "every vertex is moved", "FLAME 2019"),
    "faces of another model": (
        lambda folder: write_uv(folder / UV, replace(DATA, faces=DATA.faces[::-1])),
        "all files together", "faces are not the model's", "download",
    ),
}  # fmt: skip

ONLY_DOUBTFUL = (
    "genders exchanged",
    "FLAME exchanged",
    "another FLAME 2019",
)  # told by what is usual: warnings


@pytest.mark.parametrize("name", DAMAGES)
def test_a_wrong_file_is_named_with_its_fault_and_the_remedy(models, facts, name):
    damage, check, text, remedy = DAMAGES[name]
    damage(models)
    findings = look(models, facts)
    bad = [entry for entry in findings.entries if entry.level != "ok"]
    matching = [
        entry for entry in bad if entry.check == check and text in entry.text and remedy in entry.remedy
    ]
    assert matching, bad
    assert all(entry.remedy for entry in bad)
    assert findings.exit_code == (1 if name in ONLY_DOUBTFUL else 2)


def test_all_faults_are_told_at_once(models, facts):
    for name in ("missing", "truncated model", "another UV map", "FLAME ids twice"):
        DAMAGES[name][0](models)
    checks = {entry.check for entry in look(models, facts).entries if entry.level == "error"}
    assert {"missing file", "SMPL-X file", "UV map", "FLAME ids"} <= checks


def test_an_empty_folder_is_an_error_only_where_the_models_are_needed(tmp_path, facts):
    assert look(tmp_path, facts, is_needed=True).exit_code == 2
    findings = look(tmp_path, facts, is_needed=False)
    assert findings.exit_code == 1 and "smpl-x.is.tue.mpg.de" in findings.entries[0].remedy


def test_a_demo_body_needs_none_of_the_files(tmp_path, facts):
    save_body_data(tiny_body_data(), tmp_path / "body.npz")
    findings = look(tmp_path, facts)
    assert findings.worst == "ok" and "162 vertices" in findings.entries[0].text
    (tmp_path / "body.npz").write_bytes(b"PK")
    assert look(tmp_path, facts).exit_code == 2


def write_headers(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """An .npz whose arrays end after their headers, but the template: of any size, in no time."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, shape in shapes.items():
            stream = io.BytesIO()
            if name == "v_template":
                np.save(stream, np.zeros(shape))
            else:
                header = {"descr": "<f8", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(stream, header)
            archive.writestr(f"{name}.npy", stream.getvalue())


def test_the_published_counts_are_those_of_smpl_x_and_the_file_is_told_by_headers_alone(tmp_path):
    shapes = {
        "v_template": (10475, 3), "f": (20908, 3), "weights": (10475, 55), "J_regressor": (55, 10475),
        "kintree_table": (2, 55), "shapedirs": (10475, 3, 400), "posedirs": (10475, 3, 486),
        "hands_meanl": (45,), "hands_meanr": (45,),
    }  # fmt: skip
    (tmp_path / "smplx").mkdir()
    for last, is_right in ((400, True), (20, False)):
        write_headers(tmp_path / FEMALE, shapes | {"shapedirs": (10475, 3, last)})
        assert npz_shapes(tmp_path / FEMALE, ["shapedirs", "none"]) == {"shapedirs": (10475, 3, last)}
        findings = Findings()
        check_body_files(findings, tmp_path, GENDERS, True)
        levels = {entry.level for entry in findings.entries if entry.check == "SMPL-X file"}
        assert levels == ({"ok"} if is_right else {"error"})
