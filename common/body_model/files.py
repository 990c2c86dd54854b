"""Bodies on disk: the licensed SMPL-X, FLAME and MANO files, and the safe .npz made of them (SPEC 7, 16)."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from common.body_model.data import BodyData
from common.body_model.pickles import read_model_pickle
from common.errors import UserError
from common.io.array import read_array
from common.io.atomic import atomic_path
from common.io.files import open_file
from common.io.npz import read_npz
from common.joints import JOINTS, N_EXPR, N_JOINTS, N_SHAPE

logger = logging.getLogger(__name__)

GENDERS = ("neutral", "male", "female")
EXPR_START = 300  # SPEC 7: expression columns 300..349 of shapedirs
FLAME_HEAD, FLAME_JAW = 1, 2  # SPEC 7: FLAME joints 0 neck, 1 head, 2 jaw, 3 and 4 eyes

FLAME_IDS = "smplx/SMPL-X__FLAME_vertex_ids.npy"
HAND_IDS = "smplx/MANO_SMPLX_vertex_ids.pkl"
UV = "smplx/smplx_uv/smplx_uv.obj"
FLAME_2020 = "flame/FLAME_NEUTRAL.pkl"
FLAME_2019 = "flame/2019/generic_model.pkl"
SITES = {
    FLAME_IDS: "smpl-x.is.tue.mpg.de",
    HAND_IDS: "smpl-x.is.tue.mpg.de",
    UV: "smpl-x.is.tue.mpg.de",
    FLAME_2020: "flame.is.tue.mpg.de, FLAME 2020",
    FLAME_2019: "flame.is.tue.mpg.de, FLAME 2019",
}
SOURCES_KEY = "sources"  # of the runtime file: JSON, licensed file -> [bytes, modification time in ns]
_BROKEN_ARRAY = (
    ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, MemoryError, RecursionError, OSError,
)  # fmt: skip
_IDS = (
    "faces", "parents", "face_uv", "left_hand_vertices", "right_hand_vertices", "expression_vertices",
)  # fmt: skip
_SMPLX_ARRAYS = (
    "v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "hands_meanl", "hands_meanr",
)  # fmt: skip
_FREE_UV_BYTES, _UV_BYTES_PER_FACE = 2**19, 400  # of a UV map at most; SMPL-X's takes 60 for each face
_DEFINING = ("v_template", "skinning_weights")  # stored in full even where the rest is stored as float16


def runtime_file(path: Path, gender: str) -> Path:
    """Where the runtime form of the body made from the licensed files in `path` is kept."""
    return path / f"body_{gender}.npz"


def licensed_files(gender: str) -> dict[str, str]:
    """The licensed files a body is made of, relative to the model folder -> where to register for them."""
    return {f"smplx/SMPLX_{gender.upper()}.npz": "smpl-x.is.tue.mpg.de, SMPL-X v1.1", **SITES}


def load_body_data(path: Path, gender: str) -> BodyData:
    """The body of one gender in the model folder `path` (SPEC 7, 16).

    `body.npz` serves every gender (the demo body); else `body_<gender>.npz` if it is still that of the
    licensed files beside it; else those are converted and `body_<gender>.npz` is written. UserError names
    what is missing.
    """
    _check_gender(gender)
    if (path / "body.npz").is_file():
        return read_body_data(path / "body.npz")
    runtime = runtime_file(path, gender)
    if runtime.is_file() and _is_current(runtime, path, gender):
        return read_body_data(runtime)
    return prepare_body(path, gender)


def is_same_body(path: Path, gender: str, other: str) -> bool:
    """Whether the model folder `path` has one body for two genders."""
    return gender == other or (path / "body.npz").is_file()


def prepare_body(path: Path, gender: str) -> BodyData:
    """Convert the licensed files in `path` and keep the result beside them, if the folder can be written."""
    data = convert_licensed_files(path, gender)
    try:
        save_runtime_file(data, path, gender)
    except UserError as error:
        logger.warning("%s; the body will be converted again next time", error)
    return data


def save_runtime_file(data: BodyData, path: Path, gender: str) -> Path:
    """Write a body converted from the licensed files in `path` beside them; UserError if that is not possible."""
    runtime = runtime_file(path, gender)
    try:
        if not path.stat().st_mode & 0o222:  # the superuser could write, but the folder's owner said no
            raise PermissionError(f"{path} is marked read-only")
        save_body_data(data, runtime, _stamps(path, gender))
    except OSError as error:
        raise UserError(f"{runtime} cannot be written ({error})") from error
    return runtime


def _check_gender(gender: str) -> None:
    if gender not in GENDERS:
        raise UserError(f"gender is {gender!r}; use one of {', '.join(GENDERS)}")


def _stamps(path: Path, gender: str) -> dict[str, list[int]]:
    """Size and modification time of each licensed file that is there."""
    stats = {name: (path / name).stat() for name in licensed_files(gender) if (path / name).is_file()}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def _is_current(runtime: Path, path: Path, gender: str) -> bool:
    """Whether the licensed files that are there (none need be) are those the runtime file was made of."""
    arrays = read_npz(runtime, (), optional=(SOURCES_KEY,))
    with _readable(runtime):
        made_of = json.loads(str(arrays[SOURCES_KEY])) if SOURCES_KEY in arrays else {}
        if not isinstance(made_of, dict):
            raise TypeError(f"{SOURCES_KEY} is no object")
    return all(made_of.get(name) == stamp for name, stamp in _stamps(path, gender).items())


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Turn what a broken or foreign file raises into one line about it."""
    try:
        yield
    except _BROKEN_ARRAY as error:
        raise UserError(
            f"{file} is not a readable body model file ({error}); download or make it again"
        ) from error


