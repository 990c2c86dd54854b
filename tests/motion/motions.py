"""One known motion of the tiny body, and writers of it in every layout; they share no code with the readers."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from common.body_model.body import BodyModel, BodyOutput
from common.motion import Figure, Motion
from common.pose import SmplxParams
from tests.body_model.bodies import tiny_body_data

N_FRAMES = 5
FPS = 30.0
# Columns are the directions of the source's axes in the world with x right, y down, z forward.
FROM_SOURCE = {
    "camera": np.eye(3),
    "y": np.diag([1.0, -1.0, -1.0]),
    "z": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
}


@dataclass(frozen=True)
class Known:
    """The motion in the world with y down; finger rotations relative to the mean hand."""

    rotvec: np.ndarray  # (T, 55, 3)
    expr: np.ndarray  # (T, 50)
    trans: np.ndarray  # (T, 3)

    def params(self, i: int) -> SmplxParams:
        """One frame's parameters."""
        r = torch.from_numpy(self.rotvec[i]).float()
        return SmplxParams(
            r[0], r[1:22], r[22], r[23], r[24], r[25:40], r[40:], *map(_float, (self.expr[i], self.trans[i]))
        )

    def without(self, *joints: int, n_expr: int = 50) -> Known:
        """The same with these joints at rest and fewer expression coefficients."""
        rotvec, expr = self.rotvec.copy(), self.expr.copy()
        rotvec[:, list(joints)] = 0
        expr[:, n_expr:] = 0
        return Known(rotvec, expr, self.trans)


def _float(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).float()


@cache
def body() -> BodyModel:
    """The tiny body; expressions move its face alone, so that the joints stay where they are."""
    data = tiny_body_data()
    is_face = np.isin(np.arange(data.n_vertices), data.expression_vertices)
    regressor = data.joint_regressor * ~is_face
    regressor /= regressor.sum(1, keepdims=True)
    return BodyModel(
        replace(data, expr_dirs=data.expr_dirs * is_face[:, None, None], joint_regressor=regressor), 0
    )


@cache
def figure() -> Figure:
    """The tiny body's stand-in."""
    return Figure.of_body(body())


def known_motion(seed: int = 0) -> Known:
    """A person who stands upright before the camera, moves all joints a little and turns."""
    random = np.random.default_rng(seed)
    rotvec = random.normal(size=(1, 55, 3)) * 0.3 + random.normal(size=(N_FRAMES, 55, 3)) * 0.08
    turn = Rotation.from_euler("y", np.linspace(20, 80, N_FRAMES)[:, None], degrees=True)
    rotvec[:, 0] = (
        Rotation.from_euler("x", 180, degrees=True) * turn * Rotation.from_rotvec(0.1 * rotvec[:, 0])
    ).as_rotvec()
    trans = np.array([0.2, -0.1, 3.0]) + np.cumsum(random.normal(size=(N_FRAMES, 3)) * 0.1, axis=0)
    return Known(rotvec, random.normal(size=(N_FRAMES, 50)), trans)


def in_source(known: Known, up: str) -> Known:
    """The motion in a world with another up axis."""
    A = FROM_SOURCE[up].T
    pelvis = body().zero_pose_joints(None)[0].double().numpy()
    rotvec = known.rotvec.copy()
    rotvec[:, 0] = (Rotation.from_matrix(A) * Rotation.from_rotvec(known.rotvec[:, 0])).as_rotvec()
    return Known(rotvec, known.expr, (known.trans + pelvis) @ A.T - pelvis)


def absolute_hands(known: Known) -> np.ndarray:
    """Rotations (T, 55, 3) with finger rotations that include the mean hand."""
    rotvec = known.rotvec.copy()
    rotvec[:, 25:] += body().hand_mean.numpy()
    return rotvec


def posed(params: SmplxParams) -> BodyOutput:
    """The body function's vertices and joints."""
    return body().vertices(params, None)


