"""Json files with numbers in them: reading with checks, writing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from common.io.atomic import atomic_path
from common.io.files import open_file

_MAX_DEPTH = 16  # of lists in lists
_MAX_NUMBERS = 2**22  # in a list; larger arrays belong into .npy files
# Memory of an empty list and of an object with one entry. [[0, 0, 0], ...] needs 12 bytes for each of the file's,
# so that is allowed; [[], ...] and [{"": 0}, ...] would need twice that and more.
_LIST_BYTES, _OBJECT_BYTES = 64, 184
_BYTES_PER_BYTE, _FREE_BYTES = 12, 2**24


def read_json(path: Path) -> Any:
    """The content of a json file; UserError if it is missing or is not json."""
    with open_file(path) as file:
        try:
            text = file.read()
            _check_containers(text)
            return json.loads(text)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}; check the disk") from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise UserError(f"{path} is not valid json ({error}); write it again") from error


def _check_containers(text: bytes) -> None:
    """ValueError for many more lists and objects than a file of numbers has."""
    n_bytes = _LIST_BYTES * text.count(b"[") + _OBJECT_BYTES * text.count(b"{")
    if n_bytes > _FREE_BYTES + _BYTES_PER_BYTE * len(text):
        raise ValueError("too many lists and objects for its size")


def read_json_object(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    """A json object that has at least `keys`; UserError names the missing ones."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, expected an object with {', '.join(keys)}")
    missing = [key for key in keys if key not in content]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; write it again with all of them")
    return content


def numbers(value: Any, shape: tuple[int, ...], where: str) -> Tensor:
    """Nested or flat lists of numbers as a finite float32 tensor of `shape` (-1: any count in that axis).

    `where` (file and key) begins the message of the UserError for anything that is not such numbers.
    """
    try:
        count_numbers(value)
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError):
        array = np.empty(0, dtype=object)  # ragged lists
    if array.dtype.kind not in "iuf":
        raise UserError(f"{where} is not a list of numbers of shape {_show(shape)}; write it again")
    squeezed = tuple(n for n in array.shape if n != 1)
    target = tuple(n for n in shape if n != 1)
    inner = math.prod(n for n in shape if n != -1)
    is_flat = len(squeezed) <= 1 and (array.size % inner == 0 if -1 in shape else array.size == inner)
    is_nested = tuple(-1 if t == -1 else n for n, t in zip(squeezed, target, strict=False)) == target
    is_nested = is_nested and len(squeezed) == len(target)
    if array.size == 0 or not (is_flat or is_nested):
        raise UserError(f"{where} has shape {_show(array.shape)}, expected {_show(shape)}; write it again")
    with np.errstate(over="ignore"):  # becomes infinite and is refused below
        tensor = torch.from_numpy(array.astype(np.float32)).reshape(shape)
    if not torch.isfinite(tensor).all():
        raise UserError(f"{where} has NaN or infinite values; fit or write this file again")
    return tensor


def count_numbers(value: Any) -> int:
    """How many numbers there are in an array or in lists of numbers, arrays and such lists.

    TypeError for other content, or if it has no end.

    To be asked before numpy is: of lists with text it makes arrays many times their size, and a pickle's lists may
    hold the same list again and again.
    """
    return _count(value, {}, 0)


def _count(value: Any, counted: dict[int, int], depth: int) -> int:
    if type(value) in (int, float):
        return 1
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "iuf":
        return value.size
    if type(value) not in (list, tuple) or depth > _MAX_DEPTH:
        raise TypeError("not a list of numbers")
    if id(value) not in counted:
        if _are_numbers(value):
            counted[id(value)] = len(value)
        elif depth < _MAX_DEPTH and (n_numbers := _n_in_rows(value)) is not None:
            counted[id(value)] = n_numbers
        else:
            counted[id(value)] = sum(_count(x, counted, depth + 1) for x in value)
        if counted[id(value)] > _MAX_NUMBERS:
            raise TypeError(f"over {_MAX_NUMBERS} numbers")
    return counted[id(value)]


def _are_numbers(values: Iterable[Any]) -> bool:
    return set(map(type, values)) <= {int, float}


def _n_in_rows(value: list[Any] | tuple[Any, ...]) -> int | None:
    """How many numbers lists of numbers hold, quickly; None if they are something else."""
    if set(map(type, value)) != {list}:
        return None
    n_numbers = sum(map(len, value))
    return n_numbers if n_numbers <= _MAX_NUMBERS and _are_numbers(chain.from_iterable(value)) else None


def read_numbers(path: Path, shape: tuple[int, ...]) -> Tensor:
    """A json file that holds only numbers, as a finite float32 tensor of `shape` (see `numbers`)."""
    return numbers(read_json(path), shape, str(path))


def write_json(path: Path, content: Any) -> None:
    """Write json (tensors and arrays as nested lists) under its final name only when it is complete."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, default=_as_list, allow_nan=False))


def _as_list(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu().tolist()
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"cannot write a {type(value).__name__} as json")


def _show(shape: tuple[int, ...]) -> str:
    return "x".join("?" if n == -1 else str(n) for n in shape) or "a single number"
