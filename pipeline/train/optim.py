"""Parameter groups and the choice of the optimiser."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from pipeline.config.train import OptimizerParams
from pipeline.train.lars import Lars


def decays(name: str, parameter: torch.Tensor, no_decay: tuple[str, ...]) -> bool:
    """Whether a parameter is decayed: not 1-D, and not named in ``no_decay``."""
    return parameter.ndim > 1 and name.rsplit(".", 1)[-1] not in no_decay


def parameter_groups(model: nn.Module, params: OptimizerParams) -> list[dict[str, Any]]:
    """Every trained parameter in exactly one of two groups, decayed and not.

    LARS does not adapt the rate of the second group (SPEC A9 iii).
    """
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    decayed = [p for n, p in named if decays(n, p, params.no_decay)]
    rest = [p for n, p in named if not decays(n, p, params.no_decay)]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": params.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    if params.name == "lars":
        for group, adapt in zip(groups, (True, False), strict=True):
            group["adapt"] = adapt
    return groups


def build_optimizer(model: nn.Module, params: OptimizerParams) -> Optimizer:
    """The optimiser; its rate is set before each update by ``set_lr``."""
    groups = parameter_groups(model, params)
    if params.name == "lars":
        return Lars(
            groups,
            momentum=params.momentum,
            trust=params.trust,
            lr_inside_momentum=params.lr_inside_momentum,
        )
    if params.name == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=params.momentum)
    return torch.optim.AdamW(groups, lr=0.0, betas=params.betas, eps=params.eps)


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Set the rate of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr
