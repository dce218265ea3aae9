"""Encoders from timm with a zero-initialised label head."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import timm
import torch
from timm.layers.norm_act import convert_sync_batchnorm
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.layers.std_conv import StdConv2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.config.train import ModelParams

WEIGHT_STANDARDISATION_EPS = 1e-10
"""Added to a filter's variance; timm has 1e-8 (Source: google-research/big_transfer; SPEC E1)."""
POSITION_EMBEDDING = "pos_embed"
_SHAPE_ARGUMENTS = {
    "patch_size": "patch_size",
    "width": "embed_dim",
    "depth": "depth",
    "heads": "num_heads",
}


def model_arguments(params: ModelParams) -> dict[str, Any]:
    """Arguments of ``timm.create_model`` beside the name and the number of classes."""
    arguments: dict[str, Any] = {}
    if params.is_vision_transformer:
        arguments["img_size"] = params.image_size
        for field, argument in _SHAPE_ARGUMENTS.items():
            if getattr(params, field) is not None:
                arguments[argument] = getattr(params, field)
        if params.mlp_width is not None and params.width is not None:
            # timm cuts width x ratio down to an integer: half a unit more is safe from rounding.
            arguments["mlp_ratio"] = (params.mlp_width + 0.5) / params.width
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
        ValueError: timm does not know the name, or has no batch norm to synchronise in it.
    """
    if not timm.is_model(params.name):
        raise ValueError(
            f"model.name = {params.name!r} is not a timm model; see timm.list_models()."
        )
    torch.manual_seed(seed)
    model: nn.Module = timm.create_model(
        params.name, pretrained=False, num_classes=num_labels, **model_arguments(params)
    )
    head = head_of(model)
    nn.init.zeros_(head.weight)
    assert head.bias is not None
    nn.init.zeros_(head.bias)
    for module in model.modules():
        if isinstance(module, StdConv2d):
            module.eps = WEIGHT_STANDARDISATION_EPS
    return _synchronised(model, params.name) if params.sync_batch_norm else model


def _synchronised(model: nn.Module, name: str) -> nn.Module:
    if not any(isinstance(m, _BatchNorm) for m in model.modules()):
        raise ValueError(f"model.sync_batch_norm = true, but {name} has no batch norm.")
    return cast(nn.Module, cast(Any, convert_sync_batchnorm)(model))


def head_of(model: nn.Module) -> nn.Linear | nn.Conv2d:
    """The label head: a linear layer, in ResNet-v2 written as a 1 x 1 convolution.

    Raises:
        TypeError: the model's head is not one linear layer with bias (SPEC A2).
    """
    head = cast(Any, model).get_classifier()
    linear = isinstance(head, nn.Linear) or (
        isinstance(head, nn.Conv2d) and head.kernel_size == (1, 1)
    )
    if not linear or head.bias is None:
        raise TypeError(f"{type(model).__name__} has head {head}, expected one Linear with bias.")
    return cast(nn.Linear | nn.Conv2d, head)


def head_names(model: nn.Module) -> set[str]:
    """Names of the head's weight and bias in the model's state."""
    head = {id(p) for p in head_of(model).parameters()}
    return {name for name, p in model.named_parameters() if id(p) in head}


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], keep_head: bool) -> None:
    """Load an earlier run's weights into a model of another resolution or other labels.

    Args:
        model: gets the weights.
        weights: by parameter name, as an export holds them. The position embedding is resampled
            to the model's grid, class token untouched.
        keep_head: load the head as well; else the model's own stays.

    Raises:
        ValueError: names or shapes do not fit, all of them told.
    """
    own = model.state_dict()
    skipped = set() if keep_head else head_names(model)
    given = {name: tensor for name, tensor in weights.items() if name not in skipped}
    if POSITION_EMBEDDING in given and POSITION_EMBEDDING in own:
        given[POSITION_EMBEDDING] = _on_grid_of(model, given[POSITION_EMBEDDING])
    wanted = {n: tuple(t.shape) for n, t in own.items() if n not in skipped}
    found = {n: tuple(t.shape) for n, t in given.items()}
    if wanted != found:
        names = sorted(n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n))
        problems = [f"{n}: found {found.get(n)}, expected {wanted.get(n)}" for n in names[:10]]
        raise ValueError(f"start weights, {len(names)} do not fit: {'; '.join(problems)}.")
    model.load_state_dict(given, strict=False)


def _on_grid_of(model: nn.Module, embedding: Tensor) -> Tensor:
    prefix = int(cast(Any, model).num_prefix_tokens)
    grid = cast(Any, model).patch_embed.grid_size
    side = math.isqrt(embedding.shape[1] - prefix)
    return cast(
        Tensor,
        resample_abs_pos_embed(embedding, list(grid), [side, side], prefix, "bicubic", True),
    )
