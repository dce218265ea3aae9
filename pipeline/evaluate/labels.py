"""Ragged labels of images, how often each label occurs, and the bands this makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from pipeline.evaluate.retrieval import Neighbours

BANDS = ("all", "head", "middle", "tail")
"""Names of the bands; ``band_of`` numbers them from head = 1."""
_PRIOR_COUNT = 0.5
"""Added to each label's mass, so that a label never seen has a finite log."""


class Ragged(NamedTuple):
    """Labels of n images.

    Attributes:
        values: int64 (P,), label ids one image after the other, distinct within an image.
        offsets: int64 (n + 1,); image i has values[offsets[i]:offsets[i + 1]].
    """

    values: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Labels of each image, int64 (n,)."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> NDArray[np.int64]:
        """Image of each value, int64 (P,)."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.counts)

    def take(self, chosen: NDArray[np.int64]) -> Ragged:
        """Labels of some images, in the order asked for."""
        return to_ragged([self.values[self.offsets[i] : self.offsets[i + 1]] for i in chosen])

    def matrix(self, num_labels: int) -> csr_array:
        """Ones where an image has a label, float64 (n, num_labels)."""
        ones = np.ones(len(self.values))
        shape = (len(self.offsets) - 1, num_labels)
        return csr_array((ones, self.values, self.offsets), shape=shape)


def to_ragged(labels: Sequence[NDArray[np.integer]]) -> Ragged:
    """Labels given as one array an image."""
    counts = np.array([len(x) for x in labels], np.int64)
    values = np.concatenate([np.empty(0, np.int64), *labels]).astype(np.int64)
    return Ragged(values, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def label_counts(labels: Ragged, num_labels: int) -> NDArray[np.int64]:
    """Images with each label, int64 (num_labels,)."""
    return np.bincount(labels.values, minlength=num_labels).astype(np.int64)


def label_mass(labels: Ragged, num_labels: int) -> NDArray[np.float64]:
    """Mass of each label when every image spreads 1 over its labels, float64 (num_labels,)."""
    share = 1.0 / np.maximum(labels.counts, 1)
    weights = np.repeat(share, labels.counts)
    return np.asarray(np.bincount(labels.values, weights, num_labels), np.float64)


def prior_logits(mass: NDArray[np.float64]) -> NDArray[np.float32]:
    """Log of the constant prediction that is best for the multi-label softmax loss.

    Args:
        mass: float64 (C,), from ``label_mass``.

    Returns:
        float32 (C,), normalised up to rounding.
    """
    smoothed = mass + _PRIOR_COUNT
    return np.asarray(np.log(smoothed / smoothed.sum()), np.float32)


def band_of(counts: NDArray[np.integer], head_min: int, tail_max: int) -> NDArray[np.int8]:
    """Band of each label by the images it was trained with.

    Args:
        counts: int (C,).
        head_min: head has at least so many.
        tail_max: tail has at most so many.

    Returns:
        int8 (C,): 1 head, 2 middle, 3 tail.

    Raises:
        ValueError: the bands overlap.

    Source: Liu et al. 2019 (ImageNet-LT): many-, medium- and few-shot classes.
    """
    if tail_max >= head_min:
        raise ValueError(f"bands: tail_max = {tail_max}, expected less than head_min = {head_min}.")
    bands = np.where(counts >= head_min, 1, np.where(counts <= tail_max, 3, 2))
    return bands.astype(np.int8)


def rarest_label(labels: Ragged, counts: NDArray[np.integer]) -> NDArray[np.int64]:
    """The label of each image with the fewest images, the least id of equals; -1 without labels."""
    out = np.full(len(labels.offsets) - 1, -1, np.int64)
    order = np.lexsort((labels.values, counts[labels.values], labels.rows))
    filled = np.flatnonzero(labels.counts)
    out[filled] = labels.values[order[labels.offsets[filled]]]
    return out


def share_label(
    found: Neighbours, queries: Ragged, index: Ragged, num_labels: int
) -> NDArray[np.bool_]:
    """Whether each result has a label in common with its query, bool (q, k)."""
    rows, ranks = np.nonzero(found.positions >= 0)
    left = queries.matrix(num_labels)[rows]
    right = index.matrix(num_labels)[found.positions[rows, ranks]]
    relevant = np.zeros(found.positions.shape, np.bool_)
    relevant[rows, ranks] = np.asarray(left.multiply(right).sum(axis=1)).ravel() > 0
    return relevant
