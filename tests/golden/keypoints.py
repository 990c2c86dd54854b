"""The published keypoints of a body posed by this project: its joints, single vertices and points on triangles.

Which vertices and triangles, the golden assets say; nothing in this project needs more of them than the joints.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from smplx.lbs import find_dynamic_lmk_idx_and_bcoords, vertices2landmarks
from smplx.vertex_joint_selector import VertexJointSelector
from torch import Tensor

from common.body_model.body import BodyModel, BodyOutput
from common.joints import JOINTS, N_JOINTS, POSE_PARAMS
from common.pose import SmplxParams
from tests.golden import scene


@dataclass(frozen=True)
class Keypoints:
    """Where the keypoints are on one body: ids of vertices, and triangles with weights of their corners."""

    vertex: Tensor  # (21,) eyes, ears, nose, toes, heels, finger tips
    vertex_names: dict[str, int]
    face_triangle: Tensor  # (51,)
    face_weights: Tensor  # (51, 3)
    contour_triangle: Tensor  # (79, 17), by how far the head is turned
    contour_weights: Tensor  # (79, 17, 3)

    @classmethod
    def load(cls, assets: Path) -> Keypoints:
        """Those of the golden assets."""
        names = json.loads((assets / "mini_constants.json").read_text())["vertex_ids_smplx"]
        with np.load(assets / "human_model_files/smplx/SMPLX_MALE.npz") as model:
            tables = [
                scene.from_numpy(model[name])
                for name in (
                    *("lmk_faces_idx", "lmk_bary_coords"),
                    *("dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords"),
                )
            ]
        return cls(VertexJointSelector(names).extra_joints_idxs, names, *tables)

    @property
    def n_without_contour(self) -> int:
        """How many there are before those on the face's contour."""
        return N_JOINTS + len(self.vertex) + len(self.face_triangle)

    def of(self, body: BodyModel, posed: BodyOutput, params: SmplxParams) -> Tensor:
        """All of them (144, 3), in the space of the posed body."""
        vertices = posed.vertices[None]
        axis_angle = torch.cat([getattr(params, name).reshape(-1, 3) for name in POSE_PARAMS])
        contour = find_dynamic_lmk_idx_and_bcoords(
            vertices,
            axis_angle.reshape(1, -1),
            self.contour_triangle,
            self.contour_weights,
            torch.tensor(_chain_to_root("neck", body.parents)),
        )
        triangles = torch.cat([self.face_triangle, contour[0][0]])
        weights = torch.cat([self.face_weights, contour[1][0]])
        landmarks = vertices2landmarks(vertices, body.faces, triangles[None], weights[None])[0]
        return torch.cat([posed.joints, posed.vertices[self.vertex], landmarks])


def _chain_to_root(joint: str, parents: Tensor) -> list[int]:
    chain = [JOINTS.index(joint)]
    while parents[chain[-1]] >= 0:
        chain.append(int(parents[chain[-1]]))
    return chain
