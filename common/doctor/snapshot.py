"""A snapshot: readable, complete, finite, plausible, and of the body and the frames at hand (SPEC 5)."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from common.body_model.data import BodyData
from common.checkpoint import SAFE_SUFFIX, Snapshot, read_snapshot
from common.doctor.findings import Findings
from common.inference import subdivisions_of
from common.joints import N_JOINTS, N_SHAPE
from common.pose_table import PREFIX, PoseTable

SCALE_RANGE_M = (1e-5, 0.1)  # median size of the Gaussians
FAR_OFFSET_M = 0.5
_AGAIN = "use the snapshot of another epoch, or train again"
_SHAPES: dict[str, tuple[int | str, ...]] = {
    "triplane": (3, "C", "T", "T"),
    "mean_offset": ("N", 3),
    "scale": ("N", 1),
    "rgb": ("N", 3),
    "rgb_aux": ("N", 3),
    "seg": ("N", 3),
    "shape_param": (N_SHAPE,),
    "face_offset": ("V", 3),
    "joint_offset": (N_JOINTS, 3),
}


def check_snapshot(
    findings: Findings, path: Path, body: BodyData | None, frames: dict[str, list[int]] | None
) -> None:
    """One snapshot file; `frames`: the subject's frames by split, if it is at hand."""
    findings.topic = f"snapshot ({path})"
    snapshot = findings.attempt("file", lambda: read_snapshot(path))
    if snapshot is None:
        return
    before = findings.count("error")
    _check_name(findings, path, snapshot)
    _check_shapes(findings, snapshot)
    _check_values(findings, snapshot)
    poses = findings.attempt("poses", lambda: PoseTable.from_state_dict(snapshot.network), _AGAIN)
    if snapshot.optimizer is None and path.suffix != SAFE_SUFFIX:
        findings.warn(
            "optimiser", "none in it", "it can be rendered; --continue needs the .pth file of a training"
        )
    if findings.count("error") > before:
        return
    n_poses = _check_poses(findings, snapshot, frames)
    if poses is not None and body is not None:
        levels = findings.attempt("body", lambda: subdivisions_of(snapshot, body, path, None))
        if levels is not None:
            findings.ok("body", f"fits the body at hand, {levels} subdivisions")
    n_gaussians = len(snapshot.network["persona.mean_offset"])
    findings.ok("content", f"epoch {snapshot.epoch}, {n_gaussians} Gaussians, poses of {n_poses} frames")


def _check_name(findings: Findings, path: Path, snapshot: Snapshot) -> None:
    named = re.fullmatch(r"snapshot_([0-9]+)", path.stem)
    if named and int(named[1]) != snapshot.epoch:
        findings.warn(
            "epoch", f"the file says epoch {snapshot.epoch}, its name {named[1]}",
            f"rename it to snapshot_{snapshot.epoch}{path.suffix}",
        )  # fmt: skip


def _check_shapes(findings: Findings, snapshot: Snapshot) -> None:
    """Every entry of the avatar is there, and counts agree among them."""
    state = snapshot.part("persona.")
    counts: dict[str, int] = {}
    for name, shape in _SHAPES.items():
        value = state.get(name)
        if value is None:
            findings.error(
                "entries", f"persona.{name} is missing", "give a snapshot of this project or of PERSONA"
            )
            continue
        fits = value.ndim == len(shape) and all(
            found == (counts.setdefault(wanted, found) if isinstance(wanted, str) else wanted)
            for wanted, found in zip(shape, value.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join(str(counts.get(n, n) if isinstance(n, str) else n) for n in shape)
            findings.error(
                "entries", f"persona.{name} has shape {tuple(value.shape)}, expected ({wanted})", _AGAIN
            )
    if not any(name.startswith("mean_offset_offset_net.") for name in state):
        findings.error("entries", "persona.mean_offset_offset_net is missing", _AGAIN)


def _check_values(findings: Findings, snapshot: Snapshot) -> None:
    """Finite numbers of plausible size."""
    for name, value in snapshot.network.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            n_wrong = int((~torch.isfinite(value)).sum())
            findings.error("values", f"{name} has {n_wrong} NaN or infinite values", _AGAIN)
    scale, offset = (_finite(snapshot.network.get(f"persona.{name}")) for name in ("scale", "mean_offset"))
    if scale is not None:
        size = float(scale.exp().median())
        if not SCALE_RANGE_M[0] < size < SCALE_RANGE_M[1]:
            findings.warn("values", f"the Gaussians' median size is {size:.2g} m", _AGAIN)
    if offset is not None and float(offset.abs().max()) > FAR_OFFSET_M:
        farthest = float(offset.abs().max())
        findings.warn(
            "values", f"a Gaussian lies {farthest:.2f} m off the body", "look at a render; " + _AGAIN
        )


def _finite(value: Tensor | None) -> Tensor | None:
    return value if value is not None and value.numel() and torch.isfinite(value).all() else None


def _check_poses(findings: Findings, snapshot: Snapshot, frames: dict[str, list[int]] | None) -> int:
    """Number of frames with poses; which of the subject's frames have none."""
    pattern = re.compile(re.escape(PREFIX) + r"smplx_params\.([^.]+)\.([0-9]+)\.")
    matches = (pattern.match(key) for key in snapshot.network)
    known = {(match[1], int(match[2])) for match in matches if match}
    for split, indices in (frames or {}).items():
        missing = [index for index in indices if (split, index) not in known]
        if missing and any(name == split for name, _ in known):
            findings.warn(
                "poses", f"{len(missing)} frames of {split} have none (the first is {missing[0]})",
                "the subject's frames changed after training; train again to use them all",
            )  # fmt: skip
    return len(known)
