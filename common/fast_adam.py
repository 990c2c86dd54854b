"""Adam for CUDA graphs: fused over the avatar, and on one row of the poses; states in the layout of torch's Adam."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from common.pose_table import ROW_COLUMNS, ROW_WIDTH, STORED_SHAPES, PoseTable


def _places(optimizer: torch.optim.Optimizer) -> dict[int, int]:
    """Index of every parameter in the optimiser's state dict, by the parameter's id."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {id(parameter): place for place, parameter in enumerate(parameters)}


class AvatarAdam:
    """torch's fused Adam over the avatar's parameters; learning rates and step counts live on the device."""

    def __init__(
        self, optimizer: torch.optim.Adam, groups: Sequence[dict[str, Any]], base_lr: dict[str, float]
    ) -> None:
        self.parameters: list[nn.Parameter] = []
        self.places, all_places = [], _places(optimizer)
        self.moments: list[tuple[Tensor, Tensor]] = []
        self.steps: list[Tensor] = []
        self.rate_of: list[float] = []  # base rate of each parameter
        for group in groups:
            for parameter in group["params"]:
                if parameter.requires_grad:
                    self.parameters.append(parameter)
                    self.places.append(all_places[id(parameter)])
                    self.rate_of.append(base_lr[group["name"]])
                    self._add_state(optimizer.state.get(parameter, {}), parameter)
        self.rates = {
            rate: torch.zeros((), device=p.device)
            for rate, p in zip(self.rate_of, self.parameters, strict=True)
        }
        defaults = optimizer.defaults
        self.betas, self.eps = defaults["betas"], defaults["eps"]

    def _add_state(self, state: dict[str, Tensor], parameter: nn.Parameter) -> None:
        first, second = (
            state[name].detach().clone() if name in state else torch.zeros_like(parameter.detach())
            for name in ("exp_avg", "exp_avg_sq")
        )
        self.moments.append((first, second))
        step = float(state["step"]) if "step" in state else 0.0
        self.steps.append(torch.tensor(step, dtype=torch.float32, device=parameter.device))

    def set_rates(self, factor: float) -> None:
        """Learning rates for the steps to come."""
        for rate, tensor in self.rates.items():
            tensor.fill_(rate * factor)

    def step(self, grads: Sequence[Tensor | None], is_left_out: Tensor) -> None:
        """Update the parameters that have gradients, unless `is_left_out` (1,) is 1."""
        for rate, lr in self.rates.items():
            used = [i for i, g in enumerate(grads) if g is not None and self.rate_of[i] == rate]
            if not used:
                continue
            steps = [self.steps[i] for i in used]
            torch._foreach_add_(steps, 1.0)
            torch._fused_adam_(
                [self.parameters[i].detach() for i in used],
                [_dense(grads[i], self.parameters[i]) for i in used],
                [self.moments[i][0] for i in used],
                [self.moments[i][1] for i in used],
                [],
                steps,
                lr=lr,
                beta1=self.betas[0],
                beta2=self.betas[1],
                weight_decay=0.0,
                eps=self.eps,
                amsgrad=False,
                maximize=False,
                grad_scale=None,
                found_inf=is_left_out,
            )
            torch._foreach_sub_(steps, [is_left_out.squeeze(0)] * len(steps))

    def state(self) -> dict[int, dict[str, Tensor]]:
        """torch's state of every parameter that was ever updated, by its place in the state dict."""
        counts = torch.stack(self.steps).cpu() if self.steps else torch.zeros(0)
        return {
            place: {"step": count.clone(), "exp_avg": first, "exp_avg_sq": second}
            for place, count, (first, second) in zip(self.places, counts, self.moments, strict=True)
            if count > 0
        }


def _dense(gradient: Tensor | None, parameter: Tensor) -> Tensor:
    assert gradient is not None
    return gradient if gradient.stride() == parameter.stride() else gradient.contiguous()


