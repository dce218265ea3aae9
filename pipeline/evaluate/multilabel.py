"""Multi-label metrics by label-frequency band, as sums over images that can be resampled.

Every figure is a ratio of two sums over images, so an interval needs no second pass:

- precision@k in a band: of the first k predictions that name a label of the band, those that are
  right. Undefined where no prediction names one.
- recall@k in a band: of the images' labels in the band, those among the first k predictions.
- excess in a band: mean of -ln p(label) - ln k_i over the images' labels in the band, each with
  weight 1 / k_i. Over all labels this is the loss of SPEC A3 less its floor, and the bands' parts
  sum to it. Softmax over all labels.

Predictions are ranked by logit, ties by label id. Images without labels are left out.

Source: SPEC A4; Mahajan et al. 2018 for the target.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from pipeline.evaluate.bootstrap import Counts
from pipeline.evaluate.labels import BANDS, Ragged
from pipeline.evaluate.scores import Scores

ROW_BLOCK = 1024
"""Images ranked at once: 72 MB of logits at 18,000 labels."""
COLUMN_BLOCK = 128
"""Labels ranked over all images at once: 12 bytes times images each."""

Floats = NDArray[np.float64]


class ImageSums(NamedTuple):
    """Numerators and denominators of each image, float64 (n, columns).

    Attributes:
        names: (metric, band) of each column.
        numerators: per image.
        denominators: per image.
    """

    names: list[tuple[str, str]]
    numerators: Floats
    denominators: Floats


def image_sums(
    scores: Scores, labels: Ragged, bands: NDArray[np.int8], k: int, block: int = ROW_BLOCK
) -> ImageSums:
    """Precision@1, precision@k, recall@k and excess loss of every band.

    Args:
        scores: logits of n images by C labels.
        labels: of the n images.
        bands: int8 (C,), see ``labels.band_of``.
        k: predictions looked at, 1 <= k <= C.
        block: images at once; changes no result beyond rounding.

    Raises:
        ValueError: sizes that do not fit.
    """
    num, num_labels = scores.shape
    if num != len(labels.offsets) - 1 or num_labels != len(bands) or not 1 <= k <= num_labels:
        raise ValueError(
            f"multi-label metrics: scores of {num} x {num_labels}, labels of "
            f"{len(labels.offsets) - 1} images, {len(bands)} bands, k = {k}."
        )
    parts = []
    for start in range(0, num, block):
        stop = min(start + block, num)
        part = labels.take(np.arange(start, stop))
        parts.append(_block_sums(scores.rows(start, stop), part, bands, k))
    metrics = ("precision@1", f"precision@{k}", f"recall@{k}", "excess_loss")
    names = [(metric, band) for metric in metrics for band in BANDS]
    return ImageSums(names, *(np.concatenate(side) for side in zip(*parts, strict=True)))


def _block_sums(
    logits: NDArray[np.float32], labels: Ragged, bands: NDArray[np.int8], k: int
) -> tuple[Floats, Floats]:
    top = top_labels(logits, k)
    rows, values, counts = labels.rows, labels.values, labels.counts
    is_label = np.zeros(logits.shape, np.bool_)
    is_label[rows, values] = True
    right = np.take_along_axis(is_label, top, axis=1)
    is_labelled = (counts > 0)[:, None]
    hits = (top[rows] == values[:, None]).any(axis=1)
    log_p = logits[rows, values].astype(np.float64) - logsumexp(logits.astype(np.float64), 1)[rows]
    share = 1.0 / counts[rows]
    excess = share * (-log_p - np.log(counts[rows]))
    numerators, denominators = [], []
    for cut in (1, k):
        named = _band_masks(bands[top[:, :cut]]) & is_labelled
        numerators += [(mask & right[:, :cut]).sum(axis=1) for mask in named]
        denominators += [mask.sum(axis=1) for mask in named]
    of_pairs = _band_masks(bands[values])
    for amount, weight in ((hits, np.ones(len(values))), (excess, share)):
        numerators += [_per_image(rows, amount * mask, len(counts)) for mask in of_pairs]
        denominators += [_per_image(rows, weight * mask, len(counts)) for mask in of_pairs]
    return np.stack(numerators, 1).astype(np.float64), np.stack(denominators, 1).astype(np.float64)


def _band_masks(bands: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Membership in all, head, middle, tail; bool (4, ...)."""
    return np.stack([np.ones_like(bands, np.bool_), *(bands == b for b in (1, 2, 3))])


