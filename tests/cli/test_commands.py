"""Every command of SPEC 2 runs on a tiny subject, from the root or from its folder, and writes what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from plyfile import PlyData

from common.io.parameters import SMPLX_SHAPES
from data.dataset import Subject
from main.config import DEMO_MOTION
from tests.body_model.bodies import tiny_body_data, write_licensed_files
from tests.cli.commands import ROOT, SUBJECT, Workspace, run_here, succeed

HEIGHT, WIDTH = 96, 64
N_MOTION = 3


def image(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        assert opened.mode == "RGB"
        return np.asarray(opened)


def frames_of(video: Path) -> tuple[list[np.ndarray], av.VideoStream]:
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == 30
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)], stream


def snapshot(path: Path) -> dict:
    return torch.load(path, weights_only=True, map_location="cpu")


def test_demo_subject_is_complete_and_has_a_motion(made):
    subject = Subject(made.subject)
    assert subject.problems(("captured", "generated_0", "generated_1", "test")) == []
    assert len(list((made.subject / "motion" / "smplx" / "params").glob("*.json"))) == N_MOTION
    assert (made.subject / "truth" / "about.json").is_file()


def test_skinning_field_has_the_published_files_and_rows_of_weights(with_field):
    weights = np.load(with_field.field / "diffused_skinning_weights.npy", allow_pickle=False)
    assert weights.shape == (24, 24, 24, 55) and weights.dtype == np.float32
    assert weights.min() >= 0 and weights.sum(-1).max() <= 1 + 1e-5
    for axis in "xyz":
        coords = np.load(with_field.field / f"skinning_grid_coords_{axis}.npy", allow_pickle=False)
        assert coords.shape == (24,) and (np.diff(coords) > 0).all()


def test_snapshots_hold_exactly_what_the_published_ones_do(trained):
    first, second = (snapshot(trained.snapshots / f"snapshot_{epoch}.pth") for epoch in (0, 1))
    for epoch, content in enumerate((first, second)):
        assert set(content) == {"epoch", "network", "optimizer", "run"}  # `run` is ours alone
        assert content["epoch"] == epoch
        assert all(torch.isfinite(value).all() for value in content["network"].values())
        assert set(content["optimizer"]) == {"state", "param_groups"}
    network = second["network"]
    n, v = network["persona.mean_offset"].shape[0], network["persona.face_offset"].shape[0]
    assert n == v  # no subdivision here
    for name, shape in {"scale": (n, 1), "rgb": (n, 3), "rgb_aux": (n, 3), "seg": (n, 3)}.items():
        assert network[f"persona.{name}"].shape == shape
    assert network["persona.triplane"].shape == (3, 32, 128, 128)
    assert not any("smplx_layer" in key or "lpips" in key for key in network)
    poses = {key.split(".")[2] for key in network if key.startswith("smplx_param_dict.")}
    assert poses == {"captured", "generated_0", "generated_1"}
    for name in SMPLX_SHAPES:
        assert f"smplx_param_dict.smplx_params.generated_1.0.{name}" in network


def test_continuing_goes_on_and_leaves_unlisted_frames_alone(trained):
    first, second = (snapshot(trained.snapshots / f"snapshot_{epoch}.pth") for epoch in (0, 1))
    for name in ("persona.mean_offset", "persona.rgb", "smplx_param_dict.smplx_params.captured.0.trans"):
        assert not torch.equal(first["network"][name], second["network"][name])
    unlisted = "smplx_param_dict.smplx_params.generated_0.1.body_pose"
    assert torch.equal(first["network"][unlisted], second["network"][unlisted])
    steps = {int(entry["step"]) for entry in second["optimizer"]["state"].values()}
    assert max(steps) == 8  # two epochs of two generated frames and twice the photo


def test_training_is_logged_for_tensorboard(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(trained.output / "log" / SUBJECT))
    log.Reload()
    total = log.Scalars("loss/total")
    assert [event.step for event in total] == list(range(8))
    assert all(np.isfinite(event.value) and event.value > 0 for event in total)
    assert "captured_0" in log.Tags()["images"]


def check_renders(folder: Path, names: list[str], n_low: int, n_high: int) -> None:
    endings = ["_smplx.ply", "_gt.png"]
    for suffix in ("", "_refined"):
        endings += [f"{suffix}.png", f"{suffix}.ply", f"_mask{suffix}.png", f"_normal{suffix}.png"]
        endings += [f"_normal{suffix}.npy", f"_depth{suffix}.npy"]
    expected = {name + ending for name in names for ending in endings}
    found = {path.name for path in folder.iterdir() if not path.name.startswith("evaluation.")}
    assert found == expected
    for name in names:
        check_frame(folder / name, n_low, n_high)


def check_frame(stem: Path, n_low: int, n_high: int) -> None:
    """Files of one frame; `stem` is their path without ending."""
    for path in stem.parent.glob(f"{stem.name}*.png"):
        assert image(path).shape == (HEIGHT, WIDTH, 3)
    for suffix in ("", "_refined"):
        render, mask = image(Path(f"{stem}{suffix}.png")), image(Path(f"{stem}_mask{suffix}.png"))
        assert set(np.unique(mask)) == {0, 255}
        assert 0.02 < (mask == 255).mean() < 0.8
        assert (render[0, 0] == 255).all() and render[mask[..., 0] == 255].std() > 5
        normal, depth = (np.load(f"{stem}_{kind}{suffix}.npy") for kind in ("normal", "depth"))
        assert normal.shape == (3, HEIGHT, WIDTH) and depth.shape == (1, HEIGHT, WIDTH)
        assert normal.dtype == depth.dtype == np.float32
        assert np.abs(normal).max() <= 1 + 1e-4
        inside = mask[..., 0] == 255
        assert (depth[0][inside] > 0.5).all() and (depth[0][inside] < 20).all()
        mesh = PlyData.read(f"{stem}{suffix}.ply")
        assert len(mesh["vertex"]) == n_high
        assert {"x", "y", "z", "red", "green", "blue"} <= {p.name for p in mesh["vertex"].properties}
    body = PlyData.read(f"{stem}_smplx.ply")
    assert len(body["vertex"]) == n_low
    faces = np.vstack(
        body["face"].data["vertex_indices" if "vertex_indices" in body["face"] else "vertex_index"]
    )
    assert faces.shape[1] == 3 and faces.min() == 0 and faces.max() < n_low


def body_size(space: Workspace) -> int:
    return snapshot(space.snapshots / "snapshot_1.pth")["network"]["persona.face_offset"].shape[0]


def test_testing_writes_every_file_of_every_listed_frame(trained, rendered):
    n = body_size(trained)
    check_renders(rendered, ["captured_0", "generated_0_0", "generated_1_0"], n, n)
    truth = image(trained.subject / "captured" / "images" / "0.png")
    assert (image(rendered / "captured_0_gt.png") == truth).all()


def test_fitting_moves_only_the_test_poses(fitted):
    folder = fitted.output / "model_dump" / f"{SUBJECT}_fit_pose_to_test"
    assert sorted(path.name for path in folder.iterdir()) == ["snapshot_0.pth", "snapshot_1.pth"]
    start, end = (snapshot(folder / f"snapshot_{epoch}.pth") for epoch in (0, 1))
    source = snapshot(fitted.snapshots / "snapshot_1.pth")
    assert (start["epoch"], end["epoch"]) == (0, 1)
    assert all(torch.equal(start["network"][key], value) for key, value in source["network"].items())
    for key, value in source["network"].items():
        if key.startswith("persona."):
            assert torch.equal(end["network"][key], value)
    given = Subject(fitted.subject).smplx_params(("test",))["test"][0].trans
    moved = end["network"]["smplx_param_dict.smplx_params.test.0.trans"]
    assert 0 < (moved - given).abs().max() < 0.1


def test_fitted_test_frames_are_rendered(fitted):
    n = body_size(fitted)
    check_renders(fitted.output / "result" / f"{SUBJECT}_fit_pose_to_test", ["test_0", "test_1"], n, n)


def evaluation(fitted) -> tuple[Path, list[str]]:
    """Folder of the fitted renders and the evaluators' options for it."""
    renders = fitted.output / "result" / f"{SUBJECT}_fit_pose_to_test"
    options = ["--output_path", str(renders), "--subject_id", SUBJECT]
    return renders, [*options, "--paths.subjects", str(fitted.subjects)]


