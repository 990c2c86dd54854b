"""Motion folders: order, render size, backgrounds, and refusals."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from common.camera import Camera
from common.errors import UserError
from common.io.image import write_image
from common.io.parameters import write_camera, write_smplx_params
from common.motion import MotionOptions, load_motion
from common.pose import SmplxParams

HEIGHT, WIDTH = 12, 10
FRAMES = (0, 2, 10)


@pytest.fixture
def folder(tmp_path) -> Path:
    root = tmp_path / "walk"
    for index in FRAMES:
        params = SmplxParams.zeros()
        params.trans[0] = index
        write_smplx_params(root / f"smplx/params/{index}.json", params)
        write_camera(
            root / f"cam_params/{index}.json", Camera.identity((20.0, 20.0), (4.5, 6.25), HEIGHT, WIDTH)
        )
        for name in ("images", "images_bkg"):
            write_image(root / name / f"{index}.png", np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8))
    return root


def test_frames_are_played_in_numeric_order_at_the_size_of_the_first_image(folder):
    motion = load_motion(folder)
    assert [frame.index for frame in motion.frames] == list(FRAMES)
    assert [frame.params.trans[0].item() for frame in motion.frames] == list(FRAMES)
    assert (motion.height, motion.width, motion.name) == (HEIGHT, WIDTH, "walk")
    assert all((f.camera.height, f.camera.width) == (HEIGHT, WIDTH) for f in motion.frames)
    assert all(frame.background is None for frame in motion.frames)


def test_without_images_the_size_is_given_or_follows_the_principal_point(folder):
    shutil.rmtree(folder / "images")
    sizes = {
        (None, None): (12, 9),  # rounded twice the principal point
        (33, None): (33, 9),
        (None, 44): (12, 44),
        (33, 44): (33, 44),
    }
    for (height, width), expected in sizes.items():
        motion = load_motion(folder, MotionOptions(height=height, width=width))
        assert (motion.height, motion.width) == expected


def test_size_that_contradicts_the_images_is_refused(folder):
    assert load_motion(folder, MotionOptions(height=HEIGHT, width=WIDTH)).height == HEIGHT
    with pytest.raises(UserError, match="sets the render size 10 x 12"):
        load_motion(folder, MotionOptions(height=HEIGHT + 1))
    shutil.rmtree(folder / "images")
    with pytest.raises(UserError, match="positive"):
        load_motion(folder, MotionOptions(height=0))


def test_principal_point_at_the_corner_tells_no_size(folder):
    shutil.rmtree(folder / "images")
    camera = Camera.identity((20.0, 20.0), (0.0, 0.0), 1, 1)
    write_camera(folder / "cam_params/0.json", camera)
    with pytest.raises(UserError, match="give --width, --height"):
        load_motion(folder)


def test_backgrounds_are_there_and_of_the_render_size_only_when_asked_for(folder):
    motion = load_motion(folder, with_background=True)
    assert [frame.background.name for frame in motion.frames] == ["0.png", "2.png", "10.png"]
    write_image(folder / "images_bkg/2.png", np.zeros((HEIGHT, WIDTH + 1, 3), dtype=np.uint8))
    with pytest.raises(UserError, match=r"images_bkg/2\.png is 11 x 12 .* expected 10 x 12"):
        load_motion(folder, with_background=True)
    shutil.rmtree(folder / "images_bkg")
    load_motion(folder)
    with pytest.raises(UserError, match=r"missing file: .*images_bkg/0\.png"):
        load_motion(folder, with_background=True)


def test_empty_and_incomplete_motions_are_refused(folder):
    (folder / "cam_params/2.json").unlink()
    with pytest.raises(UserError, match=r"missing file: .*cam_params/2\.json"):
        load_motion(folder)
    shutil.rmtree(folder / "smplx")
    with pytest.raises(UserError, match=r"motion is empty: .*smplx/params"):
        load_motion(folder)
    with pytest.raises(UserError, match="is not a folder"):
        load_motion(folder / "nothing")
    (folder / "images/0.png").write_bytes(b"")
