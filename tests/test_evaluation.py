"""The evaluation protocol, its files and its command lines (SPEC 14, 17)."""

from __future__ import annotations

import csv
import json
import math
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common import metrics, perceptual
from common.errors import UserError
from common.evaluation import evaluate, find_ground_truth, paste, report, write_evaluation
from common.perceptual import Lpips

ROOT = Path(__file__).resolve().parents[1]
BOXES = {3: (4, 2, 30, 26), 11: (0, 0, 24, 40)}  # x, y, w, h
FULL_SIZE = (40, 36)  # H, W
CPU = torch.device("cpu")


def write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture(autouse=True)
def no_lpips_weights(tmp_path, monkeypatch) -> None:
    """An empty torch cache and no `lpips` package."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)


@pytest.fixture
def subject(tmp_path) -> Path:
    """Two test frames of random pixels, with soft masks."""
    rng = np.random.default_rng(8)
    folder = tmp_path / "subjects" / "toy"
    for frame, (x, y, w, h) in BOXES.items():
        write_png(folder / "test" / "images" / f"{frame}.png", rng.integers(0, 256, (h, w, 3)))
        (folder / "test" / "images" / f"{frame}_bbox_orig.json").write_text(json.dumps([x, y, w, h]))
        mask = np.zeros((h, w, 3))
        mask[4:-4, 5:-5] = 255
        mask[4] = 100
        write_png(folder / "test" / "masks" / f"{frame}.png", mask)
    (folder / "test" / "images" / "img_shape_orig.json").write_text(json.dumps(FULL_SIZE))
    return folder


@pytest.fixture
def renders(subject, tmp_path) -> Path:
    """Refined renders: the ground truth, darkened."""
    folder = tmp_path / "result" / "toy_fit_pose_to_test"
    for frame in BOXES:
        write_png(
            folder / f"test_{frame}_refined.png", read(subject / "test" / "images" / f"{frame}.png") * 0.7
        )
    return folder


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(float)


def run_evaluation(subject: Path, renders: Path, lpips: Lpips | None = None):
    return evaluate(subject, renders, lpips, "a note", CPU)


def test_frames_are_found_in_numeric_order(subject):
    frames = find_ground_truth(subject)
    assert [frame.index for frame in frames] == [3, 11]
    assert [frame.box for frame in frames] == list(BOXES.values())


def test_paste_puts_the_crop_at_its_box_on_white(subject):
    frame = find_ground_truth(subject)[0]
    crop = torch.rand(3, *frame.size)
    canvas = paste(crop, frame)
    x, y, w, h = frame.box
    assert canvas.shape == (3, *FULL_SIZE)
    assert torch.equal(canvas[:, y : y + h, x : x + w], crop)
    assert canvas.sum().item() == pytest.approx(
        (crop.sum() + 3 * (math.prod(FULL_SIZE) - w * h)).item(), rel=1e-6
    )


def test_psnr_counts_all_pixels_of_the_full_frame_with_soft_masks(subject, renders):
    for score in run_evaluation(subject, renders).official.scores:
        truth = read(subject / "test" / "images" / f"{score.frame}.png") / 255
        render = read(renders / f"test_{score.frame}_refined.png") / 255
        mask = read(subject / "test" / "masks" / f"{score.frame}.png") / 255
        total = (((render - truth) * mask) ** 2).sum()
        assert score.psnr == pytest.approx(-10 * math.log10(total / (3 * math.prod(FULL_SIZE))), abs=1e-4)


def test_what_is_outside_the_mask_does_not_count(subject, renders):
    before = run_evaluation(subject, renders).official
    for frame in BOXES:
        path = renders / f"test_{frame}_refined.png"
        pixels = read(path)
        pixels[read(subject / "test" / "masks" / f"{frame}.png")[..., 0] == 0] = 17
        write_png(path, pixels)
    assert run_evaluation(subject, renders).official == before


def test_equal_images_have_infinite_psnr_which_the_files_can_hold(subject, renders):
    for frame in BOXES:
        shutil.copy(subject / "test" / "images" / f"{frame}.png", renders / f"test_{frame}_refined.png")
    evaluation = run_evaluation(subject, renders)
    assert evaluation.official.mean("psnr") == math.inf
    assert evaluation.official.mean("ssim") == pytest.approx(1.0)
    write_evaluation(evaluation, renders)
    assert (
        json.loads((renders / "evaluation.json").read_text())["protocols"]["official"]["mean"]["psnr"]
        == "inf"
    )


def test_overflow_counts_only_in_the_full_silhouette(subject, renders):
    names = [protocol.name for protocol in run_evaluation(subject, renders).protocols]
    assert names == ["official"]
    for frame in BOXES:
        mask = read(subject / "test" / "masks" / f"{frame}.png")
        write_png(renders / f"test_{frame}_mask_refined.png", mask)
    same, union = run_evaluation(subject, renders).protocols
    assert union.name == "full_silhouette"
    assert union.scores == same.scores
    for frame in BOXES:
        mask = read(renders / f"test_{frame}_mask_refined.png")
        mask[:, -5:] = 255
        write_png(renders / f"test_{frame}_mask_refined.png", mask)
    official, union = run_evaluation(subject, renders).protocols
    assert official == same
    assert all(u.psnr < o.psnr for u, o in zip(union.scores, official.scores, strict=True))


def test_base_avatar_and_renders_without_fitting_are_labelled_and_come_after_the_official_figures(
    subject, renders
):
    unfitted = renders.with_name("toy")
    for frame in BOXES:
        truth = read(subject / "test" / "images" / f"{frame}.png")
        write_png(renders / f"test_{frame}.png", truth * 0.5)
        write_png(unfitted / f"test_{frame}_refined.png", truth * 0.3)
    protocols = run_evaluation(subject, renders).protocols
    assert [protocol.name for protocol in protocols] == ["official", "base_avatar", "without_pose_fitting"]
    values = [protocol.mean("psnr") for protocol in protocols]
    assert values == sorted(values, reverse=True)
    (unfitted / "test_3_refined.png").unlink()
    assert len(run_evaluation(subject, renders).protocols) == 2


def test_lpips_is_averaged_over_frames_of_the_canvas(subject, renders):
    class MeanDifference(Lpips):
        def __init__(self) -> None:
            super().__init__("alex")

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            assert x.shape == (1, 3, *FULL_SIZE)
            return (x - y).abs().mean((1, 2, 3))

    official = run_evaluation(subject, renders, MeanDifference()).official
    values = [score.lpips for score in official.scores]
    assert None not in values
    assert official.mean("lpips") == pytest.approx(np.mean(values))


def test_files_and_report_hold_every_figure(subject, renders):
    evaluation = run_evaluation(subject, renders)
    write_evaluation(evaluation, renders)
    official = evaluation.official
    stored = json.loads((renders / "evaluation.json").read_text())["protocols"]["official"]
    assert stored["mean"] == {"psnr": official.mean("psnr"), "ssim": official.mean("ssim"), "lpips": None}
    with (renders / "evaluation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["frame"] for row in rows] == ["3", "11", "mean"]
    for row, score in zip(rows, official.scores, strict=False):
        assert float(row["psnr"]) == score.psnr == stored["frames"][row["frame"]]["psnr"]
        assert float(row["ssim"]) == score.ssim == stored["frames"][row["frame"]]["ssim"]
        assert row["lpips"] == ""
    text = report(evaluation)
    assert f"{official.mean('psnr'):.4f}" in text.splitlines()[1]
    assert "LPIPS not available" in text
    assert "a note" in text


def test_one_frame_equals_the_metrics_on_hand_made_canvases(subject, renders):
    score = run_evaluation(subject, renders).official.scores[1]
    x, y, w, h = BOXES[11]
    mask = read(subject / "test" / "masks" / "11.png") / 255
    canvases = []
    for path in (renders / "test_11_refined.png", subject / "test" / "images" / "11.png"):
        canvas = np.ones((*FULL_SIZE, 3))
        canvas[y : y + h, x : x + w] = read(path) / 255 * mask + 1 - mask
        canvases.append(torch.from_numpy(canvas).permute(2, 0, 1))
    assert score.ssim == pytest.approx(metrics.ssim(*canvases).item(), abs=1e-5)


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


Damage = Callable[[Path, Path], object]
DAMAGES: dict[str, tuple[Damage, str]] = {
    "missing render": (
        lambda s, r: (r / "test_11_refined.png").unlink(),
        "test_11_refined.png: render missing (1 of 2",
    ),
    "no render": (lambda s, r: [p.unlink() for p in r.iterdir()], "no renders of the test frames"),
    "no result folder": (lambda s, r: shutil.rmtree(r), "no such folder; run main/test.py"),
    "truncated render": (lambda s, r: truncate(r / "test_3_refined.png"), "test_3_refined.png"),
    "render of another size": (
        lambda s, r: write_png(r / "test_3_refined.png", np.zeros((26, 31, 3))),
        "test_3_refined.png is 31 x 26 pixels (width x height), expected 30 x 26",
    ),
    "missing box": (lambda s, r: (s / "test/images/3_bbox_orig.json").unlink(), "3_bbox_orig.json"),
    "box of three numbers": (
        lambda s, r: (s / "test/images/3_bbox_orig.json").write_text("[1, 2, 3]"),
        "3_bbox_orig",
    ),
    "box not json": (
        lambda s, r: (s / "test/images/3_bbox_orig.json").write_text("[1, 2"),
        "3_bbox_orig.json",
    ),
    "box outside": (
        lambda s, r: (s / "test/images/3_bbox_orig.json").write_text("[7, 2, 30, 26]"),
        "[7, 2, 30, 26] is not inside the original frame of 36 x 40 pixels",
    ),
    "missing frame size": (
        lambda s, r: (s / "test/images/img_shape_orig.json").unlink(),
        "img_shape_orig.json",
    ),
    "missing mask": (lambda s, r: (s / "test/masks/11.png").unlink(), "masks/11.png"),
    "truncated mask": (lambda s, r: truncate(s / "test/masks/11.png"), "masks/11.png"),
    "image of another size": (
        lambda s, r: write_png(s / "test/images/11.png", np.zeros((40, 25, 3))),
        "images/11.png is 25 x 40 pixels",
    ),
    "no test split": (
        lambda s, r: shutil.rmtree(s / "test"),
        "no such folder; evaluation needs the subject's split",
    ),
    "no frames": (lambda s, r: [p.unlink() for p in (s / "test/images").glob("*.png")], "no test frames"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_bad_input_is_one_message_with_the_file(name, subject, renders):
    damage, message = DAMAGES[name]
    damage(subject, renders)
    with pytest.raises(UserError) as error:
        run_evaluation(subject, renders)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def run_script(script: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script of tools/ in this process as if from the command line."""
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    runpy.run_path(str(ROOT / "tools" / script), run_name="__main__")


