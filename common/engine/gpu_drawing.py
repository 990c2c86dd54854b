"""Drawing on the GPU: a frame is one CUDA graph; copies to the host run beside the next frame (SPEC 15)."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.engine.frame_source import PackedShot
from common.engine.picture_triton import compose, draw_number, write_planes
from common.engine.pictures import draw_image
from common.engine.pose_rows import ROW_SIZE, PoseRow
from common.engine.posing_triton import TritonPosing
from common.engine.static_avatar import StaticAvatar
from common.frame_label import N_DIGITS, digit_coverage
from common.io.image import to_uint8
from common.io.video import to_yuv420
from common.renders import over
from common.yuv420 import planes_size, split_planes

logger = logging.getLogger(__name__)

N_SLOTS = 4  # device copies of pictures on their way to the host
MAX_IN_FLIGHT = 8  # frames queued before the oldest is waited for


@dataclass(frozen=True)
class _Slot:
    result: Tensor  # as `GpuDrawing.result`
    is_free: torch.cuda.Event


@dataclass(frozen=True)
class _InFlight:
    shot: PackedShot
    result: Tensor  # as `GpuDrawing.result`, on the host
    arrived: torch.cuda.Event


class GpuDrawing:
    """Draws by Triton kernels and CUDA graphs, one graph for white and one for backgrounds.

    A graph has room for as many (Gaussian, tile) pairs as the last eager frame needed and some more. A frame
    with more comes out as not a number; it is drawn again eagerly, and the graph is captured anew.
    """

    def __init__(
        self,
        static: StaticAvatar,
        height: int,
        width: int,
        panel: np.ndarray | None,
        probe: Tensor,
        is_video: bool,
    ) -> None:
        """probe (ROW_SIZE,): a pose to try the kernels on; an exception tells that they do not work here."""
        device = static.base.device
        self.static, self.device = static, device
        self.posing = TritonPosing(static)
        self.is_video = is_video
        self.left = 0 if panel is None else panel.shape[1]
        self.row = torch.full((ROW_SIZE + N_DIGITS,), -1.0, device=device)
        self.pose = PoseRow.of(self.row[:ROW_SIZE], height, width)
        self.digits = torch.from_numpy(digit_coverage(height)).to(device)
        self.background = torch.zeros(height, width, 3, dtype=torch.uint8, device=device)
        full = (height, self.left + width)
        self.shape = planes_size(*full) if is_video else (*full, 3)
        # What goes to the host in one copy: the picture or its planes, then 1 if the frame is not a number.
        self.result = torch.zeros(math.prod(self.shape) + 1, dtype=torch.uint8, device=device)
        self.is_broken = self.result[-1:]
        if is_video:
            self.picture = torch.zeros((*full, 3), dtype=torch.uint8, device=device)
        else:
            self.picture = self.result[:-1].view(self.shape)
        self.panel = None if panel is None else torch.from_numpy(np.array(panel)).to(device)
        if self.panel is not None:
            self.picture[:, : self.left] = self.panel
        self.slots = [_Slot(torch.empty_like(self.result), torch.cuda.Event()) for _ in range(N_SLOTS)]
        self.copying = torch.cuda.Stream(device)
        self.graphs: dict[bool, Callable[[], None]] = {}  # has background ->
        self._try(probe)

    @torch.no_grad()
    def _try(self, probe: Tensor) -> None:
        """Compile the kernels and compare them with the torch functions."""
        with torch.cuda.device(self.device):
            self.row[:ROW_SIZE] = probe
            self.posing.check(self.pose)
            self._draw(has_background=False)
            image = draw_image(self.static, self.posing.mean(self.pose), self.pose)
            expected = to_uint8(over(image[:3], image[3:], 1.0)).astype(int)
            found = self.picture[:, self.left :].cpu().numpy()
            if np.abs(found - expected).max() > 1 or int(self.is_broken):
                raise RuntimeError("its test picture is wrong")
            if self.is_video:
                luma, *_ = split_planes(self.result[:-1].view(self.shape).cpu().numpy())
                expected, *_ = split_planes(to_yuv420(self.picture.cpu().numpy()))
                if np.abs(luma.astype(int) - expected).max() > 1:
                    raise RuntimeError("the planes of its test picture are wrong")

    @torch.no_grad()
    def pictures(self, shots: Iterable[PackedShot]) -> Iterator[np.ndarray]:
        """The pictures (H, ., 3) uint8, or their planes."""
        in_flight: deque[_InFlight] = deque()
        for number, shot in enumerate(shots):
            in_flight.append(self._queue(shot, self.slots[number % N_SLOTS]))
            if len(in_flight) > MAX_IN_FLIGHT:
                yield self._arrived(in_flight.popleft())
        while in_flight:
            yield self._arrived(in_flight.popleft())

    @torch.no_grad()
    def mean(self, row: Tensor) -> Tensor:
        """Means (N, 3) of the posed Gaussians."""
        with torch.cuda.device(self.device):
            self.row[:ROW_SIZE] = row
            return self.posing.mean(self.pose).clone()

    def _set(self, shot: PackedShot) -> None:
        self.row.copy_(shot.row, non_blocking=True)
        if shot.background is not None:
            self.background.copy_(shot.background, non_blocking=True)

    def _draw(self, has_background: bool) -> None:
        """Everything from `row` and `background` to `result`, queued."""
        image = draw_image(self.static, self.posing.mean(self.pose), self.pose)
        background = self.background if has_background else None
        compose(image, background, self.picture, self.left, self.is_broken)
        draw_number(self.picture, self.panel, self.row[ROW_SIZE:], self.digits)
        if self.is_video:
            write_planes(self.picture, self.result[:-1].view(self.shape))

    def _queue(self, shot: PackedShot, slot: _Slot) -> _InFlight:
        with torch.cuda.device(self.device):
            has_background = shot.background is not None
            self._set(shot)
            if has_background not in self.graphs:
                self.graphs[has_background] = self._captured(has_background)
            self.graphs[has_background]()
            main = torch.cuda.current_stream()
            main.wait_event(slot.is_free)
            slot.result.copy_(self.result)
            self.copying.wait_stream(main)
            with torch.cuda.stream(self.copying):
                result = torch.empty_like(slot.result, device="cpu", pin_memory=True)
                result.copy_(slot.result, non_blocking=True)
                slot.is_free.record()
                arrived = torch.cuda.Event()
                arrived.record()
            return _InFlight(shot, result, arrived)

    def _arrived(self, frame: _InFlight) -> np.ndarray:
        frame.arrived.synchronize()
        result = frame.result
        if int(result[-1]):
            with torch.cuda.device(self.device):
                has_background = frame.shot.background is not None
                self._set(frame.shot)
                self._draw(has_background)
                result = self.result.cpu()
                self.graphs[has_background] = self._captured(has_background)
        return result[:-1].view(self.shape).numpy()

    def _captured(self, has_background: bool) -> Callable[[], None]:
        """One frame as a graph; where it cannot be captured, as a call."""

        def draw() -> None:
            self._draw(has_background)

        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            draw()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # readers pin memory meanwhile
                draw()
        except RuntimeError as error:
            torch.cuda.synchronize(self.device)
            logger.warning("frames are drawn without a CUDA graph (%s)", str(error).splitlines()[0])
            return draw
        return graph.replay
