"""What tests of several modules share, and how they are divided among processes (`pytest -n 2`)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if "PYTEST_XDIST_WORKER" in os.environ:  # a core for each of the processes and what it starts
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from common.avatar import Avatar
from common.camera import Camera
from common.demo.subject import make_demo_subject
from common.pose import SmplxPose
from data.dataset import Subject
from tests.tiny_person import tiny_avatar, tiny_camera, tiny_params, tiny_subject

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """The tests of a file stay in one process and in their order, and so do all of tests/cli: they share fixtures."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFixtures(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "tests/cli" if file.startswith("tests/cli/") else file

    config.option.loadscopereorder = False
    return ByFixtures(config, log)


@pytest.fixture(scope="session")
def small_subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A subject of a few tiny random frames, for the tiny body; not to be changed."""
    folder: Path = tmp_path_factory.mktemp("subject")
    return tiny_subject(folder)


@pytest.fixture(scope="session")
def tiny_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a demo subject of the smallest size; not to be changed."""
    path: Path = tmp_path_factory.mktemp("subjects") / "S"
    make_demo_subject(path, "tiny", seed=0)
    return path


@pytest.fixture
def demo_copy(tiny_demo: Path, tmp_path: Path) -> Subject:
    """A copy of the demo subject that a test may damage."""
    left_out = shutil.ignore_patterns("truth", "motion")
    return Subject(Path(shutil.copytree(tiny_demo, tmp_path / "S", ignore=left_out)))


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
