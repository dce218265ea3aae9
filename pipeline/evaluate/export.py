"""An exported model, ready to encode, with a random-weights twin beside it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from torch import nn

from pipeline.config.train import TrainParams
from pipeline.evaluate.preprocess import Preprocess, preprocess_of
from pipeline.files.storage import open_storage
from pipeline.train.checkpoint import load_export
from pipeline.train.distributed import World
from pipeline.train.models import build_model
from pipeline.train.release import Release, open_release


@dataclass(frozen=True)
class Export:
    """An exported model, ready to encode.

    Attributes:
        model: trained, in evaluation mode.
        random: the same architecture with the start weights of a seed.
        config: of the export.
        weights_sha256: of model.safetensors.
        preprocess: fixed by the export.
        train: the run's parameters.
    """

    model: nn.Module
    random: nn.Module
    config: dict[str, Any]
    weights_sha256: str
    preprocess: Preprocess
    train: TrainParams


def open_export(uri: str, seed: int, world: World) -> Export:
    """Load an export on this process's device.

    Args:
        uri: a folder of runs with CURRENT.json, or of an export with config.json.
        seed: of the random-weights encoder.
        world: this process.

    Raises:
        ValueError: see ``preprocess_of``.
        FileNotFoundError: no export there.
    """
    storage = open_storage(uri)
    if storage.exists("CURRENT.json"):
        storage = storage.child(f"{storage.read_json('CURRENT.json')['path']}/export")
    weights, config = load_export(storage)
    train = TrainParams.model_validate(config["train"])
    model, random = (build_model(train.model, config["num_classes"], seed) for _ in range(2))
    model.load_state_dict(weights)
    return Export(
        model=model.to(world.device).eval(),
        random=random.to(world.device).eval(),
        config=config,
        weights_sha256=hashlib.sha256(storage.read_bytes("model.safetensors")).hexdigest(),
        preprocess=preprocess_of(config, f"{storage.uri}/config.json"),
        train=train,
    )


def own_release(export: Export, uri: str) -> Release:
    """The release an export was trained on: of another one nothing is known to be held out.

    Raises:
        ValueError: it is another one.
    """
    release = open_release(uri)
    wanted = str(export.config["manifest_sha256"])
    if release.manifest_sha256 != wanted:
        raise ValueError(
            f"{release.storage.uri}: manifest {release.manifest_sha256[:12]}, the model was "
            f"trained on {wanted[:12]}. Give --release that one, or pretrain on this one."
        )
    return release
