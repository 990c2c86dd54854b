"""The tiny subject and its results, made once by running the commands in the order of SPEC 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import ROOT, SUBJECT, TRAIN, Workspace, succeed


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The subject made by its command; frame 0 of each generated split is listed, frame 1 is not."""
    root = tmp_path_factory.mktemp("cli")
    space = Workspace(root, root / "subjects", root / "output")
    said = succeed(
        "tools/make_demo_subject.py", "--output", str(space.subject), "--size", "tiny", "--seed", "3"
    )
    assert str(space.subject) in said
    for split in ("generated_0", "generated_1"):
        (space.subject / split / "frame_idx_list.txt").write_text("0\n")
    return space


@pytest.fixture(scope="session")
def with_field(made: Workspace) -> Workspace:
    """The skinning field of the demo body, made by its tool from inside the tool's folder."""
    script = "tools/diffused_skinning_weights/make_skinning_weight.py"
    options = (
        "--human_model_path",
        "../../data/demo_body",
        "--output",
        str(made.field),
        "--resolution",
        "24",
    )
    succeed(script, *options, cwd=ROOT / "tools" / "diffused_skinning_weights")
    return made


@pytest.fixture(scope="session")
def trained(with_field: Workspace) -> Workspace:
    """An avatar of two epochs: one from the repository root, one more with --continue from inside main/."""
    space = with_field
    succeed("main/train.py", *space.options(**{"optim.n_epochs": "1"}), *TRAIN)
    assert [path.name for path in space.snapshots.iterdir()] == ["snapshot_0.pth"]
    before = (space.snapshots / "snapshot_0.pth").read_bytes()
    more = space.options(**{"optim.n_epochs": "2"})
    succeed("main/train.py", *more, *TRAIN, "--continue", "--force", cwd=ROOT / "main")
    assert (space.snapshots / "snapshot_0.pth").read_bytes() == before
    return space


@pytest.fixture(scope="session")
def rendered(trained: Workspace) -> Path:
    """Renders of the training frames."""
    succeed("main/test.py", *trained.options(test_epoch="1"))
    return trained.output / "result" / SUBJECT


@pytest.fixture(scope="session")
def fitted(trained: Workspace) -> Workspace:
    """Poses fitted to the test frames, and their renders."""
    said = succeed("tools/prepare_fit_pose_to_test.py", "--root_path", str(trained.snapshots))
    assert "snapshot_1.pth" in said and "snapshot_0.pth" in said
    few = {"optim.n_epochs": "2", "optim.fit_repeats": "1"}
    succeed("main/train.py", *trained.options(**few), "--no_lpips", "--fit_pose_to_test", "--continue")
    succeed("main/test.py", *trained.options(test_epoch="1"), "--fit_pose_to_test", cwd=ROOT / "main")
    return trained


@pytest.fixture(scope="session")
def ball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with another body, of 162 vertices."""
    from common.body_model.files import save_body_data
    from tests.body_model.bodies import tiny_body_data

    folder = tmp_path_factory.mktemp("ball")
    save_body_data(tiny_body_data(), folder / "body.npz")
    return folder
