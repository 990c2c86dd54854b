"""The SMPL-X parameters of every frame as one module; rotations in 6D, to be optimised (SPEC 5, 6, 13)."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from common.errors import UserError
from common.io.parameters import SMPLX_SHAPES
from common.joints import POSE_PARAMS
from common.pose import (
    SmplxParams,
    SmplxPose,
    rotation_from_6d,
    rotation_to_6d,
    rotation_vectors,
    stack_params,
)
from common.rotation import rotmat_to_rotvec, rotvec_to_rotmat

PREFIX = "smplx_param_dict."  # of the table's keys in a snapshot's network (SPEC 5)
STORED_SHAPES: dict[str, tuple[int, ...]] = {
    name: (*shape[:-1], 6) if name in POSE_PARAMS else shape for name, shape in SMPLX_SHAPES.items()
}
ROW_COLUMNS: dict[str, slice] = {}  # where each parameter is in a row of all of a frame's parameters
for _name, _shape in STORED_SHAPES.items():
    _start = list(ROW_COLUMNS.values())[-1].stop if ROW_COLUMNS else 0
    ROW_COLUMNS[_name] = slice(_start, _start + math.prod(_shape))
ROW_WIDTH = sum(math.prod(shape) for shape in STORED_SHAPES.values())
HAND_PARAMS = ("lhand_pose", "rhand_pose")
_KEY = re.compile(
    r"smplx_params\.(?P<split>[A-Za-z][A-Za-z0-9_]*)\.(?P<frame>0|[1-9][0-9]*)\.(?P<param>[a-z_]+)"
)


class PoseTable(nn.Module):
    """Parameters `smplx_params.<split>.<frame>.<param>`: poses (6,) or (n, 6), expr (50,), trans (3,).

    Frames without gradient in a step have `.grad` None, so that Adam leaves them and their state untouched.
    """

    smplx_params: nn.ModuleDict  # split -> ModuleDict: frame -> ParameterDict

    def __init__(self, params: Mapping[str, Mapping[int, SmplxParams]]) -> None:
        super().__init__()
        self._rows: Tensor | None = None  # of `pack`
        self._fill({split: _stored(frames) for split, frames in params.items()})

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], prefix: str = PREFIX) -> PoseTable:
        """The table whose keys, after `prefix`, are in a snapshot's network; other keys are not looked at.

        UserError names a key that is not a table's, a missing parameter or a wrong shape.
        """
        stored: dict[str, dict[int, dict[str, Tensor]]] = defaultdict(lambda: defaultdict(dict))
        for key, value in state.items():
            if key.startswith(prefix):
                match = _KEY.fullmatch(key[len(prefix) :])
                if (
                    match is None
                    or match["param"] not in STORED_SHAPES
                    or hasattr(nn.ModuleDict, match["split"])
                ):
                    raise UserError(f"snapshot key {key} is not <split>.<frame>.<SMPL-X parameter>")
                stored[match["split"]][int(match["frame"])][match["param"]] = value
        for split, frames in stored.items():
            for frame, values in frames.items():
                _check_stored(values, f"{prefix}smplx_params.{split}.{frame}")
        table = cls({})
        table._fill(stored)
        return table

    def _fill(self, stored: Mapping[str, Mapping[int, Mapping[str, Tensor]]]) -> None:
        self._rows = None
        self.smplx_params = nn.ModuleDict()
        for split, frames in stored.items():
            entries = nn.ModuleDict()
            for frame in sorted(frames):
                entry = nn.ParameterDict()
                for name in STORED_SHAPES:  # one by one: ParameterDict sorts a dict that it is given whole
                    entry[name] = nn.Parameter(frames[frame][name].detach().clone().float())
                entries[str(frame)] = entry
            self.smplx_params[split] = entries

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self.smplx_params)

    def frames(self, split: str) -> list[int]:
        """Frame indices of a split in increasing order; empty if there is no such split."""
        return [int(frame) for frame in self._split(split)]

    def __contains__(self, key: tuple[str, int]) -> bool:
        split, frame = key
        return str(frame) in self._split(split)

    def _split(self, split: str) -> nn.ModuleDict:
        return (
            cast(nn.ModuleDict, self.smplx_params[split]) if split in self.smplx_params else nn.ModuleDict()
        )

    def stored(self, split: str, frame: int) -> nn.ParameterDict:
        """The 6D parameters of a frame by name; KeyError says which frame is missing."""
        if (split, frame) not in self:
            raise KeyError(f"no SMPL-X parameters for {split} frame {frame}; there are {self.frames(split)}")
        return cast(nn.ParameterDict, self._split(split)[str(frame)])

    def pose(self, split: str, frame: int) -> SmplxPose:
        """The frame's pose as matrices, differentiable with respect to its 6D parameters."""
        entry = self.stored(split, frame)
        six = torch.cat([entry[name].reshape(-1, 6) for name in POSE_PARAMS])
        return SmplxPose(rotation_from_6d(six), entry["expr"], entry["trans"])

    @torch.no_grad()
    def pack(self) -> Tensor:
        """All parameters as rows (frames, ROW_WIDTH) of one tensor, in the order of `named_frames`.

        The parameters become views of the rows: who writes to one writes to the other. Moving the table to
        another device or dtype moves all of them at once, to other rows.
        """
        if not self._is_packed:
            entries = [self.stored(*key) for key in self.named_frames()]
            rows = [torch.cat([value.reshape(-1) for value in entry.values()]) for entry in entries]
            self._view(torch.stack(rows) if rows else torch.zeros(0, ROW_WIDTH))
        assert self._rows is not None
        return self._rows

    def _view(self, rows: Tensor) -> None:
        self._rows = rows
        entries = [self.stored(*key) for key in self.named_frames()]
        for name, columns in ROW_COLUMNS.items():
            parts = rows[:, columns].view(len(rows), *STORED_SHAPES[name]).unbind(0)
            for entry, part in zip(entries, parts, strict=True):
                entry[name].data = part

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PoseTable:
        if not self._is_packed or any(value.grad is not None for value in self.parameters()):
            return super()._apply(fn, recurse)
        assert self._rows is not None
        with torch.no_grad():
            self._view(fn(self._rows))
        return self

    @property
    def _is_packed(self) -> bool:
        """Whether the parameters lie in the rows; copying the table and moving single ones ends that."""
        if self._rows is None:
            return False
        place = self._rows.untyped_storage().data_ptr()
        return all(value.untyped_storage().data_ptr() == place for value in self.parameters())

    def params(self, split: str, frame: int) -> SmplxParams:
        """The frame's parameters in axis-angle; angles beyond pi come back wrapped."""
        pose = self.pose(split, frame)
        axis_angle = rotmat_to_rotvec(pose.rotation).split(list(POSE_PARAMS.values()))
        poses = {
            name: rotations.reshape(SMPLX_SHAPES[name])
            for name, rotations in zip(POSE_PARAMS, axis_angle, strict=True)
        }
        return SmplxParams(**poses, expr=pose.expr, trans=pose.trans)

    def named_frames(self) -> Iterator[tuple[str, int]]:
        """(split, frame) of every entry."""
        for split in self.splits:
            for frame in self.frames(split):
                yield split, frame

    def parameter_groups(self, lr: float, hand_lr: float) -> list[dict[str, Any]]:
        """One optimiser group a parameter, under its published name `smplx_param_<param>_<split>_<frame>`."""
        return [
            {
                "name": f"smplx_param_{name}_{split}_{frame}",
                "params": [parameter],
                "lr": hand_lr if name in HAND_PARAMS else lr,
            }
            for split, frame in self.named_frames()
            for name, parameter in self.stored(split, frame).items()
        ]


