"""The licensed body model files: present, of the right model, version and gender, by publicly known facts (SPEC 7)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from common.body_model.files import (
    EXPR_START,
    FLAME_2019,
    FLAME_2020,
    FLAME_IDS,
    HAND_IDS,
    UV,
    convert_licensed_files,
    licensed_files,
    read_body_data,
)
from common.body_model.pickles import read_model_pickle
from common.doctor.findings import Findings
from common.errors import UserError
from common.io.array import read_array
from common.io.npz import npz_shapes, read_npz
from common.joints import N_EXPR, N_JOINTS

SMPLX_SITE, FLAME_SITE = "https://smpl-x.is.tue.mpg.de", "https://flame.is.tue.mpg.de"
_GET_SMPLX = f"download 'SMPL-X v1.1 (NPZ+PKL)' from {SMPLX_SITE}"
_GET_EXTRA = f"download 'UV map' and 'MANO and FLAME vertex indices' from {SMPLX_SITE}"
_GET_FLAME = f"download FLAME 2020 and FLAME 2019 from {FLAME_SITE}"


@dataclass(frozen=True)
class ModelFacts:
    """Counts that tell the published models from others."""

    n_vertices: int = 10475  # SMPL-X
    n_faces: int = 20908
    n_uv: int = 11313
    n_columns: int = 400  # of shapedirs: 300 shape, 100 expression; the older files have 10 + 10
    n_flame: int = 5023
    n_flame_joints: int = 5
    n_hand: int = 778  # MANO


def check_body_files(
    findings: Findings,
    folder: Path,
    genders: tuple[str, ...],
    is_needed: bool,
    facts: ModelFacts | None = None,
) -> None:
    """The files of `folder`: all that the `genders` need, and whatever other gender is there.

    `is_needed`: without any file only the demo works, which is an error if something else was asked for.
    """
    facts = facts or ModelFacts()
    findings.topic = f"body files ({folder})"
    if (folder / "body.npz").is_file():
        data = findings.attempt("body.npz", lambda: read_body_data(folder / "body.npz"))
        if data is not None:
            findings.ok(
                "body.npz", f"{data.n_vertices} vertices, {len(data.faces)} faces; serves every gender"
            )
        return
    present = [gender for gender in ("neutral", "male", "female") if _model(folder, gender).is_file()]
    names = dict.fromkeys(name for gender in genders for name in licensed_files(gender))
    missing = [name for name in names if not (folder / name).is_file()]
    if len(missing) == len(names) and not present:
        note = findings.error if is_needed else findings.warn
        note(
            "body models",
            "none of the licensed files are there; only the demo works",
            f"{_GET_SMPLX}; {_GET_FLAME}",
        )
        return
    for name in missing:
        findings.error("missing file", str(folder / name), _source(name))
    before = findings.count("error")
    for gender in present:
        _check_model(findings, _model(folder, gender), facts)
    _check_genders(findings, folder, present)
    _check_lists(findings, folder, facts)
    _check_flame(findings, folder, facts)
    if findings.count("error") == before and not missing:
        _check_conversion(findings, folder, genders)


def _model(folder: Path, gender: str) -> Path:
    return folder / f"smplx/SMPLX_{gender.upper()}.npz"


def _source(name: str) -> str:
    if name in (FLAME_2019, FLAME_2020):
        return _GET_FLAME
    return _GET_EXTRA if name in (FLAME_IDS, HAND_IDS, UV) else _GET_SMPLX


def _check_model(findings: Findings, file: Path, facts: ModelFacts) -> None:
    """One SMPL-X file by the shapes of its arrays."""
    n_vertices, n_columns = facts.n_vertices, facts.n_columns
    expected: dict[str, tuple[int, ...]] = {
        "v_template": (n_vertices, 3),
        "f": (facts.n_faces, 3),
        "weights": (n_vertices, N_JOINTS),
        "J_regressor": (N_JOINTS, n_vertices),
        "kintree_table": (2, N_JOINTS),
        "shapedirs": (n_vertices, 3, n_columns),
        "posedirs": (n_vertices, 3, 9 * (N_JOINTS - 1)),
        "hands_meanl": (45,),
        "hands_meanr": (45,),
    }
    shapes = findings.attempt("SMPL-X file", lambda: npz_shapes(file, list(expected)), _GET_SMPLX)
    if shapes is None:
        return
    found = {name: shapes.get(name) for name in expected}
    if found == expected:
        findings.ok(
            "SMPL-X file", f"{file.name}: {n_vertices} vertices, {facts.n_faces} faces, {N_JOINTS} joints"
        )
        return
    shape_dirs = found["shapedirs"]
    wrong = [f"{name} {found[name] or 'is missing'}" for name in expected if found[name] != expected[name]]
    text = f"{file}: {', '.join(wrong)}; SMPL-X v1.1 has " + ", ".join(
        f"{name} {shape}" for name, shape in expected.items() if found[name] != shape
    )
    if shape_dirs is not None and shape_dirs[:2] == (n_vertices, 3) and shape_dirs[2:] == (20,):
        text += ". This is the older file with 10 shape and 10 expression coefficients"
    elif found["weights"] is not None and found["weights"][1:] in ((24,), (52,)):
        text += f". {found['weights'][1]} joints: this is {'SMPL' if found['weights'][1] == 24 else 'SMPL+H'}"
    findings.error("SMPL-X file", text, _GET_SMPLX)


def _check_genders(findings: Findings, folder: Path, genders: list[str]) -> None:
    """A file under another gender's name: equal files, a file that names its gender, or the wrong order of heights."""
    heights: dict[str, float] = {}
    templates: dict[str, np.ndarray] = {}
    for gender in genders:
        file = _model(folder, gender)
        try:
            arrays = read_npz(file, ("v_template",), optional=("gender",))
        except UserError:
            continue  # told by _check_model
        template = arrays["v_template"].astype(np.float64)
        named = str(arrays.get("gender", gender))
        if named.lower() != gender:
            findings.error(
                "gender", f"{file} says of itself that it is the {named.lower()} model", _GET_SMPLX
            )
        same = [other for other, array in templates.items() if np.array_equal(array, template)]
        if same:
            findings.error(
                "gender", f"{file.name} and {_model(folder, same[0]).name} hold the same body", _GET_SMPLX
            )
        templates[gender] = template
        heights[gender] = (
            float(np.ptp(template[:, 1])) if template.ndim == 2 and template.shape[1] == 3 else 0.0
        )
    for taller, smaller in (("male", "neutral"), ("male", "female"), ("neutral", "female")):
        if taller in heights and smaller in heights and heights[taller] < heights[smaller]:
            findings.warn(
                "gender", f"the {taller} body is smaller ({heights[taller]:.3f} m) than the {smaller} one "
                f"({heights[smaller]:.3f} m): are the files' names exchanged?", _GET_SMPLX,
            )  # fmt: skip


def _check_lists(findings: Findings, folder: Path, facts: ModelFacts) -> None:
    """Vertex lists and the UV map."""
    if (folder / FLAME_IDS).is_file():
        _check_flame_ids(findings, folder / FLAME_IDS, facts)
    if (folder / HAND_IDS).is_file():
        hands = findings.attempt("hand ids", lambda: read_model_pickle(folder / HAND_IDS))
        if hands is not None:
            _check_hands(findings, folder / HAND_IDS, hands, facts)
    if (folder / UV).is_file():
        _check_uv(findings, folder / UV, facts)


def _check_flame_ids(findings: Findings, file: Path, facts: ModelFacts) -> None:
    ids = findings.attempt("FLAME ids", lambda: read_array(file), _GET_EXTRA)
    if ids is None:
        return
    problem = _id_problem(ids, facts.n_flame, facts.n_vertices)
    if problem:
        findings.error("FLAME ids", f"{file}: {problem}", _GET_EXTRA)
    else:
        findings.ok("FLAME ids", f"{file.name}: {facts.n_flame} vertices")


def _check_hands(findings: Findings, file: Path, hands: dict[str, Any], facts: ModelFacts) -> None:
    sides = []
    for name in ("left_hand", "right_hand"):
        if name not in hands:
            findings.error("hand ids", f"{file} has no {name!r}", _GET_EXTRA)
            return
        sides.append(np.asarray(hands[name]))
        problem = _id_problem(sides[-1], facts.n_hand, facts.n_vertices)
        if problem:
            findings.error("hand ids", f"{file}: {name}: {problem}", _GET_EXTRA)
            return
    if np.intersect1d(sides[0], sides[1]).size:
        findings.error("hand ids", f"{file}: both hands have vertices in common", _GET_EXTRA)
    else:
        findings.ok("hand ids", f"{file.name}: {facts.n_hand} vertices a hand")


