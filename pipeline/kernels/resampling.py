"""How often an image is shown: weights from label counts, copies from weights.

f(c) is the share of images with label c, n_c its number of images, N the number of images.

- ``inverse_sqrt``: w = max over the labels of sqrt(t / f(c)); t given, or solved so that the
  weights sum to the target.
- ``repeat_factor``: the same floored at 1, t given.
- ``natural``: every image alike (the paper calls it uniform sampling).
- ``uniform``: w ~ max over the labels of 1 / f(c), so that labels come out alike.
- ``cap``: each label draws min(1, cap / n_c) of its images; an image is shown once if any of its
  labels draws it.

The maximum over an image's labels is that of its rarest label. So the sum of all weights needs only
a histogram: how many images have a rarest label of that count. Its entries are integers, hence the
same for every partitioning, and t has a closed form between the breakpoints of the cap.

Source: paper section 4.6; Mahajan et al. 2018 section 2.2; Gupta et al. 2019 (LVIS) for the repeat
factor; Xu et al. 2024 (MetaCLIP) for the cap; SPEC R1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.hashing import uniform

Policy = Literal["inverse_sqrt", "repeat_factor", "natural", "uniform", "cap"]
FIXED_POINT = 2**20
"""Unit of weights that are summed as integers: sums then do not depend on their order."""

_POWER = {"inverse_sqrt": 0.5, "repeat_factor": 0.5, "natural": 0.0, "uniform": 1.0, "cap": 0.0}


@dataclass(frozen=True)
class WeightRule:
    """Weight of an image as a function of its labels' counts.

    Attributes:
        policy: see the module.
        scale: s in w = s / (count of the rarest label) ** power; sqrt(t N) for the root policies.
        floor: least weight of an image with labels.
        max_weight: most.
        label_counts: int64 (L,), images with each label.
        cap: of the policy ``cap``, else 0.
    """

    policy: Policy
    scale: float
    floor: float
    max_weight: int
    label_counts: NDArray[np.int64]
    cap: int


def make_rule(
    policy: Policy,
    label_counts: NDArray[np.integer],
    rarest_count: NDArray[np.integer],
    num_images: NDArray[np.integer],
    threshold: float | None,
    target_size: int | None,
    cap: int | None,
    max_copies: int,
) -> WeightRule:
    """Rule of a policy for a corpus.

    Args:
        policy: see the module.
        label_counts: (L,) images with each label.
        rarest_count: (m,) values of `rarest_counts`, and
        num_images: (m,) how many images have each; rows in any order, values may repeat.
        threshold: t in (0, 1], for ``repeat_factor`` (needed) and ``inverse_sqrt`` (instead of a
            target).
        target_size: sum of the weights; None for the number of images. Of no use to
            ``repeat_factor`` and ``cap``, whose sums follow from their parameters.
        cap: images a label, for ``cap``.
        max_copies: most copies, and so the largest weight, of an image.

    Raises:
        ValueError: a parameter that is missing, or a target beyond max_copies times the images.
    """
    counts = np.asarray(label_counts, np.int64)
    value, inverse = np.unique(np.asarray(rarest_count, np.int64), return_inverse=True)
    images = np.zeros(len(value), np.int64)
    np.add.at(images, inverse, np.asarray(num_images, np.int64))
    value, images = value[value > 0], images[value > 0]
    total = int(images.sum())
    floor = 1.0 if policy == "repeat_factor" else 0.0
    if policy == "cap":
        if cap is None:
            raise ValueError("resampling: policy cap needs `cap`, images a label.")
        return WeightRule(policy, 1.0, floor, max_copies, counts, cap)
    if policy == "repeat_factor" and threshold is None:
        raise ValueError("resampling: policy repeat_factor needs `threshold`, a label frequency.")
    if policy in ("repeat_factor", "inverse_sqrt") and threshold is not None:
        scale = math.sqrt(threshold * total)
    else:
        target = total if target_size is None else target_size
        scale = solve_scale(value, images, _POWER[policy], target, max_copies)
    return WeightRule(policy, scale, floor, max_copies, counts, 0)


def solve_scale(
    rarest_count: NDArray[np.int64],
    num_images: NDArray[np.int64],
    power: float,
    target: int,
    max_weight: int,
) -> float:
    """The s with sum of num_images * min(max_weight, s / rarest_count ** power) = target.

    The sum grows with s, and reaches the cap first where labels are rarest. So some number j of the
    rarest rows are capped, and s is the rest of the target over the rest of the rows.

    Args:
        rarest_count: int64 (m,), ascending, > 0.
        num_images: int64 (m,).
        power: 0, 0.5 or 1.
        target: wanted sum, > 0.
        max_weight: cap of each weight.

    Raises:
        ValueError: the target is out of reach of the cap.
    """
    total = int(num_images.sum())
    if target > max_weight * total or target <= 0:
        raise ValueError(
            f"resampling: target size {target}, expected 1 to {max_weight * total} "
            f"(max_copies {max_weight} x {total} images)."
        )
    divisor = _root(rarest_count, power)
    parts = (num_images / divisor).tolist()
    capped = 0
    for j in range(len(parts)):
        scale = (target - max_weight * capped) / math.fsum(parts[j:])
        if scale <= max_weight * divisor[j]:
            return float(scale)
        capped += int(num_images[j])
    return float(max_weight * divisor[-1])


def rarest_counts(
    offsets: NDArray[np.int64], label_ids: NDArray[np.integer], label_counts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Count of the rarest label of each image, int64 (n,); 0 for an image without labels.

    Args:
        offsets: int64 (n + 1,), from 0, into ``label_ids``.
        label_ids: flat.
        label_counts: int64 (L,).
    """
    result = np.zeros(len(offsets) - 1, np.int64)
    filled = np.flatnonzero(np.diff(offsets))
    if len(filled):
        result[filled] = np.minimum.reduceat(label_counts[label_ids], offsets[filled])
    return result