def pose_of_row(row: Tensor) -> SmplxPose:
    """The pose of a row (ROW_WIDTH,) of `PoseTable.pack`, differentiable."""
    six = torch.cat([row[ROW_COLUMNS[name]].view(-1, 6) for name in POSE_PARAMS])
    return SmplxPose(rotation_from_6d(six), row[ROW_COLUMNS["expr"]], row[ROW_COLUMNS["trans"]])


def _stored(frames: Mapping[int, SmplxParams]) -> dict[int, dict[str, Tensor]]:
    """Frames' parameters as they are kept: rotations in 6D."""
    if not frames:
        return {}
    axis_angle = rotation_vectors(stack_params(list(frames.values())))
    six = rotation_to_6d(rotvec_to_rotmat(axis_angle)).split(list(POSE_PARAMS.values()), dim=1)
    columns = {
        name: part.reshape(-1, *STORED_SHAPES[name]).unbind(0)
        for name, part in zip(POSE_PARAMS, six, strict=True)
    }
    return {
        index: {**{name: parts[i] for name, parts in columns.items()}, "expr": one.expr, "trans": one.trans}
        for i, (index, one) in enumerate(frames.items())
    }


def _check_stored(values: Mapping[str, Tensor], where: str) -> None:
    missing = [name for name in STORED_SHAPES if name not in values]
    if missing:
        raise UserError(f"snapshot lacks {', '.join(missing)} of {where}")
    for name, shape in STORED_SHAPES.items():
        if tuple(values[name].shape) != shape:
            found = tuple(values[name].shape)
            raise UserError(f"snapshot key {where}.{name} has shape {found}, expected {shape}")
