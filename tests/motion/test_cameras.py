"""Cameras that are placed for a motion: everything is seen, from where it was said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from common.errors import UserError
from common.io.parameters import write_camera, write_smplx_params
from common.motion import Motion, MotionOptions, load_motion, stage
from common.motion.framing import ROOM
from tests.motion.motions import check_same_body, figure, known_motion, posed, write_amass
from tests.tiny_person import tiny_camera

KNOWN = known_motion()
SIZE = {"width": 300, "height": 200}


@pytest.fixture
def path(tmp_path):
    return write_amass(tmp_path / "walk.npz", KNOWN)


def placed(path, **options) -> Motion:
    chosen = MotionOptions(**options)
    return stage(load_motion(path, chosen), figure(), chosen, 30.0)


def filled(motion: Motion) -> np.ndarray:
    """Largest part of the image's half width and height that the body reaches in any frame."""
    shares = []
    for frame in motion.frames:
        camera = frame.camera
        points = posed(frame.params).vertices  # camera space
        assert points[:, 2].min() > 0.5
        pixels = points[:, :2] / points[:, 2:] * camera.focal + camera.princpt
        half = torch.tensor([camera.width / 2, camera.height / 2])
        shares.append(((pixels - half).abs() / half).amax(0).numpy())
    return np.max(shares, axis=0)


def centres(motion: Motion) -> np.ndarray:
    return np.stack([camera.camera_to_world(torch.zeros(3)).numpy() for camera in motion.cameras])


@pytest.mark.parametrize("camera", ["front", "follow", "orbit"])
@pytest.mark.parametrize("focal", [None, 150.0, 3000.0])
@pytest.mark.parametrize("size", [SIZE, {"width": 200, "height": 300}])
def test_the_whole_motion_is_seen_and_fills_the_image(path, camera, focal, size):
    motion = placed(path, camera=camera, focal=focal, **size)
    assert (motion.width, motion.height) == (size["width"], size["height"])
    shares = filled(motion)
    assert shares.max() < 1  # the margin makes up for blend shapes that the framing does not know
    if focal != 150.0:  # a wide lens is held back by the nearest distance
        assert shares.max() > ROOM - 0.12
    assert motion.cameras[0].focal.tolist() == [focal or 450.0] * 2
    assert motion.cameras[0].princpt.tolist() == [size["width"] / 2, size["height"] / 2]


def test_front_is_one_level_camera_before_the_person(path):
    motion = placed(path)
    R, t = motion.cameras[0].R, motion.cameras[0].t
    assert all(torch.equal(camera.R, R) and torch.equal(camera.t, t) for camera in motion.cameras)
    assert R[1].tolist() == [0, 1, 0]
    roots = Rotation.from_rotvec(KNOWN.rotvec[:, 0]).as_matrix()
    ahead = roots[:, :, 2].mean(0)
    assert R[2].numpy() @ (ahead / np.linalg.norm(ahead)) < -0.98
    pelvis = posed(KNOWN.params(2)).joints[0].numpy()
    assert (centres(motion)[0] - pelvis) @ ahead > 0.5


def test_follow_keeps_its_direction_and_its_distance_to_the_way(path):
    motion = placed(path, camera="follow")
    assert all(torch.equal(camera.R, motion.cameras[0].R) for camera in motion.cameras)
    moved, walked = np.ptp(centres(motion), axis=0), np.ptp(KNOWN.trans, axis=0)
    assert (moved > 0).any() and (moved < walked + 0.1).all()


def test_orbit_goes_once_around_at_equal_steps(path):
    motion = placed(path, camera="orbit", fps=60)
    ahead = np.stack([camera.R[2].numpy() for camera in motion.cameras])
    azimuth = np.unwrap(np.arctan2(ahead[:, 0], ahead[:, 2]))
    n = len(motion)
    assert np.diff(azimuth) == pytest.approx(2 * np.pi / n, abs=1e-5)
    front = placed(path, camera="front").cameras[0]
    assert motion.cameras[0].R.numpy() == pytest.approx(front.R.numpy(), abs=1e-3)
    assert all(abs(camera.R[1, 1].item() - 1) < 1e-6 for camera in motion.cameras)


@pytest.fixture
def folder(tmp_path):
    """A motion folder whose world is turned against its cameras, a different one for every frame."""
    for i in range(len(KNOWN.trans)):
        write_smplx_params(tmp_path / f"walk/smplx/params/{i}.json", KNOWN.without(n_expr=0).params(i))
        write_camera(tmp_path / f"walk/cam_params/{i}.json", tiny_camera())
    return tmp_path / "walk"


def test_a_motion_folder_keeps_its_cameras_unless_others_are_asked_for(folder):
    own = placed(folder)
    assert torch.equal(own.cameras[0].R, tiny_camera().R)
    assert own.params.trans.numpy() == pytest.approx(KNOWN.trans, abs=1e-6)
    front = placed(folder, camera="front", **SIZE)
    assert (front.width, front.height) == (300, 200) and filled(front).max() < 1
    for before, after in zip(own.frames, front.frames, strict=True):
        expected = before.camera.camera_to_world(posed(before.params).joints)
        found = after.camera.camera_to_world(posed(after.params).joints)
        assert found.numpy() == pytest.approx(expected.numpy(), abs=1e-4)


def test_options_that_own_cameras_do_not_have_are_refused(folder):
    with pytest.raises(UserError, match="--focal does not apply"):
        placed(folder, focal=100.0)
    with pytest.raises(UserError, match="--up z"):
        placed(folder, up="z")


def test_a_person_lying_down_is_still_seen(tmp_path):
    known = known_motion()
    known.rotvec[:, 0] = Rotation.from_euler("x", 90, degrees=True).as_rotvec()
    motion = placed(write_amass(tmp_path / "lie.npz", known, expression=known.expr), **SIZE)
    check_same_body(motion, known)
    assert filled(motion).max() < 1
