"""One training step, and everything a checkpoint must hold to repeat the next one."""

from __future__ import annotations

import logging
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.config.train import TrainParams
from pipeline.train.batch import Batch, Position, StepBatch
from pipeline.train.distributed import World
from pipeline.train.events import event
from pipeline.train.loss import Labels, LossSum, loss_sum
from pipeline.train.models import build_model
from pipeline.train.optim import build_optimizer, set_lr

logger = logging.getLogger(__name__)


class StepCounts(NamedTuple):
    """What happened in one step, over all processes.

    Attributes:
        images: images asked for.
        labelled: images read that have at least one label; what the loss averages over.
        corrupt: images that could not be read.
        stop: processes that were asked to stop.
        updated: whether the weights changed.
    """

    images: int
    labelled: int
    corrupt: int
    stop: int
    updated: bool


class Trainer:
    """Model, optimiser, loss scaler and position: the whole state of a run.

    Attributes:
        model: the encoder with its head, not wrapped.
        optimizer: its rate is set by ``step``.
        update: updates made; the schedule's clock.
        position: next step of the loader.
        images_shown: images of all steps so far, over all processes.
        loss_total: scalar float64 on the device, this process's loss sum since it was last reset.
        floor_total: the same for the least possible loss.
        grad_norm: scalar, L2 norm of the last step's gradient before clipping.
    """

    def __init__(self, params: TrainParams, num_labels: int, world: World) -> None:
        """Build a run's start state; equal in all processes."""
        self.params, self.world = params, world
        self._memory_format = (
            torch.channels_last if params.model.channels_last else torch.contiguous_format
        )
        model = build_model(params.model, num_labels, params.seed)
        self.model = cast(Any, model).to(device=world.device, memory_format=self._memory_format)
        self._parallel = _wrap(self.model, world)
        self._settle_buckets()
        self.optimizer = build_optimizer(self.model, params.optimizer)
        self._dtype = autocast_dtype(params.precision, world.device)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=self._dtype == torch.float16)
        self.update, self.position, self.images_shown = 0, Position(), 0
        self.loss_total = torch.zeros((), dtype=torch.float64, device=world.device)
        self.floor_total = torch.zeros_like(self.loss_total)
        self.grad_norm = torch.zeros((), device=world.device)
        shape = (1, 3, 1, 1)
        self._mean = 255 * torch.tensor(params.data.mean, device=world.device).view(shape)
        self._std = 255 * torch.tensor(params.data.std, device=world.device).view(shape)
        # One stream per process for drop path and the like; the start weights are shared.
        torch.manual_seed(params.seed + 1 + world.rank)

    def _settle_buckets(self) -> None:
        """Run one empty backward pass, after which DDP keeps its gradient buckets.

        DDP orders its buckets anew after the first backward pass, and with three or more processes
        the order decides how sums are rounded. Without this pass the first step of a resumed run
        would round otherwise than the same step of the uninterrupted run.
        """
        if not isinstance(self._parallel, DistributedDataParallel):
            return
        size = self.params.model.image_size
        image = torch.zeros((1, 3, size, size), device=self.world.device)
        self._parallel.eval()  # no running statistics change
        torch.autograd.backward(self._parallel(image).sum())
        self.model.zero_grad(set_to_none=True)

    def step(self, batch: StepBatch, lr: float, stop: bool = False) -> StepCounts:
        """Show one global batch and update the weights.

        The gradient is that of the mean loss over the labelled images of the global batch, however
        it is spread over processes and micro-batches. Sums are scaled by 1 / global_batch before
        the backward pass and corrected by global_batch / labelled after it, so no process has to
        know the others' counts in advance.

        Args:
            batch: this process's share.
            lr: learning rate of this update.
            stop: whether this process was asked to stop; travels with the counts.
        """
        self._parallel.train()
        for i, micro in enumerate(batch.micro):
            last = i == len(batch.micro) - 1
            with nullcontext() if last else self._no_sync():
                self._backward(micro)
        counts = self._count(batch, stop)
        updated = counts.labelled > 0 and self._apply(counts.labelled, lr)
        self.optimizer.zero_grad(set_to_none=True)
        self.update += int(updated)
        self.position = batch.after
        self.images_shown += counts.images
        return counts._replace(updated=updated)

    def forward_loss(self, micro: Batch) -> LossSum:
        """Loss sum of a micro-batch, reduced in float32."""
        device = self.world.device
        images = micro.images.to(device, non_blocking=True)
        x = (images.float() - self._mean) / self._std
        x = x.contiguous(memory_format=self._memory_format)
        labels = Labels(
            micro.label_values.to(device, non_blocking=True),
            micro.label_offsets.to(device, non_blocking=True),
        )
        enabled = self._dtype != torch.float32
        with torch.autocast(device.type, dtype=self._dtype, enabled=enabled):
            logits = self._parallel(x)
        return loss_sum(self.params.loss, logits, labels)

    def _backward(self, micro: Batch) -> None:
        result = self.forward_loss(micro)
        # DDP averages over processes: the factor makes it a sum.
        scale = self.world.size / self.params.data.global_batch
        torch.autograd.backward(self.scaler.scale(result.loss * scale))
        self.loss_total += result.loss.detach()
        self.floor_total += result.floor

    def _count(self, batch: StepBatch, stop: bool) -> StepCounts:
        local = [
            float(sum(len(m.keys) for m in batch.micro)),
            float(sum(int((m.label_offsets.diff() > 0).sum()) for m in batch.micro)),
            float(sum(len(m.failures) for m in batch.micro)),
            float(stop),
        ]
        images, labelled, corrupt, stops = (int(x) for x in self.world.sum(local))
        return StepCounts(images, labelled, corrupt, stops, False)

    def _apply(self, labelled: int, lr: float) -> bool:
        """Correct, clip and apply the gradient; False when the scaler skipped the update."""
        set_lr(self.optimizer, lr)
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if labelled != self.params.data.global_batch:
            torch._foreach_mul_(gradients, self.params.data.global_batch / labelled)
        self.grad_norm = torch.nn.utils.get_total_norm(gradients)
        if self.params.optimizer.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(
                self.model.parameters(), self.params.optimizer.clip_norm, self.grad_norm
            )
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self.scaler.get_scale() >= before

    def _no_sync(self) -> AbstractContextManager[None]:
        if isinstance(self._parallel, DistributedDataParallel):
            return cast(AbstractContextManager[None], self._parallel.no_sync())
        return nullcontext()

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers; called by all processes, whose random states it gathers."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "update": self.update,
            "epoch": self.position.epoch,
            "step": self.position.step,
            "images_shown": self.images_shown,
            "world_size": self.world.size,
            "random_states": self.world.gather(self._random_state()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken.

        At another number of processes the samples and rates that follow are the same; only draws
        inside the model (drop path) start from new streams.
        """
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.update = int(state["update"])
        self.position = Position(int(state["epoch"]), int(state["step"]))
        self.images_shown = int(state["images_shown"])
        states = state["random_states"]
        if len(states) == self.world.size and len(states[0]) == len(self._random_state()):
            self._set_random_state(states[self.world.rank])
            return
        torch.manual_seed(self.params.seed + 1 + self.world.rank + 1_000_003 * self.update)
        event(logger, "new_random_streams", processes_before=len(states), processes=self.world.size)

    def _random_state(self) -> Tensor:
        """uint8, torch's CPU generator followed by this process's CUDA generator, if any."""
        parts = [torch.get_rng_state()]
        if self.world.device.type == "cuda":
            parts.append(torch.cuda.get_rng_state(self.world.device))
        return torch.cat(parts)

    def _set_random_state(self, state: Tensor) -> None:
        size = len(torch.get_rng_state())
        torch.set_rng_state(state[:size])
        if self.world.device.type == "cuda":
            torch.cuda.set_rng_state(state[size:], self.world.device)


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Type of the forward pass; float32 means no autocast.

    Source: SPEC A11.
    """
    if precision == "auto":
        if device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _wrap(model: nn.Module, world: World) -> nn.Module:
    if world.size == 1:
        return model
    devices = [world.device.index] if world.device.type == "cuda" else None
    # The stride of a dimension of size 1 (class token) means nothing, but DDP warns of it.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)
