"""Bad input ends every command with one line that says what is wrong and what to do, and exit code 2 (SPEC 17)."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common import perceptual
from tests.cli.commands import ROOT, SCRIPTS, SUBJECT, TRAIN, Workspace, listing, run_here, run_process


@pytest.fixture
def refuse(monkeypatch, capsys) -> Callable[..., str]:
    """Run a script that must refuse its input: returns its one line, after checking line and exit code."""

    def run(script: str, *options: object, is_progress_shown: bool = False) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            run_here(script, list(map(str, options)), monkeypatch)
        said = capsys.readouterr()
        assert stop.value.code == 2
        assert said.out == ""
        *progress, line = said.err.splitlines()
        assert line.startswith("error: ") and len(line) < 1500
        assert is_progress_shown or not progress
        assert "Traceback" not in said.err
        return line

    return run


def edit_json(path: Path, **changed: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def halve(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def resize(path: Path) -> None:
    Image.new("RGB", (20, 10)).save(path)


IMAGE = "generated_1/images/0.png"
PARAMS = "captured/smplx_optimized/smplx_params/0.json"
NAN = float("nan")
DAMAGES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "missing split": (lambda s: shutil.rmtree(s / "generated_1"), ["missing split", "generated_1"]),
    "missing image": (lambda s: (s / IMAGE).unlink(), ["missing file", IMAGE]),
    "truncated image": (lambda s: halve(s / IMAGE), [IMAGE, "truncated", "write it again"]),
    "wrong image size": (lambda s: resize(s / "captured/masks/0.png"), ["masks/0.png", "20 x 10", "64 x 96"]),
    "NaN in parameters": (
        lambda s: edit_json(s / PARAMS, trans=[0.0, NAN, 1.0]),
        [PARAMS, "trans has NaN", "again"],
    ),
    "wrong json shape": (
        lambda s: edit_json(s / PARAMS, body_pose=[[0.0] * 3] * 20),
        [PARAMS, "body_pose has shape 20x3, expected 21x3"],
    ),
    "not json": (lambda s: halve(s / PARAMS), [PARAMS, "is not valid json"]),
    "wrong array shape": (
        lambda s: np.save(s / "captured/depths/0.npy", np.zeros((4, 5))),
        ["captured/depths/0.npy", "(4, 5)", "(96, 64)"],
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_data_stop_training_and_testing_before_anything_is_written(name, trained, refuse, tmp_path):
    damage, parts = DAMAGES[name]
    space = trained.with_copied_subject(tmp_path)
    damage(space.subject)
    before = listing(space.output)
    for script, options in (("train", (*TRAIN, "--overwrite")), ("test", ())):
        line = refuse(f"main/{script}.py", *space.options(), *options)
        assert all(part in line for part in parts), line
    assert listing(space.output) == before


def test_nan_in_a_valid_depth_stops_testing(trained, refuse, tmp_path):
    space = trained.with_copied_subject(tmp_path)
    np.save(space.subject / "captured/depths/0.npy", np.full((96, 64), np.nan, np.float32))
    line = refuse("main/test.py", *space.options(), is_progress_shown=True)
    assert "captured/depths/0.npy has NaN" in line and "write it again" in line


def test_missing_test_split_stops_fitting_testing_and_evaluation(fitted, refuse, tmp_path):
    space = fitted.with_copied_subject(tmp_path, "test")
    fit = ("--no_lpips", "--fit_pose_to_test", "--continue")
    for script, options in (("train", fit), ("test", ("--fit_pose_to_test",))):
        assert "missing split" in refuse(f"main/{script}.py", *space.options(), *options)
    renders = space.output / "result" / f"{SUBJECT}_fit_pose_to_test"
    options = ("--output_path", renders, "--subject_id", SUBJECT, "--paths.subjects", space.subjects)
    assert "`test`" in refuse("tools/eval_neuman.py", *options)


@pytest.mark.parametrize("name", ["a/b", "..", "../tiny", "/etc", "", ".hidden", "a\\b", "a\nb", "t\u0456ny"])
def test_subject_names_are_plain_folder_names(name, made, refuse):
    for script in ("train", "test", "get_neutral_pose", "animation", "viewer"):
        line = refuse(f"main/{script}.py", *made.options(subject_id=None), f"--subject_id={name}")
        assert "--subject_id" in line and "not a plain folder name" in line
    options = (f"--subject_id={name}", "--output_path", made.root)
    assert "not a plain folder name" in refuse("tools/eval_xhumans.py", *options)


@pytest.mark.parametrize(
    ("name", "said"),
    [("x" * 300, "give at most 100"), (f"{SUBJECT}_fit_pose_to_test", "choose another name")],
)
def test_subject_names_leave_room_for_what_is_named_after_them(name, said, made, refuse):
    assert said in refuse("main/train.py", *made.options(subject_id=None), f"--subject_id={name}")


def test_unknown_subject_is_answered_with_the_known_ones(made, refuse):
    line = refuse("main/train.py", *made.options(subject_id="nobody"), *TRAIN)
    assert "'nobody'" in line and str(made.subjects) in line and "there are: tiny" in line
    line = refuse("main/test.py", *made.options(subject_id="nobody"))
    assert "model_dump/nobody" in line and "train first" in line


def test_epoch_that_does_not_exist_is_answered_with_those_that_do(trained, refuse):
    for script in ("test", "get_neutral_pose", "animation", "viewer"):
        line = refuse(f"main/{script}.py", *trained.options(test_epoch="7"))
        assert "snapshot_7.pth" in line and "available epochs: 0, 1" in line


def test_snapshot_of_another_body_is_refused_with_both_counts(trained, ball, refuse):
    n = torch.load(trained.snapshots / "snapshot_1.pth", weights_only=True)["network"][
        "persona.mean_offset"
    ].shape[0]
    for script in ("test", "get_neutral_pose"):
        line = refuse(f"main/{script}.py", *trained.options(human_model_path=ball))
        assert str(n) in line and "162" in line and "--human_model_path" in line
    line = refuse("main/test.py", *trained.options(**{"body.n_subdivisions": "1"}))
    assert str(n) in line and "--body.n_subdivisions" in line


def test_subject_of_another_body_is_refused_with_both_counts(trained, ball, refuse, tmp_path):
    options = trained.options(
        human_model_path=ball, skinning_field_path=tmp_path, **{"paths.output": tmp_path}
    )
    line = refuse("main/train.py", *options, *TRAIN)
    assert "face_offset.json" in line and "162" in line and "--human_model_path" in line


def test_broken_snapshot_is_refused(trained, refuse, tmp_path):
    folder = tmp_path / "model_dump" / SUBJECT
    shutil.copytree(trained.snapshots, folder)
    halve(folder / "snapshot_1.pth")
    before = listing(tmp_path)
    line = refuse("main/test.py", *trained.options(**{"paths.output": tmp_path, "test_epoch": "1"}))
    assert "snapshot_1.pth is truncated" in line and "use another epoch" in line
    assert listing(tmp_path) == before
    halve(folder / "snapshot_0.pth")  # nothing is left to fall back to
    before = listing(tmp_path)
    options = trained.options(**{"paths.output": tmp_path})
    for script, more in (("test", ()), ("train", (*TRAIN, "--continue"))):
        line = refuse(f"main/{script}.py", *options, *more)
        assert "snapshot_1.pth is truncated" in line and "use another epoch" in line
    refuse("tools/prepare_fit_pose_to_test.py", "--root_path", folder)
    assert listing(tmp_path) == before


def test_broken_body_file_is_named(made, refuse, tmp_path):
    shutil.copy(ROOT / "data/demo_body/body.npz", tmp_path)
    halve(tmp_path / "body.npz")
    options = made.options(human_model_path=tmp_path, **{"paths.output": tmp_path})
    line = refuse("main/train.py", *options, *TRAIN)
    assert str(tmp_path / "body.npz") in line and "download or make it again" in line
    assert "body.npz" in refuse(
        "tools/export_smplx_model.py", "--body", tmp_path / "body.npz", "--output", tmp_path / "x.npz"
    )


def test_missing_licensed_files_are_listed_with_their_sites(made, refuse, tmp_path):
    options = made.options(human_model_path=tmp_path, **{"paths.output": tmp_path})
    lines = [
        refuse("main/train.py", *options, *TRAIN),
        refuse("tools/prepare_body_model.py", "--human_model_path", tmp_path),
        refuse(
            "tools/diffused_skinning_weights/make_skinning_weight.py",
            *("--human_model_path", tmp_path, "--output", tmp_path),
        ),
    ]
    for line in lines:
        for part in ("smplx/SMPLX_", "SMPL-X__FLAME_vertex_ids.npy", "smplx_uv.obj", "FLAME_NEUTRAL.pkl"):
            assert part in line
        assert "smpl-x.is.tue.mpg.de" in line and "flame.is.tue.mpg.de" in line
    assert list(tmp_path.iterdir()) == []


def test_motions_that_cannot_be_played_are_refused(trained, refuse, tmp_path):
    def animate(motion: Path | None, *more: str) -> str:
        return refuse(
            "main/animation.py", *trained.options(motion_path=motion, output=tmp_path / "out"), *more
        )

    motion = Path(shutil.copytree(trained.subject / "motion", tmp_path / "walk"))
    assert "--motion_path" in animate(None)
    assert str(tmp_path / "nothing") in animate(tmp_path / "nothing")
    shutil.rmtree(motion / "images_bkg")
    assert "images_bkg/0.png" in animate(motion, "--use_bkg")
    halve(motion / "cam_params/2.json")
    assert "cam_params/2.json" in animate(motion)
    for path in (motion / "smplx/params").iterdir():
        path.unlink()
    line = animate(motion)
    assert "motion is empty" in line and "smplx/params" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_is_refused_where_there_is_none(made, refuse):
    for script in ("train", "test", "get_neutral_pose", "animation", "viewer"):
        line = refuse(f"main/{script}.py", *made.options(device="cuda"))
        assert "--device cuda" in line and "--device cpu" in line


def test_existing_snapshots_are_neither_overwritten_nor_ignored_unasked(trained, refuse):
    before = listing(trained.output)
    line = refuse("main/train.py", *trained.options(), *TRAIN)
    assert "--continue" in line and "--overwrite" in line and str(trained.snapshots) in line
    assert "--overwrite" in refuse("main/train.py", *trained.options(), *TRAIN, "--continue", "--overwrite")
    assert listing(trained.output) == before


def test_earlier_fit_is_not_taken_for_the_current_one(fitted, refuse):
    before = listing(fitted.output)
    line = refuse("tools/prepare_fit_pose_to_test.py", "--root_path", fitted.snapshots)
    assert "_fit_pose_to_test" in line and "--overwrite" in line
    assert listing(fitted.output) == before


def test_starting_again_removes_the_snapshots_of_the_earlier_run(trained, tmp_path, monkeypatch):
    shutil.copytree(trained.snapshots, tmp_path / "model_dump" / SUBJECT)
    options = trained.options(**{"paths.output": tmp_path})
    run_here("main/train.py", [*options, *TRAIN, "--overwrite", "--initialise_only"], monkeypatch)
    assert [path.name for path in (tmp_path / "model_dump" / SUBJECT).iterdir()] == ["snapshot_0.pth"]


def test_continuing_a_finished_run_says_so_and_changes_nothing(trained, tmp_path, monkeypatch, caplog):
    shutil.copytree(trained.snapshots, tmp_path / "model_dump" / SUBJECT)
    before = listing(tmp_path / "model_dump")
    options = trained.options(**{"paths.output": tmp_path, "optim.n_epochs": "2"})
    with caplog.at_level("INFO"):
        run_here("main/train.py", [*options, *TRAIN, "--continue"], monkeypatch)
    assert "is of the last epoch already" in caplog.text and "--optim.n_epochs" in caplog.text
    assert listing(tmp_path / "model_dump") == before


def test_fitting_for_one_epoch_is_refused_because_epoch_0_is_the_start(fitted, refuse):
    options = fitted.options(**{"optim.n_epochs": "1"})
    assert "give 2 or more" in refuse("main/train.py", *options, "--fit_pose_to_test", "--continue")


def test_fitting_and_continuing_need_something_to_start_from(made, refuse, tmp_path):
    options = made.options(**{"paths.output": tmp_path})
    line = refuse("main/train.py", *options, *TRAIN, "--fit_pose_to_test")
    assert "needs --continue" in line and "prepare_fit_pose_to_test.py" in line
    for more in ((), ("--fit_pose_to_test",)):
        line = refuse("main/train.py", *options, *TRAIN, "--continue", *more)
        assert "no snapshot_<epoch>.pth" in line and "train first" in line
    line = refuse("tools/prepare_fit_pose_to_test.py", "--root_path", tmp_path / "model_dump" / SUBJECT)
    assert "--root_path" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("body.n_subdivisions", "9"),
        ("body.n_subdivisions", "-1"),
        ("optim.n_epochs", "0"),
        ("optim.n_epochs", "-3"),
        ("optim.fit_repeats", "0"),
        ("optim.lr", "nan"),
        ("optim.lr", "-1"),
        ("optim.lr_drop_at", "1.5"),
        ("loss.ssim", "inf"),
        ("field.resolution", "1"),
        ("field.threshold_m", "0"),
        ("avatar.n_groups", "3"),
        ("animation.fps", "0"),
        ("animation.n_views", "0"),
        ("animation.neutral_size", "-5"),
        ("face_patch_size", "0"),
        ("seed", "-1"),
    ],
)
def test_values_out_of_range_are_refused_with_the_option_s_name(option, value, made, refuse):
    line = refuse("main/train.py", *made.options(**{option: value}), "--no_lpips")
    assert f"--{option} {value.lstrip('+')}" in line and "give" in line


def test_wrong_values_of_tools_are_refused(made, refuse, tmp_path):
    field = "tools/diffused_skinning_weights/make_skinning_weight.py"
    assert "--resolution" in refuse(field, "--resolution", "1", "--human_model_path", made.body)
    subject = "tools/make_demo_subject.py"
    assert "--seed -1" in refuse(subject, "--seed", "-1", "--output", tmp_path / "s")
    line = refuse(subject, "--output", made.subject)
    assert "is not empty" in line and "--overwrite" in line


def test_skinning_field_of_other_settings_is_refused(trained, refuse):
    line = refuse("main/test.py", *trained.options(**{"field.resolution": "32"}))
    assert str(trained.field) in line and "24" in line and "32" in line


@pytest.fixture
def offline(monkeypatch, tmp_path) -> None:
    """No network, an empty torch cache, no `lpips` package."""

    def fail(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)


@pytest.mark.usefixtures("offline")
def test_training_without_perceptual_weights_says_which_files_and_where_from(made, refuse, tmp_path):
    options = made.options(**{"paths.output": tmp_path})
    parts = ("vgg16-397923af.pth", "download.pytorch.org", "vgg.pth", "--lpips_weights", "--no_lpips")
    for more in ((), ("--lpips_weights", tmp_path)):
        line = refuse("main/train.py", *options, *more)
        assert all(part in line for part in parts), line
    assert "nowhere" in refuse("main/train.py", *options, "--lpips_weights", "nowhere")


def test_output_that_cannot_be_written_is_named(trained, refuse, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    line = refuse("main/train.py", *trained.options(**{"paths.output": blocked}), *TRAIN)
    assert str(blocked) in line and "cannot write" in line
    line = refuse("main/get_neutral_pose.py", *trained.options(output=blocked), "--animation.n_views", "1")
    assert str(blocked) in line
    assert str(blocked) in refuse("tools/export_smplx_model.py", "--output", blocked / "SMPLX_NEUTRAL.npz")
    assert str(blocked) in refuse("tools/make_demo_subject.py", "--size", "tiny", "--output", blocked)


def test_a_refusal_in_a_process_of_its_own_is_one_line_too(trained, tmp_path):
    space: Workspace = trained.with_copied_subject(tmp_path)
    halve(space.subject / IMAGE)
    done = run_process("main/train.py", *space.options(), *TRAIN, "--overwrite", cwd=ROOT / "main")
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and IMAGE in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_unknown_options_end_with_one_line_and_code_2(script, refuse):
    assert "no_such_option" in refuse(script, "--no_such_option", "1")