def check_same_body(motion: Motion, known: Known, tolerance: float = 1e-4) -> None:
    """Vertices and joints of every frame, moved from its camera to the world, are those of the known motion."""
    assert len(motion.frames) == len(known.trans)
    for i, frame in enumerate(motion.frames):
        expected, found = posed(known.params(i)), posed(frame.params)
        for name in ("joints", "vertices"):
            world = frame.camera.camera_to_world(getattr(found, name))
            difference = (world - getattr(expected, name)).abs().max().item()
            assert difference < tolerance, f"frame {i}: {name} differ by {difference:.2g} m"


def write_amass(path: Path, known: Known, up: str = "z", n_values: int = 165, **more: Any) -> Path:
    """AMASS' .npz with `poses` of SMPL-X (165), SMPL+H (156) or SMPL (72)."""
    source = in_source(known, up)
    rotvec = absolute_hands(source)
    picked = {
        165: rotvec,
        156: np.concatenate([rotvec[:, :22], rotvec[:, 25:]], axis=1),
        72: np.concatenate(
            [rotvec[:, :22], np.full((len(rotvec), 2, 3), 0.7)], axis=1
        ),  # hands: to be dropped
    }[n_values]
    entries = {
        "poses": picked.reshape(len(rotvec), -1),
        "trans": source.trans,
        "betas": np.zeros(16),
        "gender": np.array("female"),
        "mocap_framerate": np.array(FPS),
    }
    np.savez(path, **{**entries, **more})
    return path


def write_amass_parts(path: Path, known: Known) -> Path:
    """AMASS' newer .npz of SMPL-X with one entry a part."""
    source = in_source(known, "z")
    rotvec = absolute_hands(source).reshape(len(known.trans), -1)
    np.savez(
        path,
        root_orient=rotvec[:, :3],
        pose_body=rotvec[:, 3:66],
        pose_jaw=rotvec[:, 66:69],
        pose_eye=rotvec[:, 69:75],
        pose_hand=rotvec[:, 75:],
        trans=source.trans,
        mocap_frame_rate=FPS,
    )
    return path


SLICES = {
    "global_orient": slice(0, 1),
    "body_pose": slice(1, 22),
    "jaw_pose": slice(22, 23),
    "leye_pose": slice(23, 24),
    "reye_pose": slice(24, 25),
    "left_hand_pose": slice(25, 40),
    "right_hand_pose": slice(40, 55),
}


def estimate(known: Known, layout: str = "flat", n_expr: int = 50) -> dict[str, np.ndarray]:
    """Entries as estimators write them, stacked; layout flat (T, 3J), joints (T, J, 3) or matrices (T, J, 3, 3).

    Matrices of fingers are absolute.
    """
    n_frames, entries = len(known.trans), {}
    for name, joints in SLICES.items():
        rotvec = known.rotvec[:, joints]
        if layout == "matrices":
            rotvec = absolute_hands(known)[:, joints]
            entries[name] = (
                Rotation.from_rotvec(rotvec.reshape(-1, 3)).as_matrix().reshape(n_frames, -1, 3, 3)
            )
        else:
            entries[name] = rotvec.reshape(n_frames, -1) if layout == "flat" else rotvec
    return {
        **entries,
        "expression": known.expr[:, :n_expr],
        "transl": known.trans,
        "betas": np.zeros((1, 10)),
    }


def write_entries(path: Path, entries: Any) -> Path:
    """Entries as .npz, .json, .pkl or .pt."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, **entries)
    elif path.suffix == ".json":
        path.write_text(json.dumps(entries, default=lambda value: value.tolist()))
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(entries))
    else:
        torch.save(_tensors(entries), path)
    return path


def _tensors(entries: Any) -> Any:
    if isinstance(entries, dict):
        return {name: _tensors(value) for name, value in entries.items()}
    return torch.from_numpy(np.asarray(entries))


def frame_entries(entries: dict[str, np.ndarray], i: int) -> dict[str, np.ndarray]:
    """One frame of stacked entries, without the leading axis; the shape stays."""
    return {name: value if name == "betas" else value[i] for name, value in entries.items()}
