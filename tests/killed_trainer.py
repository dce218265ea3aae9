"""A pretraining run that ends itself by SIGKILL at a given place; for children of a fork server."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import NamedTuple

from pipeline.config.train import TrainParams
from pipeline.train.loop import pretrain
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
