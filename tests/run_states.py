"""The last checkpoint of a run, and whether two are equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pipeline.files.storage import open_storage
from pipeline.train.checkpoint import list_checkpoints, load_checkpoint
from pipeline.train.release import open_release


def last_state(out: Path, release: Path) -> dict[str, Any]:
    """State in the newest checkpoint of the one run below a folder."""
    (folder,) = [p for p in out.iterdir() if p.is_dir()]
    storage = open_storage(f"{folder}/checkpoints")
    label_map = open_release(str(release)).label_map_sha256
    return load_checkpoint(storage, list_checkpoints(storage)[-1], label_map)


def same(a: object, b: object) -> bool:
    """Equal to the bit, through all containers."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    return a == b
