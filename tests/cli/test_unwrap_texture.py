"""Making textures as a command: what it writes, and that nothing is replaced unasked."""

from __future__ import annotations

import pytest

from common.io.image import image_size
from data.dataset import Subject
from tests.cli.commands import Workspace, listing, run_here

SCRIPT = "tools/unwrap_texture.py"
NAMES = ["smplx_texture_inpaint", "smplx_seg_inpaint", "smplx_texture_mask", "smplx_texture", "smplx_seg"]


def options_of(space: Workspace, *more: str) -> list[str]:
    known = (
        "--subject_id",
        space.subject.name,
        "--human_model_path",
        space.body,
        "--paths.subjects",
        space.subjects,
    )
    return [*map(str, known), *more]


def test_textures_of_both_splits_are_made_and_not_replaced_unasked(made, monkeypatch, capsys, tmp_path):
    space = made.with_copied_subject(tmp_path, "smplx_texture*", "smplx_seg*")
    for split in ("captured", "generated_0"):
        run_here(SCRIPT, options_of(space, "--split", split, "--size", "64"), monkeypatch)
        said = capsys.readouterr().out
        assert "% of the body's texels are seen" in said
        for name in NAMES:
            assert (
                image_size(space.subject / split / "smplx_optimized" / f"{name}.png") == (64, 64)
                and name in said
            )
    assert Subject(space.subject).problems() == []
    before = listing(space.subject)
    with pytest.raises(SystemExit) as stop:
        run_here(SCRIPT, options_of(space, "--split", "captured"), monkeypatch)
    assert stop.value.code == 2 and "--overwrite replaces them" in capsys.readouterr().err
    assert listing(space.subject) == before
    run_here(
        SCRIPT,
        options_of(space, "--split", "captured", "--size", "32", "--albedo", "--overwrite"),
        monkeypatch,
    )
    assert image_size(space.subject / "captured/smplx_optimized/smplx_texture.png") == (32, 32)


def test_nothing_is_needed_but_images_masks_parts_and_the_fitted_body(made, monkeypatch, capsys, tmp_path):
    others = (
        "depths",
        "normals",
        "image_intrinsics",
        "face_patches",
        "test",
        "generated_1",
        "smplx_texture*",
    )
    space = made.with_copied_subject(tmp_path, *others, "smplx_seg*")
    for validity in space.subject.glob("*/segs/*.npy"):
        validity.unlink()
    for split in ("captured", "generated_0"):
        run_here(SCRIPT, options_of(space, "--split", split, "--size", "32"), monkeypatch)
        assert (space.subject / split / "smplx_optimized/smplx_texture_inpaint.png").is_file()
    capsys.readouterr()
    (space.subject / "captured/segs/0.png").unlink()
    (space.subject / "captured/masks/0.png").unlink()
    with pytest.raises(SystemExit) as stop:
        run_here(SCRIPT, options_of(space, "--split", "captured", "--albedo", "--overwrite"), monkeypatch)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1
    for name in ("segs/0.png", "masks/0.png", "0_albedo.png"):
        assert name in said


def test_the_picture_of_a_subject_s_files_shows_two_rows_of_panels(made, monkeypatch, tmp_path):
    run_here("tools/picture_subject.py", options_of(made, "--output", str(tmp_path / "p.png")), monkeypatch)
    height, width = image_size(tmp_path / "p.png")
    assert height == 2 * (168 + 30 + 8) and width > 6 * 168


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--split", "captured", "--size", "4"), "--size 4"),
        (("--split", "captured", "--max_frames", "0"), "--max_frames 0"),
        (("--split", "generated_0", "--albedo"), "--albedo"),
    ],
)
def test_wrong_options_are_refused(made, monkeypatch, capsys, options, part):
    with pytest.raises(SystemExit) as stop:
        run_here(SCRIPT, options_of(made, *options), monkeypatch)
    assert stop.value.code == 2 and part in capsys.readouterr().err