def _id_problem(ids: np.ndarray, n_expected: int, n_vertices: int) -> str | None:
    """What is wrong with a list of vertex numbers."""
    if ids.dtype.kind not in "iu":
        return f"holds {ids.dtype} values instead of vertex numbers"
    if ids.size != n_expected:
        return f"{ids.size} vertex numbers instead of {n_expected}"
    if ids.min() < 0 or ids.max() >= n_vertices:
        return f"vertex numbers up to {ids.max()}, the body has {n_vertices} vertices"
    if len(np.unique(ids)) != ids.size:
        return "a vertex number stands there twice"
    return None


def _check_uv(findings: Findings, file: Path, facts: ModelFacts) -> None:
    try:
        kinds = [line.split(maxsplit=1)[0] for line in file.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        findings.error("UV map", f"{file} cannot be read ({error})", _GET_EXTRA)
        return
    found = {kind: kinds.count(kind) for kind in ("v", "vt", "f")}
    expected = {"v": facts.n_vertices, "vt": facts.n_uv, "f": facts.n_faces}
    names = {"v": "vertices", "vt": "UV coordinates", "f": "faces"}
    wrong = [
        f"{found[kind]} {names[kind]} instead of {expected[kind]}"
        for kind in found
        if found[kind] != expected[kind]
    ]
    if wrong:
        findings.error("UV map", f"{file}: {', '.join(wrong)}", _GET_EXTRA)
    else:
        findings.ok("UV map", f"{file.name}: {', '.join(f'{found[kind]} {names[kind]}' for kind in found)}")


def _check_flame(findings: Findings, folder: Path, facts: ModelFacts) -> None:
    """FLAME 2020 and 2019: sizes, and that they are two different models in the right places."""
    models = {}
    for name in (FLAME_2020, FLAME_2019):
        if not (folder / name).is_file():
            continue
        model = findings.attempt("FLAME file", partial(read_model_pickle, folder / name))
        if model is not None and _is_flame(findings, folder / name, model, facts):
            models[name] = model
    if len(models) < 2:
        return
    newer, older = (np.asarray(models[name]["shapedirs"]) for name in (FLAME_2020, FLAME_2019))
    if np.array_equal(newer, older):
        findings.error(
            "FLAME version", f"{FLAME_2020} and {FLAME_2019} hold the same model; one must be FLAME 2020, "
            "the other FLAME 2019", _GET_FLAME,
        )  # fmt: skip
    elif not _still_vertices(older).any():
        swapped = " (the other file has some: are the two exchanged?)" if _still_vertices(newer).any() else ""
        findings.warn(
            "FLAME version", f"{FLAME_2019}: every vertex is moved by the expressions{swapped}; the 2019 model "
            "leaves the back of the head still, which tells the face's vertices", _GET_FLAME,
        )  # fmt: skip


def _still_vertices(shape_dirs: np.ndarray) -> np.ndarray:
    return (shape_dirs[:, :, EXPR_START : EXPR_START + N_EXPR] == 0).all((1, 2))


def _is_flame(findings: Findings, file: Path, model: dict[str, Any], facts: ModelFacts) -> bool:
    """Note whether a model has FLAME's sizes."""
    expected = {
        "shapedirs": (facts.n_flame, 3, facts.n_columns),
        "weights": (facts.n_flame, facts.n_flame_joints),
    }
    found = {name: np.shape(model[name]) if name in model else None for name in expected}
    if found == expected:
        findings.ok("FLAME file", f"{file.name}: {facts.n_flame} vertices, {facts.n_flame_joints} joints")
        return True
    wrong = [
        f"{name} {found[name] or 'is missing'}, expected {shape}"
        for name, shape in expected.items()
        if found[name] != shape
    ]
    findings.error("FLAME file", f"{file}: {'; '.join(wrong)}", _GET_FLAME)
    return False


def _check_conversion(findings: Findings, folder: Path, genders: tuple[str, ...]) -> None:
    """Whether the files fit together: the conversion that training does, without writing its result."""
    for gender in genders:
        if (folder / f"smplx/SMPLX_{gender.upper()}.npz").is_file():
            data = findings.attempt("all files together", partial(convert_licensed_files, folder, gender))
            if data is not None:
                findings.ok("all files together", f"make the {gender} body")