def test_unfitted_test_frames_are_scored_beside_the_fitted_ones(fitted, monkeypatch, capsys):
    run_here("main/test.py", [*fitted.options(test_epoch="1"), "--unfitted_test"], monkeypatch)
    renders, options = evaluation(fitted)
    run_here("tools/eval_neuman.py", options, monkeypatch)
    protocols = json.loads((renders / "evaluation.json").read_text())["protocols"]
    assert next(iter(protocols)) == "official"
    assert protocols["without_pose_fitting"]["mean"]["psnr"] != protocols["official"]["mean"]["psnr"]
    assert "without_pose_fitting" in capsys.readouterr().out


@pytest.mark.parametrize(("script", "folder"), [("eval_neuman", "."), ("eval_xhumans", "tools")])
def test_evaluators_print_and_write_the_same_figures(fitted, script, folder):
    renders, options = evaluation(fitted)
    printed = succeed(f"tools/{script}.py", *options, cwd=ROOT / folder)
    means = json.loads((renders / "evaluation.json").read_text())["protocols"]["official"]["mean"]
    assert 5 < means["psnr"] < 60 and 0.3 < means["ssim"] <= 1
    assert f"PSNR  {means['psnr']:.4f}" in printed and f"SSIM  {means['ssim']:.4f}" in printed
    lpips = "not available" if means["lpips"] is None else f"{means['lpips']:.4f}"
    assert f"LPIPS {lpips}" in printed


