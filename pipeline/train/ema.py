"""An exponential moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Ema:
    """Average of the weights after each update, started at the start weights.

    Attributes:
        weights: tensors by name as in the model's state; integers (counters) are the model's own.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start at the model's weights; ``decay`` in (0, 1) is what an update leaves of it."""
        self.decay = decay
        self.weights = {name: t.detach().clone() for name, t in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """average = decay x average + (1 - decay) x weights."""
        averages, values = [], []
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                averages.append(self.weights[name])
                values.append(value)
            else:
                self.weights[name].copy_(value)
        torch._foreach_lerp_(averages, values, 1 - self.decay)

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take over saved averages, cut as this one's are."""
        for name, own in self.weights.items():
            own.copy_(weights[name])
