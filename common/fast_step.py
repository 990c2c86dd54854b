"""A training step as a CUDA graph: the plain step's numbers without its thousands of launches.

One graph for each kind and size of frame holds everything: pose, avatar, renders, losses, gradients and Adam. A
frame is copied into the graph's own tensors and the graph is replayed; nothing waits for the host.
"""

from __future__ import annotations

import copy
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from common import gpu
from common.fast_adam import AvatarAdam, PoseAdam
from common.gpu.rooms import watched_rooms
from common.objective import Objective
from common.optimizer import PersonAdam
from common.perceptual import Lpips
from common.pose import SmplxPose
from common.pose_table import pose_of_row
from data.dataset import Frame
from data.packed_frame import PackedFrame, StaticFrame, pack

if TYPE_CHECKING:
    from common.gpu.crop import Crop
    from common.gpu.perceptual import HalfLpips

MAX_IN_FLIGHT = 8  # steps that the host may be ahead of the device
MAX_GRAPHS = 8  # kinds and sizes of frames
Losses = dict[str, Tensor]
Kind = tuple[bool, int, int]  # captured, height, width
logger = logging.getLogger(__name__)


@dataclass
class _KnownKind:
    """A kind of frames whose step has been made without a graph at least once."""

    static: StaticFrame
    names: tuple[str, ...]
    terms: Tensor  # (terms,) of the step that was made last
    graph: torch.cuda.CUDAGraph | None = None


@dataclass
class _Step:
    """A step that may still be at work."""

    packed: PackedFrame
    factor: float
    terms: Tensor  # (terms,) of this step
    is_left_out: Tensor  # (1,) on the host, once the event has come
    event: torch.cuda.Event


