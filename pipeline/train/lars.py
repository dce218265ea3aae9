"""LARS: SGD with momentum whose rate adapts to each tensor's weight and gradient norm."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lars(Optimizer):
    """Layer-wise adaptive rate scaling.

    local = trust |w| / (|g| + wd |w|), or 1 when either norm is 0 or the group has adapt = False;
    u = local (g + wd w). With the rate inside the momentum (You et al.): v = m v + lr u, w -= v.
    Outside: v = m v + u, w -= lr v. The two differ after each change of the rate.

    Source: You et al., arXiv 1708.03888; SPEC A10.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 0.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        lr_inside_momentum: bool = True,
    ) -> None:
        """Groups may carry their own weight_decay and adapt (default True)."""
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust": trust,
            "lr_inside_momentum": lr_inside_momentum,
            "adapt": True,
        }
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)
        return loss

    def _update(self, weight: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        update = grad.add(weight, alpha=group["weight_decay"])
        if group["adapt"]:
            update = update * _local_rate(weight, grad, group["weight_decay"], group["trust"])
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        buffer = state["momentum_buffer"]
        inside = group["lr"] if group["lr_inside_momentum"] else 1.0
        buffer.mul_(group["momentum"]).add_(update, alpha=inside)
        weight.add_(buffer, alpha=-1.0 if group["lr_inside_momentum"] else -group["lr"])


def _local_rate(weight: Tensor, grad: Tensor, weight_decay: float, trust: float) -> Tensor:
    weight_norm, grad_norm = weight.norm(), grad.norm()
    rate = trust * weight_norm / (grad_norm + weight_decay * weight_norm)
    both = (weight_norm > 0) & (grad_norm > 0)
    return torch.where(both, rate, torch.ones_like(rate))
