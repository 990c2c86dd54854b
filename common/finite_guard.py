"""NaN and infinity in losses and gradients: found with the frame, the term and the parameter that went wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.errors import UserError
from data.dataset import Frame
from data.packed_frame import PackedFrame

CHECK_EVERY = 50  # steps whose results wait on a GPU before the host looks at them
_SHOWN = 6

logger = logging.getLogger(__name__)

Losses = dict[str, Tensor]


@dataclass(frozen=True)
class _Step:
    """What was computed in a step; nothing of it has been looked at."""

    frame: str
    iteration: int
    terms: tuple[str, ...]
    parameters: tuple[str, ...]
    values: Tensor  # (terms + parameters,) the terms' values, then each gradient's largest magnitude


class FiniteGuard:
    """Looks at every step's terms and gradients before the update.

    On a CPU each step is looked at as it comes. On a GPU the results wait there, and the host looks at them
    together every CHECK_EVERY steps and before each save, so a step never waits for the check. A bad step
    stops the run with a UserError; with `skip` its update is left out, counted and reported instead (this
    looks at every step, on a GPU too).
    """

    def __init__(self, model: nn.Module, skip: bool = False, n_skipped: int = 0) -> None:
        self.model = model
        self.skip = skip
        self.n_skipped = n_skipped
        self.diagnose: Callable[[Frame], Losses] | None = None  # computes a frame's losses again
        self._waiting: list[_Step] = []
        self._parameters: list[tuple[str, nn.Parameter]] | None = None

    def accepts(self, frame: Frame | PackedFrame, iteration: int, terms: Losses) -> bool:
        """Whether to make this step's update; the gradients are in the parameters."""
        self._waiting.append(self._observe(frame, iteration, terms))
        is_immediate = self.skip or _is_on_host(self._waiting[-1].values)
        if not is_immediate and len(self._waiting) < CHECK_EVERY:
            return True
        steps, self._waiting = self._waiting, []
        bad = _first_bad(steps)
        if bad is None:
            return True
        text = self._describe(bad, frame if is_immediate else None)
        if not self.skip:
            raise UserError(
                f"{text}; look at this frame's files, or give --skip_bad_frames to leave such updates out"
            )
        self.n_skipped += 1
        logger.warning("%s; its update is left out (%d so far)", text, self.n_skipped)
        return False

    def check_before_saving(self, moments: Iterable[Tensor]) -> None:
        """UserError if a waiting step, a parameter or one of the optimiser's `moments` is not finite."""
        steps, self._waiting = self._waiting, []
        bad = _first_bad(steps)
        if bad is not None:
            raise UserError(f"{self._describe(bad, None)}; look at this frame's files")
        named = list(self.model.named_parameters())
        tensors = [parameter.detach() for _, parameter in named]
        moments = [value for value in moments if value.is_floating_point()]
        is_finite = _are_finite([*tensors, *moments]).tolist()
        names = [name for (name, _), good in zip(named, is_finite, strict=False) if not good]
        if names or not all(is_finite):
            what = _some(names) if names else "the optimiser's state"
            raise UserError(
                f"{what} became NaN or infinite in an update; lower the learning rates (--optim.lr)"
            )

    def _observe(self, frame: Frame | PackedFrame, iteration: int, terms: Losses) -> _Step:
        if self._parameters is None:
            self._parameters = list(self.model.named_parameters())
        grads = [(name, p.grad) for name, p in self._parameters if p.grad is not None]
        values = [torch.stack([value.detach().float() for value in terms.values()])]
        if grads:
            values.append(_largest([grad for _, grad in grads]))
        names = tuple(name for name, _ in grads)
        return _Step(frame.name, iteration, tuple(terms), names, torch.cat(values))

    def _describe(self, bad: _Step, frame: Frame | PackedFrame | None) -> str:
        """One line; with the frame at hand, the terms are computed again where only gradients are bad."""
        values = bad.values.tolist()
        wrong = [not torch.isfinite(torch.tensor(value)) for value in values]
        n = len(bad.terms)
        terms = [
            f"{name} is {value}"
            for name, value, is_wrong in zip(bad.terms, values, wrong, strict=False)
            if is_wrong
        ]
        parameters = [name for name, is_wrong in zip(bad.parameters, wrong[n:], strict=True) if is_wrong]
        if not terms and isinstance(frame, Frame) and self.diagnose is not None:
            terms = [f"{name} has no finite gradient" for name in self._terms_of(parameters, frame)]
        said = f"loss term {_some(terms)}" if terms else "all loss terms are finite"
        said += f"; the gradient of {_some(parameters)} is not finite" if parameters else ""
        if not bad.parameters:  # a step as a CUDA graph keeps its gradients to itself
            spoiled = [name for name, p in self.model.named_parameters() if not torch.isfinite(p).all()]
            said += (
                f"; {_some(spoiled)} became NaN or infinite, here or by the frame before" if spoiled else ""
            )
        return f"iteration {bad.iteration}, frame {bad.frame}: {said}"

    def _terms_of(self, names: list[str], frame: Frame) -> list[str]:
        """The terms whose own gradient on some parameters is not finite."""
        assert self.diagnose is not None
        wanted = [p for name, p in self.model.named_parameters() if name in names]
        found = []
        for name, term in self.diagnose(frame).items():
            if term.requires_grad:
                grads = torch.autograd.grad(term, wanted, retain_graph=True, allow_unused=True)
                if not _are_finite([grad for grad in grads if grad is not None]).all():
                    found.append(name)
        return found


def _is_on_host(values: Tensor) -> bool:
    return values.device.type == "cpu"


def _are_finite(tensors: list[Tensor]) -> Tensor:
    """One flag a tensor."""
    if not tensors:
        return torch.ones(0, dtype=torch.bool)
    device = tensors[0].device
    return torch.stack([torch.isfinite(tensor).all().to(device) for tensor in tensors])


def _largest(tensors: list[Tensor]) -> Tensor:
    """The largest magnitude in each tensor, NaN where there is one: a sum of squares could overflow."""
    return torch.stack(torch._foreach_norm(tensors, torch.inf)).float()


def _first_bad(steps: list[_Step]) -> _Step | None:
    """The first step with a value that is not finite; the host waits for the device here."""
    if not steps:
        return None
    is_good = _are_finite([step.values for step in steps]).tolist()
    return next((step for step, good in zip(steps, is_good, strict=True) if not good), None)


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest
