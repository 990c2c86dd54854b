"""Snapshots convert between .pth and .safetensors without loss, and inference finds either."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.checkpoint import Snapshot, find_snapshot, newest_snapshot, read_snapshot, save_snapshot
from common.errors import UserError
from common.safe_snapshot import read_safe_snapshot, write_safe_snapshot

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def snapshot() -> Snapshot:
    generator = torch.Generator().manual_seed(0)
    network = {
        "persona.rgb": torch.randn(7, 3, generator=generator),
        "persona.triplane": torch.randn(3, 2, 4, 4, generator=generator).transpose(2, 3),
        "smplx_param_dict.smplx_params.captured.0.trans": torch.tensor([0.1, float("inf"), -0.0]),
    }
    return Snapshot(3, network, {"state": {}, "param_groups": [{"name": "rgb", "params": [0]}]})


def same_weights(a: Snapshot, b: Snapshot) -> bool:
    return a.epoch == b.epoch and all(
        torch.equal(a.network[k], b.network[k]) and a.network[k].dtype == b.network[k].dtype
        for k in a.network.keys() | b.network.keys()
    )


def test_both_ways_keep_every_bit(tmp_path, snapshot):
    published, safe, back = (tmp_path / name for name in ("snapshot_3.pth", "a.safetensors", "b.pth"))
    save_snapshot(published, snapshot)
    for source, output in ((published, safe), (safe, back)):
        command = [sys.executable, str(ROOT / "tools/convert_snapshot.py"), "--source", str(source)]
        subprocess.run([*command, "--output", str(output)], check=True, capture_output=True)
    assert same_weights(read_snapshot(safe), snapshot)
    assert same_weights(read_snapshot(back), snapshot)
    assert set(torch.load(back, weights_only=True)) == {"epoch", "network", "optimizer"}


def test_tensors_that_share_memory_are_converted_too(tmp_path, snapshot):
    rgb = snapshot.network["persona.rgb"]
    shared = Snapshot(3, {**snapshot.network, "persona.rgb_aux": rgb, "persona.seg": rgb[:4]}, None)
    write_safe_snapshot(tmp_path / "a.safetensors", shared)
    assert same_weights(read_snapshot(tmp_path / "a.safetensors"), shared)


def test_inference_finds_either_form(tmp_path, snapshot):
    write_safe_snapshot(tmp_path / "snapshot_3.safetensors", snapshot)
    assert find_snapshot(tmp_path, 3).suffix == ".safetensors"
    assert same_weights(read_snapshot(newest_snapshot(tmp_path)), snapshot)
    save_snapshot(tmp_path / "snapshot_3.pth", snapshot)
    assert newest_snapshot(tmp_path).suffix == ".pth"


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 64, b"\x10\0\0\0\0\0\0\0{}"])
def test_broken_files_are_refused(tmp_path, content):
    path = tmp_path / "snapshot_0.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="snapshot_0"):
        read_safe_snapshot(path)


def test_foreign_safetensors_are_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="not an avatar snapshot"):
        read_safe_snapshot(path)
