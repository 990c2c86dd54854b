"""A final name always holds a complete file."""

from __future__ import annotations

import pytest

from common.errors import UserError
from common.io.atomic import atomic_path


def test_final_name_appears_only_when_the_block_has_ended(tmp_path):
    path = tmp_path / "a" / "b.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        assert not path.exists() and temporary.suffix == ".txt"
    assert path.read_text() == "half"


def test_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "b.txt"
    path.write_text("old")
    with pytest.raises(KeyError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["b.txt"]


def test_full_disk_is_a_user_error_that_names_the_file(tmp_path):
    with (
        pytest.raises(UserError, match=r"cannot write .*b\.txt: No space left"),
        atomic_path(tmp_path / "b.txt"),
    ):
        raise OSError(28, "No space left on device")


def test_folder_that_cannot_be_made_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"), atomic_path(tmp_path / "file" / "x" / "b.txt"):
        pass
