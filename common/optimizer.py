"""Adam over an avatar and the poses of its frames."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch

# torch wraps these so that its compiler leaves them alone, and importing the compiler takes 3 s: unwrapped.
_adam_step = inspect.unwrap(torch.optim.Adam.step)
_add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
_zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)


class PersonAdam(torch.optim.Adam):
    """torch's Adam, which in a step looks at the groups with gradients alone.

    Every frame has nine groups of its own, thousands in all, and a step is about one frame.
    """

    def __init__(self, params: Iterable[Any], **options: Any) -> None:
        """As torch's."""
        self._grouped: set[torch.Tensor] = set()
        super().__init__(params, **options)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as in torch, which compares it with all parameters of all groups: minutes for thousands."""
        groups, self.param_groups = self.param_groups, []
        try:
            _add_param_group(self, param_group)
            (added,) = self.param_groups
        finally:
            self.param_groups = groups
        if not self._grouped.isdisjoint(added["params"]):
            raise ValueError("some parameters appear in more than one parameter group")
        self._grouped.update(added["params"])
        groups.append(added)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, as in torch."""
        _zero_grad(self, set_to_none)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; parameters without a gradient are left alone, moments included."""
        groups = self.param_groups
        self.param_groups = [
            group for group in groups if any(value.grad is not None for value in group["params"])
        ]
        try:
            return _adam_step(self, closure)
        finally:
            self.param_groups = groups
