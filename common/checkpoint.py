"""Snapshots: network and optimiser in the published layout (SPEC 5), and beside them the state of the run."""

from __future__ import annotations

import logging
import os
import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from common.errors import UserError
from common.io.atomic import atomic_path
from common.io.torch_file import read_torch_file

logger = logging.getLogger(__name__)

SAFE_SUFFIX = ".safetensors"
MAX_EPOCH = 10**9
_UNSAVED = ("smplx_layer", "lpips")  # keys that contain one of these are never in a snapshot
_NAME = re.compile(r"snapshot_([0-9]+)\.(?:pth|safetensors)")
_BROKEN = (
    RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError, OSError, ValueError, KeyError,
    TypeError, AttributeError, IndexError, MemoryError, OverflowError, RecursionError,
)  # fmt: skip


@dataclass(frozen=True)
class Snapshot:
    """What a snapshot file holds."""

    epoch: int
    network: dict[str, Tensor]  # state dict: `persona.*`, `smplx_param_dict.*`
    optimizer: dict[str, Any] | None  # Adam's state dict; every group has its `name`
    # What exact resuming needs besides (common/run_state.py); not in the published layout.
    run: dict[str, Any] | None = None

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The network's entries under `prefix` ("persona."), without it."""
        return {key[len(prefix) :]: value for key, value in self.network.items() if key.startswith(prefix)}

    def at_epoch(self, epoch: int) -> Snapshot:
        """The same snapshot under another epoch, as the start of another run."""
        return replace(self, epoch=epoch, run=None)


def network_state(module: nn.Module) -> dict[str, Tensor]:
    """A module's state dict without body layer and perceptual weights."""
    return {key: _by_itself(value) for key, value in module.state_dict().items() if _is_saved(key)}


def _by_itself(value: Tensor) -> Tensor:
    """A tensor that shares no memory with others: of a view, files would hold what it is a view of."""
    return value if value.untyped_storage().nbytes() == value.nbytes else value.clone()


def snapshot_path(folder: Path, epoch: int) -> Path:
    """Name of an epoch's snapshot."""
    return folder / f"snapshot_{epoch}.pth"


def available_epochs(folder: Path) -> list[int]:
    """Epochs that have a snapshot in `folder`, increasing."""
    if not folder.is_dir():
        return []
    matches = (_NAME.fullmatch(path.name) for path in folder.iterdir())
    return sorted({int(match[1]) for match in matches if match})


def find_snapshot(folder: Path, epoch: int) -> Path:
    """The snapshot of an epoch, .pth before .safetensors; UserError lists the available epochs if there is none."""
    path = snapshot_path(folder, epoch)
    for candidate in (path, path.with_suffix(SAFE_SUFFIX)):
        if candidate.is_file():
            return candidate
    epochs = ", ".join(map(str, available_epochs(folder))) or "none (train first)"
    raise UserError(f"missing file: {path}; available epochs: {epochs}")


def newest_snapshot(folder: Path) -> Path:
    """The snapshot of the last epoch that is undamaged (a damaged one is passed over with a warning).

    UserError if there is none.
    """
    epochs = available_epochs(folder)
    if not epochs:
        raise UserError(f"no snapshot_<epoch>.pth in {folder}; train first")
    return first_undamaged(find_snapshot(folder, epoch) for epoch in reversed(epochs))


def first_undamaged(paths: Iterable[Path]) -> Path:
    """The first of some snapshots that is undamaged; a warning for each before it, UserError if none is."""
    reasons: list[str] = []
    for path in paths:
        try:
            read_snapshot(path)
            return path
        except UserError as error:
            logger.warning("%s; trying the snapshot before it", error)
            reasons.append(str(error))
    raise UserError(reasons[0])


