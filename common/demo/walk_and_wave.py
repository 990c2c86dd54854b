"""The motion that comes with the project: a person walks in, turns to the viewer and waves (AMASS layout, z up)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from common.demo.subject_poses import JointAngles, angles_to_params, params_to_rotvec
from common.io.atomic import atomic_path
from common.joints import joint_index
from common.motion.figure import Figure

FPS = 60.0
SECONDS = 4.5
LICENCE = "CC0-1.0"
_STEP_HZ = 1.0  # double steps a second
_WALK_ENDS, _TURN_ENDS, _WAVE_STARTS = 2.1, 2.9, 2.6  # seconds
_YAW_DEG = (58.0, 0.0)  # which way the person faces while walking, and while waving
_WAVE_HZ = 1.9
_UPRIGHT = Rotation.from_euler("x", 90, degrees=True)  # body axes (y up, z forward) to the world's, z up
_CONTACT_M = 0.012  # how much lower the standing foot is before it alone counts


@dataclass(frozen=True)
class WalkAndWave:
    """Axis-angle poses (T, 55, 3) and translation (T, 3) in a world with z up, the floor at z = 0."""

    poses: np.ndarray
    trans: np.ndarray


def make_walk_and_wave(figure: Figure) -> WalkAndWave:
    """The motion for a body: its feet stand still on the floor while they carry it."""
    seconds = np.arange(int(SECONDS * FPS)) / FPS
    scripted = np.stack([params_to_rotvec(angles_to_params(_angles(t))) for t in seconds])
    yaw = np.array([[_yaw(t)] for t in seconds])
    tilt = Rotation.from_euler("x", [[2.0 * _walking(t)] for t in seconds], degrees=True)
    scripted[:, 0] = (_UPRIGHT * Rotation.from_euler("y", yaw, degrees=True) * tilt).as_rotvec()
    _add_fingers(scripted, seconds, figure.hand_mean.numpy())
    return WalkAndWave(scripted, _carried_by_the_feet(scripted, figure))


def write_walk_and_wave(path: Path, motion: WalkAndWave) -> None:
    """Write the motion as an AMASS file of SMPL-X."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            poses=motion.poses.reshape(len(motion.poses), -1).astype(np.float32),
            trans=motion.trans.astype(np.float32),
            betas=np.zeros(16, np.float32),
            gender=np.array("neutral"),
            surface_model_type=np.array("smplx"),
            mocap_frame_rate=np.array(FPS),
            mocap_time_length=np.array(len(motion.poses) / FPS),
            licence=np.array(LICENCE),
        )


def _ease(t: float, start: float, end: float) -> float:
    """Smooth 0..1 from `start` to `end` seconds."""
    share = float(np.clip((t - start) / (end - start), 0, 1))
    return share * share * (3 - 2 * share)


def _walking(t: float) -> float:
    """How much the person walks, 0..1; it steps a little while it turns."""
    return 1 - 0.55 * _ease(t, _WALK_ENDS - 0.5, _WALK_ENDS) - 0.45 * _ease(t, _TURN_ENDS - 0.5, _TURN_ENDS)


def _yaw(t: float) -> float:
    away, front = _YAW_DEG
    return away + (front - away) * _ease(t, _WALK_ENDS - 0.5, _TURN_ENDS)


def _angles(t: float) -> JointAngles:
    """Joint angles at a time, all but the whole body's."""
    walk, wave = _walking(t), _ease(t, _WAVE_STARTS, _WAVE_STARTS + 0.6)
    step = 2 * np.pi * _STEP_HZ * t
    left, right = walk * np.sin(step), -walk * np.sin(step)
    lift_left, lift_right = (walk * np.clip(sign * np.cos(step), 0, 1) for sign in (1, -1))
    swing = np.sin(2 * np.pi * _WAVE_HZ * (t - _WAVE_STARTS)) * wave
    breath = np.sin(2 * np.pi * 0.3 * t)
    arm = 1 - wave
    return {
        "spine1": (3 * walk, 5 * left, 0),
        "spine2": (breath, 3 * left, -2 * wave),
        "spine3": (breath, 4 * left, -3 * wave),
        "neck": (0, -3 * left, 2 * wave),
        "head": (1, -5 * left, 5 * wave + 2 * swing),
        "left_collar": (0, 0, 1.5 * breath),
        "right_collar": (0, 0, -1.5 * breath - 10 * wave),
        "left_shoulder": (22 * left, 0, -66),
        "right_shoulder": (22 * right * arm, 6 * wave, 66 * arm - 18 * wave - 6 * swing),
        "left_elbow": (0, -26 + 14 * left, 0),
        "right_elbow": (0, (26 - 14 * right) * arm + 12 * wave, -62 * wave - 26 * swing),
        "right_wrist": (0, 0, -8 * swing),
        "left_hip": (-23 * left - 16 * lift_left, 0, 3),
        "right_hip": (-23 * right - 16 * lift_right, 0, -3),
        "left_knee": (7 + 46 * lift_left, 0, 0),
        "right_knee": (7 + 46 * lift_right, 0, 0),
        "left_ankle": (-5 - 8 * left, 0, -2),
        "right_ankle": (-5 - 8 * right, 0, 2),
    }


def _add_fingers(poses: np.ndarray, seconds: np.ndarray, hand_mean: np.ndarray) -> None:
    """Absolute finger rotations: relaxed hands, the right one open while it waves."""
    first = joint_index("left_index1")
    opened = np.array([_ease(t, _WAVE_STARTS, _WAVE_STARTS + 0.5) for t in seconds])[:, None, None]
    poses[:, first : first + 15] = hand_mean[:15]
    poses[:, first + 15 :] = hand_mean[15:] * (1 - 0.8 * opened)


def _carried_by_the_feet(poses: np.ndarray, figure: Figure) -> np.ndarray:
    """Translation (T, 3) that keeps the lower foot where it stands, on the floor."""
    n_frames = len(poses)
    rotation = torch.from_numpy(Rotation.from_rotvec(poses.reshape(-1, 3)).as_matrix()).reshape(-1, 55, 3, 3)
    joints = figure.posed_joints(rotation, torch.zeros(n_frames, 3, dtype=torch.float64)).numpy()
    left, right = joints[:, joint_index("left_foot")], joints[:, joint_index("right_foot")]
    left_stands = 1 / (1 + np.exp((left[:, 2] - right[:, 2]) / _CONTACT_M))[:, None]
    steps = np.diff(left, axis=0) * left_stands[1:] + np.diff(right, axis=0) * (1 - left_stands[1:])
    trans = np.zeros((n_frames, 3))
    trans[1:, :2] = -np.cumsum(steps[:, :2], axis=0)
    trans[:, 2] = -_lowest(figure, rotation)
    return gaussian_filter1d(trans, 0.03 * FPS, axis=0, mode="nearest")


def _lowest(figure: Figure, rotation: torch.Tensor) -> np.ndarray:
    """Height (T,) of the lowest surface point before the translation."""
    zero = torch.zeros(len(rotation), 3, dtype=torch.float64)
    return figure.posed_points(rotation, zero)[..., 2].amin(1).numpy()
