"""What tests of several modules share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from common.avatar import Avatar
from common.camera import Camera
from common.pose import SmplxPose
from data.dataset import Subject
from tests.tiny_person import tiny_avatar, tiny_camera, tiny_params, tiny_subject


@pytest.fixture(scope="session")
def small_subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A subject of a few tiny random frames, for the tiny body; not to be changed."""
    folder: Path = tmp_path_factory.mktemp("subject")
    return tiny_subject(folder)


@pytest.fixture(scope="module")
def avatar() -> Avatar:
    """The tiny person's avatar in float64."""
    return tiny_avatar().double()


@pytest.fixture(scope="module")
def pose() -> SmplxPose:
    """A random pose in float64."""
    return SmplxPose.from_params(tiny_params(1).to(torch.float64))


@pytest.fixture(scope="module")
def camera() -> Camera:
    """A camera that sees the tiny person, in float64."""
    return tiny_camera(dtype=torch.float64)
