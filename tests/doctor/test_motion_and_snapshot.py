"""Motions and snapshots with wrong units, jumps, damaged entries or another body are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.body_model.body import BodyModel
from common.camera import Camera
from common.checkpoint import Snapshot, network_state, save_snapshot
from common.doctor.findings import Findings
from common.doctor.motion import check_motion
from common.doctor.snapshot import check_snapshot
from common.io.parameters import write_camera, write_smplx_params
from common.pose import SmplxParams
from tests.body_model.bodies import tiny_body_data
from tests.tiny_person import tiny_model

N_FRAMES = 5


def params(index: int) -> SmplxParams:
    """A calm motion in front of the camera."""
    pose = SmplxParams.zeros()
    pose.root_pose[0] = torch.pi
    pose.body_pose[3, 0] = 0.1 * index
    pose.trans[:] = torch.tensor([0.02 * index, 0.0, 3.0])
    return pose


@pytest.fixture
def motion(tmp_path) -> Path:
    root = tmp_path / "walk"
    for index in range(N_FRAMES):
        write_smplx_params(root / f"smplx/params/{index}.json", params(index))
        write_camera(root / f"cam_params/{index}.json", Camera.identity((90.0, 90.0), (32.0, 48.0), 96, 64))
    return root


def look(path: Path) -> Findings:
    findings = Findings()
    check_motion(findings, path)
    return findings


def test_a_calm_motion_is_fine(motion):
    findings = look(motion)
    assert findings.exit_code == 0 and "5 frames" in findings.entries[0].text


def _change(index: int, **values: float) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        frame = params(index)
        changed = {name: torch.full_like(getattr(frame, name), value) for name, value in values.items()}
        write_smplx_params(root / f"smplx/params/{index}.json", replace(frame, **changed))

    return damage


def _remove(*indices: int) -> Callable[[Path], None]:
    return lambda root: (
        [
            (root / name / f"{index}.json").unlink()
            for index in indices
            for name in ("smplx/params", "cam_params")
        ]
        and None
    )


MOTION_DAMAGES: dict[str, tuple[Callable[[Path], None], str, str, str]] = {
    "degrees": (_change(2, body_pose=40.0), "pose in degrees?", "frame 2", "warning"),
    "millimetres": (_change(0, trans=3000.0), "trans in millimetres?", "3000", "warning"),
    "jump in place": (_change(3, trans=4.0), "jump", "from frame 2 to 3", "warning"),
    "jump of a joint": (_change(1, body_pose=1.5), "jump", "degrees from frame 0 to 1", "warning"),
    "expression": (_change(4, expr=50.0), "expression", "50", "warning"),
    "behind the camera": (_change(4, trans=-0.3), "person is behind the camera", "the first is 4", "error"),
    "outside": (_change(4, trans=0.9), "person is outside the image", "the first is 4", "warning"),
    "gap": (_remove(2, 3), "frames", "2 numbers between 0 and 4", "warning"),
    "broken file": (
        lambda root: (root / "smplx/params/1.json").write_text("{") and None,
        "file", "1.json is not valid json", "error",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MOTION_DAMAGES)
def test_what_is_wrong_with_a_motion_is_named_with_its_frame(motion, name):
    damage, check, text, level = MOTION_DAMAGES[name]
    damage(motion)
    found = [e for e in look(motion).entries if e.check == check and e.level == level]
    assert any(text in entry.text and entry.remedy for entry in found), look(motion).entries


def test_an_unknown_motion_format_is_refused_with_what_is_known(tmp_path):
    (tmp_path / "walk.bvh").write_text("HIERARCHY")
    findings = look(tmp_path / "walk.bvh")
    assert findings.exit_code == 2 and "known" in findings.entries[0].text + findings.entries[0].remedy


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return Snapshot(3, {k: v.clone() for k, v in network_state(tiny_model()).items()}, {"state": {}})


def inspect(path: Path, snapshot: Snapshot, frames: dict[str, list[int]] | None = None) -> Findings:
    save_snapshot(path, snapshot)
    findings = Findings()
    check_snapshot(findings, path, tiny_body_data(), frames)
    return findings


def test_a_snapshot_of_this_body_and_these_frames_is_fine(snapshot, tmp_path):
    findings = inspect(tmp_path / "snapshot_3.pth", snapshot, {"captured": [0], "generated_0": [0, 2, 10]})
    assert findings.exit_code == 0, findings.entries
    n_gaussians = BodyModel(tiny_body_data(), 1).n_vertices_high
    assert f"epoch 3, {n_gaussians} Gaussians" in findings.entries[-1].text


def _network(**changed: Callable[[torch.Tensor], torch.Tensor] | None) -> Callable[[Snapshot], Snapshot]:
    def damage(snapshot: Snapshot) -> Snapshot:
        network = dict(snapshot.network)
        for name, change in changed.items():
            value = network.pop(f"persona.{name}")
            if change is not None:
                network[f"persona.{name}"] = change(value)
        return replace(snapshot, network=network)

    return damage


SNAPSHOT_DAMAGES: dict[str, tuple[Callable[[Snapshot], Snapshot], str, str, str]] = {
    "NaN": (_network(rgb=lambda v: v * torch.nan), "values", "persona.rgb has", "error"),
    "missing entry": (_network(rgb_aux=None), "entries", "persona.rgb_aux is missing", "error"),
    "counts that differ": (_network(seg=lambda v: v[:-1]), "entries", "persona.seg has shape", "error"),
    "huge Gaussians": (_network(scale=lambda v: v + 10), "values", "median size", "warning"),
    "far Gaussians": (_network(mean_offset=lambda v: v + 3), "values", "off the body", "warning"),
    "another epoch's name": (lambda s: replace(s, epoch=4), "epoch", "the file says epoch 4, its name 3", "warning"),
    "no optimiser": (lambda s: replace(s, optimizer=None), "optimiser", "none", "warning"),
    "another body": (
        _network(face_offset=lambda v: v[:-1]), "body", "made with another body model", "error"
    ),
    "a pose without its parameters": (
        lambda s: replace(s, network={k: v for k, v in s.network.items() if not k.endswith("captured.0.trans")}),
        "poses", "captured.0", "error",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SNAPSHOT_DAMAGES)
def test_what_is_wrong_with_a_snapshot_is_named(snapshot, tmp_path, name):
    damage, check, text, level = SNAPSHOT_DAMAGES[name]
    findings = inspect(tmp_path / "snapshot_3.pth", damage(snapshot))
    found = [e for e in findings.entries if e.check == check and e.level == level]
    assert any(text in entry.text and entry.remedy for entry in found), findings.entries


def test_frames_that_came_after_training_are_told(snapshot, tmp_path):
    findings = inspect(tmp_path / "snapshot_3.pth", snapshot, {"generated_0": [0, 2, 10, 11, 12]})
    assert [entry.text for entry in findings.entries if entry.level == "warning"] == [
        "2 frames of generated_0 have none (the first is 11)"
    ]


def test_a_broken_snapshot_is_one_error(tmp_path):
    (tmp_path / "snapshot_0.pth").write_bytes(b"nothing")
    findings = Findings()
    check_snapshot(findings, tmp_path / "snapshot_0.pth", None, None)
    assert [entry.level for entry in findings.entries] == ["error"]
    assert "snapshot_0.pth is truncated or not a snapshot" in findings.entries[0].text
