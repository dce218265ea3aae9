"""One model over several processes: whole in each (DDP), or cut over them (FSDP2)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.resnetv2 import PreActBottleneck
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from pipeline.config.train import TrainParams
from pipeline.train.distributed import World

_BLOCKS = (Block, BasicBlock, Bottleneck, PreActBottleneck)
"""What FSDP gathers at once; anything outside them is gathered with the whole model."""


def check_parallel(params: TrainParams, world: World, dtype: torch.dtype) -> None:
    """Refuse what several processes cannot do.

    Raises:
        ValueError: naming all of it.
    """
    problems = []
    if params.run.parallel == "fsdp" and dtype == torch.float16:
        problems.append(
            "run.parallel = fsdp with fp16: a loss scaler would see the overflow of its own part "
            "only; expected precision bf16 or fp32"
        )
    if params.model.sync_batch_norm and world.size > 1 and world.device.type != "cuda":
        problems.append(
            f"model.sync_batch_norm = true on {world.device.type} with {world.size} processes; "
            "torch has it for CUDA only"
        )
    if problems:
        raise ValueError("; ".join(problems) + ".")


def parallelise(model: nn.Module, kind: str, world: World, dtype: torch.dtype) -> nn.Module:
    """The module to call in place of the model.

    Args:
        model: equal in all processes; with "fsdp" its parameters become parts.
        kind: "ddp" or "fsdp"; with one process neither does anything.
        world: the processes.
        dtype: of the forward pass.
    """
    if world.size == 1:
        return model
    if kind == "fsdp":
        return _sharded(model, world, dtype)
    devices = [world.device.index] if world.device.type == "cuda" else None
    # The stride of a dimension of size 1 (class token) means nothing, but DDP warns of it.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)


def _sharded(model: nn.Module, world: World, dtype: torch.dtype) -> nn.Module:
    mesh = init_device_mesh(world.device.type, (world.size,))
    policy = MixedPrecisionPolicy()
    if dtype == torch.bfloat16:
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for block in [m for m in model.modules() if isinstance(m, _BLOCKS)]:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    return model


def synchronise(module: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Context of a backward pass, whose gradients cross processes only after the last one."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)
    elif isinstance(module, DistributedDataParallel) and not last:
        return cast(AbstractContextManager[None], module.no_sync())
    return nullcontext()


def whole(tensor: Tensor) -> Tensor:
    """A tensor in one piece: parts are gathered to the CPU of every process, others stay."""
    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor


def whole_tree(tree: Any) -> Any:
    """Dictionaries and lists with every tensor in one piece; called by all processes."""
    if isinstance(tree, Mapping):
        return {key: whole_tree(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [whole_tree(value) for value in tree]
    return whole(tree) if isinstance(tree, Tensor) else tree


def cut_like(tensor: Tensor, own: Tensor) -> Tensor:
    """A whole tensor cut over the processes as ``own`` is."""
    if not isinstance(own, DTensor):
        return tensor
    return distribute_tensor(tensor.to(own.device), own.device_mesh, own.placements)


def cut_weights(weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Whole weights cut as the model's are."""
    own = model.state_dict()
    return {name: cut_like(tensor, own[name]) for name, tensor in weights.items()}


def cut_optimizer_state(state: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """An optimiser's whole state with each per-weight tensor cut as the weight is."""
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    entries = {
        i: {k: cut_like(v, weights[i]) if _is_of(v, weights[i]) else v for k, v in entry.items()}
        for i, entry in state["state"].items()
    }
    return {**state, "state": entries}


def _is_of(value: object, weight: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == weight.shape
