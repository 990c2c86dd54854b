"""A tiny made-up body in SMPL-X form, and the same as a set of files laid out like the licensed ones."""

from __future__ import annotations

import pickle
import sys
import types
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse

from common.body_model.data import BodyData
from common.joints import EYES, HEAD, JAW, N_JOINTS, PARENTS
from tests.meshes import sphere


def tiny_body_data(seed: int = 0) -> BodyData:
    """A ball of 162 vertices with random blend shapes; its top is the head, two pieces are hands."""
    random = np.random.default_rng(seed)
    vertices, faces = sphere(2)
    n = len(vertices)
    weights = random.random((n, N_JOINTS)) * 0.01
    top = vertices[:, 1] > 0.3
    dominant = np.where(top, np.where(vertices[:, 2] > 0.2, JAW, HEAD), random.integers(0, 12, n))
    dominant[top & (vertices[:, 1] > 0.9)] = EYES[0]
    weights[np.arange(n), dominant] += 1
    regressor = random.random((N_JOINTS, n))
    floats = {
        "v_template": vertices * (0.3, 0.9, 0.2),
        "shape_dirs": random.normal(size=(n, 3, 7)) * 0.01,
        "expr_dirs": random.normal(size=(n, 3, 50)) * 0.01,
        "pose_dirs": random.normal(size=(n, 3, 486)) * 0.001,
        "joint_regressor": regressor / regressor.sum(1, keepdims=True),
        "skinning_weights": weights / weights.sum(1, keepdims=True),
        "left_hand_mean": random.normal(size=(15, 3)) * 0.2,
        "right_hand_mean": random.normal(size=(15, 3)) * 0.2,
        "vertex_uv": random.random((n + 5, 2)),
    }
    ids = {
        "faces": faces,
        "parents": np.array(PARENTS),
        "face_uv": faces + random.integers(0, 6, faces.shape),
        "left_hand_vertices": np.flatnonzero(vertices[:, 0] > 0.8),
        "right_hand_vertices": np.flatnonzero(vertices[:, 0] < -0.8),
        "expression_vertices": np.flatnonzero(top & np.isin(dominant, (HEAD, JAW)) & (vertices[:, 2] > 0)),
    }
    return BodyData(
        **{name: array.astype(np.float32) for name, array in floats.items()},
        **{name: array.astype(np.int64) for name, array in ids.items()},
    )


class _FakeArray:
    """Stands for chumpy's array class in pickles written by tests."""


@contextmanager
def chumpy_classes():
    """Importable stand-ins for chumpy.ch.Ch and chumpy.reordering.Select, for writing pickles."""
    names = {"chumpy": [], "chumpy.ch": ["Ch"], "chumpy.reordering": ["Select"]}
    modules = {}
    for module_name, class_names in names.items():
        modules[module_name] = types.ModuleType(module_name)
        for name in class_names:
            made = type(name, (_FakeArray,), {"__module__": module_name})
            setattr(modules[module_name], name, made)
    sys.modules.update(modules)
    try:
        yield modules["chumpy.ch"].Ch, modules["chumpy.reordering"].Select
    finally:
        for name in modules:
            del sys.modules[name]


@dataclass
class LicensedFiles:
    """A model folder like the licensed one, and what its arrays should become."""

    path: Path
    flame_to_body: np.ndarray
    flame_dirs: np.ndarray  # (V_flame, 3, 400)
    expression_vertices: np.ndarray


def write_licensed_files(path: Path, data: BodyData, gender: str = "MALE", seed: int = 0) -> LicensedFiles:
    """Write a tiny body as SMPL-X, FLAME and MANO files, FLAME's pickles with chumpy and sparse arrays."""
    random = np.random.default_rng(seed)
    n = data.n_vertices
    for folder in ("smplx/smplx_uv", "flame/2019"):
        (path / folder).mkdir(parents=True)
    shape_dirs = np.zeros((n, 3, 400))
    shape_dirs[:, :, :100] = random.normal(size=(n, 3, 100))
    shape_dirs[:, :, 300:350] = data.expr_dirs
    parents = np.where(data.parents < 0, 2**32 - 1, data.parents).astype(np.uint32)
    np.savez(
        path / f"smplx/SMPLX_{gender}.npz",
        v_template=data.v_template.astype(np.float64),
        f=data.faces.astype(np.uint32),
        shapedirs=shape_dirs,
        posedirs=data.pose_dirs.astype(np.float64),
        J_regressor=data.joint_regressor.astype(np.float64),
        weights=data.skinning_weights.astype(np.float64),
        kintree_table=np.stack([parents, np.arange(N_JOINTS, dtype=np.uint32)]),
        hands_meanl=data.left_hand_mean.reshape(45),
        hands_meanr=data.right_hand_mean.reshape(45),
        part2num=np.array({"unused": 1}, dtype=object),
    )
    write_uv(path / "smplx/smplx_uv/smplx_uv.obj", data)
    hands = {"left_hand": data.left_hand_vertices, "right_hand": data.right_hand_vertices}
    (path / "smplx/MANO_SMPLX_vertex_ids.pkl").write_bytes(pickle.dumps(hands, protocol=2))
    return _write_flame(path, n, random)


def write_uv(file: Path, data: BodyData) -> None:
    """The body's UV map as an .obj, v up."""
    lines = [f"v {x} {y} {z}" for x, y, z in data.v_template]
    lines += [f"vt {u} {1 - v}" for u, v in data.vertex_uv.astype(np.float64)]
    for face, uv in zip(data.faces + 1, data.face_uv + 1, strict=True):
        lines.append("f " + " ".join(f"{a}/{b}" for a, b in zip(face, uv, strict=True)))
    file.write_text("\n".join(lines) + "\n")


def _write_flame(path: Path, n_vertices: int, random: np.random.Generator) -> LicensedFiles:
    n = n_vertices // 3
    flame_to_body = random.permutation(n_vertices)[:n]
    np.save(path / "smplx/SMPL-X__FLAME_vertex_ids.npy", flame_to_body.astype(np.int32))
    newer, older = (random.normal(size=(n, 3, 400)) for _ in range(2))
    still = random.random(n) < 0.4
    older[still, :, 300:350] = 0
    joints = random.integers(0, 5, n)
    weights = np.eye(5)[joints] * 0.9 + 0.02
    with chumpy_classes() as (Ch, Select):
        shape_dirs, selected = Ch(), Select()
        shape_dirs.__dict__ = {"x": older, "_dirty_vars": set(), "_itr": None}
        order = random.permutation(weights.size)
        shuffled = np.empty(weights.size)
        shuffled[order] = weights.reshape(-1)
        inner = Ch()
        inner.__dict__ = {"x": shuffled}
        selected.__dict__ = {"a": inner, "idxs": order, "preferred_shape": weights.shape}
        regressor = scipy.sparse.csc_matrix(random.random((5, n)) * (random.random((5, n)) < 0.1))
        model = {"shapedirs": shape_dirs, "weights": selected, "J_regressor": regressor, "bs_style": "lbs"}
        (path / "flame/2019/generic_model.pkl").write_bytes(pickle.dumps(model, protocol=2))
    model = {"shapedirs": newer, "weights": weights}
    (path / "flame/FLAME_NEUTRAL.pkl").write_bytes(pickle.dumps(model, protocol=0))
    chosen = flame_to_body[~still & np.isin(joints, (1, 2))]
    return LicensedFiles(path, flame_to_body, newer, chosen)
