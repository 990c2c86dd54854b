"""Frames in as few bytes as hold them exactly, on the GPU or in pinned memory, for fast training."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from common.camera import Camera
from common.pose import SmplxParams
from data.dataset import Subject
from data.frame import Frame, FrameKey

READERS = 4  # threads
GIB = 2**30
_ALWAYS = ("image", "mask", "depth", "normal", "seg")
_OF_PHOTOS = ("albedo", "face_patch")


@dataclass(frozen=True)
class PackedFrame:
    """One frame's images as uint8 (value times 255), half or single precision, whichever is exact."""

    split: str
    index: int
    height: int
    width: int
    images: dict[str, Tensor]
    camera: Tensor  # (32,) float32: R, t, focal, princpt of the image's camera, then of the face patch's
    face_size: tuple[int, int]

    @property
    def name(self) -> str:
        """`<split>_<index>`."""
        return f"{self.split}_{self.index}"

    @property
    def is_captured(self) -> bool:
        """Whether this is a photo."""
        return "albedo" in self.images

    @property
    def n_bytes(self) -> int:
        """Of the images."""
        return sum(value.nbytes for value in self.images.values())

    def to(self, device: torch.device | str) -> PackedFrame:
        """The same on another device, without waiting for the copy."""
        images = {name: value.to(device, non_blocking=True) for name, value in self.images.items()}
        return replace(self, images=images, camera=self.camera.to(device, non_blocking=True))

    def unpacked(self, device: torch.device) -> Frame:
        """The frame on a device; without what losses do not need (SMPL-X parameters, depth's validity, face box)."""
        static = StaticFrame(self, device)
        static.fill(self)
        return static.frame

    def pinned(self) -> PackedFrame:
        """The same in memory that a GPU reads by itself."""
        images = {name: value.pin_memory() for name, value in self.images.items()}
        return replace(self, images=images, camera=self.camera.pin_memory())


def pack(frame: Frame) -> PackedFrame:
    """Pack a frame on the CPU."""
    names = (*_ALWAYS, *_OF_PHOTOS) if frame.is_captured else _ALWAYS
    cameras = torch.cat([_numbers(frame.camera), _numbers(frame.face_camera)])
    return PackedFrame(
        frame.split,
        frame.index,
        frame.camera.height,
        frame.camera.width,
        {name: _packed(getattr(frame, name)) for name in names},
        cameras.float(),
        (frame.face_camera.height, frame.face_camera.width),
    )


def _numbers(camera: Camera) -> Tensor:
    return torch.cat([camera.R.reshape(-1), camera.t, camera.focal, camera.princpt])


def _packed(values: Tensor) -> Tensor:
    """The values in the smallest of the three types that holds them exactly."""
    eight_bit = (values * 255).round().clamp(0, 255).to(torch.uint8)
    if torch.equal(eight_bit.float() / 255, values):
        return eight_bit
    half = values.half()
    return half if torch.equal(half.float(), values) else values.contiguous()


class StaticFrame:
    """A frame on a device whose tensors stay where they are; `fill` puts another frame's content into them."""

    def __init__(self, like: PackedFrame, device: torch.device) -> None:
        self.full = torch.tensor(255.0, device=device)  # a tensor: dividing by a number may multiply instead
        self.cameras = torch.zeros(32, device=device)
        images = {
            name: torch.zeros(value.shape, dtype=torch.float32, device=device)
            for name, value in like.images.items()
        }
        nothing = torch.zeros(0, device=device)
        self.images = images
        self.frame = Frame(
            split=like.split,
            index=like.index,
            camera=self._camera(0, like.height, like.width),
            face_camera=self._camera(16, *like.face_size),
            params=SmplxParams.zeros(),  # those of the pose table count
            image=images["image"],
            mask=images["mask"],
            albedo=images.get("albedo", nothing),
            depth=images["depth"],
            depth_mask=nothing,
            normal=images["normal"],
            seg=images["seg"],
            face_patch=images.get("face_patch", nothing),
            face_bbox=nothing,
        )

    def _camera(self, start: int, height: int, width: int) -> Camera:
        numbers = self.cameras[start : start + 16]
        return Camera(numbers[:9].view(3, 3), numbers[9:12], numbers[12:14], numbers[14:16], height, width)

    def fill(self, packed: PackedFrame) -> None:
        """Take over a packed frame of the same size and kind; nothing waits for the device."""
        self.cameras.copy_(packed.camera, non_blocking=True)
        for name, target in self.images.items():
            source = packed.images[name]
            target.copy_(source.to(target.device, non_blocking=True))
            if source.dtype == torch.uint8:
                target.div_(self.full)


class FrameStore:
    """Packed frames of a subject: on the device while they fit, else in pinned memory, else read again."""

    def __init__(self, subject: Subject, device: torch.device, on_device: float, on_host: float) -> None:
        """on_device, on_host: bytes to use at most."""
        self.subject, self.device = subject, device
        self.room_on_device, self.room_on_host = on_device, on_host
        self.kept: dict[FrameKey, PackedFrame] = {}

    def _get(self, key: FrameKey) -> PackedFrame:
        found = self.kept.get(key)
        return pack(self.subject.load(*key)) if found is None else found

    def _keep(self, key: FrameKey, packed: PackedFrame) -> PackedFrame:
        if key in self.kept:
            return packed
        if packed.n_bytes <= self.room_on_device:
            self.room_on_device -= packed.n_bytes
            packed = self.kept[key] = packed.to(self.device)
        elif packed.n_bytes <= self.room_on_host:
            self.room_on_host -= packed.n_bytes
            packed = self.kept[key] = packed.pinned() if self.device.type == "cuda" else packed
        return packed

    def frames(self, keys: Sequence[FrameKey]) -> Iterator[PackedFrame]:
        """The frames in order; those that are not here yet are read ahead by several threads."""
        with ThreadPoolExecutor(READERS) as readers:
            upcoming: OrderedDict[int, Future[PackedFrame]] = OrderedDict()
            submitted, reading = 0, set()
            for place, key in enumerate(keys):
                while submitted < len(keys) and submitted < place + 2 * READERS:
                    ahead = keys[submitted]
                    if ahead not in self.kept and ahead not in reading:
                        upcoming[submitted] = readers.submit(self._get, ahead)
                        reading.add(ahead)
                    submitted += 1
                if place in upcoming:
                    packed = self._keep(key, upcoming.pop(place).result())
                    reading.discard(key)
                else:
                    packed = self._keep(key, self._get(key))
                yield packed
