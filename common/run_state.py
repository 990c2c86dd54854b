"""What a run depends on besides parameters and optimiser, kept in its snapshots so that it goes on exactly."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import random
import subprocess
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common import __version__
from common.errors import UserError

MAX_THREADS = 1024
THREADS_BESIDE_GPU = 4
FORMAT = 1  # of the entry `run` in a snapshot
_NO_EFFECT = ("animation.",)  # options that training does not read
_BLOCK = 1 << 14  # bytes of a file that a fingerprint reads at its start, middle and end
_KINDS: dict[str, Any] = {
    "name": str, "config": dict, "data": str, "frames": list, "machine": dict, "versions": dict, "revision": str,
    "random": dict, "n_skipped": int, "initial_rgb": Tensor | None,
}  # fmt: skip
_ROOT = Path(__file__).resolve().parents[1]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Position:
    """Where a run stands: the next step to do."""

    epoch: int
    step: int  # in the epoch
    iteration: int  # steps since the first epoch's first

    def next(self, n_steps_per_epoch: int) -> Position:
        """The position one step later."""
        is_last = self.step + 1 == n_steps_per_epoch
        epoch, step = (self.epoch + 1, 0) if is_last else (self.epoch, self.step + 1)
        return Position(epoch, step, self.iteration + 1)

    @classmethod
    def at_epoch(cls, epoch: int, n_steps_per_epoch: int) -> Position:
        """The first step of an epoch."""
        return cls(epoch, 0, epoch * n_steps_per_epoch)


@dataclass(frozen=True)
class RunFacts:
    """What stays the same from a run's start to its end: plain values and tensors only."""

    name: str  # of this run, random: tells its snapshots from those of an earlier one
    config: dict[str, Any]  # nested: every option that changes the result, the seed among them
    data: str  # fingerprint of the files it was trained on
    frames: list[str]  # one epoch's frames, repeats included; `split/index`
    revision: str
    versions: dict[str, str]
    machine: dict[str, str]
    initial_rgb: Tensor | None = None  # (N, 3) activated colours of the initialisation; a fit has none

    @classmethod
    def of_new_run(
        cls,
        config: dict[str, Any],
        data: str,
        frames: Sequence[tuple[str, int]],
        device: torch.device,
    ) -> RunFacts:
        """The facts of a run that starts here and now."""
        return cls(
            name=uuid.uuid4().hex,
            config=plain(config),
            data=data,
            frames=[f"{split}/{index}" for split, index in frames],
            revision=git_revision(),
            versions=versions(),
            machine=machine(device),
        )


def run_entry(facts: RunFacts, position: Position, lr_factor: float, n_skipped: int) -> dict[str, Any]:
    """The entry `run` of a snapshot; torch.load(weights_only=True) reads it."""
    return {
        "format": FORMAT,
        **vars(facts),
        "initial_rgb": None if facts.initial_rgb is None else facts.initial_rgb.detach().cpu(),
        "position": asdict(position),
        "lr_factor": lr_factor,
        "n_skipped": n_skipped,
        "random": random_state(),
    }


def position_of(run: Mapping[str, Any], source: Path) -> Position:
    """The position in a snapshot's entry `run`; UserError if it is not one of this version's."""
    try:
        if run["format"] != FORMAT:
            raise UserError(
                f"{source} is of another version of this program; use that one, or another snapshot"
            )
        wrong = [name for name, kind in _KINDS.items() if not isinstance(run[name], kind)]
        if wrong:
            raise ValueError(f"wrong kind of {wrong[0]}")
        position = Position(**run["position"])
        if not all(type(value) is int and value >= 0 for value in asdict(position).values()):
            raise ValueError(str(position))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{source} is not a snapshot: its run is not complete ({error})") from error
    return position


def plain(value: Any) -> Any:
    """Options as containers and values that torch reads without running code; paths become text."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options by their dotted names, as on the command line."""
    entries: dict[str, Any] = {}
    for key, value in options.items():
        name = prefix + key
        entries |= flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return entries


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """`option old -> new` of every option that differs and has an effect on training."""
    before, now = flat(old), flat(new)
    names = [name for name in {**before, **now} if not name.startswith(_NO_EFFECT)]
    return [
        f"{name} {_shown(before, name)} -> {_shown(now, name)}"
        for name in names
        if before.get(name) != now.get(name) or (name in before) != (name in now)
    ]


def _shown(options: Mapping[str, Any], name: str) -> str:
    return str(options[name]) if name in options else "(not there)"


def random_state() -> dict[str, Any]:
    """The states of all random number generators."""
    version, words, gauss = random.getstate()
    name, keys, place, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 (the global one)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), place, has_gauss, cached],
    }


def restore_random_state(state: Mapping[str, Any], source: Path) -> None:
    """Set all generators as `random_state` found them; UserError if the state is not one."""
    try:
        torch.set_rng_state(state["torch"])
        if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])
        version, words, gauss = state["python"]
        random.setstate((version, tuple(words), gauss))
        name, keys, *rest = state["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002 (the global one)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"{source} is not a snapshot: its random states are not complete ({error})"
        ) from error


def use_threads_of(run: Mapping[str, Any]) -> None:
    """Compute with the number of threads of the run's start: the last bits of sums depend on it."""
    before, now = str(run.get("machine", {}).get("threads", "")), torch.get_num_threads()
    if before.isdecimal() and 0 < int(before) <= MAX_THREADS and int(before) != now:
        logger.info("using %s threads as before, not %d", before, now)
        torch.set_num_threads(int(before))


def use_few_threads() -> None:
    """For a run on a GPU, which leaves the processor little: readers beside each other would get in each other's way.

    Each thread of Python that computes has PyTorch's threads to itself, and those wait for one another at work.
    """
    torch.set_num_threads(min(torch.get_num_threads(), THREADS_BESIDE_GPU))


def seed_everything(seed: int) -> None:
    """Seed torch (all devices), numpy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (the global one)
    random.seed(seed)


def git_revision() -> str:
    """The commit of this code, with `-dirty` if files differ from it; "unknown" outside a repository."""
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError) as error:
        logger.debug("no git revision: %s", error)
        return "unknown"
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """What computes: this project and what it is built on."""
    return {
        "project": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # it is not a plain string
        "numpy": np.__version__,
        "cuda": torch.version.cuda or "none",
    }


def machine(device: torch.device) -> dict[str, str]:
    """What else can change the last bits of a result."""
    is_cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_cuda else f"cpu ({platform.machine()})",
        "threads": str(torch.get_num_threads()),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()),
    }


def changed_surroundings(run: Mapping[str, Any], device: torch.device) -> list[str]:
    """`what old -> new` for versions, revision and machine: they may change the last bits of the result."""
    now = {"revision": git_revision(), "versions": versions(), "machine": machine(device)}
    return differences({key: run.get(key, {}) for key in now}, now)


def files_fingerprint(root: Path, paths: Iterable[Path]) -> str:
    """A digest of files' names, sizes and content; of a large one's, three blocks."""
    digest = hashlib.sha256()
    for path in sorted(set(paths)):
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                digest.update(f"{path.relative_to(root).as_posix()} {size}\n".encode())
                for start in (0, size // 2, max(0, size - _BLOCK)):
                    file.seek(start)
                    digest.update(file.read(_BLOCK))
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()[:16]