@pytest.mark.parametrize("script", ["eval_neuman.py", "eval_xhumans.py"])
def test_command_prints_and_writes_figures(script, subject, renders, monkeypatch, capsys):
    arguments = [
        "--output_path",
        str(renders),
        "--subject_id",
        "toy",
        "--paths.subjects",
        str(subject.parent),
    ]
    run_script(script, arguments, monkeypatch)
    expected = run_evaluation(subject, renders).official.mean("psnr")
    printed = capsys.readouterr().out
    assert f"PSNR  {expected:.4f}" in printed
    assert "LPIPS not available" in printed
    assert (
        json.loads((renders / "evaluation.json").read_text())["protocols"]["official"]["mean"]["psnr"]
        == expected
    )


def test_command_from_inside_its_folder_ends_with_one_line_and_code_2_on_bad_input(subject, renders):
    truncate(renders / "test_3_refined.png")
    options = ["--output_path", str(renders), "--subject_id", "toy", "--paths.subjects", str(subject.parent)]
    command = [sys.executable, "eval_neuman.py", *options]
    done = subprocess.run(command, cwd=ROOT / "tools", capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "test_3_refined.png" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--subject_id": "nobody"}, "nobody"),
        ({"--subject_id": "../toy"}, "not a plain folder name"),
        ({"--output_path": "no/such/folder"}, "no such folder"),
        ({"--lpips_weights": "no/such/folder"}, "--lpips_weights"),
        ({"--lpips_weights": "."}, "alexnet-owt-7be5be79.pth"),
    ],
)
def test_command_checks_its_options(changed, message, subject, renders, monkeypatch, capsys):
    options = {"--output_path": str(renders), "--subject_id": "toy", "--paths.subjects": str(subject.parent)}
    arguments = [word for option in {**options, **changed}.items() for word in option]
    with pytest.raises(SystemExit) as stop:
        run_script("eval_neuman.py", arguments, monkeypatch)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_help_lists_the_options_by_their_names(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run_script("eval_xhumans.py", ["--help"], monkeypatch)
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    for option in ("--output_path", "--subject_id", "--lpips_weights"):
        assert option in printed
