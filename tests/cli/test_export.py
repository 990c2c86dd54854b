"""main/export.py writes what its options say, and refuses what does not go together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from plyfile import PlyData

from tests.cli.commands import Workspace, run_here
from tests.export.gltf import Model

SCRIPT = "main/export.py"


def export(space: Workspace, monkeypatch: pytest.MonkeyPatch, output: Path, *options: str) -> None:
    run_here(SCRIPT, [*space.options(), "--output", str(output), *options], monkeypatch)


def positions(path: Path) -> np.ndarray:
    vertex = PlyData.read(str(path))["vertex"]
    return np.stack([vertex[axis] for axis in "xyz"], axis=1)


def test_neutral_pose_of_the_base_avatar_is_one_surface_in_all_formats(trained, monkeypatch, tmp_path):
    files = {"splat_ply": ".ply", "splat": ".splat", "glb": ".glb", "obj": ".obj", "mesh_ply": ".mesh.ply"}
    for name, suffix in files.items():
        options = ("--format", name, "--base", "--texture_size", "64")
        export(trained, monkeypatch, tmp_path / f"a{suffix}", *options)
    mesh = positions(tmp_path / "a.mesh.ply")
    np.testing.assert_allclose(positions(tmp_path / "a.ply"), mesh * (1, -1, -1), atol=1e-6)
    np.testing.assert_allclose(trimesh.load(tmp_path / "a.obj", process=False).vertices, mesh, atol=1e-6)
    records = np.frombuffer((tmp_path / "a.splat").read_bytes(), "<f4").reshape(-1, 8)[:, :3]
    assert sorted(map(tuple, records * (1, -1, -1))) == sorted(map(tuple, mesh.astype(float)))
    corners = Model(tmp_path / "a.glb")
    faces = np.stack(list(PlyData.read(str(tmp_path / "a.mesh.ply"))["face"]["vertex_indices"]))
    np.testing.assert_allclose(corners.vertices()[corners.faces], mesh[faces], atol=1e-5)


def test_a_whole_motion_becomes_numbered_files_or_one_animation(trained, monkeypatch, tmp_path):
    motion = ("--motion_path", str(trained.subject / "motion"))
    export(
        trained, monkeypatch, tmp_path / "a.ply", "--format", "mesh_ply", "--base", "--all_frames", *motion
    )
    names = ["a_000000.ply", "a_000001.ply", "a_000002.ply"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    export(
        trained, monkeypatch, tmp_path / "one.ply", "--format", "mesh_ply", "--base", "--frame", "1", *motion
    )
    assert (tmp_path / "one.ply").read_bytes() == (tmp_path / names[1]).read_bytes()
    best = ("--n_weights", "8", "--n_expressions", "50", "--texture_size", "64")
    export(trained, monkeypatch, tmp_path / "a.glb", "--format", "glb", *best, *motion)
    model = Model(tmp_path / "a.glb")
    assert len(model.times()) == 3
    faces = np.stack(list(PlyData.read(str(tmp_path / names[0]))["face"]["vertex_indices"]))
    for key, name in enumerate(names):
        error = np.linalg.norm(model.vertices(key)[model.faces] - positions(tmp_path / name)[faces], axis=-1)
        assert np.median(error) < 1e-6  # metres
        assert error.max() < 0.03  # the coarse field of this test has more than 8 weights at many vertices


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--format", "glb", "--output", "a.ply"), "ends in .glb"),
        (("--format", "glb", "--output_up", "z"), "y-up"),
        (("--format", "splat", "--frame", "1"), "--motion_path"),
        (("--format", "glb", "--n_expressions", "51"), "0 to 50"),
        (("--format", "glb", "--texture_size", "0"), "1 to 8192"),
        (("--format", "obj", "--motion_path", "MOTION"), "--all_frames"),
        (("--format", "obj", "--motion_path", "MOTION", "--frame", "7"), "frames 0 to 2"),
        (("--format", "obj", "--motion_path", "MOTION", "--frame", "1", "--all_frames"), "exclude"),
        (("--format", "obj", "--motion_path", "none.npz", "--frame", "1"), "none.npz"),
        (("--format", "obj", "--test_epoch", "9"), "snapshot_9"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(trained, monkeypatch, capsys, options, said):
    motion = str(trained.subject / "motion")
    words = [motion if word == "MOTION" else word for word in options]
    with pytest.raises(SystemExit) as stop:
        run_here(SCRIPT, [*trained.options(), *words], monkeypatch)
    assert stop.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert said in line
