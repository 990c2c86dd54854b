"""Where on the body a point lies: the coordinates that the demo subject's clothes and paint are functions of."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch

from common.body_model.body import BodyModel
from common.joints import FINGER_JOINTS, JOINTS, joint_index
from common.mesh import vertex_normals

_LIMBS = {
    "arm": ("shoulder", "elbow", "wrist"),
    "leg": ("hip", "knee", "ankle"),
}


@dataclass(frozen=True)
class Landmarks:
    """Measures of the template in the zero pose (T); metres, x body's left, y up, z forward."""

    joints: np.ndarray  # (55, 3)
    crotch_y: float
    floor_y: float

    def joint(self, name: str) -> np.ndarray:
        """One joint's position (3,)."""
        return self.joints[joint_index(name)]

    @property
    def waist_y(self) -> float:
        """Height of the lower spine."""
        return float(self.joint("spine1")[1])


@dataclass(frozen=True)
class Surface:
    """M points on the template's surface, with how much of each limb they are."""

    position: np.ndarray  # (M, 3) zero pose, metres
    normal: np.ndarray  # (M, 3) unit
    arm: np.ndarray  # (M,) share of the skinning weight on shoulder, elbow, wrist and fingers
    leg: np.ndarray  # (M,) on hip, knee, ankle, foot
    foot: np.ndarray  # (M,) on ankle, foot
    hand: np.ndarray  # (M,) on wrist and fingers
    head: np.ndarray  # (M,) on head, jaw and eyes
    eye: np.ndarray  # (M,) on the eyes alone
    along_arm: np.ndarray  # (M,) 0 shoulder, 1 wrist
    along_leg: np.ndarray  # (M,) 0 hip, 1 ankle
    regions: np.ndarray  # (M, K) region masks of the demo body, in the order of `region_names`
    region_names: tuple[str, ...]

    def __len__(self) -> int:
        return self.position.shape[0]

    @property
    def is_left(self) -> np.ndarray:
        """Body's left side."""
        return self.position[:, 0] > 0

    def region(self, name: str) -> np.ndarray:
        """A region's mask (M,), 0..1; zeros if the body has no such region."""
        if name not in self.region_names:
            return np.zeros(len(self), dtype=np.float32)
        return self.regions[:, self.region_names.index(name)]

    def on_faces(self, corners: np.ndarray, barycentric: np.ndarray) -> Surface:
        """Points inside triangles: corners (P, 3) indices into these points, barycentric (P, 3)."""
        weight = barycentric.astype(np.float32)

        def mix(values: np.ndarray) -> np.ndarray:
            shares = weight if values.ndim == 1 else weight[:, :, None]
            return sum(shares[:, k] * values[corners[:, k]] for k in range(3))

        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "region_names"}
        return Surface(**{name: mix(value) for name, value in values.items()}, region_names=self.region_names)


def find_landmarks(body: BodyModel) -> Landmarks:
    """Landmarks of a body's template."""
    vertices = body.v_template.numpy().astype(np.float64)
    joints = (body.joint_regressor @ body.v_template).numpy().astype(np.float64)
    weights = body.skinning_weights.numpy()
    trunk = _share(weights, ("pelvis", "spine1", "spine2", "spine3"))
    legs = _share(weights, ("left_hip", "right_hip"))
    hip_y = joints[joint_index("left_hip"), 1]
    near_middle = (np.abs(vertices[:, 0]) < 0.004) & (trunk + legs > 0.9) & (vertices[:, 1] < hip_y + 0.02)
    crotch_y = vertices[near_middle, 1].min() if near_middle.any() else hip_y - 0.08
    return Landmarks(
        joints=joints,
        crotch_y=float(crotch_y),
        floor_y=float(vertices[:, 1].min()),
    )


def vertex_surface(body: BodyModel, landmarks: Landmarks, regions: dict[str, np.ndarray]) -> Surface:
    """The surface at the N subdivided vertices; regions are masks (V,) of the low-resolution vertices."""
    position = body.subdivider.interpolate(body.v_template)
    weights = body.skinning_weights_high.numpy()
    both = {part: tuple(f"{side}_{part}" for side in ("left", "right")) for part in _SIDED}
    names = tuple(sorted(regions))
    masks = np.stack([regions[name] for name in names], 1) if names else np.zeros((body.n_vertices, 0))
    points = position.numpy().astype(np.float32)
    arm_start, arm_end = (abs(landmarks.joint(f"left_{j}")[0]) for j in ("shoulder", "wrist"))
    leg_start, leg_end = (landmarks.joint(f"left_{j}")[1] for j in ("hip", "ankle"))
    hand = _share(weights, both["wrist"]) + weights[:, list(FINGER_JOINTS)].sum(1)
    return Surface(
        position=points,
        normal=vertex_normals(position, body.faces_high).numpy(),
        arm=_share(weights, both["shoulder"] + both["elbow"]) + hand,
        leg=_share(weights, both["hip"] + both["knee"] + both["ankle"] + both["foot"]),
        foot=_share(weights, both["ankle"] + both["foot"]),
        hand=hand,
        head=_share(weights, ("head", "jaw", "left_eye", "right_eye")),
        eye=_share(weights, ("left_eye", "right_eye")),
        along_arm=(np.abs(points[:, 0]) - arm_start) / (arm_end - arm_start),
        along_leg=(leg_start - points[:, 1]) / (leg_start - leg_end),
        regions=body.subdivider.interpolate(torch.from_numpy(masks).float()).numpy(),
        region_names=names,
    )


_SIDED = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle", "foot")


def _share(weights: np.ndarray, joints: tuple[str, ...]) -> np.ndarray:
    return weights[:, [JOINTS.index(name) for name in joints]].sum(1)


def limb_axis(landmarks: Landmarks, surface: Surface, limb: str) -> np.ndarray:
    """The nearest point (M, 3) on the own side's limb axis, at the same distance along the limb."""
    coordinate = 0 if limb == "arm" else 1
    values = np.abs(surface.position[:, 0]) if limb == "arm" else -surface.position[:, 1]
    joints = np.stack([landmarks.joint(f"left_{joint}") for joint in _LIMBS[limb]])
    knots = joints[:, 0] if limb == "arm" else -joints[:, 1]
    axis = np.stack([np.interp(values, knots, joints[:, k]) for k in range(3)], 1)
    axis[:, coordinate] = np.abs(surface.position[:, 0]) if limb == "arm" else surface.position[:, 1]
    axis[:, 0] *= np.where(surface.is_left, 1, -1)
    return axis


def smoothstep(values: np.ndarray, start: float, end: float) -> np.ndarray:
    """0 at start and before, 1 at end and beyond, smooth between; start may exceed end."""
    t = np.clip((values - start) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)


def hair_cover(surface: Surface) -> np.ndarray:
    """How much points are covered by hair (M,), 0..1."""
    return smoothstep(surface.region("scalp"), 0.2, 0.9)
