"""Another body from the source's: some faces split in three, all vertices and faces in another order, other shape."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np

from tests.golden.other_set.folder import OtherSet

MODELS = "assets/human_model_files"
STRETCH = np.array([1.04, 0.97, 1.06], np.float32)
N_FLAME_EXPR = 300  # expression columns of shapedirs begin here


class Renumbering:
    """Old vertices and faces to new ones."""

    def __init__(self, faces: np.ndarray, n_vertices: int, n_split: int, rng: np.random.Generator) -> None:
        self.n_old, self.n_new = n_vertices, n_vertices + n_split
        self.split = np.sort(rng.choice(len(faces), n_split, replace=False))
        self.corners = faces[self.split]  # of each new vertex
        self.label = rng.permutation(self.n_new)  # position before -> vertex id
        self.old_faces = faces
        a, b, c = self.corners.T
        middle = np.arange(n_vertices, self.n_new)
        kept = np.setdiff1d(np.arange(len(faces)), self.split)
        pieces = [np.stack(piece, 1) for piece in ((a, b, middle), (b, c, middle), (c, a, middle))]
        self._origin = np.concatenate([kept, np.tile(self.split, 3)])
        self._order = rng.permutation(len(self._origin))
        self.faces = self.label[np.concatenate([faces[kept], *pieces])][self._order]
        self._n_kept = len(kept)

    def vertices(self, values: np.ndarray) -> np.ndarray:
        """Per-vertex values; a new vertex has its corners' mean."""
        added = values[self.corners].astype(np.float64).mean(1).astype(values.dtype)
        result = np.empty((self.n_new, *values.shape[1:]), values.dtype)
        result[self.label] = np.concatenate([values, added])
        return result

    def ids(self, ids: np.ndarray) -> np.ndarray:
        """Numbers of old vertices."""
        return self.label[ids]

    def with_inner(self, ids: np.ndarray) -> np.ndarray:
        """Numbers of old vertices, and of the new ones between them."""
        inside = np.isin(self.corners, ids).all(1).nonzero()[0] + self.n_old
        return self.label[np.concatenate([ids, inside])]

    def face_ids(self, faces: np.ndarray) -> np.ndarray:
        """A new face at, or in, each old one."""
        first = np.empty(len(self.old_faces), np.int64)
        place = np.argsort(self._order)
        first[self._origin[::-1]] = place[::-1]
        return first[faces]

    def corner_values(self, per_corner: np.ndarray, n_values: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids (F, 3) of per-corner values, and for each added value the ids of the three it is the mean of."""
        a, b, c = per_corner[self.split].T
        middle = np.arange(n_values, n_values + len(self.split))
        kept = np.setdiff1d(np.arange(len(per_corner)), self.split)
        pieces = [np.stack(piece, 1) for piece in ((a, b, middle), (b, c, middle), (c, a, middle))]
        return np.concatenate([per_corner[kept], *pieces])[self._order], per_corner[self.split]


def make_body(other: OtherSet) -> None:
    """Body model files, FLAME, hand ids and UV map, and the constants beside them."""
    source, target, rng = other.source / MODELS, other.path / MODELS, other.rng
    with np.load(source / "smplx/SMPLX_MALE.npz") as model:
        faces = model["f"].astype(np.int64)
        new = Renumbering(faces, len(model["v_template"]), other.sizes.n_split_faces, rng)
    (target / "smplx/smplx_uv").mkdir(parents=True)
    (target / "flame/2019").mkdir(parents=True)
    signs = rng.choice([-1, 1], 400).astype(np.float32) * rng.uniform(0.8, 1.2, 400).astype(np.float32)
    noise = other.normal(new.n_new, 3, size=5e-4)
    for gender in ("MALE", "NEUTRAL"):
        _make_model(source / f"smplx/SMPLX_{gender}.npz", target, new, signs, noise)
    _make_flame(source, target, new, signs, rng)
    with (source / "smplx/MANO_SMPLX_vertex_ids.pkl").open("rb") as stream:
        hands = pickle.load(stream)  # the repository's own file
    with (target / "smplx/MANO_SMPLX_vertex_ids.pkl").open("wb") as stream:
        pickle.dump({side: rng.permutation(new.with_inner(ids)) for side, ids in hands.items()}, stream)
    _make_uv(source, target, new)
    constants = json.loads((other.source / "assets/mini_constants.json").read_text())
    constants["vertex_num"] = new.n_new
    constants["lip_vertex_idx"] = new.ids(np.array(constants["lip_vertex_idx"])).tolist()
    constants["vertex_ids_smplx"] = {
        name: int(new.label[i]) for name, i in constants["vertex_ids_smplx"].items()
    }
    other.write_json("assets/mini_constants.json", constants)
    mouth = other.drawn_from("03_masks.npz")["mouth_faces"]
    np.save(other.path / "mouth_faces.npy", new.ids(mouth))  # taken away again when 03_masks.npz is made


def _make_model(file: Path, target: Path, new: Renumbering, signs: np.ndarray, noise: np.ndarray) -> None:
    with np.load(file) as stored:
        model = dict(stored)
    regressor = np.zeros((len(model["J_regressor"]), new.n_new), model["J_regressor"].dtype)
    regressor[:, new.label[: new.n_old]] = model["J_regressor"]
    model |= {
        "v_template": new.vertices(model["v_template"]) * STRETCH + noise,
        "f": new.faces.astype(model["f"].dtype),
        "weights": new.vertices(model["weights"]),
        "shapedirs": new.vertices(model["shapedirs"]) * signs,
        "posedirs": new.vertices(model["posedirs"]),
        "J_regressor": regressor,
        "hands_meanl": model["hands_meanl"] * np.float32(1.1),
        "hands_meanr": model["hands_meanr"] * np.float32(0.9),
        "lmk_faces_idx": new.face_ids(model["lmk_faces_idx"]),
        "dynamic_lmk_faces_idx": new.face_ids(model["dynamic_lmk_faces_idx"]),
    }
    np.savez_compressed(target / "smplx" / file.name, **model)


def _make_flame(
    source: Path, target: Path, new: Renumbering, signs: np.ndarray, rng: np.random.Generator
) -> None:
    """What is read of FLAME: where its vertices are on the body, weights, blend shapes; in another order too."""
    ids = np.load(source / "smplx/SMPL-X__FLAME_vertex_ids.npy")
    place = np.full(new.n_old, -1)
    place[ids] = np.arange(len(ids))
    inside = (place[new.corners] >= 0).all(1)
    corners = place[new.corners[inside]]
    order = rng.permutation(len(ids) + len(corners))
    all_ids = np.concatenate([new.ids(ids), new.label[new.n_old + inside.nonzero()[0]]])
    np.save(target / "smplx/SMPL-X__FLAME_vertex_ids.npy", all_ids[order])
    for name in ("flame/FLAME_NEUTRAL.pkl", "flame/2019/generic_model.pkl"):
        with (source / name).open("rb") as stream:
            model = pickle.load(stream, encoding="latin1")  # the repository's own file
        dirs, weights = model["shapedirs"], model["weights"]
        if dirs.dtype.kind == "f":
            added = dirs[corners].astype(np.float32).mean(1)
            values = (np.concatenate([dirs.astype(np.float32), added]) * signs).astype(dirs.dtype)
        else:  # only the zero pattern matters
            values = np.concatenate([dirs, (dirs[corners] != 0).any(1).astype(dirs.dtype)])
        added = weights[corners].mean(1)
        content = {
            "shapedirs": values[order],
            "weights": np.concatenate([weights, added])[order].astype(weights.dtype),
        }
        with (target / name).open("wb") as stream:
            pickle.dump(content, stream)


def _make_uv(source: Path, target: Path, new: Renumbering) -> None:
    lines = (source / "smplx/smplx_uv/smplx_uv.obj").read_text().splitlines()
    uv = np.array([line.split()[1:3] for line in lines if line.startswith("vt")], float)
    corners = [line.split()[1:] for line in lines if line.startswith("f ")]
    face_uv = np.array([[int(corner.split("/")[1]) - 1 for corner in face] for face in corners])
    new_face_uv, made_of = new.corner_values(face_uv, len(uv))
    uv = np.concatenate([uv, uv[made_of].mean(1)])
    text = [f"vt {u:.8f} {v:.8f}" for u, v in uv]
    for face, face_corners in zip(new.faces + 1, new_face_uv + 1, strict=True):
        text.append("f " + " ".join(f"{v}/{t}" for v, t in zip(face, face_corners, strict=True)))
    (target / "smplx/smplx_uv/smplx_uv.obj").write_text("\n".join(text) + "\n")
