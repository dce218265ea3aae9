"""Checkpoints: whole or absent, kept in number, tied to the label map."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path

import pytest
import torch

from pipeline.files.storage import open_storage
from pipeline.train.checkpoint import (
    CheckpointMismatchError,
    code_version,
    export_model,
    list_checkpoints,
    load_checkpoint,
    load_export,
    load_latest,
    remove_leftovers,
    save_checkpoint,
)


def state(value: float = 1.0, size: int = 10) -> dict:
    return {"model": {"w": torch.full((size,), value)}, "label_map_sha256": "a" * 64}


def test_round_trip_and_retention(tmp_path):
    folder = open_storage(str(tmp_path))
    assert load_latest(folder, "a" * 64) is None
    for update in (1, 2, 10):
        save_checkpoint(folder, state(update), update, keep=2)
    assert list_checkpoints(folder) == ["step-000000002.pt", "step-000000010.pt"]
    assert float(load_latest(folder, "a" * 64)["model"]["w"][0]) == 10


def test_the_best_one_is_kept_beside_the_newest(tmp_path):
    folder = open_storage(str(tmp_path))
    for update, best in ((1, 1), (2, 2), (3, 2), (4, 2)):
        save_checkpoint(folder, state(update), update, keep=1, best=best)
    assert list_checkpoints(folder) == ["step-000000002.pt", "step-000000004.pt"]


def test_other_label_map_is_refused(tmp_path):
    folder = open_storage(str(tmp_path))
    save_checkpoint(folder, state(), 1, keep=1)
    with pytest.raises(CheckpointMismatchError, match="label map aaaaaaaaaaaa"):
        load_latest(folder, "b" * 64)


def test_damaged_checkpoint_falls_back(tmp_path):
    folder = open_storage(str(tmp_path))
    for update in (1, 2):
        save_checkpoint(folder, state(update), update, keep=5)
    newest = tmp_path / "step-000000002.pt"
    newest.write_bytes(newest.read_bytes()[:300])
    assert float(load_latest(folder, "a" * 64)["model"]["w"][0]) == 1


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path}/boom",))

    torch.save({"format": 1, "x": Bomb()}, tmp_path / "step-000000001.pt")
    with pytest.raises(pickle.UnpicklingError):
        load_checkpoint(open_storage(str(tmp_path)), "step-000000001.pt", "a" * 64)
    assert not (tmp_path / "boom").exists()


def test_failed_write_leaves_the_old_one(tmp_path, monkeypatch):
    folder = open_storage(str(tmp_path))
    save_checkpoint(folder, state(1), 1, keep=1)

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", no_space)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(folder, state(2), 2, keep=1)
    assert float(load_latest(folder, "a" * 64)["model"]["w"][0]) == 1


def save_for_ever(path: str) -> None:
    folder = open_storage(path)
    for update in range(1, 10_000):
        save_checkpoint(folder, state(update, size=300_000), update, keep=2)


@pytest.mark.parametrize("attempt", range(5))
def test_kill_at_any_instant_leaves_a_loadable_checkpoint(tmp_path, attempt):
    child = multiprocessing.get_context("fork").Process(target=save_for_ever, args=(str(tmp_path),))
    child.start()
    folder = open_storage(str(tmp_path))
    while not list_checkpoints(folder):
        time.sleep(0.005)
    time.sleep(0.013 * attempt)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    names = list_checkpoints(folder)
    loaded = load_checkpoint(folder, names[-1], "a" * 64)
    assert (loaded["model"]["w"] == int(names[-1][5:14])).all()
    remove_leftovers(folder)
    assert folder.list() == names


def test_export_round_trip(tmp_path):
    folder = open_storage(str(tmp_path))
    weights = {"w": torch.arange(6.0).reshape(2, 3).t()}
    export_model(folder, weights, {"num_classes": 3}, b"{}")
    got, config = load_export(folder)
    assert torch.equal(got["w"], weights["w"])
    assert config == json.loads((tmp_path / "config.json").read_text()) == {"num_classes": 3}


def test_code_version_is_a_hash():
    assert len(code_version()) == 64
