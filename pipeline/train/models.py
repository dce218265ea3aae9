"""Encoders from timm with a zero-initialised label head."""

from __future__ import annotations

from typing import Any, cast

import timm
import torch
from torch import nn

from pipeline.config.train import ModelParams

_SHAPE_ARGUMENTS = {
    "patch_size": "patch_size",
    "width": "embed_dim",
    "depth": "depth",
    "heads": "num_heads",
    "mlp_ratio": "mlp_ratio",
}


def model_arguments(params: ModelParams) -> dict[str, Any]:
    """Arguments of ``timm.create_model`` beside the name and the number of classes."""
    arguments: dict[str, Any] = {}
    if params.is_vision_transformer:
        arguments["img_size"] = params.image_size
        for field, argument in _SHAPE_ARGUMENTS.items():
            if getattr(params, field) is not None:
                arguments[argument] = getattr(params, field)
    if params.drop_path > 0:
        arguments["drop_path_rate"] = params.drop_path
    return arguments


def build_model(params: ModelParams, num_labels: int, seed: int) -> nn.Module:
    """Build an encoder whose head gives one logit per label.

    The head starts at zero, so that all logits are 0 and the loss starts at ln(num_labels).

    Args:
        params: name and shape.
        num_labels: width of the head, from the label map.
        seed: of the start weights. The global torch generator is left seeded by it.

    Raises:
        ValueError: timm does not know the name.
    """
    if not timm.is_model(params.name):
        raise ValueError(
            f"model.name = {params.name!r} is not a timm model; see timm.list_models()."
        )
    torch.manual_seed(seed)
    model = timm.create_model(
        params.name, pretrained=False, num_classes=num_labels, **model_arguments(params)
    )
    head = head_of(model)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return model


def head_of(model: nn.Module) -> nn.Linear:
    """The label head.

    Raises:
        TypeError: the model's head is not one linear layer with bias (SPEC A2).
    """
    head = cast(Any, model).get_classifier()
    if not isinstance(head, nn.Linear) or head.bias is None:
        raise TypeError(f"{type(model).__name__} has head {head}, expected one Linear with bias.")
    return head
