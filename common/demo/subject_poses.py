"""Motions of the demo subject as scripted joint angles, and the error of fitted parameters (SPEC 16)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from common.demo.subject_settings import FitNoise
from common.joints import JOINTS, N_EXPR, N_JOINTS, POSE_PARAMS, joint_index
from common.pose import SmplxParams

Degrees = tuple[float, float, float]
JointAngles = dict[str, Degrees]  # joint name -> rotations about the fixed x, y, z axes of the zero pose
Motion = Callable[[float], JointAngles]  # of the phase 0..1; "pelvis" holds only the turn of the whole body

UPRIGHT = Rotation.from_euler("x", 180, degrees=True)  # body axes (y up, z forward) to camera axes, facing it


def angles_to_params(angles: Mapping[str, Degrees], expr: np.ndarray | None = None) -> SmplxParams:
    """Joint angles as SMPL-X parameters of a person upright before the camera, at the origin.

    Rotations are applied in the order z, x, y about fixed axes: first how far a limb is spread, then how far
    it swings forward, then how far it turns.
    """
    rotvec = np.zeros((N_JOINTS, 3))
    for name, (x, y, z) in angles.items():
        rotation = Rotation.from_euler("zxy", [z, x, y], degrees=True)
        if name == "pelvis":
            rotation = UPRIGHT * rotation
        rotvec[joint_index(name)] = rotation.as_rotvec()
    if "pelvis" not in angles:
        rotvec[0] = UPRIGHT.as_rotvec()
    return rotvec_to_params(rotvec, np.zeros(N_EXPR) if expr is None else expr, np.zeros(3))


def rotvec_to_params(rotvec: np.ndarray, expr: np.ndarray, trans: np.ndarray) -> SmplxParams:
    """Axis-angle (55, 3), expression (50,) and translation (3,) as float32 parameters."""
    values = {}
    start = 0
    for name, count in POSE_PARAMS.items():
        part = torch.tensor(rotvec[start : start + count], dtype=torch.float32)
        values[name] = part if count > 1 else part[0]
        start += count
    return SmplxParams(
        **values,
        expr=torch.tensor(expr, dtype=torch.float32),
        trans=torch.tensor(trans, dtype=torch.float32),
    )


def params_to_rotvec(params: SmplxParams) -> np.ndarray:
    """Axis-angle (55, 3) in joint order, float64."""
    return np.concatenate([getattr(params, name).reshape(-1, 3).double().numpy() for name in POSE_PARAMS])


def photo_pose(_phase: float) -> JointAngles:
    """The photo: facing the camera, arms a little away from the body, weight on one leg."""
    return {
        "pelvis": (0, -4, 0),
        "spine2": (0, 3, -1.5),
        "spine3": (2, 2, 0),
        "head": (1, 3, 2),
        "left_collar": (0, 0, -4),
        "right_collar": (0, 0, 4),
        "left_shoulder": (-6, 0, -56),
        "right_shoulder": (-4, 0, 59),
        "left_elbow": (0, -22, 0),
        "right_elbow": (0, 16, 0),
        "left_hip": (-3, 8, 7),
        "right_hip": (2, -9, -5),
        "left_knee": (8, 0, 0),
        "right_knee": (3, 0, 0),
        "left_ankle": (-4, 0, -5),
        "right_ankle": (-4, 0, 4),
    }


def turn_and_walk(phase: float) -> JointAngles:
    """generated_0: walking on the spot, two double steps, while turning once around."""
    step = 2 * np.pi * 2 * phase
    left, right = np.sin(step), -np.sin(step)
    lift_left, lift_right = np.clip(np.cos(step), 0, 1), np.clip(-np.cos(step), 0, 1)
    return {
        "pelvis": (0, 360 * phase, 0),
        "spine1": (3, 4 * left, 0),
        "spine3": (0, 4 * left, 0),
        "head": (0, -5 * left, 0),
        "left_shoulder": (24 * left, 0, -62),
        "right_shoulder": (24 * right, 0, 62),
        "left_elbow": (0, -28 + 14 * left, 0),
        "right_elbow": (0, 28 - 14 * right, 0),
        "left_hip": (-24 * left - 16 * lift_left, 0, 4),
        "right_hip": (-24 * right - 16 * lift_right, 0, -4),
        "left_knee": (8 + 46 * lift_left, 0, 0),
        "right_knee": (8 + 46 * lift_right, 0, 0),
        "left_ankle": (-6 - 8 * left, 0, -2),
        "right_ankle": (-6 - 8 * right, 0, 2),
    }


def _bump(phase: float, centre: float, width: float) -> float:
    """Smooth 0..1..0 around a moment."""
    return float(np.exp(-(((phase - centre) / width) ** 2)))


def arms_and_kicks(phase: float) -> JointAngles:
    """generated_1: arms up, two punches, two kicks, the body turning to and fro."""
    up = _bump(phase, 0.12, 0.11)
    punch_left, punch_right = _bump(phase, 0.35, 0.085), _bump(phase, 0.53, 0.085)
    kick_left, kick_right = _bump(phase, 0.71, 0.09), _bump(phase, 0.90, 0.09)
    guard = np.clip((phase - 0.2) / 0.1, 0, 1)  # fists before the chest from here on
    spread = 55 - 20 * guard
    return {
        "pelvis": (0, 24 * np.sin(2 * np.pi * phase * 1.5) + 30 * (kick_right - kick_left), 0),
        "spine2": (3 * guard - 6 * (kick_left + kick_right), 14 * (punch_right - punch_left), 0),
        "spine3": (2, 14 * (punch_right - punch_left), 0),
        "head": (2, 10 * (punch_left - punch_right), 0),
        "left_collar": (0, -8 * punch_left, 12 * up),
        "right_collar": (0, 8 * punch_right, -12 * up),
        "left_shoulder": (
            -18 * guard,
            -40 * punch_left * 1.4 - 12 * guard,
            -spread + 110 * up + 30 * punch_left,
        ),
        "right_shoulder": (
            -18 * guard,
            40 * punch_right * 1.4 + 12 * guard,
            spread - 110 * up - 30 * punch_right,
        ),
        "left_elbow": (0, -20 - 85 * guard * (1 - punch_left) + 12 * up, 0),
        "right_elbow": (0, 20 + 85 * guard * (1 - punch_right) - 12 * up, 0),
        "left_hip": (-6 - 68 * kick_left + 14 * kick_right, 6, 8),
        "right_hip": (-6 - 68 * kick_right + 14 * kick_left, -6, -8),
        "left_knee": (14 + 34 * _bump(phase, 0.64, 0.05) + 6 * kick_right, 0, 0),
        "right_knee": (14 + 34 * _bump(phase, 0.84, 0.05) + 6 * kick_left, 0, 0),
        "left_ankle": (-7 + 18 * kick_left, 0, -5),
        "right_ankle": (-7 + 18 * kick_right, 0, 5),
    }


def lunge_and_reach(phase: float) -> JointAngles:
    """test: a lunge to each side with the arms swinging across, seen from the front and half from the side."""
    swing = np.sin(2 * np.pi * phase)
    lunge_left, lunge_right = np.clip(swing, 0, 1), np.clip(-swing, 0, 1)
    dip = 1 - np.cos(4 * np.pi * phase)
    return {
        "pelvis": (5, -35 + 80 * phase, 0),
        "spine1": (6 * dip / 2, 0, -5 * swing),
        "spine2": (4, 10 * swing, -4 * swing),
        "spine3": (2, 8 * swing, 0),
        "neck": (-4, -6 * swing, 0),
        "head": (-2, -8 * swing, 4 * swing),
        "left_collar": (0, 0, 5 * lunge_right),
        "right_collar": (0, 0, -5 * lunge_left),
        "left_shoulder": (-35 * dip / 2, -15 * lunge_left, -52 + 46 * lunge_right),
        "right_shoulder": (-35 * dip / 2, 15 * lunge_right, 52 - 46 * lunge_left),
        "left_elbow": (0, -30 - 50 * lunge_left, 0),
        "right_elbow": (0, 30 + 50 * lunge_right, 0),
        "left_hip": (-8 - 50 * lunge_left, 10 * lunge_left, 8 + 14 * lunge_right),
        "right_hip": (-8 - 50 * lunge_right, -10 * lunge_right, -8 - 14 * lunge_left),
        "left_knee": (12 + 58 * lunge_left, 0, 0),
        "right_knee": (12 + 58 * lunge_right, 0, 0),
        "left_ankle": (-4 - 10 * lunge_left, 0, -6),
        "right_ankle": (-4 - 10 * lunge_right, 0, 6),
    }


def dance(phase: float) -> JointAngles:
    """The motion folder: knees up in turn, arms waving in waves, the body swaying and turning."""
    beat = 2 * np.pi * 3 * phase
    sway, knee_left, knee_right = np.sin(beat), np.clip(np.sin(beat), 0, 1), np.clip(-np.sin(beat), 0, 1)
    wave = np.sin(2 * np.pi * 2 * phase)
    return {
        "pelvis": (0, 50 * np.sin(2 * np.pi * phase), 4 * sway),
        "spine1": (2, 6 * sway, -4 * sway),
        "spine2": (2, 6 * sway, -4 * sway),
        "spine3": (0, 4 * sway, -3 * sway),
        "head": (4 * np.cos(beat), 8 * wave, 3 * sway),
        "left_collar": (0, 0, 6 * wave),
        "right_collar": (0, 0, 6 * wave),
        "left_shoulder": (0, -25, -20 + 38 * wave),
        "right_shoulder": (0, 25, 20 + 38 * wave),
        "left_elbow": (0, -45 - 35 * np.cos(beat), 0),
        "right_elbow": (0, 45 - 35 * np.cos(beat), 0),
        "left_hip": (-6 - 52 * knee_left, 8, 6),
        "right_hip": (-6 - 52 * knee_right, -8, -6),
        "left_knee": (10 + 60 * knee_left, 0, 0),
        "right_knee": (10 + 60 * knee_right, 0, 0),
        "left_ankle": (-4 + 10 * knee_left, 0, -4),
        "right_ankle": (-4 + 10 * knee_right, 0, 4),
    }


MOTIONS: dict[str, Motion] = {
    "captured": photo_pose,
    "generated_0": turn_and_walk,
    "generated_1": arms_and_kicks,
    "test": lunge_and_reach,
    "motion": dance,
}


def script_motion(split: str, n_frames: int, rng: np.random.Generator) -> list[SmplxParams]:
    """Exact parameters of a split's frames, without translation; the seed moves fingers, face and eyes."""
    motion = MOTIONS[split]
    phases = (np.arange(n_frames) + 0.5) / n_frames if n_frames > 1 else np.zeros(1)
    fingers = _smooth_noise(rng, n_frames, (30, 3), 6.0)
    gaze = np.clip(_smooth_noise(rng, n_frames, (3,), 5.0), -10, 10)
    expr_scale = 0.25 if split == "captured" else 0.7
    expr = np.zeros((n_frames, N_EXPR))
    expr[:, :10] = np.clip(_smooth_noise(rng, n_frames, (10,), expr_scale), -1.5, 1.5)
    frames = []
    for i, phase in enumerate(phases):
        angles = dict(motion(float(phase)))
        for k, name in enumerate(JOINTS[25:]):
            bend = fingers[i, k]
            angles[name] = (0.0, 0.3 * float(bend[1]), float(bend[2]))
        angles["left_eye"] = angles["right_eye"] = (0.4 * float(gaze[i, 0]), float(gaze[i, 1]), 0.0)
        frames.append(angles_to_params(angles, expr[i]))
    return frames


def _smooth_noise(rng: np.random.Generator, n_frames: int, shape: tuple[int, ...], rms: float) -> np.ndarray:
    """Noise (n_frames, *shape) that changes slowly along a video, with that root mean square on average."""
    width = max(1.0, n_frames / 10)
    padding = int(4 * width)
    noise = rng.standard_normal((n_frames + 2 * padding, *shape))
    smooth = gaussian_filter1d(noise, width, axis=0)
    smooth /= np.sqrt((smooth**2).mean())
    return rms * smooth[padding : padding + n_frames]


def add_fit_noise(frames: list[SmplxParams], noise: FitNoise, rng: np.random.Generator) -> list[SmplxParams]:
    """Parameters as a fit to the video would give them: steady errors and jitter on top of the exact ones."""
    n_frames = len(frames)

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        steady = (
            _smooth_noise(rng, n_frames, shape, 1.0) if n_frames > 1 else rng.standard_normal((1, *shape))
        )
        jitter = rng.standard_normal((n_frames, *shape))
        return np.sqrt(noise.steady_share) * steady + np.sqrt(1 - noise.steady_share) * jitter

    degrees = np.full(N_JOINTS, noise.rotation_deg)
    degrees[[joint_index(name) for name in ("jaw", "left_eye", "right_eye")]] = noise.face_rotation_deg
    rotations = draw((N_JOINTS, 3)) * np.radians(degrees / np.sqrt(3))[:, None]
    across = np.sqrt((1 - noise.trans_depth_share) / 2)
    trans = draw((3,)) * noise.trans_m * np.array([across, across, np.sqrt(noise.trans_depth_share)])
    expr = draw((N_EXPR,)) * noise.expr * (np.arange(N_EXPR) < 10)

    noisy = []
    for i, params in enumerate(frames):
        exact = Rotation.from_rotvec(params_to_rotvec(params))
        rotvec = (Rotation.from_rotvec(rotations[i]) * exact).as_rotvec()
        noisy.append(rotvec_to_params(rotvec, params.expr.numpy() + expr[i], params.trans.numpy() + trans[i]))
    return noisy