def test_neutral_pose_writes_views_and_a_video(trained):
    output = trained.root / "neutral"
    few = {"animation.n_views": "3", "animation.neutral_size": "128", "animation.neutral_focal": "190"}
    succeed(
        "main/get_neutral_pose.py", *trained.options(test_epoch="1", output=output, **few), cwd=ROOT / "main"
    )
    folder = output / SUBJECT
    assert {path.name for path in folder.iterdir()} == {"0.png", "1.png", "2.png", "neutral_pose.mp4"}
    views = [image(folder / f"{i}.png") for i in range(3)]
    for view in views:
        assert view.shape == (128, 128, 3)
        assert (view[0] == 255).all() and (view[-1] == 255).all()
        assert 0.02 < (view < 250).any(-1).mean() < 0.7
    assert np.abs(views[0].astype(int) - views[1]).mean() > 0.5
    frames, _ = frames_of(folder / "neutral_pose.mp4")
    assert len(frames) == 3
    assert np.abs(frames[1].astype(int) - views[1]).mean() < 6


def test_animation_over_the_background_stands_beside_the_photo(trained):
    motion, output = trained.subject / "motion", trained.root / "animation"
    options = trained.options(test_epoch="1", motion_path=motion, output=output)
    printed = succeed("main/animation.py", *options, "--use_bkg", "--benchmark")
    speeds = re.findall(
        r"^(with|without) encoding: ([0-9.]+) frames/s \(([0-9.]+) ms a frame\)$", printed, re.M
    )
    assert [what for what, *_ in speeds] == ["without", "with"]
    assert all(float(per_second) * float(ms) == pytest.approx(1000, rel=0.05) for _, per_second, ms in speeds)
    frames, stream = frames_of(output / SUBJECT / "motion.mp4")
    assert len(frames) == N_MOTION
    assert (stream.height, stream.width) == (HEIGHT, 2 * WIDTH)
    for index, frame in enumerate(frames):
        background = image(motion / "images_bkg" / f"{index}.png").astype(int)
        corner = frame[-12:, WIDTH + 4 : WIDTH + 12] - background[-12:, 4:12]
        assert np.abs(corner).mean() < 8
        assert (frame[2:8, 20:44] > 245).all()  # above the photo
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 0.3


@pytest.mark.parametrize("camera", ["front", "orbit"])
def test_animation_by_the_demo_motion_shows_the_whole_avatar(trained, tmp_path, monkeypatch, camera):
    options = trained.options(test_epoch="1", motion_path=DEMO_MOTION, output=tmp_path, camera=camera)
    size = ["--width", "64", "--height", "96", "--stride", "60", "--motion_fps", "900"]
    run_here("main/animation.py", [*options, *size], monkeypatch)
    frames, _ = frames_of(tmp_path / SUBJECT / "walk_wave.mp4")
    assert len(frames) == 9  # every 60th of 270 frames is 5 at 15 a second, resampled to 30
    for frame in frames[::4]:
        assert frame.shape == (HEIGHT, 2 * WIDTH, 3)  # the photo on the left
        is_person = (frame[:, WIDTH:] < 200).any(-1)
        assert 0.03 < is_person.mean() < 0.6
        edges = (is_person[0], is_person[-1], is_person[:, 0], is_person[:, -1])
        assert not any(edge.any() for edge in edges)
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 0.5


def test_animation_needs_the_snapshot_and_the_body_alone(trained, tmp_path):
    space = trained.with_copied_subject(
        tmp_path / "subjects", "captured", "generated_0", "generated_1", "test"
    )
    motion = space.subject / "motion"
    succeed(
        "main/animation.py",
        *space.options(test_epoch="0", motion_path=motion, output=tmp_path / "out"),
        cwd=ROOT / "main",
    )
    frames, stream = frames_of(tmp_path / "out" / SUBJECT / "motion.mp4")
    assert len(frames) == N_MOTION
    assert (stream.height, stream.width) == (HEIGHT, WIDTH)
    assert all((frame[:6, -12:] > 240).all() for frame in frames)  # on white
    assert all((frame < 200).any(-1).mean() > 0.02 for frame in frames)


def test_body_model_tool_makes_a_file_that_loads_without_pickles(tmp_path):
    write_licensed_files(tmp_path, tiny_body_data())
    printed = succeed(
        "tools/prepare_body_model.py",
        "--human_model_path",
        str(tmp_path),
        "--gender",
        "male",
        cwd=ROOT / "tools",
    )
    assert "162 vertices" in printed
    with np.load(tmp_path / "body_male.npz", allow_pickle=False) as arrays:
        assert arrays["v_template"].shape == (162, 3)


def test_exported_body_has_the_entries_of_a_model_file(tmp_path):
    succeed("tools/export_smplx_model.py", "--output", str(tmp_path / "smplx" / "SMPLX_NEUTRAL.npz"))
    with np.load(tmp_path / "smplx" / "SMPLX_NEUTRAL.npz", allow_pickle=True) as arrays:
        assert {"v_template", "f", "shapedirs", "J_regressor", "weights", "kintree_table"} <= set(arrays)
        assert arrays["weights"].shape == (arrays["v_template"].shape[0], 55)
