"""Which frames are played, and what is between them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation, Slerp

from common.camera import Camera
from common.motion import Motion, MotionOptions
from common.motion.motion import from_rotation_vectors
from common.motion.timeline import resample, select_frames, slerp
from common.pose import rotation_vectors


def random_motion(n_frames: int = 7, fps: float | None = 20.0, seed: int = 0) -> Motion:
    random = np.random.default_rng(seed)
    rotvec = Rotation.random(n_frames * 55, rng=random).as_rotvec().reshape(n_frames, 55, 3)
    params = from_rotation_vectors(
        *map(
            torch.from_numpy, (rotvec, random.normal(size=(n_frames, 50)), random.normal(size=(n_frames, 3)))
        )
    )
    return Motion("m", "test", tuple(range(n_frames)), params, fps=fps)


def matrices(motion: Motion) -> np.ndarray:
    rotvec = rotation_vectors(motion.params).double().numpy()
    return Rotation.from_rotvec(rotvec.reshape(-1, 3)).as_matrix().reshape(*rotvec.shape, 3)


@pytest.mark.parametrize("fps", [7.0, 20.0, 30.0, 59.94, 100.0])
def test_resampling_is_scipy_s_slerp_of_every_joint_and_linear_otherwise(fps):
    motion = random_motion()
    found = resample(motion, fps)
    times, wanted = np.arange(7) / 20, np.arange(len(found)) / fps
    assert wanted[-1] <= times[-1] + 1e-6 < wanted[-1] + 1 / fps
    rotvec = rotation_vectors(motion.params).double().numpy()
    for joint in (0, 5, 40):
        expected = Slerp(times, Rotation.from_rotvec(rotvec[:, joint]))(
            wanted.clip(max=times[-1])
        ).as_matrix()
        assert matrices(found)[:, joint] == pytest.approx(expected, abs=1e-5)
    for name in ("trans", "expr"):
        source = getattr(motion.params, name).double().numpy()
        expected = np.stack([np.interp(wanted, times, column) for column in source.T], axis=1)
        assert getattr(found.params, name).numpy() == pytest.approx(expected, abs=1e-5)
    assert found.fps == fps and found.indices == tuple(range(len(found)))


def test_slerp_turns_at_constant_speed_on_the_shortest_way():
    random = np.random.default_rng(1)
    ends = [torch.from_numpy(Rotation.random(50, rng=random).as_rotvec()) for _ in range(2)]
    shares = torch.linspace(0, 1, 9, dtype=torch.float64)
    steps = [Rotation.from_rotvec(slerp(*ends, share[None]).numpy()) for share in shares]
    whole = (steps[0].inv() * Rotation.from_rotvec(ends[1].numpy())).magnitude()
    assert (whole <= np.pi + 1e-9).all()
    for before, after in pairwise(steps):
        assert (before.inv() * after).magnitude() == pytest.approx(whole / 8, abs=1e-9)
    for step, end in ((steps[0], ends[0]), (steps[-1], ends[1])):
        assert step.as_matrix() == pytest.approx(Rotation.from_rotvec(end.numpy()).as_matrix(), abs=1e-9)


def test_doubling_the_rate_keeps_every_frame():
    motion = random_motion()
    assert matrices(resample(motion, 40.0))[::2] == pytest.approx(matrices(motion), abs=1e-5)


def test_a_motion_of_unknown_or_the_same_rate_is_played_frame_by_frame():
    for fps in (None, 30.0):
        motion = random_motion(fps=fps)
        found = resample(motion, 30.0)
        assert torch.equal(rotation_vectors(found.params), rotation_vectors(motion.params))
        assert found.indices == motion.indices and found.fps == 30


def test_cameras_move_between_frames_and_images_are_the_nearest(tmp_path):
    turns = Rotation.from_euler("y", [[0.0], [40.0], [80.0]], degrees=True).as_matrix()
    cameras = tuple(
        replace(Camera.identity((100.0 + i, 100.0), (5.0, 5.0), 10, 10), R=torch.from_numpy(R).float())
        for i, R in enumerate(turns)
    )
    images = tuple(tmp_path / f"{i}.png" for i in range(3))
    motion = replace(random_motion(3, fps=10.0), cameras=cameras, images=images, backgrounds=images)
    found = resample(motion, 40.0)
    angles = [Rotation.from_matrix(c.R.numpy()).as_euler("yxz", degrees=True)[0] for c in found.cameras]
    assert angles == pytest.approx(np.arange(9) * 10, abs=1e-3)
    assert [c.focal[0].item() for c in found.cameras] == pytest.approx(100 + np.arange(9) / 4)
    assert [image.stem for image in found.images] == list("001111222")
    assert found.backgrounds == found.images


def test_start_end_and_stride_choose_by_frame_number_and_keep_the_speed():
    motion = replace(random_motion(7, fps=20.0), indices=(0, 1, 2, 5, 6, 7, 10))
    chosen = select_frames(motion, MotionOptions(start=1, end=10, stride=2))
    assert chosen.indices == (1, 5, 7) and chosen.fps == 10
    assert matrices(chosen) == pytest.approx(matrices(motion)[[1, 3, 5]])
    assert select_frames(motion, MotionOptions(motion_fps=60.0)).fps == 60
