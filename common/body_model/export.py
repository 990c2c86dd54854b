"""Writing a body as the plain SMPL-X model file that the unmodified `smplx` package loads (SPEC 7, 16)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from common.body_model.data import BodyData
from common.errors import UserError
from common.io.atomic import atomic_path
from common.joints import N_JOINTS

MIN_VERTICES = 9930  # smplx's class picks key points by vertex number, up to 9929
N_SHAPE_COLUMNS, N_EXPR_COLUMNS = 300, 100  # layout of `shapedirs`
N_POSE_DIRS = 9 * (N_JOINTS - 1)
N_LANDMARKS, N_CONTOUR_ANGLES, N_CONTOUR = 51, 79, 17


def smplx_arrays(body: BodyData) -> dict[str, np.ndarray]:
    """The arrays of an SMPL-X model file (V1.1 layout, without the extras of its authors' own tools).

    Shape columns beyond the body's are zero, expression stands in columns 300..349, the hands' components are
    the identity (45 of them, so `use_pca=True` and all components is the axis-angle pose itself). A body
    without face landmarks gets corners of face 0: they carry no meaning.
    """
    n_vertices = body.n_vertices
    shapedirs = np.zeros((n_vertices, 3, N_SHAPE_COLUMNS + N_EXPR_COLUMNS), dtype=np.float32)
    shapedirs[:, :, : body.shape_dirs.shape[2]] = body.shape_dirs
    shapedirs[:, :, N_SHAPE_COLUMNS : N_SHAPE_COLUMNS + body.expr_dirs.shape[2]] = body.expr_dirs
    posedirs = np.zeros((n_vertices, 3, N_POSE_DIRS), dtype=np.float32)
    posedirs[:, :, : body.pose_dirs.shape[2]] = body.pose_dirs
    parents = np.where(body.parents < 0, 2**32 - 1, body.parents).astype(np.uint32)
    corner = np.array([1.0, 0.0, 0.0])
    return {
        "v_template": body.v_template,
        "f": body.faces.astype(np.uint32),
        "shapedirs": shapedirs,
        "posedirs": posedirs,
        "J_regressor": body.joint_regressor,
        "weights": body.skinning_weights,
        "kintree_table": np.stack([parents, np.arange(N_JOINTS, dtype=np.uint32)]),
        "hands_componentsl": np.eye(45, dtype=np.float32),
        "hands_componentsr": np.eye(45, dtype=np.float32),
        "hands_meanl": body.left_hand_mean.reshape(-1),
        "hands_meanr": body.right_hand_mean.reshape(-1),
        "lmk_faces_idx": np.zeros(N_LANDMARKS, dtype=np.int64),
        "lmk_bary_coords": np.tile(corner, (N_LANDMARKS, 1)),
        "dynamic_lmk_faces_idx": np.zeros((N_CONTOUR_ANGLES, N_CONTOUR), dtype=np.int64),
        "dynamic_lmk_bary_coords": np.tile(corner, (N_CONTOUR_ANGLES, N_CONTOUR, 1)),
        "vt": body.vertex_uv * [1, -1] + [0, 1],
        "ft": body.face_uv.astype(np.uint32),
    }


def export_smplx_model(body: BodyData, file: Path) -> None:
    """Write the body to `file`; its name must begin with SMPLX_ and end in .npz for `smplx.create` to take it."""
    if not (file.name.startswith("SMPLX_") and file.suffix == ".npz"):
        raise UserError(f"{file}: smplx.create wants a name like SMPLX_NEUTRAL.npz; choose one")
    if body.n_vertices < MIN_VERTICES:
        raise UserError(
            f"the body has {body.n_vertices} vertices, but the smplx package's class needs {MIN_VERTICES} or "
            "more; use its functions (smplx.lbs) with the runtime file instead"
        )
    with atomic_path(file) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **smplx_arrays(body))
