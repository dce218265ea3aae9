"""What a run tells: JSON lines, TensorBoard, and one line a window on the terminal."""

from __future__ import annotations

import json
import logging
import resource
import time
from collections import deque
from typing import Any, NamedTuple

import torch

from pipeline.files.storage import Storage
from pipeline.train.batch import StepBatch
from pipeline.train.distributed import World
from pipeline.train.events import event
from pipeline.train.flops import utilisation
from pipeline.train.trainer import StepCounts, Trainer

logger = logging.getLogger(__name__)

FILE = "log.jsonl"
FAILURES_SHOWN = 20
MAX_IDLE_STEPS = 100
_KIB_PER_MIB = 1024


class RunLog:
    """The files of a run's log; only the main process writes.

    A resumed run drops the lines after the step it resumes from, so the file always reads as one
    uninterrupted run.
    """

    def __init__(self, folder: Storage, world: World, update: int, tensorboard: bool) -> None:
        """Open the log of a run that has made ``update`` updates."""
        self._folder, self._enabled = folder, world.is_main
        self._lines: list[str] = []
        self._board: Any = None
        if not self._enabled:
            return
        if folder.exists(FILE):
            old = folder.read_bytes(FILE).decode().splitlines()
            self._lines = [x for x in old if json.loads(x).get("step", 0) <= update]
        self.flush()
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            self._board = SummaryWriter(folder.path("tensorboard"), purge_step=update + 1)

    def write(self, step: int, record: dict[str, Any]) -> None:
        """Add a line; numbers go to TensorBoard as well."""
        if not self._enabled:
            return
        self._lines.append(json.dumps({"step": step, **record}))
        for name, value in record.items():
            if self._board is not None and isinstance(value, int | float):
                self._board.add_scalar(f"train/{name}", value, step)

    def flush(self) -> None:
        """Make the lines so far readable by others."""
        if self._enabled:
            text = "".join(line + "\n" for line in self._lines)
            self._folder.write_bytes_atomic(FILE, text.encode())
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Flush and let go of the files."""
        self.flush()
        if self._board is not None:
            self._board.close()


class Work(NamedTuple):
    """What MFU is made of: operations to train on one image, and a device's peak a second."""

    flops_per_image: int
    peak: float


class Window:
    """Counts over the steps of one log line, and the corrupt images of a longer stretch."""

    def __init__(
        self, world: World, total: int, corrupt_window: int, work: Work | None = None
    ) -> None:
        """``total`` is the update at which the run ends; without ``work`` no MFU is told."""
        self._world, self._total, self._work = world, total, work
        self._corrupt: deque[int] = deque(maxlen=corrupt_window)
        self._failures_left = FAILURES_SHOWN
        self._idle_steps = 0
        self._reset()

    def _reset(self) -> None:
        self._images = self._labelled = self._steps = self._skipped = self._bad = 0
        self._wait = 0.0
        self._began = time.perf_counter()

    def add(self, batch: StepBatch, counts: StepCounts, wait_seconds: float) -> None:
        """Count one step."""
        self._steps += 1
        self._images += counts.images
        self._labelled += counts.labelled
        self._bad += counts.corrupt
        self._skipped += int(not counts.updated)
        self._idle_steps = 0 if counts.updated else self._idle_steps + 1
        self._wait += wait_seconds
        self._corrupt.append(counts.corrupt)
        for failure in (f for m in batch.micro for f in m.failures):
            if self._failures_left > 0:
                self._failures_left -= 1
                fields = {"rank": self._world.rank, "sample": failure}
                event(logger, "corrupt_sample", logging.WARNING, **fields)

    def check(self, limit: float, global_batch: int) -> None:
        """Stop all processes together when the run cannot go on usefully.

        The counts are global, so every process decides the same.

        Raises:
            ValueError: more than ``limit`` of a full window of images cannot be read, or the
                weights have not changed for MAX_IDLE_STEPS steps.
        """
        if self._idle_steps >= MAX_IDLE_STEPS:
            raise ValueError(
                f"{self._idle_steps} steps without an update: no image had a label, or every "
                f"gradient overflowed. Check the release's labels; use precision bf16 or fp32."
            )
        allowed = limit * global_batch * (self._corrupt.maxlen or 1)
        if sum(self._corrupt) > allowed:
            raise ValueError(
                f"{sum(self._corrupt)} images of the last {len(self._corrupt)} steps could not be "
                f"read, allowed {allowed:.0f} in {self._corrupt.maxlen} (data.max_corrupt_rate = "
                f"{limit}). The keys are in the log; check the shards against the manifest."
            )

    def close(self, trainer: Trainer, lr: float) -> dict[str, Any]:
        """Sum up the window over all processes and start the next one.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        seconds = time.perf_counter() - self._began
        local = [float(trainer.loss_total), float(trainer.floor_total), self._wait]
        loss_sum, floor_sum, wait = self._world.sum(local)
        trainer.loss_total.zero_()
        trainer.floor_total.zero_()
        loss = loss_sum / max(self._labelled, 1)
        if not torch.isfinite(torch.tensor(loss)):
            raise FloatingPointError(
                f"loss is {loss} at step {trainer.update}; lower optimizer.lr or use bf16 or fp32."
            )
        left = (self._total - trainer.update) * seconds / self._steps
        record = {
            "epoch": trainer.position.epoch,
            "loss": loss,
            "excess_loss": loss - floor_sum / max(self._labelled, 1),
            "lr": lr,
            "grad_norm": float(trainer.grad_norm),
            "images_per_second": self._images / seconds,
            "images_per_second_per_device": self._images / seconds / self._world.size,
            "data_wait_percent": 100 * wait / (seconds * self._world.size),
            "corrupt_images": self._bad,
            "skipped_steps": self._skipped,
            "images_shown": trainer.images_shown,
            "memory_mib": memory_mib(self._world),
            "seconds_left": left,
        }
        if self._work is not None:
            rate, devices = record["images_per_second"], self._world.size
            record["mfu"] = utilisation(rate, self._work.flops_per_image, devices, self._work.peak)
        self._reset()
        return record


def memory_mib(world: World) -> float:
    """Highest memory use of this process so far: device memory on CUDA, resident set on CPU."""
    if world.device.type == "cuda":
        return torch.cuda.max_memory_allocated(world.device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB_PER_MIB


def show(step: int, total: int, record: dict[str, Any]) -> None:
    """One line for the terminal."""
    event(
        logger,
        "step",
        step=f"{step}/{total}",
        loss=round(record["loss"], 4),
        excess=round(record["excess_loss"], 4),
        lr=record["lr"],
        images_per_second=round(record["images_per_second"]),
        data_wait=f"{record['data_wait_percent']:.0f}%",
        corrupt=record["corrupt_images"],
        skipped=record["skipped_steps"],
        left=duration(record["seconds_left"]),
    )


def duration(seconds: float) -> str:
    """A duration as 1d02h, 2h05m, 3m07s or 12s."""
    minutes, s = divmod(round(max(seconds, 0)), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days}d{h:02d}h"
    if hours:
        return f"{h}h{m:02d}m"
    return f"{m}m{s:02d}s" if minutes else f"{s}s"
