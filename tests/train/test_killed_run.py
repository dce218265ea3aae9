"""SIGKILL at random steps and inside a save: the end is the uninterrupted run's, to the bit.

FAULT_KILLS sets how many; a run is killed up to three times on its way before it may finish.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from killed_trainer import Kill, train

from pipeline.config.train import TrainParams
from pipeline.files.storage import open_storage
from pipeline.train.checkpoint import list_checkpoints, load_checkpoint
from pipeline.train.release import open_release

KILLS = int(os.environ.get("FAULT_KILLS", "1"))
KILLS_A_RUN = min(KILLS, 3)
UPDATES = 10


@pytest.fixture(scope="module")
def children():
    """Children of a process that has torch loaded and has never used it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.train.loop"])
    return context


def run(children, *arguments: object) -> int:
    child = children.Process(target=train, args=arguments)
    child.start()
    child.join()
    return child.exitcode


def last_state(out: Path, release: Path) -> dict:
    (folder,) = [p for p in out.iterdir() if p.is_dir()]
    storage = open_storage(f"{folder}/checkpoints")
    label_map = open_release(str(release)).label_map_sha256
    return load_checkpoint(storage, list_checkpoints(storage)[-1], label_map)


def same(a: object, b: object) -> bool:
    """Equal to the bit, through all containers."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_killed_runs_end_as_if_never_killed(children, release_root, make_params, tmp_path):
    params = make_params(optimizer={"ema_decay": 0.9}, run={"checkpoint_every": 2})
    assert TrainParams.model_validate_json(params.model_dump_json()) == params
    given = (params.model_dump_json(), str(release_root))
    assert run(children, *given, str(tmp_path / "whole"), None) == 0
    expected = last_state(tmp_path / "whole", release_root)
    rng = np.random.default_rng(7)
    for number in range(-(-KILLS // KILLS_A_RUN)):
        out = tmp_path / f"run-{number}"
        for update in sorted(rng.integers(0, UPDATES, KILLS_A_RUN).tolist()):
            kill = Kill(update, str(rng.choice(["before", "after", "save"])))
            assert run(children, *given, str(out), kill) == -signal.SIGKILL, kill
        assert run(children, *given, str(out), None) == 0
        assert same(last_state(out, release_root), expected)
        assert not list(out.glob("*/checkpoints/.step-*"))
