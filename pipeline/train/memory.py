"""Memory of one process without running it: weights, optimiser state, activations."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pipeline.config.train import TrainParams
from pipeline.train.models import build_model
from pipeline.train.optim import build_optimizer

_FLOAT_BYTES = 4
_ESTIMATED_BYTES = 34
_KEPT_BYTES = 2
"""Of the 34, what checkpointing keeps: the input of the block in 16 bits."""
_STATES = {"adamw": 2, "lars": 1, "sgd": 1}


class Memory(NamedTuple):
    """Bytes of one process.

    Attributes:
        parameters: float32 weights.
        gradients: float32.
        optimizer: float32 averages or momenta.
        average: of the weights, if one is kept.
        estimated: activations by 34 x tokens x width x blocks for each image; None for models that
            are not vision transformers.
        traced: peak of one step, weights and all, traced on tensors without data; None where that
            cannot be.
    """

    parameters: int
    gradients: int
    optimizer: int
    average: int
    estimated: int | None
    traced: int | None

    @property
    def state(self) -> int:
        """What stays from step to step, and the gradients."""
        return self.parameters + self.gradients + self.optimizer + self.average


def memory_of(params: TrainParams, num_labels: int, micro_batch: int, processes: int) -> Memory:
    """Memory of one process.

    Args:
        params: the recipe.
        num_labels: width of the head.
        micro_batch: images at once.
        processes: with run.parallel = fsdp what is kept is cut over them, and nothing is traced.
    """
    with torch.device("meta"):
        model = build_model(params.model, num_labels, seed=0)
    sharded = params.run.parallel == "fsdp"
    weights = _FLOAT_BYTES * sum(p.numel() for p in model.parameters())
    if sharded:
        weights = -(-weights // processes)
    return Memory(
        parameters=weights,
        gradients=weights,
        optimizer=weights * _STATES[params.optimizer.name],
        average=0 if params.optimizer.ema_decay is None else weights,
        estimated=estimate_activations(model, params, micro_batch),
        traced=None if sharded else trace_step(model, params, micro_batch),
    )


def estimate_activations(model: nn.Module, params: TrainParams, micro_batch: int) -> int | None:
    """Activations of the blocks of a vision transformer in 16 bits, None for other models.

    Source: 34 bytes a token, width and block with fused attention (Korthikanti et al. 2022,
    arXiv 2205.05198, equation 2 without its attention term).
    """
    if not params.model.is_vision_transformer:
        return None
    vit = cast(Any, model)
    tokens = vit.patch_embed.num_patches + vit.num_prefix_tokens
    block = int(tokens * vit.embed_dim * micro_batch)
    if params.run.activation_checkpointing:
        return block * (_KEPT_BYTES * len(vit.blocks) + _ESTIMATED_BYTES)
    return block * _ESTIMATED_BYTES * len(vit.blocks)


def trace_step(model: nn.Module, params: TrainParams, micro_batch: int) -> int | None:
    """Peak bytes of a step in bfloat16, followed through torch's CPU operators without data.

    Operators of other devices keep other tensors, so this is a guide, not a measurement. The
    tracker is not public; None says that this torch has none.

    Args:
        model: on the meta device; afterwards it is of no use.
        params: the recipe.
        micro_batch: images at once.
    """
    try:
        from torch.distributed._tools.mem_tracker import MemTracker
    except ImportError:
        return None
    size = params.model.image_size
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        if params.run.activation_checkpointing:
            cast(Any, model).set_grad_checkpointing(True)
        optimizer = build_optimizer(model, params.optimizer)
        tracker = MemTracker()
        tracker.track_external(model, optimizer)
        with tracker:
            images = torch.empty(micro_batch, 3, size, size)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(images)
            torch.autograd.backward(torch.logsumexp(logits.float(), dim=1).sum())
            optimizer.step()
            peaks = tracker.get_tracker_snapshot("peak")
    return max(int(snapshot["Total"]) for snapshot in peaks.values())
