"""Any motion written as a motion folder and read again is the same motion."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from common.io.image import write_image
from common.motion import Motion, MotionOptions, load_motion, stage
from common.motion.folder import write_motion_folder
from common.pose import rotation_vectors
from tests.cli.commands import run_here
from tests.motion.motions import estimate, figure, frame_entries, known_motion, write_amass, write_entries

KNOWN = known_motion()


def matrices(motion: Motion) -> np.ndarray:
    rotvec = rotation_vectors(motion.params).double().numpy()
    return Rotation.from_rotvec(rotvec.reshape(-1, 3)).as_matrix().reshape(*rotvec.shape, 3)


def check_same_motion(found: Motion, expected: Motion) -> None:
    assert found.indices == expected.indices
    assert matrices(found) == pytest.approx(matrices(expected), abs=1e-5)
    for name in ("trans", "expr"):
        assert getattr(found.params, name).numpy() == pytest.approx(getattr(expected.params, name), abs=1e-5)
    for mine, other in zip(found.cameras, expected.cameras, strict=True):
        assert (mine.height, mine.width) == (other.height, other.width)
        for name in ("R", "t", "focal", "princpt"):
            assert getattr(mine, name).numpy() == pytest.approx(getattr(other, name).numpy(), abs=1e-5)


def write_frames(path: Path) -> Path:
    for i in range(len(KNOWN.trans)):
        write_entries(path / f"{i + 3}.json", frame_entries(estimate(KNOWN, "joints"), i))
    return path


SOURCES = {
    "smplx": lambda folder: write_amass(folder / "a.npz", KNOWN),
    "smplh": lambda folder: write_amass(folder / "a.npz", KNOWN, n_values=156),
    "smpl": lambda folder: write_amass(folder / "a.npz", KNOWN, n_values=72),
    "estimate": lambda folder: write_entries(folder / "e.pkl", estimate(KNOWN)),
    "matrices": lambda folder: write_entries(folder / "e.npz", estimate(KNOWN, "matrices")),
    "frames": lambda folder: write_frames(folder / "frames"),
}


@pytest.mark.parametrize("camera", ["front", "orbit"])
@pytest.mark.parametrize("source", SOURCES)
def test_every_format_survives_the_way_through_a_motion_folder(tmp_path, source, camera):
    options = MotionOptions(camera=camera, width=161, height=90)
    motion = stage(load_motion(SOURCES[source](tmp_path), options), figure(), options, 24.0)
    write_motion_folder(tmp_path / "written", motion)
    check_same_motion(load_motion(tmp_path / "written"), motion)


def test_images_and_backgrounds_go_along(tmp_path):
    motion = load_motion(write_entries(tmp_path / "e.npz", estimate(KNOWN)))
    motion = stage(motion, figure(), MotionOptions(width=8, height=6), 30.0)
    random = np.random.default_rng(0)
    images = tuple(tmp_path / f"source/{i}.png" for i in range(len(motion)))
    for image in images:
        write_image(image, random.integers(0, 255, (6, 8, 3), dtype=np.uint8))
    write_motion_folder(tmp_path / "walk", replace(motion, images=images, backgrounds=images))
    found = load_motion(tmp_path / "walk", with_background=True)
    check_same_motion(found, motion)
    for kind in (found.images, found.backgrounds):
        assert [path.read_bytes() for path in kind] == [path.read_bytes() for path in images]


def test_frames_that_a_killed_conversion_left_do_not_get_into_the_next_one(tmp_path, monkeypatch):
    source = write_amass(tmp_path / "a.npz", KNOWN)
    for left in (".walk.unfinished", f".walk.{os.getpid()}.part"):
        (tmp_path / left / "cam_params").mkdir(parents=True)
        (tmp_path / left / "cam_params" / "999.json").write_text("half")
    options = ["--motion_path", str(source), "--output", str(tmp_path / "walk"), "--camera", "follow"]
    run_here("tools/convert_motion.py", options, monkeypatch)
    assert not (tmp_path / "walk" / "cam_params" / "999.json").exists()


def test_the_command_writes_what_the_animation_would_play(tmp_path, monkeypatch, capsys):
    source = write_amass(tmp_path / "a.npz", KNOWN)
    options = ["--motion_path", str(source), "--output", str(tmp_path / "walk"), "--camera", "follow"]
    run_here("tools/convert_motion.py", [*options, "--fps", "15", "--width", "60"], monkeypatch)
    assert "3 frames for 15 frames per second" in capsys.readouterr().out
    motion = load_motion(tmp_path / "walk")
    assert (motion.width, motion.height, len(motion)) == (60, 768, 3)
    to_world = np.stack([camera.R.T.numpy() for camera in motion.cameras])
    expected = Rotation.from_rotvec(KNOWN.rotvec[::2, 0]).as_matrix()
    assert to_world @ matrices(motion)[:, 0] == pytest.approx(expected, abs=1e-5)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(SystemExit) as stop:
        run_here("tools/convert_motion.py", options, monkeypatch)
    assert stop.value.code == 2 and "walk exists; choose another --output" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == before
