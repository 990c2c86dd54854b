"""The demo subject's true geometry: identity, hair, clothes, and the posed mesh (SPEC 7, 9, 16)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from common.avatar import apply_transforms, blend_transforms, joint_transforms
from common.body_model.body import BodyModel
from common.body_model.identity import Identity
from common.demo.subject_cloth import Cloth, Cut
from common.demo.subject_surface import Landmarks, Surface, hair_cover, smoothstep
from common.joints import FINGER_JOINTS, N_JOINTS, N_SHAPE, joint_index
from common.mesh import laplacian, vertex_normals
from common.pose import SmplxPose

SHAPE_STD = 0.8
FACE_OFFSET_M = 0.0025
JOINT_OFFSET_M = 0.003
HAIR_M = 0.024
SHOE_M = 0.015


def random_identity(
    body: BodyModel, surface: Surface, landmarks: Landmarks, rng: np.random.Generator
) -> Identity:
    """A plausible person: shape coefficients, a slightly other face, slightly moved joints."""
    n_shape = min(body.shape_dirs.shape[2], N_SHAPE)
    shape = np.zeros(N_SHAPE)
    shape[:n_shape] = np.clip(SHAPE_STD * rng.standard_normal(n_shape), -1.5, 1.5)
    joint_offset = rng.normal(0, JOINT_OFFSET_M / np.sqrt(3), (N_JOINTS, 3))
    joint_offset[list(FINGER_JOINTS)] *= 0.1
    joint_offset[[0, *(joint_index(name) for name in ("jaw", "left_eye", "right_eye"))]] = 0
    variation = face_variation(surface, landmarks, rng, FACE_OFFSET_M)
    face_offset = variation[: body.n_vertices]  # the body's own vertices come first
    return Identity(
        torch.tensor(shape, dtype=torch.float32),
        torch.from_numpy(face_offset),
        torch.tensor(joint_offset, dtype=torch.float32),
    )


def face_variation(
    surface: Surface, landmarks: Landmarks, rng: np.random.Generator, size_m: float
) -> np.ndarray:
    """A smooth symmetric displacement (M, 3) of the face, none at the eyes, of about that size."""
    waves = rng.normal(0, 40.0, (8, 3))  # radians per metre: features of several centimetres
    phases = rng.uniform(0, 2 * np.pi, 8)
    directions = rng.standard_normal((8, 3)) / np.sqrt(8 / 2)
    position = surface.position * np.array([0.0, 1.0, 1.0]) + np.abs(surface.position) * np.array([1.0, 0, 0])
    displacement = np.sin(position @ waves.T + phases) @ directions
    displacement[:, 0] *= np.sign(surface.position[:, 0]) * smoothstep(position[:, 0], 0, 0.01)
    eye = landmarks.joint("left_eye") + np.array([0.0, 0.0, 0.012])  # the opening, before the eye's centre
    # Far enough back that the mouth's inside moves along.
    is_front = smoothstep(surface.position[:, 2], eye[2] - 0.09, eye[2] - 0.03)
    from_eye = np.linalg.norm(position - eye, axis=1)
    weight = surface.head * is_front * (1 - np.exp(-((from_eye / 0.024) ** 4))) * (surface.eye < 0.01)
    return (size_m * weight[:, None] * displacement).astype(np.float32)


class TrueSubject:
    """A dressed person on the subdivided body; poses as the avatar does, with the body's own skinning weights."""

    def __init__(
        self, body: BodyModel, identity: Identity, surface: Surface, landmarks: Landmarks, cut: Cut
    ) -> None:
        self.body = body
        self.identity = identity
        self.surface = surface
        self.cloth = Cloth(surface, landmarks, cut)
        joints = body.zero_pose_joints(identity)
        neutral_pose = SmplxPose.from_params(body.neutral_pose_params(jaw_open=False))
        to_neutral = joint_transforms(neutral_pose.rotation, joints, body.parents)
        self._joints = joints
        self._neutral_to_zero = torch.linalg.inv(to_neutral)
        blended = blend_transforms(body.skinning_weights_high, to_neutral)
        self._turn = blended[:, :, :3]  # (N, 3, 3) zero to neutral
        naked = body.subdivider.interpolate(body.neutral_vertices(identity, jaw_open=False))
        # (N, 3) neutral pose: hair, shoes, clothes at rest
        self.static_offset = self._dress(naked, cut) - naked
        self.neutral = naked + self.static_offset

    def _dress(self, naked: Tensor, cut: Cut) -> Tensor:
        """Neutral vertices with the body's detail smoothed away under cloth, shoes and hair, and these put on."""
        surface, body = self.surface, self.body
        shoe = smoothstep(surface.foot, 0.3, 0.7)
        under_cloth = np.clip(np.linalg.norm(self.cloth.static, axis=1) / cut.thickness_m, 0, 1)
        hair = hair_cover(surface)
        smoothed = naked
        rounds = 4**body.subdivider.levels
        for weight, n_rounds in ((shoe, 30), (under_cloth, 9), (hair, 6)):
            strength = torch.tensor(0.5 * weight, dtype=torch.float32)[:, None]
            for _ in range(n_rounds * rounds):
                smoothed = smoothed - strength * laplacian(smoothed, body.neighbours_high)
        normals = vertex_normals(smoothed, body.faces_high)
        thickness = torch.tensor(SHOE_M * shoe + HAIR_M * hair, dtype=torch.float32)[:, None]
        static = torch.einsum("nij,nj->ni", self._turn, torch.from_numpy(self.cloth.static))
        return smoothed + thickness * normals + static

    def pose_offset(self, pose: SmplxPose) -> Tensor:
        """The cloth's pose-driven offset (N, 3) in the neutral pose, metres."""
        offset = torch.from_numpy(self.cloth.pose_offset(pose.rotation.double().numpy()))
        return torch.einsum("nij,nj->ni", self._turn, offset)

    def vertices(self, pose: SmplxPose, offset: Tensor | None = None) -> Tensor:
        """The dressed mesh (N, 3) in camera space; `offset` (N, 3), neutral pose, replaces the cloth's own."""
        if offset is None:
            offset = self.pose_offset(pose)
        return self.skin(pose, self.neutral + offset + self.body.expr_dirs_high @ pose.expr)

    @property
    def naked(self) -> Tensor:
        """The body itself (N, 3), neutral pose."""
        return self.neutral - self.static_offset

    def skin(self, pose: SmplxPose, neutral: Tensor) -> Tensor:
        """Neutral-pose points (N, 3) in the pose, camera space."""
        transforms = joint_transforms(pose.rotation, self._joints, self.body.parents) @ self._neutral_to_zero
        blended = blend_transforms(self.body.skinning_weights_high, transforms)
        return apply_transforms(blended, neutral) + pose.trans
