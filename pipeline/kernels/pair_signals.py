"""Cheap signals of a pair of pictures, for the verifier of near-duplicates.

Read are the stored 64 x 64 grey thumbnails and the cosine of the embeddings, never image bytes.
Each picture is looked for in the other, and the direction that scores higher is followed: signals
do not depend on which picture is called a. Flips and turns of either thumbnail leave them as they
are, up to rounding.

Source: SPEC-dataset N7.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.pair_search import (
    F32,
    SCAN_SIDE,
    refine,
    sample,
    scan,
    shrink,
    standardise,
    turned_each,
)

SIDE: Final = 64
BLOCK: Final = 8
"""Side of the squares that are compared one by one, pixels of the thumbnail."""
_MIN_TEXTURE: Final = 3.0
"""Standard deviation of a block, grey levels, from which its correlation means anything."""
_STEPS_COARSE, _STEPS_FINE = 8, 2
SIGNALS: Final = (
    "hash_distance",
    "cosine",
    "scan_score",
    "scan_margin",
    "correlation",
    "block_low",
    "block_median",
    "block_high",
    "block_mean",
    "block_agreeing",
    "num_blocks",
    "edge_correlation",
    "inside",
    "size",
    "stretch",
    "rotation",
)


def pair_signals(
    a: NDArray[np.uint8],
    b: NDArray[np.uint8],
    hash_distance: NDArray[np.integer],
    cosine: NDArray[np.floating],
    block: int = 256,
) -> F32:
    """Signals of pairs.

    Args:
        a: uint8 (n, 64, 64), thumbnail of one picture of each pair.
        b: uint8 (n, 64, 64), of the other.
        hash_distance: (n,), least Hamming distance of the perceptual hashes over eight turns.
        cosine: (n,), of the embeddings, NaN where there is none; it stays NaN.
        block: pairs worked on at once; about 0.5 MiB of memory each.

    Returns:
        float32 (n, len(SIGNALS)).
    """
    rows = [_signals(a[i : i + block], b[i : i + block]) for i in range(0, len(a), block)]
    seen = np.concatenate(rows) if rows else np.zeros((0, len(SIGNALS) - 2), np.float32)
    given = np.stack([np.asarray(hash_distance), np.asarray(cosine)], axis=1)
    return np.concatenate([given.astype(np.float32), seen], axis=1)


def _signals(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> F32:
    first, second = a.astype(np.float32), b.astype(np.float32)
    small_first, small_second = shrink(first, SCAN_SIDE), shrink(second, SCAN_SIDE)
    inward, outward = scan(small_first, small_second), scan(small_second, small_first)
    back = outward.score > inward.score
    turn = np.where(back, outward.turn, inward.turn)
    warp = np.where(back[:, None, None], outward.warp, inward.warp)
    back3 = back[:, None, None]
    inner = turned_each(np.where(back3, second, first), turn)
    outer = np.where(back3, first, second)
    warp = refine(shrink(inner, SCAN_SIDE), shrink(outer, SCAN_SIDE), warp, _STEPS_COARSE)
    warp = refine(inner, outer, warp, _STEPS_FINE)
    scanned = np.where(back, outward.score, inward.score)
    margin = np.where(back, outward.margin, inward.margin)
    return np.column_stack([scanned, margin, *_agreement(inner, outer, warp), *_shape(warp)])


def _agreement(inner: F32, outer: F32, warp: F32) -> list[F32]:
    """How well the aligned pictures agree, as a whole and square by square."""
    n = len(inner)
    seen, is_inside = sample(outer, warp, SIDE)
    weight = is_inside.astype(np.float32)
    left, right = standardise(inner.reshape(n, -1), weight), standardise(seen, weight)
    correlation = (left * right * weight).sum(axis=1) / (weight.sum(axis=1) + 1e-6)
    inside = weight.mean(axis=1)
    cut = (n, SIDE // BLOCK, BLOCK, SIDE // BLOCK, BLOCK)

    def squares(values: F32) -> F32:
        return values.reshape(cut).transpose(0, 1, 3, 2, 4).reshape(n, -1, BLOCK * BLOCK)

    x, y, whole = squares(inner), squares(seen), squares(weight).min(axis=2) > 0
    x, y = x - x.mean(axis=2, keepdims=True), y - y.mean(axis=2, keepdims=True)
    sx, sy = np.sqrt((x**2).mean(axis=2)), np.sqrt((y**2).mean(axis=2))
    local = (x * y).mean(axis=2) / (sx * sy + 1.0)
    told = whole & (np.maximum(sx, sy) > _MIN_TEXTURE)
    count = told.sum(axis=1)
    ordered = np.sort(np.where(told, local, 2.0), axis=1)
    low, median, high = (
        np.where(
            count > 0,
            ordered[np.arange(n), np.minimum((q * count).astype(int), np.maximum(count - 1, 0))],
            0.0,
        )
        for q in (0.2, 0.5, 0.8)
    )
    share = np.maximum(count, 1)
    mean = np.where(told, local, 0).sum(axis=1) / share
    agreeing = (told & (local > 0.7)).sum(axis=1) / share
    edges = _edge_correlation(inner, seen.reshape(inner.shape), weight.reshape(inner.shape))
    found = (correlation, low, median, high, mean, agreeing, count / told.shape[1], edges, inside)
    return [np.asarray(f, np.float32) for f in found]


def _edge_correlation(inner: F32, seen: F32, weight: F32) -> F32:
    """Correlation of the gradient fields: blind to brightness, contrast and smooth shade."""
    total = np.zeros((3, len(inner)), np.float32)
    for axis in (1, 2):
        u, v = np.gradient(inner, axis=axis), np.gradient(seen, axis=axis)
        total += [(weight * p).sum(axis=(1, 2)) for p in (u * v, u * u, v * v)]
    return np.asarray(total[0] / (np.sqrt(total[1] * total[2]) + 1e-3), np.float32)


def _shape(warp: F32) -> list[F32]:
    """Size, stretch and rotation of the affine map: edits make few of all possible ones."""
    linear = warp[:, :, :2]
    values = np.linalg.svd(linear, compute_uv=False)
    size = np.sqrt(np.abs(np.linalg.det(linear)) + 1e-6)
    stretch = np.log((values[:, 0] + 1e-3) / (values[:, 1] + 1e-3))
    turn = np.abs(np.arctan2(linear[:, 1, 0] - linear[:, 0, 1], linear[:, 0, 0] + linear[:, 1, 1]))
    return [np.asarray(f, np.float32) for f in (size, stretch, turn)]