def _per_image(rows: NDArray[np.int64], amounts: NDArray[np.floating], num: int) -> Floats:
    return np.asarray(np.bincount(rows, amounts, num), np.float64)


def top_labels(logits: NDArray[np.floating], k: int) -> NDArray[np.int64]:
    """The k labels of each row with the greatest logits, ties by id, int64 (n, k).

    Args:
        logits: float (n, C), C >= k.
        k: how many.
    """
    place = logits.shape[1] - k
    kth = np.partition(logits, place, axis=1)[:, place]
    rows, columns = np.nonzero(logits >= kth[:, None])
    order = np.lexsort((columns, -logits[rows, columns], rows))
    rows, columns = rows[order], columns[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, np.arange(len(logits)))[rows]
    return columns[rank < k].reshape(len(logits), k)


def average_precisions(
    scores: Scores, labels: Ragged, weights: NDArray[np.integer], block: int = COLUMN_BLOCK
) -> Floats:
    """Average precision of each label, its images ranked by the softmax probability of the label.

    Images of one score come together: the precision behind the last of them counts for all, so a
    constant score has the label's share as its average precision. Images without labels are left
    out.

    Args:
        scores: logits of n images by C labels.
        labels: of the n images.
        weights: int (w, n): w ways to count the images, e.g. bootstrap resamples.
        block: labels at once.

    Returns:
        float64 (w, C); NaN for a label that no counted image has.

    Cost: w x n x C steps after one sort a label.
    """
    num, num_labels = scores.shape
    times = np.asarray(weights, np.int64) * (labels.counts > 0)
    log_sum = np.concatenate(
        [np.empty(0), *(_row_log_sums(scores, i) for i in range(0, num, ROW_BLOCK))]
    )
    matrix = labels.matrix(num_labels).tocsc()
    out = np.empty((len(times), num_labels))
    for start in range(0, num_labels, block):
        stop = min(start + block, num_labels)
        log_p = scores.columns(start, stop).astype(np.float64) - log_sum[:, None]
        for i, label in enumerate(range(start, stop)):
            images = matrix.indices[matrix.indptr[label] : matrix.indptr[label + 1]]
            out[:, label] = _average_precision(log_p[:, i], images, times)
    return out


def _row_log_sums(scores: Scores, start: int) -> Floats:
    logits = scores.rows(start, min(start + ROW_BLOCK, scores.shape[0])).astype(np.float64)
    return np.asarray(logsumexp(logits, axis=1))


def _average_precision(score: Floats, positives: NDArray[np.integer], times: Counts) -> Floats:
    """Weighted average precision of one label under each row of ``times`` (w, n)."""
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    # Place of the last image with the same score as each positive.
    place = np.searchsorted(-ranked, -score[positives], side="right") - 1
    of_positive = times[:, positives].astype(np.float64)
    seen = np.cumsum(times[:, order], axis=1)[:, place]
    by_place = np.argsort(place, kind="stable")
    right = np.cumsum(of_positive[:, by_place], axis=1)
    last = np.searchsorted(place[by_place], place, side="right") - 1
    precision = right[:, last] / np.maximum(seen, 1)
    total = of_positive.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, (of_positive * precision).sum(axis=1) / total, np.nan)


def mean_over_bands(average: Floats, bands: NDArray[np.int8]) -> Floats:
    """Mean average precision of all, head, middle, tail; labels without images are left out.

    Args:
        average: float64 (w, C) from ``average_precisions``.
        bands: int8 (C,).

    Returns:
        float64 (w, 4); NaN for a band without any.
    """
    means = []
    for mask in _band_masks(bands):
        part = average[:, mask]
        num = (~np.isnan(part)).sum(axis=1)
        total = np.nansum(part, axis=1)
        means.append(np.where(num > 0, total / np.maximum(num, 1), np.nan))
    return np.stack(means, axis=1)
