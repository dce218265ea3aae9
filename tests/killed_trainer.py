"""Pretraining that meets a planted fault at a given place; for children of a fork server."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import NamedTuple

from pipeline.config.train import TrainParams
from pipeline.train.loop import RESUMABLE_EXIT_CODE, pretrain
from pipeline.train.trainer import Trainer


class Kill(NamedTuple):
    """Where a run dies.

    Attributes:
        update: updates made before the step at which it does.
        place: "before" or "after" that step, or "save": in the next checkpoint, between the
            temporary file and its rename.
    """

    update: int
    place: str


def train(params: str, release: str, out: str, kill: Kill | None) -> None:
    """Run to the end, or until the kill."""
    import torch

    torch.set_num_threads(1)
    if kill is not None:
        _arm(kill)
    pretrain(TrainParams.model_validate_json(params), release, out)


def _arm(kill: Kill) -> None:
    plain, rename = Trainer.step, Path.replace
    reached = []

    def step(self: Trainer, *args: object, **kwargs: object) -> object:
        if self.update == kill.update and kill.place == "before":
            _die()
        result = plain(self, *args, **kwargs)
        if self.update >= kill.update:
            reached.append(True)
            if kill.place == "after":
                _die()
        return result

    def replace(self: Path, target: Path) -> Path:
        if reached and "step-" in self.name:
            _die()
        return rename(self, target)

    Trainer.step, Path.replace = step, replace


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Fault(NamedTuple):
    """What one process of several meets.

    Attributes:
        rank: which.
        update: updates made before the step at which it does.
        kind: "sigterm" to it alone, "raise" an error in its step, or "full": its disk is, when it
            writes the next checkpoint.
    """

    rank: int
    update: int
    kind: str


def train_rank(
    rank: int, port: int, params: str, release: str, out: str, fault: Fault | None
) -> None:
    """One of two processes; ends as the job does, with what it raised in a file of its own."""
    import torch

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if fault is not None and fault.rank == rank:
        _plant(fault)
    try:
        done = pretrain(TrainParams.model_validate_json(params), release, out)
    except Exception as error:
        Path(out, f"rank-{rank}.txt").write_text(f"{type(error).__name__}: {error}")
        os._exit(1)  # as a process that must not wait for others
    sys.exit(0 if done.finished else RESUMABLE_EXIT_CODE)


def _plant(fault: Fault) -> None:
    plain, rename = Trainer.step, Path.replace

    def step(self: Trainer, *args: object, **kwargs: object) -> object:
        if self.update == fault.update and fault.kind == "sigterm":
            os.kill(os.getpid(), signal.SIGTERM)
        if self.update == fault.update and fault.kind == "raise":
            raise RuntimeError("planted in one process")
        return plain(self, *args, **kwargs)

    def replace(self: Path, target: Path) -> Path:
        if f"step-{fault.update:09d}" in self.name:
            raise OSError(28, "No space left on device", str(target))
        return rename(self, target)

    Trainer.step = step
    if fault.kind == "full":
        Path.replace = replace
