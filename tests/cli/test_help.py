"""`--help` of every command is complete, with the option names of SPEC 2."""

from __future__ import annotations

import re

import pytest

from tests.cli.commands import ROOT, SCRIPTS, run_here

SUBJECT_OPTIONS = ["subject_id", "device", "seed", "human_model_path", "skinning_field_path", "paths.output"]
MOTION_OPTIONS = [
    "camera",
    "width",
    "height",
    "focal",
    "fps",
    "motion_fps",
    "up",
    "hands",
    "start",
    "end",
    "stride",
]
OPTIONS = {
    "main/train.py": [
        *SUBJECT_OPTIONS,
        "continue",
        "force",
        "save_every",
        "skip_bad_frames",
        "deterministic",
        "fit_pose_to_test",
        "no_lpips",
        "no_report",
        "lpips_weights",
        "optim.n_epochs",
    ],
    "main/test.py": [*SUBJECT_OPTIONS, "test_epoch", "fit_pose_to_test"],
    "main/get_neutral_pose.py": [*SUBJECT_OPTIONS, "test_epoch", "refined"],
    "main/animation.py": [*SUBJECT_OPTIONS, *MOTION_OPTIONS, "test_epoch", "motion_path", "use_bkg"],
    "main/export.py": [
        *SUBJECT_OPTIONS,
        *MOTION_OPTIONS,
        "format",
        "output",
        "test_epoch",
        "motion_path",
        "frame",
        "all_frames",
        "base",
        "output_up",
        "sh_degree",
        "n_weights",
        "n_expressions",
        "texture_size",
    ],
    "main/viewer.py": [*SUBJECT_OPTIONS, "test_epoch", "motion_path", "port", "host"],
    "tools/report.py": [*SUBJECT_OPTIONS, "test_epoch", "output"],
    "tools/prepare_fit_pose_to_test.py": ["root_path"],
    "tools/eval_neuman.py": ["output_path", "subject_id"],
    "tools/eval_xhumans.py": ["output_path", "subject_id"],
    "tools/prepare_body_model.py": ["human_model_path", "gender"],
    "tools/make_demo_subject.py": ["output", "size", "seed"],
    "tools/unwrap_texture.py": [
        "subject_id",
        "split",
        "size",
        "max_frames",
        "albedo",
        "overwrite",
        "body.gender",
    ],
    "tools/picture_subject.py": ["subject_id", "frame", "output", "body.gender"],
    "tools/doctor.py": [
        "subject_id",
        "motion_path",
        "snapshot",
        "human_model_path",
        "output",
        "json",
        "all",
        "body.gender",
    ],
    "tools/export_smplx_model.py": ["output", "body"],
    "tools/convert_motion.py": [*MOTION_OPTIONS, "motion_path", "output", "use_bkg", "human_model_path"],
    "tools/make_demo_motion.py": ["output"],
    "tools/diffused_skinning_weights/make_skinning_weight.py": ["human_model_path", "output", "resolution"],
    "tools/ablation.py": ["output", "subject_id", "n_seeds", "n_jobs", "device", "subjects"],
    "tools/benchmark.py": ["device", "size", "only", "quick", "repeats", "channels", "profile", "output"],
    "tools/compare_paths.py": ["subject_id", "n_steps", "tolerance", "no_lpips", "output"],
    "tools/convert_snapshot.py": ["source", "output", "overwrite"],
    "tools/evaluate_demo.py": ["subject_id", "untrained", "device", "paths.output"],
    "tools/make_demo_body.py": ["output", "n_samples", "n_shapes", "seed"],
    "tools/make_pictures.py": ["subject_id", "animation", "output"],
}


def test_every_command_is_listed():
    files = [*ROOT.glob("main/*.py"), *ROOT.glob("tools/**/*.py")]
    commands = [
        str(path.relative_to(ROOT)) for path in files if "__main__" in path.read_text(encoding="utf-8")
    ]
    assert sorted(SCRIPTS) == sorted(commands)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_names_every_option_with_underscores_and_says_what_it_does(script, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as stop:
        run_here(script, ["--help"], monkeypatch)
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    shown = set(re.findall(r"--([A-Za-z][\w.\-]*)", printed))
    assert set(OPTIONS[script]) <= shown
    assert not [name for name in shown if "-" in name]
