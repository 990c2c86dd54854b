"""Snapshots as safetensors files: weights, identity and poses, no optimiser and no pickle."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from common.checkpoint import Snapshot
from common.errors import UserError
from common.io.atomic import atomic_path
from common.io.files import open_file

_MAX_HEADER = 2**22  # bytes; a snapshot with three thousand frames takes as many
_FORMAT = "persona-avatar-1"  # stored with the epoch in the file's metadata


def write_safe_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Write a snapshot's network and epoch; the optimiser's state is left out."""
    # Copies, because the format has no tensors that share memory, and a .pth may.
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in snapshot.network.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"format": _FORMAT, "epoch": str(snapshot.epoch)})
        except SafetensorError as error:  # also raised when the disk is full
            raise UserError(f"cannot write {path}: {error}; free space or choose another folder") from error
        written = read_safe_snapshot(temporary).network
        if not all(torch.equal(_bits(written[key]), _bits(value)) for key, value in tensors.items()):
            raise UserError(f"{path} came back damaged from the disk; choose another folder")


def _bits(tensor: Tensor) -> Tensor:
    """A tensor's bytes: NaN is equal to itself there."""
    return tensor.reshape(-1).view(torch.uint8)


def read_safe_snapshot(path: Path) -> Snapshot:
    """Read what write_safe_snapshot wrote; UserError if it is missing, broken or something else."""
    try:
        with open_file(path) as start:
            n_bytes = int.from_bytes(start.read(8), "little")
        if n_bytes > _MAX_HEADER:
            raise ValueError(f"a header of {n_bytes} bytes")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (
        SafetensorError,
        OSError,
        ValueError,
        KeyError,
        AttributeError,
        RuntimeError,
        MemoryError,
    ) as error:
        raise UserError(f"{path} is truncated or not a safetensors file ({error}); get it again") from error
    if metadata.get("format") != _FORMAT or not re.fullmatch(r"[0-9]{1,9}", metadata.get("epoch", "")):
        raise UserError(f"{path} is not an avatar snapshot; make one with tools/convert_snapshot.py")
    return Snapshot(int(metadata["epoch"]), tensors, None)
