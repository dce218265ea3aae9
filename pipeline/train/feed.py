"""Steps for the trainer; a process that cannot go on takes the others with it, at once."""

from __future__ import annotations

import time
from typing import NoReturn

import torch

from pipeline.train.batch import StepBatch
from pipeline.train.data import ShardDataset, build_loader
from pipeline.train.distributed import World

_MESSAGE_BYTES = 600


class LoaderError(Exception):
    """Some process could not load its share of a step; raised in every process."""


class Feed:
    """The steps of a process, agreed with the others before each is used.

    Without that a process whose storage fails would leave the others waiting in their next
    collective until it times out.

    Attributes:
        wait_seconds: the trainer waited for its own loader, in the last step.
    """

    def __init__(self, dataset: ShardDataset, world: World) -> None:
        """Start the loader."""
        self._batches = iter(build_loader(dataset))
        self._world = world
        self.wait_seconds = 0.0

    def next(self) -> StepBatch:
        """The next step; called by all processes.

        Raises:
            LoaderError: a process could not load it; says which and why.
        """
        asked = time.perf_counter()
        batch: StepBatch | None = None
        error: Exception | None = None
        try:
            batch = next(self._batches)
        except Exception as found:  # a loader process hands on whatever it met
            error = found
        self.wait_seconds = time.perf_counter() - asked
        (failed,) = self._world.sum([float(error is not None)])
        if failed:
            self._raise(error)
        assert batch is not None
        return batch

    def _raise(self, error: Exception | None) -> NoReturn:
        text = "" if error is None else f"rank {self._world.rank}: {_told(error)}"
        raw = text.encode()[:_MESSAGE_BYTES]
        mine = torch.zeros(_MESSAGE_BYTES, dtype=torch.uint8)
        mine[: len(raw)] = torch.tensor(list(raw), dtype=torch.uint8)
        told = [bytes(t.tolist()).rstrip(b"\0") for t in self._world.gather(mine)]
        reasons = [text.decode(errors="replace") for text in told if text]
        raise LoaderError(
            f"{len(reasons)} of {self._world.size} processes could not load the next step: "
            f"{'; '.join(reasons[:3])}. Mend it and start again: the run goes on from its newest "
            "checkpoint."
        ) from error


def _told(error: Exception) -> str:
    """Type and message; of an error in a loader process torch tells the whole traceback."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[-1]}"