def image_weights(
    rule: WeightRule, offsets: NDArray[np.int64], label_ids: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Expected copies of each image, float64 (n,), in [0, max_weight]; 0 without labels."""
    rarest = rarest_counts(offsets, label_ids, rule.label_counts)
    if rule.policy == "cap":
        return _cap_weights(rule, offsets, label_ids)
    weight = rule.scale / _root(np.maximum(rarest, 1), _POWER[rule.policy])
    weight = np.clip(weight, rule.floor, rule.max_weight)
    return np.asarray(np.where(rarest > 0, weight, 0.0))


def draw_copies(weights: NDArray[np.float64], hashes: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Copies floor(w) + [u < w - floor(w)], with u in [0, 1) from the image's hash.

    Args:
        weights: float64 (n,), >= 0.
        hashes: uint64 (n,), hash of (seed, stream, image_id).

    Returns:
        int32 (n,), with mean w over seeds, at most ceil(w).
    """
    whole = np.floor(weights)
    return np.asarray(whole + (uniform(hashes) < weights - whole), np.int32)


def to_fixed_point(weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Weights in units of 1 / FIXED_POINT; 10**11 images of weight 80 still fit the sum."""
    return np.asarray(np.rint(weights * FIXED_POINT), np.int64)


def total_weight(weights: NDArray[np.floating]) -> float:
    """Sum of weights in whole units of 1 / FIXED_POINT: exact, the same in any order."""
    units = to_fixed_point(np.asarray(weights, np.float64))
    return int(units.sum()) / FIXED_POINT


def label_sums(
    offsets: NDArray[np.int64],
    label_ids: NDArray[np.integer],
    amounts: NDArray[np.integer],
    num_labels: int,
) -> NDArray[np.int64]:
    """Sum over the images of each label of an integer amount of the image.

    With ones: label counts. With copies: realised counts. With `to_fixed_point` of the weights:
    expected counts, to be divided by FIXED_POINT after the last sum.

    Returns:
        int64 (num_labels,).
    """
    sums = np.zeros(num_labels, np.int64)
    np.add.at(sums, label_ids, np.repeat(np.asarray(amounts, np.int64), np.diff(offsets)))
    return sums


def _cap_weights(
    rule: WeightRule, offsets: NDArray[np.int64], label_ids: NDArray[np.integer]
) -> NDArray[np.float64]:
    """1 - product over the labels of (1 - min(1, cap / n_c))."""
    share = np.minimum(1.0, rule.cap / np.maximum(rule.label_counts, 1))
    result = np.zeros(len(offsets) - 1)
    filled = np.flatnonzero(np.diff(offsets))
    if len(filled):
        missed = np.multiply.reduceat(1.0 - share[label_ids], offsets[filled])
        result[filled] = 1.0 - missed
    return result


def _root(counts: NDArray[np.int64], power: float) -> NDArray[np.float64]:
    """counts ** power by operations that round correctly everywhere."""
    if power == 0.5:
        return np.asarray(np.sqrt(counts.astype(np.float64)))
    return counts.astype(np.float64) if power == 1 else np.ones(len(counts))
