"""What a loader hands to the trainer."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Position(NamedTuple):
    """A place in the stream of steps; the next step to show."""

    epoch: int = 0
    step: int = 0


class Batch(NamedTuple):
    """Images that go through the model together.

    Attributes:
        images: uint8 (B, 3, S, S), channels last in memory, black where not valid.
        label_values: int64 (P,), label ids of all images one after the other.
        label_offsets: int64 (B + 1,), image i has label_values[label_offsets[i]:...[i + 1]]; an
            image that is not valid has none, so no loss counts it.
        valid: bool (B,), whether the image could be read.
        keys: B sample keys; ``<shard>#<row>`` where the shard's index could not be read.
        failures: what was wrong, one line per image that is not valid.
    """

    images: Tensor
    label_values: Tensor
    label_offsets: Tensor
    valid: Tensor
    keys: list[str]
    failures: list[str]


class StepBatch(NamedTuple):
    """One process's share of a step, in micro-batches; ``after`` is the position that follows."""

    position: Position
    after: Position
    micro: list[Batch]
