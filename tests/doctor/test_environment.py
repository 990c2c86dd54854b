"""What the machine lacks is found; the report and its exit code follow the worst finding."""

from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from common.doctor import environment, rasterizer
from common.doctor.environment import check_disk, check_packages, check_torch, check_video
from common.doctor.findings import Findings, report, write_report
from common.doctor.weights import check_weights

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def findings() -> Findings:
    return Findings("machine")


def only(findings: Findings) -> tuple[str, str]:
    assert len(findings.entries) == 1, findings.entries
    return findings.entries[0].level, findings.entries[0].text


def test_exit_code_follows_the_worst_finding(findings, tmp_path):
    codes = []
    for note in (
        lambda: findings.ok("a", "b"),
        lambda: findings.warn("c", "d", "e"),
        lambda: findings.error("f", "g", "h"),
    ):
        note()
        codes.append(findings.exit_code)
    assert codes == [0, 1, 2]
    write_report(tmp_path / "r.json", findings)
    read = json.loads((tmp_path / "r.json").read_text())
    assert read["exit_code"] == 2 and read["counts"] == {"ok": 1, "warning": 1, "error": 1}
    assert read["findings"][2] == {
        "level": "error",
        "topic": "machine",
        "check": "f",
        "text": "g",
        "remedy": "h",
    }


def test_the_report_shows_a_few_of_a_kind_and_counts_the_rest(findings):
    for index in range(10):
        findings.error("mask is empty", f"frame {index}", "segment again")
    text = report(findings)
    assert text.count("mask is empty") == 3 and "7 more findings" in text and "10 errors" in text
    assert report(findings, show_all=True).count("mask is empty") == 10
    assert report(Findings()) == "all is well"


def test_different_problems_found_by_one_check_are_all_shown_up_to_a_limit(findings):
    for frame in range(10):
        for what in ("mask", "depth", "segs"):
            findings.error("file", f"missing file: generated_0/{what}/{frame}.png", "put it there")
    text = report(findings)
    assert all(text.count(what) == 3 for what in ("mask", "depth", "segs")) and "21 more findings" in text
    many = Findings()
    for letter in "abcdefghijklmnopqrstuvwxyz":
        many.error("file", letter, "mend it")
    assert report(many).count("error    file") == 15 and "11 more findings" in report(many)


def test_a_user_error_is_split_into_what_is_wrong_and_what_to_do(findings):
    findings.refused("file", "a.png is truncated (a; b); write it again")
    findings.refused("file", "missing folder: x")
    first, second = findings.entries
    assert (first.text, first.remedy) == ("a.png is truncated (a; b)", "write it again")
    assert second.text == "missing folder: x" and second.remedy


def test_the_tested_packages_are_there(findings):
    check_packages(findings, ROOT / "requirements.txt")
    assert not findings.count("error")


def test_missing_and_other_versions_of_packages_are_named(findings, tmp_path):
    (tmp_path / "r.txt").write_text(
        f"torch=={torch.__version__.partition('+')[0]}\nnumpy==1.0\nno_such_package==2\n"
    )
    check_packages(findings, tmp_path / "r.txt")
    levels = {entry.text.split()[0]: entry.level for entry in findings.entries}
    assert levels == {"numpy": "warning", "no_such_package": "error"}


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(("free", "level"), [(50e9, "ok"), (2e9, "warning"), (1e8, "error")])
def test_disk_space_is_looked_up_where_results_will_go(findings, tmp_path, monkeypatch, free, level):
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or Usage(0, 0, free))
    check_disk(findings, tmp_path / "not" / "there")
    assert only(findings)[0] == level and asked == [tmp_path]


def test_a_folder_that_cannot_be_written_is_an_error(findings, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    check_disk(findings, tmp_path)
    assert only(findings)[0] == "error"


def test_a_gpu_that_pytorch_cannot_use_is_told_and_none_at_all_is_fine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for driver, cuda, level in ((None, None, "ok"), ("555.1", None, "warning"), ("470.1", "12.8", "warning")):
        monkeypatch.setattr(environment, "nvidia_driver", lambda driver=driver: driver)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        findings = Findings()
        check_torch(findings)
        gpu = next(entry for entry in findings.entries if entry.check == "GPU")
        assert gpu.level == level and (driver is None or driver in gpu.text)


def test_the_cpu_rasterizer_passes_and_a_wrong_one_does_not(monkeypatch):
    assert rasterizer.numba_failure() is None
    from common.rasterizer import numba_backend

    render = numba_backend.render
    monkeypatch.setattr(numba_backend, "render", lambda splats: render(splats) * 1.1)
    assert "differ from the reference" in str(rasterizer.numba_failure())

    def fail(splats: object) -> None:
        raise OSError("no compiler\nat all")

    monkeypatch.setattr(numba_backend, "render", fail)
    assert rasterizer.numba_failure() == "OSError: no compiler"


def test_a_video_library_without_x264_is_an_error(findings, monkeypatch):
    import av

    check_video(findings)
    assert only(findings)[0] == "ok"
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    check_video(findings)
    assert findings.entries[-1].level == "error"


def test_perceptual_weights_are_missed_unless_the_demo_is_meant_and_broken_ones_are_errors(
    monkeypatch, tmp_path
):
    from common import perceptual

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    for is_needed, code in ((True, 1), (False, 0)):
        findings = Findings()
        check_weights(findings, tmp_path, is_needed)
        assert findings.exit_code == code and len(findings.entries) == 4
    for name in ("vgg16-397923af.pth", "vgg.pth"):
        (tmp_path / name).write_bytes(b"not weights")
    findings = Findings()
    check_weights(findings, tmp_path, True)
    broken = [entry for entry in findings.entries if entry.level == "error"]
    assert [entry.check for entry in broken] == ["vgg"] and "vgg16-397923af.pth" in broken[0].text
    assert findings.count("warning") == 2
    check_weights(findings, tmp_path / "nowhere", True)
    assert findings.entries[-1].level == "error"
