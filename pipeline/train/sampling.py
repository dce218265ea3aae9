"""How often each sample appears in an epoch, drawn shard by shard.

A sample of weight w appears floor(w) or floor(w) + 1 times, w times on average over the epochs
(SPEC A15). The draws of a shard are systematic: its weights are laid end to end in an order that
changes with the epoch, and every whole number that an interval covers, after a shift drawn for the
shard, is an appearance. Then the shard's number of appearances is floor(W + u), W the sum of its
weights: an epoch is planned from one number a shard, and the copies of a shard are drawn when it is
opened. Independent draws have the same mean, but their count is known only when every sample of the
release has been drawn.

Weights are summed as integers (units of 2^-20): counts are exact and the same everywhere.

Cost at 1.329 billion images: the manifest tells W, so an epoch's counts take milliseconds; a shard
of 10,000 is drawn in about a millisecond, once for each time its index is read. Without W in the
manifest, or with images left out, every index is read at start, spread over the processes: 2,077
indexes a process of 64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config.train import DataParams
from pipeline.kernels.hashing import hash64, hash_ints
from pipeline.kernels.resampling import FIXED_POINT, to_fixed_point, total_weight
from pipeline.train.distributed import World
from pipeline.train.holdout import is_trained_on
from pipeline.train.release import CorruptSampleError, Release
from pipeline.train.shard_index import ShardIndex

_FIXED_BITS = FIXED_POINT.bit_length() - 1


class Appearances(NamedTuple):
    """Samples of a shard in the order of their appearances in an epoch, int32 (n,) each.

    ``copy`` counts the appearances of one sample, 0 first.
    """

    row: NDArray[np.int32]
    copy: NDArray[np.int32]


def check_sampling(release: Release, data: DataParams) -> None:
    """Refuse to resample a release that holds its repeats already.

    Raises:
        ValueError: as said.

    Source: SPEC A15.
    """
    if release.materialised and data.sampling != "natural":
        raise ValueError(
            f"data.sampling = {data.sampling!r}, but {release.storage.uri} holds the copies "
            f"of its policy {release.policy!r} already: expected 'natural'."
        )


def sample_weights(index: ShardIndex, data: DataParams) -> NDArray[np.float64] | None:
    """Expected appearances of each sample of a shard an epoch; 0 for what is not trained on.

    Returns:
        float64 (n,); None where every sample appears once.
    """
    if data.sampling == "natural" and data.shows_all:
        return None
    is_policy = data.sampling == "policy"
    weights = index.weights.astype(np.float64) if is_policy else np.ones(len(index.offsets))
    weights[~is_trained_on(index.keys, data)] = 0
    return weights


def shard_weights(
    release: Release, data: DataParams, world: World | None = None
) -> NDArray[np.float64] | None:
    """Sum of the weights of each shard's samples.

    Args:
        release: its manifest tells them since version 3 of `write_release`; for an older one, or
            where images are left out, the indexes are read.
        data: how the run samples.
        world: processes that share the reading; None reads alone.

    Returns:
        float64 (num_shards,), whole multiples of 2^-20; None where every sample appears once.

    Raises:
        ValueError: sampling that the release does not allow.
    """
    check_sampling(release, data)
    if data.shows_all:
        if data.sampling == "natural":
            return None
        if release.shards.weights is not None:
            return release.shards.weights
    return _read_weights(release, data, world)


def _read_weights(release: Release, data: DataParams, world: World | None) -> NDArray[np.float64]:
    """From the indexes; process r reads shards r, r + world, ..."""
    rank, size = (world.rank, world.size) if world else (0, 1)
    found = torch.zeros(len(release.shards), dtype=torch.float64)
    for shard in range(rank, len(release.shards), size):
        try:
            weights = sample_weights(release.read_index(shard), data)
        except CorruptSampleError:
            found[shard] = int(release.lengths[shard])  # all of them are masked when it is opened
            continue
        assert weights is not None
        found[shard] = total_weight(weights)
    # Every shard has one reader: the sum puts the parts together.
    parts = world.gather(found) if world else [found]
    return np.asarray(torch.stack(parts).sum(dim=0).numpy(), np.float64)


def expected_images(weights: NDArray[np.float64]) -> int:
    """Images an epoch shows on average: what a schedule counts."""
    return round(int(to_fixed_point(weights).sum()) / FIXED_POINT)


def shard_counts(weights: NDArray[np.float64], seed: int, epoch: int) -> NDArray[np.int64]:
    """Appearances in each shard in one epoch: floor(W + u).

    Args:
        weights: float64 (num_shards,), sums of the samples' weights.
        seed: of the run.
        epoch: 0, 1, ...

    Returns:
        int64 (num_shards,).
    """
    shards = np.arange(len(weights))
    return np.asarray((to_fixed_point(weights) + _shifts(shards, seed, epoch)) >> _FIXED_BITS)


def draw_shard(
    index: ShardIndex, weights: NDArray[np.float64], shard: int, seed: int, epoch: int
) -> Appearances:
    """Appearances of the samples of one shard in one epoch, as many as ``shard_counts`` says.

    Args:
        index: of the shard.
        weights: float64 (n,) of its samples, >= 0.
        shard: its number.
        seed: of the run.
        epoch: 0, 1, ...
    """
    order = np.argsort(hash64(index.keys, seed, f"copies/{epoch}"), kind="stable")
    shift = _shifts(np.array([shard]), seed, epoch)
    edges = np.concatenate([shift, shift + np.cumsum(to_fixed_point(weights)[order])])
    copies = np.empty(len(weights), np.int64)
    copies[order] = np.diff(edges >> _FIXED_BITS)
    row = np.repeat(np.arange(len(copies), dtype=np.int32), copies)
    first = np.repeat(np.cumsum(copies) - copies, copies)
    return Appearances(row, (np.arange(len(row)) - first).astype(np.int32))


def _shifts(shards: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """u of each shard in units of 2^-20, int64 in [0, 2^20)."""
    hashes = hash_ints(shards, seed, f"shift/{epoch}")
    return (hashes >> np.uint64(64 - _FIXED_BITS)).astype(np.int64)