def save_body_data(
    data: BodyData, file: Path, sources: dict[str, list[int]] | None = None, compact: bool = False
) -> None:
    """Write a body as a compressed .npz without pickles; `compact` stores float16 and int32 where it may.

    Compact keeps the template and the skinning weights in float32.
    """
    arrays = {f.name: getattr(data, f.name) for f in fields(data)}
    if compact:
        arrays = {name: _compacted(name, array) for name, array in arrays.items()}
    if sources is not None:
        arrays[SOURCES_KEY] = np.array(json.dumps(sources))
    with atomic_path(file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def _compacted(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f":
        return array.astype(np.float32 if name in _DEFINING else np.float16)
    return array.astype(np.int32)


def read_body_data(file: Path) -> BodyData:
    """A body from its runtime .npz; floats come back as float32, integers as int64."""
    arrays = read_npz(file, [f.name for f in fields(BodyData)])
    with _readable(file):
        data = _typed(arrays)
    check_body_data(data, file)
    return data


def _typed(arrays: dict[str, np.ndarray]) -> BodyData:
    """A body of arrays whose kinds are right: floats as float32, ids as int64."""
    typed = {}
    for name, array in arrays.items():
        is_ids = name in _IDS
        if array.dtype.kind not in ("iu" if is_ids else "f") or not array.ndim:
            raise TypeError(
                f"{name} holds {array.dtype} values, expected {'integers' if is_ids else 'floats'}"
            )
        with np.errstate(over="ignore"):  # becomes infinite and is refused later
            typed[name] = array.astype(np.int64 if is_ids else np.float32)
    return BodyData(**typed)


def check_body_data(data: BodyData, source: Path) -> None:
    """UserError if an array of the body has another shape, ids out of range or values that are not finite."""
    n_vertices, n_faces, n_uv = data.v_template.shape[0], data.faces.shape[0], data.vertex_uv.shape[0]
    if not (n_vertices and n_faces):
        raise UserError(f"{source} has {n_vertices} vertices and {n_faces} faces; get the file again")
    shapes: dict[str, tuple[int | None, ...]] = {
        "v_template": (n_vertices, 3),
        "faces": (n_faces, 3),
        "shape_dirs": (n_vertices, 3, None),
        "expr_dirs": (n_vertices, 3, N_EXPR),
        "pose_dirs": (n_vertices, 3, None),
        "joint_regressor": (N_JOINTS, n_vertices),
        "skinning_weights": (n_vertices, N_JOINTS),
        "parents": (N_JOINTS,),
        "left_hand_mean": (15, 3),
        "right_hand_mean": (15, 3),
        "vertex_uv": (n_uv, 2),
        "face_uv": (n_faces, 3),
        "left_hand_vertices": (None,),
        "right_hand_vertices": (None,),
        "expression_vertices": (None,),
    }
    for name, shape in shapes.items():
        array = getattr(data, name)
        fits = array.ndim == len(shape) and all(
            w in (None, n) for w, n in zip(shape, array.shape, strict=True)
        )
        if not fits:
            wanted = tuple("any" if n is None else n for n in shape)
            raise UserError(f"{source}: {name} has shape {array.shape}, expected {wanted}; wrong model file?")
        if not np.isfinite(array).all():
            raise UserError(f"{source}: {name} holds values that are not finite; get the file again")
    _check_ranges(data, source)


def _check_ranges(data: BodyData, source: Path) -> None:
    n_pose_dirs = data.pose_dirs.shape[2]
    if n_pose_dirs not in (0, 9 * (N_JOINTS - 1)) or data.shape_dirs.shape[2] > N_SHAPE:
        raise UserError(
            f"{source} has {data.shape_dirs.shape[2]} shape and {n_pose_dirs} pose directions, expected "
            f"at most {N_SHAPE} and 0 or {9 * (N_JOINTS - 1)}; wrong model file?"
        )
    bounds = {
        "faces": data.n_vertices,
        "face_uv": data.vertex_uv.shape[0],
        "left_hand_vertices": data.n_vertices,
        "right_hand_vertices": data.n_vertices,
        "expression_vertices": data.n_vertices,
    }
    for name, bound in bounds.items():
        ids = getattr(data, name)
        if ids.size and not (ids.min() >= 0 and ids.max() < bound):
            raise UserError(f"{source}: {name} points beyond {bound} vertices; files of different models?")
    if data.parents[0] != -1 or not all(0 <= parent < i for i, parent in enumerate(data.parents) if i):
        raise UserError(f"{source}: its joints are no tree with parents first; wrong model file?")


def convert_licensed_files(path: Path, gender: str) -> BodyData:
    """The body of the licensed files in `path`: SMPL-X with FLAME's expression directions (SPEC 7)."""
    _check_gender(gender)
    files = licensed_files(gender)
    missing = [
        f"{path / name} (register at {site})" for name, site in files.items() if not (path / name).is_file()
    ]
    if missing:
        raise UserError(f"the body model is not complete: missing {'; '.join(missing)}")
    model_file = path / f"smplx/SMPLX_{gender.upper()}.npz"
    data = _read_smplx(model_file, path / UV)
    data = _with_flame(data, path)
    hands = read_model_pickle(path / HAND_IDS)
    with _readable(path / HAND_IDS):
        left, right = (_ids(hands[f"{side}_hand"], path / HAND_IDS) for side in ("left", "right"))
    data = replace(data, left_hand_vertices=left, right_hand_vertices=right)
    check_body_data(data, model_file)
    return data


def _plain(value: Any) -> np.ndarray:
    """An array, or a flat list of numbers as one; nested lists out of a pickle may have no end."""
    is_flat = isinstance(value, list) and all(type(entry) in (int, float) for entry in value)
    if not isinstance(value, np.ndarray) and not is_flat:
        raise TypeError("something else where an array was expected")
    return np.asarray(value)


def _ids(array: Any, file: Path) -> np.ndarray:
    """Vertex numbers (n,), as int64."""
    array = _plain(array)
    if array.dtype.kind not in "iu" or (array.size and array.min() < 0):
        raise UserError(f"{file} does not hold vertex numbers; download it again")
    return array.astype(np.int64).reshape(-1)


def _read_smplx(file: Path, uv_file: Path) -> BodyData:
    """The SMPL-X file and its UV map; hands and expression vertices still empty."""
    model = read_npz(file, _SMPLX_ARRAYS)
    with _readable(file):
        shape_dirs = _wide_enough(model["shapedirs"], file)
        faces = model["f"].astype(np.int64)
        if model["weights"].shape[1] != N_JOINTS:
            raise ValueError(f"{model['weights'].shape[1]} joints instead of {N_JOINTS}: this is not SMPL-X")
        parents = model["kintree_table"][0].astype(np.int64)
        arrays: dict[str, Any] = {
            "v_template": model["v_template"],
            "faces": faces,
            "shape_dirs": shape_dirs[:, :, :N_SHAPE],
            "expr_dirs": shape_dirs[:, :, EXPR_START : EXPR_START + N_EXPR],
            "pose_dirs": model["posedirs"],
            "joint_regressor": model["J_regressor"],
            "skinning_weights": model["weights"],
            # the root's parent is written as the largest unsigned integer
            "parents": np.where((parents < 0) | (parents >= len(JOINTS)), -1, parents),
            "left_hand_mean": model["hands_meanl"].reshape(15, 3),
            "right_hand_mean": model["hands_meanr"].reshape(15, 3),
        }
    vertex_uv, face_uv = read_uv(uv_file, faces)
    empty = np.zeros(0, np.int64)
    return _typed(
        arrays
        | {"vertex_uv": vertex_uv, "face_uv": face_uv, "expression_vertices": empty}
        | {"left_hand_vertices": empty, "right_hand_vertices": empty}
    )


def _wide_enough(shape_dirs: Any, file: Path) -> np.ndarray:
    if not isinstance(shape_dirs, np.ndarray) or shape_dirs.dtype.kind not in "fiu":
        raise UserError(f"{file}: shapedirs is not an array of numbers; download the file again")
    if shape_dirs.ndim != 3 or shape_dirs.shape[2] < EXPR_START + N_EXPR:
        raise UserError(
            f"{file}: shapedirs has shape {shape_dirs.shape}, expected (V, 3, 400); "
            "download SMPL-X v1.1 (2020), not the file with 10 shape coefficients"
        )
    return shape_dirs


def _with_flame(data: BodyData, path: Path) -> BodyData:
    """FLAME's expression directions in place of the face's own, and the expression vertices (SPEC 7)."""
    flame_to_body = _ids(read_array(path / FLAME_IDS), path / FLAME_IDS)
    newer, older = (read_model_pickle(path / name) for name in (FLAME_2020, FLAME_2019))
    with _readable(path / FLAME_2020):
        dirs = _wide_enough(newer["shapedirs"], path / FLAME_2020)
        expr_dirs = data.expr_dirs.copy()
        expr_dirs[flame_to_body] = dirs[:, :, EXPR_START : EXPR_START + N_EXPR]
    with _readable(path / FLAME_2019):
        dirs = _wide_enough(older["shapedirs"], path / FLAME_2019)
        moves = (dirs[:, :, EXPR_START : EXPR_START + N_EXPR] != 0).any((1, 2))
        is_face = np.isin(_plain(older["weights"]).argmax(1), (FLAME_HEAD, FLAME_JAW))
        expression_vertices = flame_to_body[moves & is_face]
    return replace(data, expr_dirs=expr_dirs, expression_vertices=expression_vertices)


def read_uv(file: Path, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """UV coordinates (U, 2), v flipped, and their face corners (F, 3), of an .obj of these faces (SPEC 7)."""
    coordinates, corners = [], []
    with open_file(file) as stream, _readable(file):
        text = stream.read(_FREE_UV_BYTES + _UV_BYTES_PER_FACE * len(faces) + 1)
        if len(text) > _FREE_UV_BYTES + _UV_BYTES_PER_FACE * len(faces):
            raise ValueError("far larger than a UV map of these faces")
        for line in io.StringIO(text.decode("utf-8"), newline=None):
            kind, *values = line.split(maxsplit=4) or [""]
            if kind == "vt":
                coordinates.append((float(values[0]), 1 - float(values[1])))
            elif kind == "f":
                corners.append([[int(number) - 1 for number in corner.split("/")[:2]] for corner in values])
            if len(corners) > len(faces) or len(coordinates) > 3 * len(faces):
                raise ValueError("it has more faces or coordinates than the model")
        table = np.array(corners, np.int64)  # (F, 3, 2): vertex, uv
        if table.shape != (*faces.shape, 2) or not np.array_equal(table[:, :, 0], faces):
            raise ValueError("its faces are not the model's")
        with np.errstate(over="ignore"):  # becomes infinite and is refused
            uv = np.array(coordinates, np.float32).reshape(-1, 2)
        if not np.isfinite(uv).all():
            raise ValueError("coordinates that are not finite")
        if table[:, :, 1].min(initial=0) < 0 or table[:, :, 1].max(initial=-1) >= len(uv):
            raise ValueError("faces with coordinates that it does not have")
        return uv, table[:, :, 1]
