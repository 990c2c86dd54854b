"""The benchmark measures what it says, and its table and file hold the same."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from common.avatar import Avatar
from common.benchmark import own_process
from common.benchmark.agreement import Agreement, Difference
from common.benchmark.animation import AnimationTimes
from common.benchmark.rasterizer import NOT_INSTALLED, RasterizerTimes
from common.benchmark.scene import front_camera, posed_gaussians
from common.benchmark.table import animation_lines, as_table, rasterizer_lines
from common.benchmark.timing import Timer
from common.engine.speed import repeated, speed_of
from main.config import DEMO_BODY, Paths
from tools import benchmark

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/benchmark.py", "--device", "cpu", "--quick", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_median_of_a_known_time() -> None:
    assert 19 < Timer(CPU, 3).median_ms(lambda: time.sleep(0.02)) < 200


def test_graphs_are_for_gpus() -> None:
    assert Timer(CPU, 1).captured_ms(lambda: None) is None


def test_a_process_of_its_own_starts_as_usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python keeps what it compiles, also where this process must not."""
    (tmp_path / "teller.py").write_text(
        "import json, sys\n\ndef main():\n    print(json.dumps({'keeps': not sys.dont_write_bytecode}))\n"
    )
    monkeypatch.setattr(own_process, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert own_process.run_alone("teller", [], "it") == {"keeps": True}


def test_speed_leaves_out_the_warm_up() -> None:
    seen: list[int] = []

    def use(frame: int) -> None:
        seen.append(frame)
        time.sleep(0.2 if frame == 0 else 0.01)

    speed = speed_of(range(6), use)
    assert seen == [0, 1, 2, 3, 4, 5] and speed.n_frames == 5
    assert 0.05 <= speed.seconds < 0.2 + 0.05
    assert speed.per_second == pytest.approx(1e3 / speed.milliseconds)


def test_frames_are_repeated_and_cut() -> None:
    assert list(repeated("abc", 5)) == list("abcab")
    assert list(repeated("abc", 0, at_most=2)) == list("ab")


def test_the_body_stands_in_the_picture() -> None:
    gaussians, camera = posed_gaussians(DEMO_BODY, CPU, 0), front_camera(1024, 576, CPU)
    pixels = camera.project(gaussians.mean)
    assert ((pixels > 0) & (pixels < torch.tensor([576.0, 1024.0]))).all(1).float().mean() > 0.95


def test_ratios_are_to_this_repository_and_missing_packages_are_named() -> None:
    rows = [
        RasterizerTimes("this repository", 32, 0.5, 0.25, 1.0, 0.4),
        RasterizerTimes("gsplat", 32, 2.0, None, 8.0, None),
        RasterizerTimes("mip-splatting", 32, None, None, None, None, note=NOT_INSTALLED),
    ]
    lines = rasterizer_lines(rows)
    assert "20.0 x" in lines[2] and NOT_INSTALLED in lines[3]


def test_frames_a_second_follow_from_milliseconds() -> None:
    agreement = Agreement(Difference(9, 5e-5), Difference(1, 0.0), Difference(7, 2e-5))
    lines = animation_lines(AnimationTimes(10, 4, 6, 50.0, 1.0, 0.5, 2.0, agreement))
    assert "2000.0" in lines[2] and "100.0" in lines[2] and "500.0" in lines[3]
    assert [line.split()[-2:] for line in lines[-3:]] == [["9", "50.0"], ["1", "0.0"], ["7", "20.0"]]


def test_the_command_prints_and_writes_the_same(tmp_path: Path) -> None:
    places = ("--paths.subjects", str(tmp_path / "s"), "--paths.output", str(tmp_path / "o"))
    sections = ("--only", "rasterizer,field", "--channels", "3")
    result = run(*sections, *places, "--output", str(tmp_path / "b.json"))
    assert result.returncode == 0, result.stderr
    written = json.loads((tmp_path / "b.json").read_text())
    assert written["machine"]["torch"] == torch.__version__
    (row,) = written["rasterizer"]
    assert row["n_channels"] == 3 and row["forward"] > 0 and row["both"] > 0 and row["forward_graph"] is None
    assert f"{row['forward']:.3f}" in result.stdout and f"{row['both']:.3f}" in result.stdout
    assert f"skinning field: {written['field']:.2f} s" in result.stdout
    assert "training" not in written
    assert as_table({**written, "rasterizer": [RasterizerTimes(**row)]}) in result.stdout


def test_training_its_memory_and_animation_of_the_tiny_subject(tmp_path: Path) -> None:
    places = ("--paths.subjects", str(tmp_path / "s"), "--paths.output", str(tmp_path / "o"))
    files = ("--output", str(tmp_path / "b.json"), "--profile", str(tmp_path / "trace.json"))
    result = run("--only", "training,memory,animation", *places, *files)
    assert result.returncode == 0, result.stderr
    written = json.loads((tmp_path / "b.json").read_text())
    assert [(row["kind"], row["path"]) for row in written["training"]] == [
        ("captured", "plain"),
        ("generated", "plain"),
    ]
    assert all(row["step"] > 0 for row in written["training"])
    (alone,) = written["memory"]
    assert alone["way"] == "plain" and alone["captured"] > 0 and alone["generated"] > 0
    assert alone["host_mib"] > 100 and alone["tensors_mib"] is None
    assert f"{alone['captured']:.3f}" in result.stdout
    animation = written["animation"]
    assert animation["agreement"]["engine"]["levels"] <= 1
    assert min(animation[name] for name in ("plain", "engine", "encoded")) > 0
    assert "without perceptual loss" in result.stdout
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]


def test_animation_is_of_the_same_avatar_whatever_was_measured_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    def measure(avatar: Avatar, *_: object) -> AnimationTimes:
        seen.append({name: value.detach().clone() for name, value in avatar.named_parameters()})
        return AnimationTimes(10, 4, 6, 50.0, 1.0, 0.5, 2.0, Agreement(*[Difference(0, 0.0)] * 3))

    monkeypatch.setattr(benchmark, "measure_animation", measure)
    for sections in ("animation", "training,animation"):
        places = Paths(subjects=tmp_path / "s", output=tmp_path / "o")
        file = tmp_path / "b.json"
        benchmark.main(benchmark.BenchmarkArgs("cpu", only=sections, quick=True, output=file, paths=places))
    alone, after = seen
    assert all(torch.equal(alone[name], after[name]) for name in alone)


def test_start_is_that_of_the_training_command(tmp_path: Path) -> None:
    places = ("--paths.subjects", str(tmp_path / "s"), "--paths.output", str(tmp_path / "o"))
    result = run("--only", "start", *places, "--output", str(tmp_path / "b.json"))
    assert result.returncode == 0, result.stderr
    start = json.loads((tmp_path / "b.json").read_text())["start"]
    times, alone = start["cold"], start["torch_alone"]
    assert list(times) == ["python", "imports", "checks", "model", "trainer", "first step"]
    assert list(times.values()) == sorted(times.values()) and times["first step"] < 600
    assert 0 < alone["imports"] <= alone["first tensor"] and f"{alone['imports']:.3f}" in result.stdout
    assert not (tmp_path / "o").exists()


def test_an_unknown_section_is_named(tmp_path: Path) -> None:
    result = run("--only", "speed", "--output", str(tmp_path / "b.json"))
    assert result.returncode == 2 and "rasterizer" in result.stderr and "Traceback" not in result.stderr
