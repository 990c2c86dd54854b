"""What tests of several modules share."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.dataset import Subject
from tests.tiny_person import tiny_subject


@pytest.fixture(scope="session")
def small_subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A subject of a few tiny random frames, for the tiny body; not to be changed."""
    folder: Path = tmp_path_factory.mktemp("subject")
    return tiny_subject(folder)
