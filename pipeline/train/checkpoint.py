"""Checkpoints: whole or absent, tied to their label map, loaded without pickle's code."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from pipeline.files.storage import Storage
from pipeline.train.events import event

logger = logging.getLogger(__name__)

FORMAT = 2
WEIGHTS = "model.safetensors"
"""File name of exported weights."""
_NAME = re.compile(r"step-(\d{9})\.pt")


class CheckpointMismatchError(ValueError):
    """A sound checkpoint that belongs to other labels or another format."""


def checkpoint_name(update: int) -> str:
    """File name of the checkpoint after so many updates."""
    return f"step-{update:09d}.pt"


def list_checkpoints(folder: Storage) -> list[str]:
    """Names of the complete checkpoints, oldest first."""
    return [name for name in folder.list() if _NAME.fullmatch(name)]


def save_checkpoint(
    folder: Storage, state: Mapping[str, Any], update: int, keep: int, best: int | None = None
) -> str:
    """Write a checkpoint under a temporary name, rename it, then drop the oldest ones.

    A kill at any instant leaves the previous checkpoint or the new one.

    Args:
        folder: where checkpoints are.
        state: tensors and plain containers only.
        update: updates made.
        keep: newest checkpoints to keep.
        best: updates of one more checkpoint to keep.

    Returns:
        The file's name.
    """
    name = checkpoint_name(update)
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    folder.write_bytes_atomic(name, buffer.getvalue())
    for old in list_checkpoints(folder)[:-keep]:
        if best is None or old != checkpoint_name(best):
            folder.remove(old)
    return name


def load_checkpoint(folder: Storage, name: str, label_map_sha256: str) -> dict[str, Any]:
    """Read a checkpoint to the CPU.

    Raises:
        CheckpointMismatchError: it belongs to another label map or format.
    """
    data = io.BytesIO(folder.read_bytes(name))
    state: dict[str, Any] = torch.load(data, map_location="cpu", weights_only=True)
    where = f"{folder.uri}/{name}"
    if state["format"] != FORMAT:
        raise CheckpointMismatchError(f"{where}: format {state['format']}, expected {FORMAT}.")
    if state["label_map_sha256"] != label_map_sha256:
        raise CheckpointMismatchError(
            f"{where}: trained with label map {state['label_map_sha256'][:12]}, the release has "
            f"{label_map_sha256[:12]}. Its head does not fit these labels: train anew."
        )
    return state


def load_latest(folder: Storage, label_map_sha256: str) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None when there is none.

    Raises:
        CheckpointMismatchError: the newest readable one belongs to another label map or format.
    """
    for name in reversed(list_checkpoints(folder)):
        try:
            return load_checkpoint(folder, name, label_map_sha256)
        except CheckpointMismatchError:
            raise
        except Exception as error:  # torch.load raises several kinds on damaged bytes
            event(
                logger,
                "checkpoint_unreadable",
                logging.WARNING,
                file=f"{folder.uri}/{name}",
                error=repr(error),
                action="try_previous",
            )
    return None


def clear_checkpoints(folder: Storage) -> None:
    """Remove all checkpoints, and what an interrupted write left behind."""
    for name in folder.list():
        if _NAME.fullmatch(name) or is_leftover(name):
            folder.remove(name)


def remove_leftovers(folder: Storage) -> None:
    """Remove what interrupted writes left behind."""
    for name in filter(is_leftover, folder.list()):
        folder.remove(name)


def is_leftover(name: str) -> bool:
    """Whether a name is the temporary one of a checkpoint that was never finished."""
    return name.startswith(".step-") and name.endswith(".tmp")


def export_model(
    folder: Storage, weights: Mapping[str, Tensor], config: Mapping[str, Any], label_map: bytes
) -> None:
    """Write the trained weights for evaluation: model.safetensors, label_map.json, config.json.

    config.json comes last: where it is, the others are.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    folder.write_bytes_atomic(WEIGHTS, safetensors.torch.save(plain))
    folder.write_bytes_atomic("label_map.json", label_map)
    folder.write_bytes_atomic("config.json", json.dumps(config, indent=1).encode())


def load_export(folder: Storage) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights by parameter name and the configuration, as ``export_model`` wrote them."""
    config: dict[str, Any] = folder.read_json("config.json")
    return safetensors.torch.load(folder.read_bytes(WEIGHTS)), config


def code_version() -> str:
    """Hash of the trainer's own source, the same from a folder and from a zip."""
    digest = hashlib.sha256()
    files = (f for f in resources.files("pipeline.train").iterdir() if f.name.endswith(".py"))
    for file in sorted(files, key=lambda f: f.name):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
