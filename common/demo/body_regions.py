"""Named vertex regions of the demo body for painting its skin, from MPFB2's CC0 masks (SPEC 16)."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates

from common.body_model.data import BodyData
from common.demo.body_source import AnnySource
from common.joints import HEAD, joint_index

_MASK_NAMES = {"lips": "lips", "ears": "ears", "eyelids": "eyelids", "fingernails": "fingernails",
               "toenails": "toenails", "inside_mouth": "inside_mouth", "face": "face",
               "crotch": "crotch"}  # fmt: skip
_IRIS_ANGLE_DEG, _PUPIL_ANGLE_DEG = 28.0, 12.0
_MASK_THRESHOLD = 127


def skin_regions(source: AnnySource, body: BodyData) -> dict[str, np.ndarray]:
    """Vertex indices by region name."""
    regions = {name: _masked_vertices(source.masks[mask], body) for name, mask in _MASK_NAMES.items()}
    regions.update(source.groups)
    for side in ("left", "right"):
        eye = source.groups[f"{side}_eye"]
        off_axis = _gaze_angles_deg(body.v_template[eye])
        regions[f"{side}_iris"] = eye[off_axis < _IRIS_ANGLE_DEG]
        regions[f"{side}_pupil"] = eye[off_axis < _PUPIL_ANGLE_DEG]
    inner = np.concatenate([source.groups[name] for name in source.groups])
    regions["skin"] = np.setdiff1d(np.arange(body.n_vertices), inner)
    regions["scalp"] = _scalp(body, regions)
    return regions


def _masked_vertices(mask: np.ndarray, body: BodyData) -> np.ndarray:
    """Vertices with a UV corner inside the white part of a mask image."""
    height, width = mask.shape
    rows, columns = body.vertex_uv[:, 1] * (height - 1), body.vertex_uv[:, 0] * (width - 1)
    is_inside = map_coordinates(mask.astype(np.float32), [rows, columns], order=1) > _MASK_THRESHOLD
    return np.unique(body.faces[is_inside[body.face_uv]])


def _gaze_angles_deg(eye: np.ndarray) -> np.ndarray:
    """Angle of each eyeball vertex from the forward axis through the ball's centre."""
    centre = (eye.min(axis=0) + eye.max(axis=0)) / 2
    direction = eye - centre
    return np.rad2deg(np.arccos(direction[:, 2] / np.linalg.norm(direction, axis=1)))


def _scalp(body: BodyData, regions: dict[str, np.ndarray]) -> np.ndarray:
    """Where hair grows: the head above a line from the forehead down to the nape, without ears and face."""
    joints = body.joint_regressor @ body.v_template
    head, eyes = joints[HEAD], (joints[joint_index("left_eye")] + joints[joint_index("right_eye")]) / 2
    _, y, z = (body.v_template - eyes).T
    is_head = body.skinning_weights.argmax(axis=1) == HEAD
    depth = np.clip(-z / (eyes[2] - head[2] + 0.09), 0, 1)  # 0 at the eyes, 1 at the back
    line = 0.062 - 0.125 * depth
    return np.setdiff1d(np.flatnonzero(is_head & (y > line)), regions["ears"])
