"""A motion: readable, in the right units, without jumps, and in front of its cameras (SPEC 4)."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from common.doctor.findings import Findings
from common.joints import JOINTS
from common.motion import HandComponents, Motion, load_motion

JUMP_RAD, JUMP_M = 1.5, 0.5  # from frame to frame, of the root or a body joint
MAX_ANGLE, MAX_TRANS_M, MAX_EXPR = 2 * math.pi, 100.0, 10.0


def check_motion(findings: Findings, path: Path, components: HandComponents | None = None) -> None:
    """Everything about one motion, of any format that can be played; `components` expand hands given by PCA."""
    findings.topic = f"motion ({path})"
    motion = findings.attempt("file", lambda: load_motion(path, components=components))
    if motion is None:
        return
    rate = f"{motion.fps:g} frames a second" if motion.fps else "frame rate not said"
    cameras = "with cameras" if motion.cameras else "without cameras: they are placed around the person"
    findings.ok("content", f"{motion.format}: {len(motion)} frames, {rate}, {cameras}")
    _check_numbers(findings, motion)
    _check_units(findings, motion)
    _check_jumps(findings, motion)
    _check_place(findings, motion)


def _check_numbers(findings: Findings, motion: Motion) -> None:
    """Frames that are missing in between."""
    first, last = motion.indices[0], motion.indices[-1]
    missing = sorted(set(range(first, last + 1)) - set(motion.indices))
    steps = {b - a for a, b in zip(motion.indices, motion.indices[1:], strict=False)}
    if missing and len(steps) > 1:
        findings.warn(
            "frames", f"{len(missing)} numbers between {first} and {last} are missing (the first is {missing[0]})",
            "nothing to do if they are meant to be left out; else write them",
        )  # fmt: skip


def _rotations(motion: Motion) -> Tensor:
    """Rotation vectors (T, 22, 3) of root and body."""
    n = len(motion)
    params = motion.params
    return torch.cat([params.root_pose.reshape(n, 1, 3), params.body_pose.reshape(n, -1, 3)], dim=1)


def _check_units(findings: Findings, motion: Motion) -> None:
    angle = _rotations(motion).norm(dim=2)
    if float(angle.max()) > MAX_ANGLE:
        frame = motion.indices[int(angle.max(1).values.argmax())]
        findings.warn(
            "pose in degrees?",
            f"frame {frame}: a joint turns by {float(angle.max()):.1f}",
            "rotations are in radians",
        )
    if float(motion.params.trans.abs().max()) > MAX_TRANS_M:
        findings.warn(
            "trans in millimetres?",
            f"up to {float(motion.params.trans.abs().max()):.0f}",
            "translations are in metres",
        )
    if float(motion.params.expr.abs().max()) > MAX_EXPR:
        findings.warn(
            "expression",
            f"a coefficient of {float(motion.params.expr.abs().max()):.1f}",
            "values beyond 3 are rare",
        )
    if not torch.count_nonzero(angle[:, 1:]):
        findings.warn(
            "pose", "no body joint ever turns", "check that the file's pose is where the format has it"
        )


def _check_jumps(findings: Findings, motion: Motion) -> None:
    """Steps between neighbouring frames that no person makes."""
    if len(motion) < 2:
        return
    import roma  # late: importing it is slow

    rotation = roma.rotvec_to_rotmat(_rotations(motion))
    turn = roma.rotmat_geodesic_distance(rotation[1:], rotation[:-1])
    trans = motion.params.trans
    move = (trans[1:] - trans[:-1]).norm(dim=1)
    for step in torch.nonzero((turn > JUMP_RAD).any(1)).flatten().tolist():
        joint = int(turn[step].argmax())
        findings.warn(
            "jump", f"{JOINTS[joint]} turns by {math.degrees(float(turn[step, joint])):.0f} degrees from frame "
            f"{motion.indices[step]} to {motion.indices[step + 1]}", "smooth the motion there, or cut it",
        )  # fmt: skip
    for step in torch.nonzero(move > JUMP_M).flatten().tolist():
        findings.warn(
            "jump", f"the person moves by {float(move[step]):.2f} m from frame {motion.indices[step]} to "
            f"{motion.indices[step + 1]}", "smooth the motion there, or cut it",
        )  # fmt: skip


def _check_place(findings: Findings, motion: Motion) -> None:
    """With cameras of its own, the pelvis must be before them and in the picture."""
    if motion.cameras is None:
        return
    behind, outside = [], []
    for index, trans, camera in zip(motion.indices, motion.params.trans, motion.cameras, strict=True):
        if trans[2] <= 0:
            behind.append(index)
            continue
        pixel = trans[:2] / trans[2] * camera.focal + camera.princpt
        size = torch.tensor([camera.width, camera.height])
        if ((pixel < -0.5 * size) | (pixel > 1.5 * size)).any():
            outside.append(index)
    if behind:
        findings.error(
            "person is behind the camera", f"{len(behind)} frames, the first is {behind[0]}",
            "root_pose and trans of a motion folder are in camera space: x right, y down, z forward",
        )  # fmt: skip
    if outside:
        findings.warn(
            "person is outside the image", f"{len(outside)} frames, the first is {outside[0]}",
            "check focal, princpt and trans, or use --camera front",
        )  # fmt: skip
