"""The demo subject's clothes as geometry: how far they stand off the body, at rest and driven by the pose.

Offsets are made in the zero pose (limbs along the axes) and turned into the neutral pose, where the avatar keeps
its own (SPEC 9). The pose-driven part is a smooth function of the rotations of joints within 4 rings of the vertex.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.demo.subject_surface import Landmarks, Surface, limb_axis, smoothstep
from common.joints import joint_index

DOWN = np.array([0.0, -1.0, 0.0])


@dataclass(frozen=True)
class Cut:
    """Where the garments end and how wide they are; fractions along limbs, metres."""

    left_cuff: float = 0.93  # along the arm
    right_cuff: float = 0.80
    trouser_hem: float = 0.80  # along the leg
    tunic_below_crotch_m: float = -0.01
    thickness_m: float = 0.012
    sleeve_flare_m: float = 0.040
    trouser_flare_m: float = 0.055
    tunic_flare_m: float = 0.045
    sleeve_sag_m: float = 0.060  # hanging below a level forearm, at the cuff
    trouser_sag_m: float = 0.075  # hanging below a level lower leg, at the hem
    tunic_sag_m: float = 0.060
    fold_m: float = 0.006


@dataclass(frozen=True)
class _Segment:
    """One tube of cloth that hangs off a limb segment; zero pose."""

    chain: tuple[int, ...]  # joints from the trunk down to the one that carries it
    axis: np.ndarray  # (3,) unit, along the limb
    amount: np.ndarray  # (N,) metres of sag where the limb is level


class Cloth:
    """Clothes on the N vertices of a subdivided body."""

    def __init__(self, surface: Surface, landmarks: Landmarks, cut: Cut) -> None:
        self.cut = cut
        self._surface = surface
        self._side = {"left": surface.is_left, "right": ~surface.is_left}
        self._coordinates(landmarks)
        self.static = self._static_offset(landmarks).astype(np.float32)  # (N, 3) zero pose
        self._segments = [s for side in ("left", "right") for s in self._tubes(side)]
        self._bends = [b for side in ("left", "right") for b in self._bunches(side, landmarks)]
        self._tunic_swing = self._hem_profile * cut.tunic_sag_m
        loose = np.sum([s.amount for s in self._segments], 0) + self._tunic_swing
        self.looseness = (loose / max(loose.max(), 1e-9)).astype(np.float32)  # (N,) 0 tight, 1 loosest

    def _coordinates(self, landmarks: Landmarks) -> None:
        """Directions away from each limb's and the trunk's axis, and profiles 0..1 along the garments."""
        surface, cut = self._surface, self.cut
        self._from_arm = _unit_across(surface.position - limb_axis(landmarks, surface, "arm"), 0)
        self._from_leg = _unit_across(surface.position - limb_axis(landmarks, surface, "leg"), 1)
        trunk_axis = np.array([0.0, 0.0, landmarks.joint("pelvis")[2]])
        self._from_trunk = _unit_across(surface.position - trunk_axis, 1)
        cuff = np.where(surface.is_left, cut.left_cuff, cut.right_cuff)
        self._sleeve = surface.arm * (1 - smoothstep(surface.along_arm - cuff, 0.0, 0.03))
        self._along_sleeve = np.clip(surface.along_arm / cuff, 0, 1)
        self._trouser = surface.leg * (
            1 - smoothstep(surface.along_leg, cut.trouser_hem, cut.trouser_hem + 0.03)
        )
        self._along_trouser = np.clip(surface.along_leg / cut.trouser_hem, 0, 1)
        hem_y = landmarks.crotch_y - cut.tunic_below_crotch_m
        height = surface.position[:, 1]
        is_trunk = (1 - surface.arm) * (1 - surface.head)
        below = smoothstep(height, landmarks.waist_y + 0.05, hem_y + 0.01)
        self._hem_profile = is_trunk * below**1.3 * smoothstep(height, hem_y - 0.02, hem_y)
        neck_y = landmarks.joint("neck")[1]
        self._top = (
            is_trunk
            * smoothstep(height, hem_y - 0.02, hem_y)
            * (1 - smoothstep(height, neck_y - 0.03, neck_y))
        )

    def _static_offset(self, landmarks: Landmarks) -> np.ndarray:
        surface, cut = self._surface, self.cut
        around_arm = np.arctan2(self._from_arm[:, 1], self._from_arm[:, 2])
        around_leg = np.arctan2(self._from_leg[:, 0], self._from_leg[:, 2])
        around_trunk = np.arctan2(self._from_trunk[:, 0], self._from_trunk[:, 2])
        # Towards the other leg there is less room.
        inward = np.clip(-self._from_leg[:, 0] * np.where(surface.is_left, 1, -1), 0, 1)
        room = 1 - 0.45 * inward

        sleeve = cut.sleeve_flare_m * self._along_sleeve**1.6
        sleeve = sleeve * (1 + 0.22 * np.sin(5 * around_arm + 4 * self._along_sleeve))
        trouser = cut.trouser_flare_m * self._along_trouser**1.8 * room
        trouser = trouser * (1 + 0.20 * np.sin(6 * around_leg + 2 * self._along_trouser))
        tunic = cut.tunic_flare_m * self._hem_profile * (1 + 0.25 * np.sin(9 * around_trunk))
        creases = cut.fold_m * np.sin(70 * surface.position[:, 1] + 3 * around_trunk) * self._top * 0.35

        covered = np.clip(self._top + self._sleeve + self._trouser, 0, 1)
        offset = (cut.thickness_m * covered + creases)[:, None] * surface.normal
        offset += (self._sleeve * sleeve)[:, None] * self._from_arm
        offset += (self._trouser * trouser)[:, None] * self._from_leg
        return offset + tunic[:, None] * self._from_trunk

    def _tubes(self, side: str) -> list[_Segment]:
        cut, is_side = self.cut, self._side[side]
        elbow, knee = self._elbow_knee()
        across = np.array([1.0 if side == "left" else -1.0, 0.0, 0.0])
        arm = is_side * self._sleeve * cut.sleeve_sag_m * self._along_sleeve**1.5
        leg = is_side * self._trouser * cut.trouser_sag_m * smoothstep(self._along_trouser, 0.12, 1.0)
        hanging = is_side * self._hem_profile * self._surface.leg * cut.tunic_sag_m
        joints = {
            name: joint_index(f"{side}_{name}") for name in ("collar", "shoulder", "elbow", "hip", "knee")
        }
        upper_arm = (joint_index("spine3"), joints["collar"], joints["shoulder"])
        thigh = (joints["hip"],)
        return [
            _Segment(upper_arm, across, arm * (1 - elbow)),
            _Segment((*upper_arm, joints["elbow"]), across, arm * elbow),
            _Segment(thigh, DOWN, leg * (1 - knee) + hanging),
            _Segment((*thigh, joints["knee"]), DOWN, leg * knee),
        ]

    def _elbow_knee(self) -> tuple[np.ndarray, np.ndarray]:
        """How much a point is beyond the elbow, beyond the knee, 0..1."""
        surface = self._surface
        return smoothstep(surface.along_arm, 0.40, 0.60), smoothstep(surface.along_leg, 0.42, 0.60)

    def _bunches(self, side: str, landmarks: Landmarks) -> list[tuple[int, int, np.ndarray]]:
        """Cloth that gathers in rings at a bent elbow or knee: joint, its limb's axis, offset at a full bend."""
        surface, is_side = self._surface, self._side[side]
        from_elbow = np.abs(surface.position[:, 0]) - abs(landmarks.joint("left_elbow")[0])
        from_knee = landmarks.joint("left_knee")[1] - surface.position[:, 1]

        def rings(distance: np.ndarray, cover: np.ndarray, length: float) -> np.ndarray:
            near = np.exp(-((distance / (1.3 * length)) ** 2)) * cover * is_side
            return near * (0.9 + np.cos(2 * np.pi * distance / length))

        elbow = 0.012 * rings(from_elbow, self._sleeve, 0.075)
        knee = 0.013 * rings(from_knee, self._trouser, 0.10)
        return [
            (joint_index(f"{side}_elbow"), 0, elbow[:, None] * self._from_arm),
            (joint_index(f"{side}_knee"), 1, knee[:, None] * self._from_leg),
        ]

    def pose_offset(self, rotation: np.ndarray) -> np.ndarray:
        """Pose-driven offset (N, 3) in the zero pose, metres, for joint rotations (55, 3, 3).

        Cloth hangs along gravity, seen from each limb segment (the trunk is taken as upright), more on its lower
        side; a hem follows the thighs; rings gather at bent elbows and knees.
        """
        offset = np.zeros_like(self._surface.position, dtype=np.float64)
        for segment in self._segments:
            total = np.eye(3)
            for joint in segment.chain:
                total = total @ rotation[joint]
            down = total.T @ DOWN
            down = down - (down @ segment.axis) * segment.axis
            away = self._from_leg if segment.axis[0] == 0 else self._from_arm
            facing = away @ down
            lower = 0.5 * (facing + np.sqrt(facing**2 + 0.02))
            offset += segment.amount[:, None] * (0.45 * down + 0.75 * lower[:, None] * away)
        for joint, axis, rings in self._bends:
            bend = 1 - rotation[joint][axis, axis]
            offset += min(bend, 1.2) * rings
        return (offset + self._swing(rotation)).astype(np.float32)

    def _swing(self, rotation: np.ndarray) -> np.ndarray:
        """The tunic's hem pushed out by each thigh where the thigh goes."""
        offset = np.zeros_like(self._surface.position, dtype=np.float64)
        for side in ("left", "right"):
            thigh = rotation[joint_index(f"{side}_hip")] @ DOWN - DOWN
            thigh[1] = 0
            sign = 1.0 if side == "left" else -1.0
            own_side = smoothstep(sign * self._surface.position[:, 0], -0.06, 0.10)
            facing = self._from_trunk @ thigh
            push = 0.5 * (facing + np.sqrt(facing**2 + 0.01))
            trail = 0.25 * thigh  # the rest of the hem is drawn along
            amount = (self._tunic_swing * own_side)[:, None]
            offset += amount * (push[:, None] * self._from_trunk + trail)
        return offset


def _unit_across(offset: np.ndarray, axis: int) -> np.ndarray:
    """Offsets (M, 3) without their component along one axis, unit length (0 stays 0)."""
    across = offset.astype(np.float64).copy()
    across[:, axis] = 0
    return across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-6)
