"""The processes of a run: torchrun's environment, process group, the few collectives we need."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.config.train import RunParams


@dataclass(frozen=True)
class World:
    """This process among the others.

    Attributes:
        rank: 0 <= rank < size.
        size: number of processes.
        device: where this process's model is.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sum of each value over all processes, in float64 on the CPU."""
        total = torch.tensor(values, dtype=torch.float64)
        if self.size > 1:
            dist.all_reduce(total)
        return [float(x) for x in total]

    def gather(self, value: Tensor) -> list[Tensor]:
        """A CPU tensor of every process, which has one shape in all of them."""
        if self.size == 1:
            return [value]
        parts = [torch.empty_like(value) for _ in range(self.size)]
        dist.all_gather(parts, value)
        return parts

    def barrier(self) -> None:
        """Wait for all processes."""
        self.sum([0.0])


@contextmanager
def connect(run: RunParams) -> Iterator[World]:
    """Join the group torchrun describes; without torchrun this is the only process.

    CPU tensors travel by gloo and CUDA tensors by nccl.

    Raises:
        ValueError: CUDA is asked for and there is none.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = choose_device(run.device, int(os.environ.get("LOCAL_RANK", "0")))
    if run.threads is not None:
        torch.set_num_threads(run.threads)
    if size == 1:
        yield World(rank, size, device)
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=run.timeout_seconds))
    try:
        yield World(rank, size, device)
    finally:
        dist.destroy_process_group()


def choose_device(wanted: str, local_rank: int) -> torch.device:
    """The device of a process."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError("run.device is 'cuda', torch sees no such device; expected auto or cpu.")
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device
