"""The one value that every motion format becomes: SMPL-X parameters of all frames, and cameras if it has any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from common.camera import Camera
from common.errors import UserError
from common.joints import N_JOINTS, POSE_PARAMS
from common.motion.options import Hands, Up
from common.pose import SmplxParams, stack_params


@dataclass(frozen=True)
class MotionFrame:
    """One frame of a motion, ready to be rendered."""

    index: int  # number in the file names
    params: SmplxParams  # in the space of `camera`
    camera: Camera  # its size is the render size
    background: Path | None = None  # image of the render size


@dataclass(frozen=True)
class Motion:
    """T frames in the order in which they are played.

    With cameras, the parameters of each frame are in its camera's space (SPEC 6) and `frames` can be rendered.
    Without, they are in one world whose up axis is `up`; `common.motion.stage` gives it cameras.
    """

    name: str
    format: str  # name of the format it was read from
    indices: tuple[int, ...]  # frame numbers, increasing
    params: SmplxParams  # every entry with a leading axis of T frames; metres, axis-angle
    up: Up = "camera"
    hands: Hands = "relative"  # what zero finger rotations mean; files of SPEC 3 and 4: the body's mean hand
    pivot: Literal["pelvis", "origin"] = "pelvis"  # of the rest pose, about which the root turns the body
    fps: float | None = None  # None: the file does not say
    cameras: tuple[Camera, ...] | None = None
    images: tuple[Path, ...] | None = None  # the driving video's frames
    backgrounds: tuple[Path, ...] | None = None

    def __len__(self) -> int:
        """Number of frames T."""
        return len(self.indices)

    @property
    def frames(self) -> tuple[MotionFrame, ...]:
        """The frames, for a motion with cameras."""
        return tuple(
            MotionFrame(
                index=index,
                params=params_of_frame(self.params, i),
                camera=self._cameras[i],
                background=self.backgrounds[i] if self.backgrounds else None,
            )
            for i, index in enumerate(self.indices)
        )

    @property
    def height(self) -> int:
        """Render height in pixels."""
        return self._cameras[0].height

    @property
    def width(self) -> int:
        """Render width in pixels."""
        return self._cameras[0].width

    @property
    def _cameras(self) -> tuple[Camera, ...]:
        if self.cameras is None:
            raise ValueError(f"the motion {self.name} has no cameras yet; common.motion.stage places them")
        return self.cameras

    def take(self, positions: Sequence[int], indices: Sequence[int] | None = None) -> Motion:
        """The frames at these positions (0..T-1, in this order), with new numbers if given."""
        chosen = list(positions)

        def pick(values: tuple | None) -> tuple | None:
            return None if values is None else tuple(values[i] for i in chosen)

        return replace(
            self,
            indices=tuple(indices) if indices is not None else tuple(self.indices[i] for i in chosen),
            params=map_params(lambda value: value[chosen], self.params),
            cameras=pick(self.cameras),
            images=pick(self.images),
            backgrounds=pick(self.backgrounds),
        )


def map_params(change: Callable[[Tensor], Tensor], params: SmplxParams) -> SmplxParams:
    """The parameters with a function applied to every entry."""
    return SmplxParams(**{f.name: change(getattr(params, f.name)) for f in fields(params)})


def params_of_frame(params: SmplxParams, i: int) -> SmplxParams:
    """One frame of stacked parameters."""
    return map_params(lambda value: value[i], params)


def from_rotation_vectors(rotvec: Tensor, expr: Tensor, trans: Tensor) -> SmplxParams:
    """Stacked float32 parameters of rotations (T, 55, 3), expressions (T, 50) and translations (T, 3)."""
    if rotvec.shape[1:] != (N_JOINTS, 3):
        raise ValueError(f"expected rotations (T, 55, 3), got {tuple(rotvec.shape)}")
    values, start = {}, 0
    for name, count in POSE_PARAMS.items():
        part = rotvec[:, start : start + count].float()
        values[name] = part if count > 1 else part[:, 0]
        start += count
    return SmplxParams(**values, expr=expr.float(), trans=trans.float())


def joined(frames: Sequence[tuple[int, Motion]], name: str) -> Motion:
    """One motion of (number, motion of one frame) pairs in this order; UserError where they do not fit together."""
    numbers, motions = [number for number, _ in frames], [motion for _, motion in frames]
    first = motions[0]
    if len({motion.hands for motion in motions}) > 1:
        raise UserError(f"{name}: hands are rotation matrices in some frames only; write all frames alike")
    cameras = None
    if all(motion.cameras is not None for motion in motions):
        height, width = first.height, first.width
        cameras = tuple(replace(motion.frames[0].camera, height=height, width=width) for motion in motions)
    params = stack_params([params_of_frame(motion.params, 0) for motion in motions])
    return replace(first, name=name, indices=tuple(numbers), params=params, cameras=cameras)