class PoseAdam:
    """Adam on one row of a pose table; the moments and step counts of the other rows stay as they are."""

    def __init__(
        self, optimizer: torch.optim.Adam, table: PoseTable, rows: Tensor, base_lr: dict[str, float]
    ) -> None:
        self.rows = rows
        self.keys = list(table.named_frames())
        self.betas, self.eps = optimizer.defaults["betas"], optimizer.defaults["eps"]
        self.base_rates = torch.zeros(ROW_WIDTH)
        self.column_group = torch.zeros(ROW_WIDTH, dtype=torch.int64, device=rows.device)
        first, second = torch.zeros(2, *rows.shape).unbind(0)
        steps = torch.zeros(len(rows), len(ROW_COLUMNS), dtype=torch.float64)
        places, self.places = _places(optimizer), []
        for i, key in enumerate(self.keys):
            for j, (name, parameter) in enumerate(table.stored(*key).items()):
                self.places.append(places[id(parameter)])
                state = optimizer.state.get(parameter)
                if state:
                    first[i, ROW_COLUMNS[name]] = state["exp_avg"].detach().reshape(-1).cpu()
                    second[i, ROW_COLUMNS[name]] = state["exp_avg_sq"].detach().reshape(-1).cpu()
                    steps[i, j] = float(state["step"])
        for j, (name, columns) in enumerate(ROW_COLUMNS.items()):
            self.column_group[columns] = j
            if self.keys:
                self.base_rates[columns] = base_lr["smplx_param_{}_{}_{}".format(name, *self.keys[0])]
        self.first, self.second, self.steps = (t.to(rows.device) for t in (first, second, steps))
        self.base_rates = self.base_rates.to(rows.device)
        self.rates = self.base_rates.clone()

    def set_rates(self, factor: float) -> None:
        """Learning rates for the steps to come."""
        torch.mul(self.base_rates, factor, out=self.rates)

    def step(self, index: Tensor, gradient: Tensor, is_left_out: Tensor) -> None:
        """Update the row at `index` (1,) by its gradient (ROW_WIDTH,), unless `is_left_out` (1,) is 1."""
        beta1, beta2 = self.betas
        is_kept = (is_left_out == 0).to(torch.float64)
        first, second, row, steps = (
            tensor.index_select(0, index).squeeze(0)
            for tensor in (self.first, self.second, self.rows, self.steps)
        )
        steps = steps + 1
        new_first = torch.lerp(first, gradient, 1 - beta1)
        new_second = second * beta2 + (1 - beta2) * gradient.square()
        correction1, correction2 = (
            (1 - beta**steps).index_select(0, self.column_group) for beta in self.betas
        )
        denominator = new_second.sqrt() / correction2.sqrt().float() + self.eps
        new_row = row - (self.rates / correction1).float() * (new_first / denominator)
        is_row = is_kept > 0
        for tensor, new, old in (
            (self.first, new_first, first),
            (self.second, new_second, second),
            (self.rows, new_row, row),
        ):
            tensor.index_copy_(0, index, torch.where(is_row, new, old)[None])
        self.steps.index_copy_(0, index, (steps - 1 + is_kept)[None])

    def state(self) -> dict[int, dict[str, Tensor]]:
        """torch's state of every parameter that was ever updated, by its place in the state dict."""
        first, second, steps = self.first.cpu(), self.second.cpu(), self.steps.float().cpu()
        places = iter(self.places)
        result = {}
        for i in range(len(self.keys)):
            for j, (name, columns) in enumerate(ROW_COLUMNS.items()):
                place = next(places)
                if steps[i, j] > 0:
                    result[place] = {
                        "step": steps[i, j].clone(),
                        "exp_avg": first[i, columns].view(STORED_SHAPES[name]).clone(),
                        "exp_avg_sq": second[i, columns].view(STORED_SHAPES[name]).clone(),
                    }
        return result
