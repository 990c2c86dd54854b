"""A binary glTF 2.0 file: typed arrays in one buffer, described by a JSON document (Khronos glTF 2.0, 2.4 and 4.4)."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from common.io.atomic import atomic_path

ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
_COMPONENTS = {"uint8": 5121, "uint16": 5123, "uint32": 5125, "float32": 5126}
_KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
_GLB_MAGIC, _JSON_CHUNK, _BIN_CHUNK = 0x46546C67, 0x4E4F534A, 0x004E4942


class GlbBuffer:
    """The arrays of a file while it is put together; every method returns the new entry's index."""

    def __init__(self) -> None:
        self._data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add_bytes(self, data: bytes, target: int | None = None) -> int:
        """A buffer view of these bytes, which start at a multiple of 4."""
        self._data += bytes(-len(self._data) % 4)
        view: dict[str, Any] = {"buffer": 0, "byteOffset": len(self._data), "byteLength": len(data)}
        if target is not None:
            view["target"] = target
        self._data += data
        self.views.append(view)
        return len(self.views) - 1

    def add_array(self, array: np.ndarray, target: int | None = None, with_bounds: bool = False) -> int:
        """An accessor of an array (N,) or (N, C) of uint8, uint16, uint32 or float32."""
        view = self.add_bytes(np.ascontiguousarray(array).astype(_little(array)).tobytes(), target)
        accessor = {"bufferView": view, **_description(array)}
        if with_bounds:
            accessor |= _bounds(array)
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def add_sparse(self, array: np.ndarray, n_rows: int, rows: np.ndarray) -> int:
        """An accessor (n_rows, C) that is zero but for `array` (M, C) at the increasing `rows` (M,)."""
        accessor = {**_description(array), "count": n_rows}
        zeros = np.zeros((1, array.shape[1]), array.dtype)
        accessor |= _bounds(np.concatenate([array, zeros]) if len(rows) < n_rows else array)
        if len(rows):
            indices = self.add_bytes(rows.astype("<u4").tobytes())
            values = self.add_bytes(np.ascontiguousarray(array).astype(_little(array)).tobytes())
            accessor["sparse"] = {
                "count": len(rows),
                "indices": {"bufferView": indices, "componentType": _COMPONENTS["uint32"]},
                "values": {"bufferView": values},
            }
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def write(self, path: Path, document: dict[str, Any]) -> None:
        """Write the file: the document with this buffer's arrays added to it."""
        content = bytes(self._data) + bytes(-len(self._data) % 4)
        whole = {
            **document,
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": [{"byteLength": len(content)}],
        }
        text = json.dumps(whole, separators=(",", ":"), allow_nan=False).encode("utf-8")
        text += b" " * (-len(text) % 4)
        size = 12 + 8 + len(text) + 8 + len(content)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            file.write(struct.pack("<3I", _GLB_MAGIC, 2, size))
            file.write(struct.pack("<2I", len(text), _JSON_CHUNK) + text)
            file.write(struct.pack("<2I", len(content), _BIN_CHUNK))
            file.write(content)


def _little(array: np.ndarray) -> np.dtype:
    return array.dtype.newbyteorder("<")


def _description(array: np.ndarray) -> dict[str, Any]:
    n_components = array.shape[1] if array.ndim == 2 else 1
    kind = _COMPONENTS.get(array.dtype.name)
    if kind is None or n_components not in _KINDS:
        raise ValueError(f"glTF has no arrays of shape {array.shape} and type {array.dtype}")
    return {"componentType": kind, "count": len(array), "type": _KINDS[n_components]}


def _bounds(array: np.ndarray) -> dict[str, list[float]]:
    columns = array.reshape(len(array), -1)
    return {"min": columns.min(0).tolist(), "max": columns.max(0).tolist()}