def save_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Write a snapshot under its final name only when it is complete, on the disk and read back undamaged."""
    content = {
        "epoch": snapshot.epoch,
        "network": {key: value for key, value in snapshot.network.items() if _is_saved(key)},
        "optimizer": snapshot.optimizer,
    }
    if snapshot.run is not None:
        content["run"] = snapshot.run
    with atomic_path(path) as temporary:
        try:
            with temporary.open("wb") as file:
                noting = _NotingErrors(file)
                try:
                    torch.save(content, noting)  # type: ignore[arg-type]  # all that it needs of a file
                except RuntimeError as error:  # torch's zip writer loses the error of a full disk
                    raise noting.error or error from error
                file.flush()
                os.fsync(file.fileno())
                _forget_cached(file.fileno())
        except RuntimeError as error:
            raise UserError(f"cannot write {path}: {error}; free space or choose another folder") from error
        damage = _damage(temporary)
        if damage is not None:
            raise UserError(f"{path} came back damaged from the disk ({damage}); choose another folder")
    _sync_folder(path.parent)


class _NotingErrors:
    """A file for torch.save that keeps the first error of the system."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        with self._noting():
            return self._file.write(data)

    def flush(self) -> None:
        with self._noting():
            self._file.flush()

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or error
            raise


def _forget_cached(file: int) -> None:
    """Ask the system to read the file from the disk, not from its memory, when it is read back."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


def _sync_folder(folder: Path) -> None:
    """Make a new name in a folder outlast a power cut, where the file system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        logger.debug("cannot sync %s: %s", folder, error)
        return
    try:
        os.fsync(handle)
    except OSError as error:
        logger.debug("cannot sync %s: %s", folder, error)
    finally:
        os.close(handle)


