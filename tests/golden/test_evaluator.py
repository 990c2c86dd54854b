"""The evaluation against the published scripts' PSNR and SSIM (golden 11_evaluator)."""

from __future__ import annotations

import json

import pytest
import torch

from common.evaluation import Evaluation, evaluate, find_ground_truth


@pytest.fixture(scope="module")
def expected(golden_path):
    return json.loads(golden_path("11_evaluator/expected.json").read_text())


@pytest.fixture(scope="module")
def evaluation(golden_path, expected) -> Evaluation:
    root = golden_path("11_evaluator")
    (subject,) = (root / "subjects").iterdir()
    (renders,) = (root / "result").iterdir()
    return evaluate(subject, renders, None, "none", torch.device("cpu"))


def test_frames_are_pasted_into_the_published_boxes(golden_path, expected):
    (subject,) = (golden_path("11_evaluator") / "subjects").iterdir()
    frames = find_ground_truth(subject)
    assert {str(frame.index): list(frame.box) for frame in frames} == expected["bbox_xywh"]
    assert all(list(frame.full_size) == expected["full_frame_shape_hw"] for frame in frames)


@pytest.mark.parametrize("script", ["eval_neuman", "eval_xhumans"])
def test_figures_in_the_order_of_each_script(evaluation, expected, script):
    found, listed = {score.frame: score for score in evaluation.official.scores}, expected[script]
    ours = [found[frame] for frame in listed["frame_order"]]
    assert [score.psnr for score in ours] == pytest.approx(listed["psnr"], abs=1e-4)
    assert [score.ssim for score in ours] == pytest.approx(listed["ssim"], abs=1e-5)


def test_figures_of_each_frame(evaluation, expected):
    found = {str(score.frame): score for score in evaluation.official.scores}
    assert found.keys() == expected["per_frame"].keys()
    for frame, score in found.items():
        assert score.psnr == pytest.approx(expected["per_frame"][frame]["psnr"], abs=1e-4)
        assert score.ssim == pytest.approx(expected["per_frame"][frame]["ssim"], abs=1e-5)


@pytest.mark.parametrize("script", ["eval_neuman", "eval_xhumans"])
def test_means(evaluation, expected, script):
    for metric, tolerance in (("psnr", 1e-4), ("ssim", 1e-5)):
        assert evaluation.official.mean(metric) == pytest.approx(
            expected[script][f"mean_{metric}"], abs=tolerance
        )
