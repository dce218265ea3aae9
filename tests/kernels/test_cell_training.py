"""Centroids of coarse cells: against a plain Lloyd iteration, on any threads, with empty cells."""

from __future__ import annotations

import os

import numpy as np
import pytest

from pipeline.kernels import cell_training
from pipeline.kernels.cell_training import train_centroids
from pipeline.kernels.hashing import hash_ints
from pipeline.kernels.vectors import l2_normalise


def unit_rows(count, width=24, seed=0):
    rng = np.random.default_rng(seed)
    return l2_normalise(rng.standard_normal((count, width)).astype(np.float32))


def lloyd(x, num_cells, seed, num_iterations):
    """Slow, in float64, a row at a time; no cell of the data below runs empty."""
    order = np.argsort(hash_ints(np.arange(len(x)), seed, "cell_starts"), kind="stable")
    centroids = x[order[:num_cells]].astype(np.float64)
    for _ in range(num_iterations):
        sums = np.zeros_like(centroids)
        for row in x.astype(np.float64):
            sums[np.argmax(centroids @ row)] += row
        assert (sums != 0).any(axis=1).all()
        centroids = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return centroids


@pytest.mark.parametrize("num_iterations", [1, 5])
def test_equals_plain_lloyd(num_iterations):
    x = unit_rows(900)
    got = train_centroids(x, 12, seed=3, num_iterations=num_iterations)
    np.testing.assert_allclose(got, lloyd(x, 12, 3, num_iterations), atol=1e-5)


def test_same_bits_on_one_core_and_on_two(monkeypatch):
    monkeypatch.setattr(cell_training, "_BLOCK_VALUES", 50 * 64)  # 47 blocks
    x = unit_rows(3000, 32)
    found = set()
    for num_cores in (1, 2):
        cores = set(range(num_cores))
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: cores)
        found |= {train_centroids(x, 50, seed=3).tobytes() for _ in range(3)}
    assert len(found) == 1


def test_planted_directions_are_found():
    """40 tight bundles: each has a centroid within it, though a start by chance misses some."""
    directions = unit_rows(40, 64)
    noise = np.random.default_rng(1).standard_normal((40, 50, 64)).astype(np.float32)
    x = l2_normalise((directions[:, None] + 0.02 * noise).reshape(-1, 64))
    shuffled = x[np.random.default_rng(2).permutation(len(x))]
    c = train_centroids(shuffled, 80, seed=0, num_iterations=10)
    np.testing.assert_allclose(np.linalg.norm(c, axis=1), 1, atol=1e-5)
    assert (directions @ c.T).max(axis=1).min() > 0.97


def test_a_cell_without_rows_starts_anew_where_it_is_needed():
    """Starts are copies of one direction; a lonely row in another one gets the idle centroid."""
    x = np.zeros((64, 3), np.float32)
    x[:, 0] = 1
    lonely = np.argsort(hash_ints(np.arange(64), 0, "cell_starts"), kind="stable")[-1]
    x[lonely] = (0, 1, 0)
    got = train_centroids(x, 2, seed=0, num_iterations=2)
    assert sorted(map(tuple, got.tolist())) == [(0, 1, 0), (1, 0, 0)]


def test_rows_that_cancel_leave_the_centroid_where_it_was():
    x = np.array([[1, 0], [-1, 0], [1, 0], [-1, 0]], np.float32)
    got = train_centroids(x, 1, seed=0)
    assert np.abs(got).tolist() == [[1, 0]]


def test_small_samples_and_seeds():
    x = unit_rows(500)
    assert not np.array_equal(train_centroids(x, 20, seed=0), train_centroids(x, 20, seed=1))
    np.testing.assert_array_equal(train_centroids(x[:5], 20, seed=0), x[:5])
    with pytest.raises(ValueError, match="0 vectors"):
        train_centroids(x[:0], 20, seed=0)