def _damage(path: Path) -> str | None:
    """What is wrong with the bytes of a .pth; torch itself does not look at the checksums of tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            record = archive.testzip()
    except _BROKEN as error:
        return _first_line(error)
    return None if record is None else f"wrong checksum of {record}"


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def read_snapshot(path: Path) -> Snapshot:
    """Read a snapshot (.pth or .safetensors) onto the CPU; no code in it can run.

    UserError if it is broken or not a snapshot.
    """
    if path.suffix == SAFE_SUFFIX:
        from common.safe_snapshot import read_safe_snapshot  # late: it needs Snapshot from here

        return read_safe_snapshot(path)
    content = read_torch_file(path, "a snapshot", "use another epoch", with_checksums=True)
    if not isinstance(content, dict) or not {"epoch", "network"} <= content.keys():
        raise UserError(f"{path} is not a snapshot: it must hold epoch, network and optimizer")
    network = content["network"]
    if not isinstance(network, dict) or not all(isinstance(value, Tensor) for value in network.values()):
        raise UserError(f"{path} is not a snapshot: its network is not a dict of tensors")
    if not all(isinstance(key, str) for key in network):
        raise UserError(f"{path} is not a snapshot: its network has names that are not text")
    if not (type(content["epoch"]) is int and 0 <= content["epoch"] < MAX_EPOCH):
        raise UserError(f"{path} is not a snapshot: its epoch is not a count of epochs")
    network = {key: value for key, value in network.items() if _is_saved(key)}
    run = content.get("run")
    if run is not None and not isinstance(run, dict):
        raise UserError(f"{path} is not a snapshot: its run is not a dict")
    return Snapshot(content["epoch"], network, content.get("optimizer"), run)


def load_network(module: nn.Module, network: Mapping[str, Tensor], source: Path | str) -> None:
    """Load a network's entries strictly: UserError names missing and unexpected keys and different shapes.

    Entries of the body layer and of perceptual weights are neither saved nor expected.
    """
    own = network_state(module)
    found = {key: value for key, value in network.items() if _is_saved(key)}
    problems = [
        _listed("missing", [key for key in own if key not in found]),
        _listed("unexpected", [key for key in found if key not in own]),
        _listed(
            "different shape",
            [
                f"{key} {tuple(found[key].shape)} (here {tuple(value.shape)})"
                for key, value in own.items()
                if key in found and found[key].shape != value.shape
            ],
        ),
    ]
    text = "; ".join(problem for problem in problems if problem)
    if text:
        raise UserError(f"{source} does not fit this configuration: {text}")
    module.load_state_dict(found, strict=False)


def check_body(
    network: Mapping[str, Tensor], source: Path | str, n_vertices: int, n_vertices_high: int
) -> None:
    """Refuse the snapshot of another body or subdivision; the counts are V and N of the body at hand."""
    for key, expected, what in (
        ("persona.face_offset", n_vertices, "body vertices"),
        ("persona.mean_offset", n_vertices_high, "Gaussians (subdivided vertices)"),
    ):
        if key not in network:
            raise UserError(f"{source} is not a snapshot of an avatar: {key} is missing")
        found = network[key].shape[0] if network[key].ndim else 0
        if found != expected:
            raise UserError(
                f"{source} was made with another body model or number of subdivisions: "
                f"it has {found} {what}, the body here has {expected}; give the body of its training "
                "(--human_model_path, --body.n_subdivisions)"
            )


def load_optimizer(
    optimizer: torch.optim.Optimizer, state: Mapping[str, Any] | None, source: Path | str
) -> None:
    """Load an optimiser's state, its groups matched by name (by order if the file has no names) (SPEC 18).

    UserError names groups that are missing, unexpected or of another shape.
    """
    if not isinstance(state, Mapping) or not {"param_groups", "state"} <= state.keys():
        raise UserError(f"{source} has no optimiser state; training cannot go on from it")
    own_groups = optimizer.state_dict()["param_groups"]
    saved_groups = _in_order(own_groups, state["param_groups"], source)
    values, groups = {}, []
    for own, saved, group in zip(own_groups, saved_groups, optimizer.param_groups, strict=True):
        where = f"{source}: optimiser group {own.get('name', '?')}"
        if len(own["params"]) != len(saved["params"]):
            raise UserError(f"{where} has {len(saved['params'])} tensors, expected {len(own['params'])}")
        for own_id, saved_id, parameter in zip(own["params"], saved["params"], group["params"], strict=True):
            if saved_id in state["state"]:
                values[own_id] = _checked_state(state["state"][saved_id], parameter, where)
        groups.append({**own, **saved, "params": own["params"]})
    optimizer.load_state_dict({"state": values, "param_groups": groups})


def _in_order(
    own: list[dict[str, Any]], saved: list[dict[str, Any]], source: Path | str
) -> list[dict[str, Any]]:
    """The saved groups in the order of the own ones."""
    if not all("name" in group for group in saved):
        if len(own) != len(saved):
            raise UserError(f"{source} has {len(saved)} optimiser groups without names, expected {len(own)}")
        return saved
    by_name = {group["name"]: group for group in saved}
    names = [group.get("name", "?") for group in own]
    missing = _listed("missing", [name for name in names if name not in by_name])
    unexpected = _listed("unexpected", [name for name in by_name if name not in names])
    if missing or unexpected:
        text = "; ".join(problem for problem in (missing, unexpected) if problem)
        raise UserError(f"{source} was trained with other parameters or frames: optimiser groups {text}")
    return [by_name[name] for name in names]


def _checked_state(entries: Mapping[str, Any], parameter: Tensor, where: str) -> dict[str, Any]:
    for key, value in entries.items():
        if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
            raise UserError(
                f"{where}: {key} has shape {tuple(value.shape)}, expected {tuple(parameter.shape)}"
            )
    return dict(entries)


def _is_saved(key: str) -> bool:
    return not any(part in key for part in _UNSAVED)


def _listed(title: str, names: list[str], most: int = 6) -> str:
    """'title: a, b, ... (n in all)', or nothing."""
    if not names:
        return ""
    rest = f", ... ({len(names)} in all)" if len(names) > most else ""
    return f"{title}: {', '.join(names[:most])}{rest}"
