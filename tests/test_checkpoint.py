"""Snapshots: exact round trips, strict loading, and clear refusals."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from common.checkpoint import (
    Snapshot,
    available_epochs,
    check_body,
    find_snapshot,
    load_network,
    load_optimizer,
    network_state,
    newest_snapshot,
    read_snapshot,
    save_snapshot,
    snapshot_path,
)
from common.errors import UserError
from tools.prepare_fit_pose_to_test import prepare

V, N = 5, 14


class _Persona(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean_offset = nn.Parameter(torch.randn(N, 3))
        self.scale = nn.Parameter(torch.randn(N, 1))
        self.net = nn.Linear(3, 2)
        self.register_buffer("face_offset", torch.randn(V, 3))


class _Person(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.persona = _Persona()
        self.smplx_layer = nn.Linear(2, 2)
        self.lpips_vgg = nn.Linear(2, 2)


def _optimizer(person: _Person, order: tuple[str, ...] = ("mean_offset", "scale", "net")) -> torch.optim.Adam:
    groups = {
        "mean_offset": [person.persona.mean_offset],
        "scale": [person.persona.scale],
        "net": list(person.persona.net.parameters()),
    }
    return torch.optim.Adam([{"name": n, "params": groups[n], "lr": 0.01} for n in order], lr=0.0, eps=1e-15)


def _step(person: _Person, optimizer: torch.optim.Adam) -> None:
    optimizer.zero_grad(set_to_none=True)
    person.persona.net(person.persona.mean_offset).pow(2).sum().backward()  # scale has no gradient
    optimizer.step()


@pytest.fixture
def trained() -> tuple[_Person, torch.optim.Adam]:
    torch.manual_seed(0)
    person = _Person()
    optimizer = _optimizer(person)
    for _ in range(3):
        _step(person, optimizer)
    return person, optimizer


@pytest.fixture
def path(trained, tmp_path) -> Path:
    person, optimizer = trained
    path = snapshot_path(tmp_path / "S", 2)
    save_snapshot(path, Snapshot(2, network_state(person), optimizer.state_dict()))
    return path


def test_file_holds_exactly_epoch_network_and_optimizer_without_body_layer_and_lpips(path):
    content = torch.load(path, weights_only=True)
    assert set(content) == {"epoch", "network", "optimizer"} and content["epoch"] == 2
    assert set(content["network"]) == {
        f"persona.{name}" for name in ("mean_offset", "scale", "net.weight", "net.bias", "face_offset")
    }
    assert [p.name for p in path.parent.iterdir()] == ["snapshot_2.pth"]


def test_unsaved_keys_are_dropped_even_if_the_caller_passes_them(trained, tmp_path):
    save_snapshot(tmp_path / "snapshot_0.pth", Snapshot(0, trained[0].state_dict(), None))
    assert not [k for k in read_snapshot(tmp_path / "snapshot_0.pth").network if "smplx" in k or "lpips" in k]


@pytest.mark.parametrize("order", [("mean_offset", "scale", "net"), ("net", "mean_offset", "scale")])
def test_training_goes_on_to_the_very_same_parameters(trained, path, order):
    person, optimizer = trained
    torch.manual_seed(1)
    resumed = _Person()
    resumed_optimizer = _optimizer(resumed, order)
    snapshot = read_snapshot(path)
    load_network(resumed, snapshot.network, path)
    load_optimizer(resumed_optimizer, snapshot.optimizer, path)
    for _ in range(3):
        _step(person, optimizer)
        _step(resumed, resumed_optimizer)
    for key, value in network_state(person).items():
        assert torch.equal(network_state(resumed)[key], value), key


def test_groups_without_names_are_taken_in_order(trained, path):
    snapshot = read_snapshot(path)
    for group in snapshot.optimizer["param_groups"]:
        del group["name"]
    resumed = _Person()
    optimizer = _optimizer(resumed)
    load_optimizer(optimizer, snapshot.optimizer, path)
    original = trained[1].state[trained[0].persona.net.weight]["exp_avg"]
    assert torch.equal(optimizer.state[resumed.persona.net.weight]["exp_avg"], original)
    assert [group["name"] for group in optimizer.param_groups] == ["mean_offset", "scale", "net"]


def test_other_optimizer_groups_and_shapes_are_refused_by_name(trained, path):
    snapshot = read_snapshot(path)
    with pytest.raises(UserError, match="unexpected: net"):
        load_optimizer(_optimizer(trained[0], ("mean_offset", "scale")), snapshot.optimizer, path)
    person = _Person()
    person.persona.mean_offset = nn.Parameter(torch.zeros(N + 1, 3))
    with pytest.raises(UserError, match=r"mean_offset: exp_avg has shape \(14, 3\), expected \(15, 3\)"):
        load_optimizer(_optimizer(person), snapshot.optimizer, path)
    with pytest.raises(UserError, match="no optimiser state"):
        load_optimizer(_optimizer(person), None, path)


def test_missing_unexpected_and_misshapen_keys_are_all_named(path):
    network = read_snapshot(path).network
    network["persona.extra"] = network.pop("persona.scale")
    network["persona.net.bias"] = torch.zeros(7)
    person = _Person()
    before = {key: value.clone() for key, value in network_state(person).items()}
    with pytest.raises(UserError) as error:
        load_network(person, network, path)
    for part in ("missing: persona.scale", "unexpected: persona.extra", "persona.net.bias (7,) (here (2,))"):
        assert part in str(error.value)
    assert all(torch.equal(network_state(person)[key], value) for key, value in before.items())


def test_snapshot_of_another_body_is_refused_with_both_counts(path):
    network = read_snapshot(path).network
    check_body(network, path, n_vertices=V, n_vertices_high=N)
    with pytest.raises(UserError, match="it has 5 body vertices, the body here has 6"):
        check_body(network, path, n_vertices=6, n_vertices_high=N)
    with pytest.raises(UserError, match=r"it has 14 Gaussians .* the body here has 50"):
        check_body(network, path, n_vertices=V, n_vertices_high=50)
    with pytest.raises(UserError, match=r"persona\.face_offset is missing"):
        check_body({"persona.mean_offset": network["persona.mean_offset"]}, path, V, N)


def test_epochs_are_numeric_and_a_missing_one_lists_them(path):
    for epoch in (10, 0):
        path.with_name(f"snapshot_{epoch}.pth").write_bytes(path.read_bytes())
    path.with_name("snapshot_x.pth").write_text("")
    path.with_name(".snapshot_11.123.tmp.pth").write_text("half")
    assert available_epochs(path.parent) == [0, 2, 10]
    assert newest_snapshot(path.parent).name == "snapshot_10.pth"
    assert find_snapshot(path.parent, 2) == path
    with pytest.raises(UserError, match=r"snapshot_4\.pth; available epochs: 0, 2, 10"):
        find_snapshot(path.parent, 4)
    with pytest.raises(UserError, match="available epochs: none"):
        find_snapshot(path.parent / "nothing", 4)
    with pytest.raises(UserError, match="train first"):
        newest_snapshot(path.parent / "nothing")


@pytest.mark.parametrize("n_kept", [0, 1, 100, 1000, -1, -100])
def test_truncated_files_are_user_errors(path, n_kept):
    path.write_bytes(path.read_bytes()[:n_kept])
    with pytest.raises(UserError, match=r"snapshot_2\.pth is truncated"):
        read_snapshot(path)


class _Bomb:
    def __reduce__(self):
        return os.mkdir, ("bomb",)


def test_code_in_a_snapshot_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"epoch": 0, "network": {}, "optimizer": _Bomb()}, "snapshot_0.pth")
    with pytest.raises(UserError, match="not a snapshot"):
        read_snapshot(Path("snapshot_0.pth"))
    assert not Path("bomb").exists()


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {"epoch": 0},
        {"epoch": "0", "network": {}},
        {"epoch": 0, "network": {"a": 1}},
        {"epoch": 0, "network": 3},
    ],
)
def test_other_torch_files_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "snapshot_0.pth")
    with pytest.raises(UserError, match="is not a snapshot"):
        read_snapshot(tmp_path / "snapshot_0.pth")


def test_failed_write_leaves_the_old_snapshot(path, monkeypatch):
    old = path.read_bytes()

    def full_disk(content, file):
        file.write(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file: No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(UserError, match=r"cannot write .*snapshot_2\.pth.*No space left"):
        save_snapshot(path, Snapshot(2, {}, None))
    assert path.read_bytes() == old
    assert [p.name for p in path.parent.iterdir()] == ["snapshot_2.pth"]


def test_pose_fitting_starts_from_the_last_snapshot_as_epoch_0(path):
    path.with_name("snapshot_1.pth").write_text("an older one, not read")
    target = prepare(path.parent)
    assert target == path.parent.with_name("S_fit_pose_to_test") / "snapshot_0.pth"
    source, copied = read_snapshot(path), read_snapshot(target)
    assert copied.epoch == 0
    assert all(torch.equal(copied.network[key], value) for key, value in source.network.items())
    assert copied.optimizer["param_groups"] == source.optimizer["param_groups"]
