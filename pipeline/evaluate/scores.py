"""Logits of a set of images, a block of rows or columns at a time.

At 18,000 labels the logits of 100,000 images take 7 GB; a linear head gives any block of them from
features, so no metric needs them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Scores(Protocol):
    """Logits of n images by C labels."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n, C)."""
        ...

    def rows(self, start: int, stop: int) -> Floats:
        """Logits of some images, float32 (stop - start, C)."""
        ...

    def columns(self, start: int, stop: int) -> Floats:
        """Logits of some labels, float32 (n, stop - start)."""
        ...


@dataclass(frozen=True)
class DenseScores:
    """Logits that are all there, float32 (n, C)."""

    logits: Floats

    @property
    def shape(self) -> tuple[int, int]:
        """(n, C)."""
        return (self.logits.shape[0], self.logits.shape[1])

    def rows(self, start: int, stop: int) -> Floats:
        """Logits of some images."""
        return self.logits[start:stop]

    def columns(self, start: int, stop: int) -> Floats:
        """Logits of some labels."""
        return self.logits[:, start:stop]


@dataclass(frozen=True)
class LinearScores:
    """Logits of a linear head.

    Attributes:
        features: float32 (n, d).
        weight: float32 (C, d).
        bias: float32 (C,).
    """

    features: Floats
    weight: Floats
    bias: Floats

    @property
    def shape(self) -> tuple[int, int]:
        """(n, C)."""
        return (len(self.features), len(self.weight))

    def rows(self, start: int, stop: int) -> Floats:
        """Logits of some images."""
        return self.features[start:stop] @ self.weight.T + self.bias

    def columns(self, start: int, stop: int) -> Floats:
        """Logits of some labels."""
        return self.features @ self.weight[start:stop].T + self.bias[start:stop]


@dataclass(frozen=True)
class PriorScores:
    """The same logits for every image: what is known without looking.

    Attributes:
        logits: float32 (C,).
        num: images.
    """

    logits: Floats
    num: int

    @property
    def shape(self) -> tuple[int, int]:
        """(n, C)."""
        return (self.num, len(self.logits))

    def rows(self, start: int, stop: int) -> Floats:
        """Logits of some images."""
        return np.tile(self.logits, (min(stop, self.num) - start, 1))

    def columns(self, start: int, stop: int) -> Floats:
        """Logits of some labels."""
        return np.tile(self.logits[start:stop], (self.num, 1))
