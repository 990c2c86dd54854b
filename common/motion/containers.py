"""Opening the files that motions come in; nothing in them is ever executed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.body_model.pickles import read_pickle
from common.errors import UserError
from common.io.array import read_array
from common.io.json import count_numbers, read_json
from common.io.npz import npz_names, read_npz
from common.io.torch_file import read_torch_file

_REMEDY = "save plain numpy arrays, best as .npz"


class LazyArrays(Mapping[str, Any]):
    """The arrays of an .npz file, each read when it is asked for; arrays of Python objects are refused."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names = npz_names(path)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        try:
            return read_npz(self._path, (name,))[name]
        except UserError as error:
            raise UserError(f"entry {name}: {error}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _read_torch(path: Path) -> Any:
    return read_torch_file(path, "a motion", _REMEDY)


def _read_pickle(path: Path) -> Any:
    return read_pickle(path, "motion", _REMEDY)


READERS: dict[str, Callable[[Path], Any]] = {
    ".npz": LazyArrays,
    ".npy": read_array,
    ".json": read_json,
    ".pkl": _read_pickle,
    ".pickle": _read_pickle,
    ".pt": _read_torch,
    ".pth": _read_torch,
}


def read_content(path: Path) -> Any:
    """The content of one file by its suffix: mappings, lists, arrays, numbers."""
    return READERS[path.suffix.lower()](path)


def as_array(value: Any, where: str) -> np.ndarray:
    """Numbers as a finite float64 array; UserError that names `where` otherwise."""
    try:
        if isinstance(value, Tensor):
            value = (
                value.detach().float().numpy() if value.dtype == torch.bfloat16 else value.detach().numpy()
            )
        count_numbers(value)
        array = np.atleast_1d(np.asarray(value))
    except (ValueError, TypeError, OverflowError):
        array = np.empty(0, dtype=object)  # ragged lists, or something else than numbers
    if array.dtype.kind not in "iuf" or array.size == 0:
        raise UserError(f"{where} is not an array of numbers; {_REMEDY}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise UserError(f"{where} has NaN or infinite values; leave those frames out")
    return array


def describe(content: Any) -> str:
    """What a file holds, in a few words for a message."""
    if isinstance(content, Mapping):
        shown = [f"{key}{_shape(content, key)}" for key in list(content)[:20]]
        more = ", ..." if len(content) > 20 else ""
        return f"the keys {', '.join(shown)}{more}" if shown else "nothing"
    if isinstance(content, list | tuple):
        inner = (
            f", the first with {describe(content[0])}" if content and isinstance(content[0], Mapping) else ""
        )
        return f"a list of {len(content)}{inner}"
    if isinstance(content, np.ndarray):
        return f"one array of {'x'.join(map(str, content.shape)) or 'one number'}"
    return f"one {type(content).__name__}"


def _shape(content: Mapping[Any, Any], key: Any) -> str:
    try:
        value = content[key]
    except UserError:
        return " (unreadable)"
    if isinstance(value, Mapping):
        return f" ({len(value)} entries)"
    shape = np.shape(value) if isinstance(value, np.ndarray | Tensor) else ()
    return f" {'x'.join(map(str, shape))}" if shape else ""
