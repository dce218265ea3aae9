"""Features of a set of images, the same bits on any number of processes.

Batches are fixed by the order of the set: batch j belongs to process j mod world, and the last one
is padded to full size, so every image meets the same products wherever it is computed. Padding is
cut off before anything is counted.

Source: SPEC D14.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.evaluate.preprocess import Preprocess
from pipeline.evaluate.sets import ImageSet
from pipeline.train.distributed import World
from pipeline.train.events import event
from pipeline.train.models import head_of
from pipeline.train.release import CorruptSampleError

logger = logging.getLogger(__name__)

FAILURES_SHOWN = 20
Tell = Callable[[int, int], None]


class Features(NamedTuple):
    """Features of the images of a set that could be read.

    Attributes:
        rows: int64 (m,), their places in the set, ascending.
        vectors: one float32 (m, d) for each encoder.
        num_corrupt: images that could not be read.
    """

    rows: NDArray[np.int64]
    vectors: list[NDArray[np.float32]]
    num_corrupt: int


def extract(
    encoders: Sequence[nn.Module],
    images: ImageSet,
    preprocess: Preprocess,
    batch: int,
    world: World,
    tell: Tell,
    max_corrupt_rate: float,
) -> Features:
    """Features of all images, on every process.

    Args:
        encoders: timm models on the process's device; each image is decoded once for all.
        images: the set.
        preprocess: of the models.
        batch: images at once.
        world: this process among the others.
        tell: called with batches done and batches in all.
        max_corrupt_rate: share of images that may be unreadable.

    Raises:
        ValueError: more images cannot be read.
    """
    num_batches = -(-len(images.ids) // batch)
    slots = -(-num_batches // world.size)
    parts: list[list[Tensor]] = [[] for _ in encoders]
    valid = torch.zeros((slots, batch), dtype=torch.bool)
    failures: list[str] = []
    for slot in range(slots):
        number = slot * world.size + world.rank
        rows = range(number * batch, min((number + 1) * batch, len(images.ids)))
        pixels = _load(images, rows, preprocess, batch, valid[slot], failures)
        x = preprocess.normalise(pixels.to(world.device))
        for part, encoder in zip(parts, encoders, strict=True):
            part.append(encode(encoder, x))
        tell(min((slot + 1) * world.size, num_batches), num_batches)
    for failure in failures[:FAILURES_SHOWN]:
        event(logger, "corrupt_sample", logging.WARNING, set=images.name, sample=failure)
    is_valid = _in_order(world.gather(valid))[: len(images.ids)]
    found = np.flatnonzero(is_valid.numpy())
    _check_corrupt(images, len(found), max_corrupt_rate)
    vectors = [_in_order(world.gather(torch.stack(part))).numpy()[found] for part in parts]
    return Features(found, vectors, len(images.ids) - len(found))


def encode(encoder: nn.Module, x: Tensor) -> Tensor:
    """Pooled features in front of the head, float32 (B, d) on the CPU.

    Args:
        encoder: a timm model in evaluation mode.
        x: normalised float32 (B, 3, S, S).
    """
    model = cast(Any, encoder)
    with torch.inference_mode():
        pooled = model.forward_head(model.forward_features(x), pre_logits=True)
    return cast(Tensor, pooled.float().cpu())


def head_arrays(model: nn.Module) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight (num_labels, d) and bias (num_labels,) of the label head, which read ``encode``."""
    head = cast(Any, head_of(model))
    weight, bias = (x.detach().float().cpu().numpy() for x in (head.weight, head.bias))
    return weight.reshape(len(bias), -1), bias


def _load(
    images: ImageSet,
    rows: range,
    preprocess: Preprocess,
    batch: int,
    valid: Tensor,
    failures: list[str],
) -> Tensor:
    pixels = torch.zeros((batch, 3, preprocess.size, preprocess.size), dtype=torch.uint8)
    for place, row in enumerate(rows):
        try:
            file = images.read(row)
            pixels[place] = preprocess.load(file.data, file.suffix)
        except CorruptSampleError as error:
            failures.append(f"{images.ids[row]}: {error}")
            continue
        valid[place] = True
    return pixels


def _in_order(parts: list[Tensor]) -> Tensor:
    """Rows of all processes in the order of the set: (slots, batch, ...) each, to (n, ...)."""
    return torch.stack(parts, dim=1).flatten(0, 2)


def _check_corrupt(images: ImageSet, num_found: int, limit: float) -> None:
    num = len(images.ids)
    if num - num_found > limit * num or num_found == 0:
        raise ValueError(
            f"{images.name}: {num - num_found} of {num} images cannot be read, allowed {limit:.1%} "
            "(data.max_corrupt_rate of the training). The first are in the log above."
        )
