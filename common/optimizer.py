"""Adam over an avatar and the poses of its frames."""

from __future__ import annotations

from typing import Any

import torch


class PersonAdam(torch.optim.Adam):
    """torch's Adam, which in a step looks at the groups with gradients alone.

    Every frame has nine groups of its own, thousands in all, and a step is about one frame.
    """

    def step(self, closure: Any = None) -> Any:
        """One step; parameters without a gradient are left alone, moments included."""
        groups = self.param_groups
        self.param_groups = [
            group for group in groups if any(value.grad is not None for value in group["params"])
        ]
        try:
            return super().step(closure)
        finally:
            self.param_groups = groups
