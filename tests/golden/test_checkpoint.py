"""Published snapshots load, and what is written has their layout (golden 10)."""

from __future__ import annotations

import json

import pytest
import torch

from common.checkpoint import (
    Snapshot,
    load_network,
    load_optimizer,
    network_state,
    read_snapshot,
    save_snapshot,
)
from common.errors import UserError
from common.pose_table import PREFIX, PoseTable


@pytest.fixture(scope="module")
def snapshot(golden_path) -> Snapshot:
    return read_snapshot(golden_path("10_checkpoint/snapshot_0.pth"))


@pytest.fixture(scope="module")
def manifest(golden_path) -> dict:
    return json.loads(golden_path("10_checkpoint/manifest.json").read_text())


class _Network(torch.nn.Module):
    """The pose table under its attribute name, as in the whole network."""

    def __init__(self, table: PoseTable) -> None:
        super().__init__()
        self.smplx_param_dict = table
        self.lpips = torch.nn.Linear(2, 2)


def _own_order_optimizer(snapshot: Snapshot, table: PoseTable) -> torch.optim.Adam:
    """An optimiser over the snapshot's parameters: the avatar's first, then the table's in its own order."""
    net_keys = [key for key in snapshot.network if "mean_offset_offset_net" in key]
    groups = [
        {"name": name, "params": [torch.nn.Parameter(snapshot.network[f"persona.{name}"])], "lr": 1e-3}
        for name in ("triplane", "mean_offset", "scale", "rgb", "rgb_aux", "seg")
    ]
    net = [torch.nn.Parameter(snapshot.network[key]) for key in net_keys]
    groups.append({"name": "mean_offset_offset_net", "params": net, "lr": 1e-3})
    return torch.optim.Adam([*groups, *table.parameter_groups(1e-3, 1e-4)], lr=0.0, eps=1e-15)


def test_published_snapshot_has_the_listed_keys_and_shapes(snapshot, manifest):
    found = {key: list(value.shape) for key, value in snapshot.network.items()}
    assert found == {key: shape for key, shape, _ in manifest["network"]}
    assert snapshot.epoch == manifest["top_level"]["epoch"]


def test_pose_table_is_rebuilt_from_the_keys_alone_and_writes_the_same_keys(snapshot, golden_path):
    table = PoseTable.from_state_dict(snapshot.network)
    frames = json.loads(golden_path("09_schedule.json").read_text())["train_smplx_frames"]
    assert {split: table.frames(split) for split in table.splits} == frames
    network = network_state(_Network(table))
    published = {key: value for key, value in snapshot.network.items() if key.startswith(PREFIX)}
    assert network.keys() == published.keys()
    assert all(torch.equal(network[key], value) for key, value in published.items())


def test_optimizer_state_is_matched_by_group_name_whatever_the_order(snapshot, manifest):
    table = PoseTable.from_state_dict(snapshot.network)
    optimizer = _own_order_optimizer(snapshot, table)
    load_optimizer(optimizer, snapshot.optimizer, "snapshot")
    saved = {group["name"]: group for group in snapshot.optimizer["param_groups"]}
    for group in optimizer.param_groups:
        assert group["lr"] == saved[group["name"]]["lr"]
        for index, parameter in zip(saved[group["name"]]["params"], group["params"], strict=True):
            if index in manifest["optimizer_indices_without_state"]:
                assert not optimizer.state[parameter]
                continue
            for key, value in snapshot.optimizer["state"][index].items():
                assert torch.equal(optimizer.state[parameter][key], value)


def test_optimizer_of_other_frames_is_refused_with_their_names(snapshot):
    table = PoseTable.from_state_dict(snapshot.network)
    del table.smplx_params["generated_1"]
    with pytest.raises(UserError, match=r"unexpected: smplx_param_\w+_generated_1_"):
        load_optimizer(_own_order_optimizer(snapshot, table), snapshot.optimizer, "snapshot")


def test_written_snapshot_has_the_published_layout(snapshot, tmp_path):
    table = PoseTable.from_state_dict(snapshot.network)
    optimizer = _own_order_optimizer(snapshot, table)
    load_optimizer(optimizer, snapshot.optimizer, "snapshot")
    path = tmp_path / "snapshot_0.pth"
    save_snapshot(path, Snapshot(0, snapshot.network, optimizer.state_dict()))
    written = torch.load(path, weights_only=True)
    assert set(written) == {"epoch", "network", "optimizer"}
    assert written["network"].keys() == snapshot.network.keys()
    groups = {group["name"]: group for group in written["optimizer"]["param_groups"]}
    published = {group["name"]: group for group in snapshot.optimizer["param_groups"]}
    assert groups.keys() == published.keys()
    assert groups["scale"].keys() == published["scale"].keys()


def test_snapshot_loaded_and_saved_is_as_the_manifest_lists_it(snapshot, manifest, tmp_path):
    """Keys, shapes, dtypes and values of the network; groups and states of the optimiser, by name."""
    table = PoseTable.from_state_dict(snapshot.network)
    optimizer = _own_order_optimizer(snapshot, table)
    load_optimizer(optimizer, snapshot.optimizer, "snapshot")
    path = tmp_path / "snapshot_0.pth"
    save_snapshot(path, Snapshot(snapshot.epoch, snapshot.network, optimizer.state_dict()))
    written = torch.load(path, weights_only=True)
    network = written["network"]
    assert {(key, tuple(value.shape), str(value.dtype)) for key, value in network.items()} == {
        (key, tuple(shape), dtype) for key, shape, dtype in manifest["network"]
    }
    assert all(torch.equal(network[key], value) for key, value in snapshot.network.items())
    assert written["epoch"] == manifest["top_level"]["epoch"]
    groups = {group["name"]: group for group in written["optimizer"]["param_groups"]}
    listed = {group["name"]: group for group in manifest["optimizer_param_groups"]}
    assert groups.keys() == listed.keys()
    for name, group in groups.items():
        for key, value in listed[name].items():
            found = list(group[key]) if isinstance(group[key], tuple) else group[key]
            assert key == "params" or found == value, (name, key)
        states = zip(group["params"], listed[name]["params"], strict=True)
        for own, published in states:
            assert manifest["optimizer_index_to_name"][str(published)] == name
            state = written["optimizer"]["state"].get(own, {})
            described = {k: [list(v.shape), str(v.dtype)] for k, v in state.items()}
            assert described == manifest["optimizer_state"].get(str(published), {})


def test_loading_is_strict_and_names_the_keys(snapshot):
    table = PoseTable.from_state_dict(snapshot.network)
    with pytest.raises(UserError, match=r"unexpected: persona\.triplane"):
        load_network(_Network(table), snapshot.network, "snapshot_0.pth")
