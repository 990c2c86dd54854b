"""The parameter files of one frame: SMPL-X parameters and camera (SPEC 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from common.camera import Camera
from common.errors import UserError
from common.io.json import numbers, read_json_object, write_json
from common.joints import N_EXPR, POSE_PARAMS
from common.pose import SmplxParams

# Name -> shape of each entry of a SMPL-X parameter file, in the order of snapshots.
SMPLX_SHAPES: dict[str, tuple[int, ...]] = {
    **{name: (n, 3) if n > 1 else (3,) for name, n in POSE_PARAMS.items()},
    "expr": (N_EXPR,),
    "trans": (3,),
}
_CAMERA_SHAPES: dict[str, tuple[int, ...]] = {"R": (3, 3), "t": (3,), "focal": (2,), "princpt": (2,)}
_ROTATION_TOLERANCE = 1e-2  # files round their digits


def read_smplx_params(path: Path) -> SmplxParams:
    """`smplx_params/i.json`; UserError names the file and the wrong entry."""
    content = read_json_object(path, tuple(SMPLX_SHAPES))
    return SmplxParams(
        **{name: numbers(content[name], shape, f"{path}: {name}") for name, shape in SMPLX_SHAPES.items()}
    )


def pack_params(params: Mapping[int, SmplxParams]) -> np.ndarray:
    """Frame indices and all their parameters (F, 1 + 218) as float64, which holds both exactly."""
    rows = [
        np.concatenate([[index], *(getattr(one, name).reshape(-1).numpy() for name in SMPLX_SHAPES)])
        for index, one in params.items()
    ]
    return np.array(rows, np.float64).reshape(len(rows), 1 + sum(map(math.prod, SMPLX_SHAPES.values())))


def unpack_params(rows: np.ndarray) -> dict[int, SmplxParams]:
    """What `pack_params` packed."""
    values = torch.from_numpy(rows[:, 1:]).float().split(list(map(math.prod, SMPLX_SHAPES.values())), dim=1)
    columns = {
        name: part.reshape(-1, *shape).unbind(0)
        for (name, shape), part in zip(SMPLX_SHAPES.items(), values, strict=True)
    }
    return {
        int(index): SmplxParams(**{name: entries[i] for name, entries in columns.items()})
        for i, index in enumerate(rows[:, 0])
    }


def write_smplx_params(path: Path, params: SmplxParams) -> None:
    """Write `smplx_params/i.json` with nested lists."""
    write_json(path, {name: getattr(params, name).reshape(shape) for name, shape in SMPLX_SHAPES.items()})


def read_camera(path: Path, height: int, width: int) -> Camera:
    """`cam_params/i.json` of an image of the given size; UserError names the file and the wrong entry."""
    content = read_json_object(path, tuple(_CAMERA_SHAPES))
    entries = {
        name: numbers(content[name], shape, f"{path}: {name}") for name, shape in _CAMERA_SHAPES.items()
    }
    R = entries["R"].double()
    if (R @ R.T - torch.eye(3).double()).abs().max() > _ROTATION_TOLERANCE or torch.linalg.det(R) < 0:
        raise UserError(f"{path}: R is not a rotation matrix (orthonormal rows, determinant 1)")
    if not (entries["focal"] > 0).all():
        raise UserError(f"{path}: focal must be positive pixels")
    return Camera(**entries, height=height, width=width)


def write_camera(path: Path, camera: Camera) -> None:
    """Write `cam_params/i.json`."""
    write_json(path, {name: asdict(camera)[name] for name in _CAMERA_SHAPES})
