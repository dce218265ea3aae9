"""What the benchmark of near-duplicates plants, and how it judges what was found."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.near_duplicate_world import (
    brute_force,
    pair_codes,
    plant_hashes,
    plant_vectors,
    recall_of,
)
from pipeline.kernels.block_keys import plan_tables, table_keys
from pipeline.kernels.hamming import near_pairs
from pipeline.kernels.vectors import to_matrix

COUNT = 2000


@pytest.mark.parametrize("radius", [1, 3, 6])
def test_planted_hashes_are_within_the_radius_and_found(tmp_path, radius):
    table = str(tmp_path / "hashes.parquet")
    planted = plant_hashes(table, COUNT, radius)
    hashes = pq.read_table(table)["phash"].to_numpy().view(np.uint64)
    bits = np.bitwise_count(hashes[planted[:, 0]] ^ hashes[planted[:, 1]])
    assert set(bits.tolist()) == set(range(1, radius + 1))
    every = brute_force(hashes, radius)
    assert recall_of(every, planted) == 1.0
    plan = plan_tables(COUNT, radius)
    parts = [near_pairs(hashes, plan, t) for t in range(plan.num_tables)]
    found = np.concatenate([np.stack([p.left, p.right], axis=1) for p in parts])
    np.testing.assert_array_equal(pair_codes(found), pair_codes(every))


def test_a_hot_key_is_shared(tmp_path):
    table = str(tmp_path / "hashes.parquet")
    plant_hashes(table, COUNT, 3, hot=500)
    rows = pq.read_table(table)
    assert rows["image_id"].to_pylist() == sorted(rows["image_id"].to_pylist())
    plan = plan_tables(COUNT, 3)
    hashes = rows["phash"].to_numpy().view(np.uint64)
    keys = table_keys(hashes, plan, plan.num_tables // 2)
    assert len(set(keys[:500].tolist())) == 1
    assert len(set(keys.tolist())) > 1000
    assert len(set(hashes.tolist())) == COUNT


def test_planted_vectors_are_above_the_cosine(tmp_path):
    table = str(tmp_path / "vectors.parquet")
    planted = plant_vectors(table, COUNT, 32, 0.95)
    x = to_matrix(pq.read_table(table)["embedding"])
    cosine = np.einsum("nd,nd->n", x[planted[:, 0]], x[planted[:, 1]])
    assert 0.95 <= cosine.min() < 0.96 < 0.99 < cosine.max()


def test_recall_by_hand():
    planted = np.array([[0, 5], [1, 6], [2, 7], [3, 8]])
    found = np.array([[2, 7], [0, 5], [0, 6], [4, 9]])
    assert recall_of(found, planted) == 0.5
    assert recall_of(np.zeros((0, 2), np.int64), planted) == 0.0


def test_brute_force_by_hand():
    hashes = np.array([0b0000, 1 << 40, 0b0011, 0b0111], np.uint64)
    assert brute_force(hashes, 1).tolist() == [[0, 1], [2, 3]]
    assert brute_force(hashes, 2).tolist() == [[0, 1], [0, 2], [2, 3]]
