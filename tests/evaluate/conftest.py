"""Planted releases and the runs that learned from them, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from evaluate_settings import STEPS
from learning_runs import train
from planted_release import PlantedRelease, plant


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def planted(tmp_path_factory) -> Path:
    """A release that can be learned: 1,200 pictures, 16 labels."""
    return plant(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="session")
def natural_run(planted, tmp_path_factory) -> Path:
    """A run over the planted release, each image once an epoch."""
    return train(planted, tmp_path_factory.mktemp("natural"), STEPS)


@pytest.fixture(scope="session")
def permuted(tmp_path_factory) -> Path:
    """The same pictures with the labels dealt anew by chance."""
    return plant(tmp_path_factory.mktemp("permuted"), PlantedRelease(permuted=True))
