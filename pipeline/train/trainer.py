"""One training step, and everything a checkpoint must hold to repeat the next one."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from pipeline.config.train import TrainParams
from pipeline.train.batch import Batch, Position, StepBatch
from pipeline.train.distributed import World
from pipeline.train.ema import Ema
from pipeline.train.events import event
from pipeline.train.generators import random_state, set_random_state
from pipeline.train.loss import Labels, LossSum, loss_sum
from pipeline.train.models import build_model, load_weights
from pipeline.train.optim import build_optimizer, set_lr
from pipeline.train.parallel import (
    check_parallel,
    cut_optimizer_state,
    cut_weights,
    parallelise,
    synchronise,
    whole,
    whole_tree,
)

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


class StartWeights(NamedTuple):
    """Weights of an earlier run by parameter name, and whether its head fits these labels."""

    weights: Mapping[str, Tensor]
    keep_head: bool


class Trainer:
    """Model, optimiser, loss scaler, average and position: the whole state of a run.

    Attributes:
        model: the encoder with its head, not wrapped.
        dtype: of the forward pass.
        optimizer: its rate is set by ``step``.
        ema: average of the weights, or None.
        update: updates made; the schedule's clock.
        position: next step of the loader.
        images_shown: images of all steps so far, over all processes.
        loss_total: scalar float64 on the device, this process's loss sum since it was last reset.
        floor_total: the same for the least possible loss.
        grad_norm: scalar, L2 norm of the last step's gradient before clipping.
        recent: float64 (3,) on the device: this process's loss sum, least loss and labelled images
            since ``judge``.
        best_excess: least mean excess loss that ``judge`` has seen.
        best_update: updates made when it was.
    """

    def __init__(
        self,
        params: TrainParams,
        num_labels: int,
        world: World,
        start: StartWeights | None = None,
    ) -> None:
        """Build a run's start state; equal in all processes.

        Raises:
            ValueError: start weights do not fit, or the processes cannot do what is asked.
        """
        self.params, self.world = params, world
        self.dtype = autocast_dtype(params.precision, world.device)
        check_parallel(params, world, self.dtype)
        self._memory_format = (
            torch.channels_last if params.model.channels_last else torch.contiguous_format
        )
        model = build_model(params.model, num_labels, params.seed)
        if start is not None:
            load_weights(model, start.weights, start.keep_head)
        if params.run.activation_checkpointing:
            cast(Any, model).set_grad_checkpointing(True)
        if params.run.compile is not None:
            model.compile(backend=params.run.compile)
        self.model = cast(Any, model).to(device=world.device, memory_format=self._memory_format)
        self._parallel = parallelise(self.model, params.run.parallel, world, self.dtype)
        self._settle_buckets()
        self.optimizer = build_optimizer(self.model, params.optimizer)
        decay = params.optimizer.ema_decay
        self.ema = None if decay is None else Ema(self.model, decay)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=self.dtype == torch.float16)
        self.update, self.position, self.images_shown = 0, Position(), 0
        self.loss_total = torch.zeros((), dtype=torch.float64, device=world.device)
        self.floor_total = torch.zeros_like(self.loss_total)
        self.grad_norm = torch.zeros((), device=world.device)
        self.recent = torch.zeros(3, dtype=torch.float64, device=world.device)
        self.best_excess, self.best_update = math.inf, 0
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
            with synchronise(self._parallel, last=i == len(batch.micro) - 1):
                self._backward(micro)
        counts = self._count(batch, stop)
        updated = counts.labelled > 0 and self._apply(counts.labelled, lr)
        self.optimizer.zero_grad(set_to_none=True)
        if updated and self.ema is not None:
            self.ema.update(self.model)
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
        enabled = self.dtype != torch.float32
        with torch.autocast(device.type, dtype=self.dtype, enabled=enabled):
            logits = self._parallel(x)
        return loss_sum(self.params.loss, logits, labels)

    def _backward(self, micro: Batch) -> None:
        result = self.forward_loss(micro)
        # DDP averages over processes: the factor makes it a sum.
        scale = self.world.size / self.params.data.global_batch
        torch.autograd.backward(self.scaler.scale(result.loss * scale))
        loss, labelled = result.loss.detach(), _labelled(micro)
        self.loss_total += loss
        self.floor_total += result.floor
        self.recent += torch.stack([loss.double(), result.floor.double(), labelled.to(loss.device)])

    def _count(self, batch: StepBatch, stop: bool) -> StepCounts:
        local = [
            float(sum(len(m.keys) for m in batch.micro)),
            float(sum(_labelled(m) for m in batch.micro)),
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
        norm = torch.nn.utils.get_total_norm(gradients)
        self.grad_norm = whole(norm)
        if self.params.optimizer.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(
                self.model.parameters(), self.params.optimizer.clip_norm, norm
            )
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self.scaler.get_scale() >= before

    def judge(self) -> None:
        """Compare the mean excess loss since the last call with the best so far."""
        loss, floor, labelled = self.world.sum(self.recent.tolist())
        self.recent.zero_()
        excess = (loss - floor) / labelled if labelled else math.inf
        if excess < self.best_excess:
            self.best_excess, self.best_update = excess, self.update

    def weights(self) -> dict[str, Tensor]:
        """Whole weights by name, the average where one is kept; called by all processes."""
        source = self.model.state_dict() if self.ema is None else self.ema.weights
        return {name: whole(tensor) for name, tensor in source.items()}

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers; called by all processes, whose parts it gathers."""
        return {
            "model": whole_tree(self.model.state_dict()),
            "optimizer": whole_tree(self.optimizer.state_dict()),
            "ema": None if self.ema is None else whole_tree(self.ema.weights),
            "scaler": self.scaler.state_dict(),
            "update": self.update,
            "epoch": self.position.epoch,
            "step": self.position.step,
            "images_shown": self.images_shown,
            "world_size": self.world.size,
            "random_states": self.world.gather(random_state(self.world.device)),
            "recent": self.world.gather(self.recent.cpu()),
            "best_excess": self.best_excess,
            "best_update": self.best_update,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken.

        At another number of processes the samples and rates that follow are the same; only draws
        inside the model (drop path) start from new streams. DDP and FSDP read each other's states.
        """
        self.model.load_state_dict(cut_weights(state["model"], self.model))
        self.optimizer.load_state_dict(cut_optimizer_state(state["optimizer"], self.optimizer))
        if self.ema is not None:
            self.ema.load(cut_weights(state["ema"], self.model))
        self.scaler.load_state_dict(state["scaler"])
        self.update = int(state["update"])
        self.position = Position(int(state["epoch"]), int(state["step"]))
        self.images_shown = int(state["images_shown"])
        self.best_excess = float(state["best_excess"])
        self.best_update = int(state["best_update"])
        states, recent = state["random_states"], state["recent"]
        if len(recent) == self.world.size:
            self.recent.copy_(recent[self.world.rank])
        elif self.world.is_main:
            self.recent.copy_(torch.stack(recent).sum(0))
        if len(states) == self.world.size and len(states[0]) == len(
            random_state(self.world.device)
        ):
            set_random_state(states[self.world.rank], self.world.device)
            return
        torch.manual_seed(self.params.seed + 1 + self.world.rank + 1_000_003 * self.update)
        event(logger, "new_random_streams", processes_before=len(states), processes=self.world.size)


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Type of the forward pass; float32 means no autocast.

    Source: SPEC A11.
    """
    if precision == "auto":
        if device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _labelled(micro: Batch) -> Tensor:
    """Images of a micro-batch with at least one label, int64 scalar on the CPU."""
    return (micro.label_offsets.diff() > 0).sum()
