"""Triangle meshes and tables of points as binary .ply files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from common.io.atomic import atomic_path

_POSITION = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
_COLOR = [("red", "u1"), ("green", "u1"), ("blue", "u1")]
_FACE = [("n", "u1"), ("index", "<i4", (3,))]
_TYPE_NAMES = {"<f4": "float", "u1": "uchar"}


def write_mesh(path: Path, vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray | None = None) -> None:
    """Write vertices (V, 3), triangles (F, 3) and optional vertex colours (V, 3) uint8."""
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(f"expected vertices (V, 3) and faces (F, 3), got {vertices.shape} and {faces.shape}")
    if colors is not None and (colors.shape != vertices.shape or colors.dtype != np.uint8):
        raise ValueError(f"expected colours {vertices.shape} uint8, got {colors.shape} {colors.dtype}")
    columns = _POSITION + (_COLOR if colors is not None else [])
    table = np.empty(len(vertices), dtype=columns)
    for axis, (name, _) in enumerate(_POSITION):
        table[name] = vertices[:, axis]
    if colors is not None:
        for channel, (name, _) in enumerate(_COLOR):
            table[name] = colors[:, channel]
    triangles = np.empty(len(faces), dtype=_FACE)
    triangles["n"], triangles["index"] = 3, faces
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(vertices)}",
        *(f"property {_TYPE_NAMES[kind]} {name}" for name, kind in columns),
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header\n",
    ]
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write("\n".join(header).encode("ascii"))
        file.write(table.tobytes())
        file.write(triangles.tobytes())


def write_points(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write points with named columns (N,) as float32, in the order given."""
    table = np.empty(len(next(iter(columns.values()))), dtype=[(name, "<f4") for name in columns])
    for name, values in columns.items():
        table[name] = values
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(table)}",
        *(f"property float {name}" for name in columns),
        "end_header\n",
    ]
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write("\n".join(header).encode("ascii"))
        file.write(table.tobytes())
