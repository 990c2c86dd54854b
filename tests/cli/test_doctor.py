"""The check-up as a command: exit codes 0, 1 and 2, its list, its json and its picture."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from common import perceptual
from common.io.image import image_size
from tests.cli.commands import Workspace, run_here


@pytest.fixture
def doctor(monkeypatch, capsys, tmp_path):
    """Run the command without network and weights: exit code, what it printed, its json."""

    def run(*options: object) -> tuple[int, str, dict]:
        with pytest.raises(SystemExit) as stop:
            run_here("tools/doctor.py", [*map(str, options), "--json", str(tmp_path / "d.json")], monkeypatch)
        return stop.value.code, capsys.readouterr().out, json.loads((tmp_path / "d.json").read_text())

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    return run


def options_of(space: Workspace) -> tuple[object, ...]:
    return ("--subject_id", space.subject.name, "--human_model_path", space.body, "--paths.subjects", space.subjects,
            "--paths.output", space.output)  # fmt: skip


def test_a_trained_subject_is_fine_but_for_the_weights(trained, doctor, tmp_path):
    picture = tmp_path / "p.png"
    code, said, found = doctor(
        *options_of(trained), "--motion_path", trained.subject / "motion", "--output", picture
    )
    assert code == found["exit_code"] == 1, said
    topics = {entry["topic"].partition(" (")[0] for entry in found["findings"]}
    assert topics == {"environment", "body files", "perceptual weights", "subject", "motion", "snapshot"}
    assert {entry["topic"] for entry in found["findings"] if entry["level"] != "ok"} == {"perceptual weights"}
    assert "snapshot_1.pth" in said and "3 frames" in said
    assert image_size(picture)[0] > 0


def test_damage_ends_with_code_2_and_every_problem_is_listed(made, doctor, tmp_path):
    space = made.with_copied_subject(tmp_path)
    (space.subject / "captured/images/0.png").unlink()
    shutil.rmtree(space.subject / "generated_1/depths")
    code, said, found = doctor(*options_of(space), "--all")
    assert code == found["exit_code"] == 2
    errors = [entry["text"] for entry in found["findings"] if entry["level"] == "error"]
    for name in ("captured/images/0.png", "generated_1/depths/0.npy", "generated_1/depths/0_mask.npy"):
        assert any(name in text for text in errors) and name in said


def test_a_subject_of_another_body_is_told_and_drawn_without_its_identity(made, doctor, tmp_path):
    space = made.with_copied_subject(tmp_path)
    offsets = space.subject / "captured/smplx_optimized/face_offset.json"
    offsets.write_text(json.dumps([[0.0, 0.0, 0.0]] * 10475))
    code, said, found = doctor(*options_of(space), "--output", tmp_path / "p.png")
    assert code == found["exit_code"] == 2
    errors = [entry["text"] for entry in found["findings"] if entry["level"] == "error"]
    assert len(errors) == 1 and "face_offset.json" in errors[0] and "10475" in errors[0], said
    assert image_size(tmp_path / "p.png")[0] > 0


def test_the_demo_needs_no_weights_and_an_unknown_subject_is_an_error(made, doctor, tmp_path):
    shutil.copytree(made.subject, tmp_path / "demo_tiny", ignore=shutil.ignore_patterns("truth"))
    where = ("--paths.subjects", tmp_path, "--paths.output", tmp_path / "out")
    code, said, _ = doctor("--subject_id", "demo_tiny", *where)
    assert code == 0 and "all is well" in said
    code, said, _ = doctor("--subject_id", "nobody", *where)
    assert code == 2 and "no subject 'nobody'" in said