class FastStep:
    """Steps of a training or a pose fit on CUDA.

    The first step of a kind is made without a graph: it compiles, measures rooms and allocates what stays. When
    the kind comes again, its graph is captured.

    Lists of (Gaussian, tile) pairs have fixed room in a graph, and LPIPS looks at a fixed part of the images.
    Where a frame needs more, its step and those after it change nothing; the host sees that a few steps later,
    makes room and repeats them.
    """

    def __init__(
        self,
        objective: Objective,
        is_fit: bool,
        optimizer: PersonAdam,
        base_lr: dict[str, float],
        low_memory: bool,
    ) -> None:
        self.optimizer, self.base_lr = optimizer, base_lr
        self.table = objective.model.smplx_param_dict
        self.objective = copy.copy(objective)
        self.lpips: HalfLpips | None = None
        if isinstance(objective.perceptual, Lpips):
            device = objective.avatar.mean_offset.device
            self.lpips = self._half_precision(objective.perceptual, low_memory, device)
            self.objective.perceptual = self.lpips
        self.losses: Callable[[Frame, SmplxPose], Losses] = (
            self.objective.fitting if is_fit else self.objective.training
        )
        self.device = objective.avatar.mean_offset.device
        self.stream = torch.cuda.Stream(self.device)
        self.pool = torch.cuda.graph_pool_handle()
        self.known: dict[Kind, _KnownKind] = {}
        self.waiting: deque[_Step] = deque()
        self.is_attached = False
        self.keeps_features = not low_memory  # of the photo, if there is one only
        self.factor: float | None = None
        self.examples: Callable[[], list[PackedFrame]] = list  # a frame of each kind to come
        self.crops: dict[Kind, Crop] = {}  # what LPIPS looks at; all of the images of other kinds
        optimizer.register_state_dict_post_hook(self._with_own_state)
        optimizer.register_load_state_dict_post_hook(self._forget_state)

    @staticmethod
    def _half_precision(exact: Lpips, low_memory: bool, device: torch.device) -> HalfLpips:
        from common.gpu.perceptual import HalfLpips

        has_bf16 = torch.cuda.get_device_capability(device) >= (8, 0)
        return HalfLpips(exact, 1 if low_memory else 3, torch.bfloat16 if has_bf16 else torch.float16)

    def __call__(self, frame: Frame | PackedFrame, factor: float) -> Losses | None:
        """One step at `factor` times the learning rates; its loss terms, on the device.

        The terms of a step that will be repeated are those of the step before it. None, with a warning, if
        a step turns out not to work as a graph here: it is not made, and the optimiser can go on by itself.
        """
        packed = frame if isinstance(frame, PackedFrame) else pack(frame.to("cpu"))
        self._attach()
        try:
            known, terms = self._make(packed, factor)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a capture fails in many ways
            _warn(error)
            self._hand_back()
            return None
        self._look_back(MAX_IN_FLIGHT)
        return dict(zip(known.names, terms.unbind(0), strict=True))

    def settle(self) -> None:
        """Wait until every step so far has been made."""
        self._look_back(0)

    def _make(
        self, packed: PackedFrame, factor: float, terms: Tensor | None = None
    ) -> tuple[_KnownKind, Tensor]:
        """One step, with its kind and its terms, which go into `terms` if that is given."""
        if factor != self.factor:
            self.factor = factor
            self.avatar_adam.set_rates(factor)
            self.pose_adam.set_rates(factor)
        known = self.known.get(_kind(packed))
        if known is None:
            known = self._without_graph(packed, self._step)
        else:
            known, graph = self._with_graph(packed, known)
            known.static.fill(packed)
            self._select_row(packed)
            graph.replay()
        terms = torch.empty_like(known.terms) if terms is None else terms
        terms.copy_(known.terms)
        is_left_out = torch.empty(1, device="cpu", pin_memory=True)
        is_left_out.copy_(self.is_left_out, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self.waiting.append(_Step(packed, factor, terms, is_left_out, event))
        return known, terms

    def _look_back(self, most: int) -> None:
        """Make sure of the oldest steps until at most so many are left to be looked at."""
        while self.waiting and (len(self.waiting) > most or self.waiting[0].event.query()):
            step = self.waiting[0]
            step.event.synchronize()
            if not float(step.is_left_out):
                self.waiting.popleft()
                continue
            torch.cuda.synchronize(self.device)
            again = list(self.waiting)
            self.waiting.clear()
            self.is_left_out.zero_()
            self._drop(_kind(step.packed))  # the next one measures how much room it needs
            logger.debug("%s needs more room than its graph has", step.packed.name)
            for one in again:
                self._make(one.packed, one.factor, one.terms)

    def _attach(self) -> None:
        """Take parameters and moments over into tensors that stay where they are."""
        if self.is_attached:
            return
        self.rows = self.table.pack()
        self.rows_of = {key: i for i, key in enumerate(self.table.named_frames())}
        self.row_index = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.is_left_out = torch.zeros(1, device=self.device)
        self.pose_adam = PoseAdam(self.optimizer, self.table, self.rows, self.base_lr)
        in_table = {id(parameter) for parameter in self.table.parameters()}
        groups = [g for g in self.optimizer.param_groups if id(g["params"][0]) not in in_table]
        self.avatar_adam = AvatarAdam(self.optimizer, groups, self.base_lr)
        for kind in list(self.known):
            self._drop(kind)
        self.factor = None
        self.is_attached = True

    def _with_own_state(self, optimizer: Any, state: dict[str, Any]) -> dict[str, Any]:
        """The optimiser's state dict with this step's moments in the published layout."""
        if not self.is_attached:
            return state
        self.settle()
        groups = state["param_groups"]
        if self.factor is not None:
            groups = [{**group, "lr": self.base_lr[group["name"]] * self.factor} for group in groups]
        return {"state": {**self.avatar_adam.state(), **self.pose_adam.state()}, "param_groups": groups}

    def _forget_state(self, optimizer: Any) -> None:
        self.waiting.clear()
        self.is_attached = False

    def _hand_back(self) -> None:
        """Give the optimiser its state, so that it can go on by itself."""
        state = self.optimizer.state_dict()
        self._forget_state(self.optimizer)
        self.optimizer.load_state_dict(state)

    def _compute(self, frame: Frame) -> tuple[tuple[str, ...], Tensor, Tensor, list[Tensor | None], Tensor]:
        """Names and values of the terms, gradients of the row and of the avatar, and whether lists overflowed."""
        self._look_at(frame)
        row = self.rows.index_select(0, self.row_index).squeeze(0).detach().requires_grad_()
        with gpu.kernels(), watched_rooms() as is_too_small:
            terms = self.losses(frame, pose_of_row(row))
            values = torch.stack(list(terms.values()))
            d_row, *found = torch.autograd.grad(
                values.sum(), [row, *self.avatar_adam.parameters], allow_unused=True
            )
        grads: list[Tensor | None] = list(found)
        flags = is_too_small or [torch.zeros((), dtype=torch.bool, device=self.device)]  # none outside graphs
        is_too_much = torch.stack(flags).any().to(torch.float32)
        return tuple(terms), values.detach(), d_row, grads, is_too_much

    def _step(self, frame: Frame, last: Tensor | None = None) -> tuple[tuple[str, ...], Tensor]:
        """The whole step: names of its terms, and `last` with their values, unless the step is left out."""
        names, values, d_row, grads, is_too_much = self._compute(frame)
        last = values.clone() if last is None else last
        self.is_left_out.copy_(torch.maximum(self.is_left_out, is_too_much))
        self.avatar_adam.step(grads, self.is_left_out)
        self.pose_adam.step(self.row_index, d_row, self.is_left_out)
        last.copy_(torch.where(self.is_left_out > 0, last, values))
        return names, last

    def _trial(self, frame: Frame) -> tuple[tuple[str, ...], Tensor]:
        """The step without its update."""
        names, values, *_ = self._compute(frame)
        return names, values.clone()

    def _look_at(self, frame: Frame) -> None:
        """Let LPIPS look at the part that matters in frames of this kind."""
        if self.lpips is not None:
            kind = frame.is_captured, frame.camera.height, frame.camera.width
            self.lpips.crop = self.crops.get(kind)

    @torch.no_grad()
    def _remember_photo(self, packed: PackedFrame, static: StaticFrame) -> None:
        """If there is one photo only, the perceptual features of its images in `static` are constants."""
        if self.lpips is None or not packed.is_captured:
            return
        self.lpips.remembered.clear()
        if self.keeps_features and len(self.table.frames(packed.split)) == 1:
            self._look_at(static.frame)
            images = [static.images[name] for name in ("image", "albedo", "face_patch")]
            self.lpips.remember(images)
            torch.cuda.synchronize(self.device)

    def _drop(self, kind: Kind) -> None:
        """Forget a kind whose graph is not at work; and features, which are known by their image's place in memory."""
        self.known.pop(kind, None)
        if kind[0] and self.lpips is not None:
            self.lpips.remembered.clear()

    def _select_row(self, packed: PackedFrame) -> None:
        self.row_index.fill_(self.rows_of[packed.split, packed.index])

    def _without_graph(
        self, packed: PackedFrame, step: Callable[[Frame], tuple[tuple[str, ...], Tensor]]
    ) -> _KnownKind:
        """A kind after its first step, which measures rooms, compiles and allocates what stays.

        On the very tensors and the stream that the capture will use, so that it finds nothing to be done for the
        first time.
        """
        static = StaticFrame(packed, self.device)
        static.fill(packed)
        self._remember_photo(packed, static)
        self._select_row(packed)
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            names, terms = step(static.frame)
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        torch.cuda.synchronize(self.device)
        known = self.known[_kind(packed)] = _KnownKind(static, names, terms)
        return known

    def _with_graph(self, packed: PackedFrame, known: _KnownKind) -> tuple[_KnownKind, torch.cuda.CUDAGraph]:
        """The kind of a frame and its graph, captured if there is none yet."""
        if known.graph is not None:
            return known, known.graph
        captured = [kind for kind, other in self.known.items() if other.graph is not None]
        if len(captured) >= MAX_GRAPHS:
            self.settle()
            self._drop(captured[0])
        if not captured:  # a graph's memory is of no use to steps outside graphs: all of those first
            for example in self.examples():
                if _kind(example) not in self.known:
                    self._without_graph(example, self._trial)
        try:
            return known, self._captured(known)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            if not self.keeps_features:
                raise
            logger.debug("capturing again without the photo's features: %s", error)
        self.keeps_features = False
        self.pool = torch.cuda.graph_pool_handle()
        known = self._without_graph(packed, self._trial)
        return known, self._captured(known)

    def _captured(self, known: _KnownKind) -> torch.cuda.CUDAGraph:
        torch.cuda.empty_cache()  # what a graph needs it allocates for itself
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
            self._step(known.static.frame, known.terms)
        known.graph = graph
        return graph


def is_possible(device: torch.device) -> bool:
    """Whether Triton compiles and runs here; if not, a warning says why steps will be plain."""
    try:
        from common.gpu.perceptual import _pooled
        from common.rasterizer import triton_backend  # noqa: F401 - importing it is slow

        ones = torch.ones(1, 8, 4, 4, device=device).contiguous(memory_format=torch.channels_last)
        if not bool((_pooled(ones) == 1).all()):
            raise RuntimeError("a test kernel gave a wrong result")
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a missing or broken compiler fails in many ways
        _warn(error)
        return False
    return True


def _warn(error: Exception) -> None:
    while error.__context__ is not None:  # what ended a capture comes before what its end says
        error = cast(Exception, error.__context__)
    reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
    logger.warning(
        "fast training steps do not work here (%s: %s); plain ones are used", type(error).__name__, reason
    )


def _kind(packed: PackedFrame) -> Kind:
    return packed.is_captured, packed.height, packed.width
