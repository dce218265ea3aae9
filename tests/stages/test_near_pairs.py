"""Pairs within the thresholds by brute force, for several radii, partitionings and task sizes."""

import numpy as np
import pyarrow as pa
import pytest
from near_duplicate_rows import Context, cells, collected, frame, packed, print_row

from pipeline.config.images import NearDuplicateParams, VerifyParams
from pipeline.kernels.cells import pair_recall
from pipeline.kernels.vectors import from_matrix, l2_normalise
from pipeline.stages import near_pairs, train_cells
from pipeline.stages.find_near_duplicates import find_near_duplicates

DIMENSION, TAU = 24, 0.9
NUM_CELLS = 24


def planted_hashes(rng):
    """300 random hashes, 150 within 1 to 10 bits of one of them, 60 repeated."""
    hashes = rng.integers(0, 2**64, size=300, dtype=np.uint64)
    near = hashes[rng.integers(0, 300, size=150)].copy()
    for i in range(150):
        for bit in rng.choice(64, size=1 + i % 10, replace=False):
            near[i] ^= np.uint64(1 << int(bit))
    return np.concatenate([hashes, near, hashes[rng.integers(0, 40, size=60)]])


def planted_vectors(rng, n):
    """Vectors around 60 centres, some zero, none of unit length."""
    centres = l2_normalise(rng.normal(size=(60, DIMENSION)))
    vectors = centres[rng.integers(0, 60, size=n)]
    vectors = vectors + rng.normal(size=vectors.shape) * 0.08
    vectors *= rng.uniform(0.1, 9, size=(n, 1))
    vectors[::37] = 0
    return vectors.astype(np.float32)


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(11)
    hashes = planted_hashes(rng)
    n = len(hashes)
    order = rng.permutation(n).tolist()
    prints, embeddings = [], []
    vectors = planted_vectors(rng, n)
    for i in order:
        # Flat images: equal hashes among them, and hashes near to those of others.
        prints.append(
            print_row(f"ü{i:03d}", f"d{i // 3 if i < 90 else i}", int(hashes[i]), i % 11 == 0)
        )
        if i % 5:
            embeddings.append({"image_id": f"ü{i:03d}", "embedding": packed(vectors[i])})
    embeddings.append({"image_id": "no such image", "embedding": packed(vectors[1])})
    known = sorted(row["image_id"] for row in embeddings if row["image_id"].startswith("ü"))
    unit = l2_normalise(vectors)
    directions = {i: unit[int(i[1:])] for i in known if unit[int(i[1:])].any()}
    centroids = l2_normalise(rng.normal(size=(NUM_CELLS, DIMENSION)))
    return prints, embeddings, directions, cells(centroids)


def slow_stars(rows, signal):
    groups = {}
    for row in rows:
        groups.setdefault(row[signal], []).append(row["image_id"])
    return groups, {
        (min(ids), i) for ids in groups.values() for i in ids if i != min(ids)
    }  # fmt: skip


def slow_pairs(prints, radius):
    """Exact and perceptual pairs -> distance."""
    found = {(*pair, "exact"): 0.0 for pair in slow_stars(prints, "sha256")[1]}
    groups, star = slow_stars([r for r in prints if not r["is_flat"]], "phash")
    found |= {(*pair, "perceptual"): 0.0 for pair in star}
    firsts = sorted((min(ids), phash % 2**64) for phash, ids in groups.items())
    for i, (one, a) in enumerate(firsts):
        for two, b in firsts[i + 1 :]:
            if (a ^ b).bit_count() <= radius:
                found[(one, two, "perceptual")] = float((a ^ b).bit_count())
    return found


def slow_cosines(directions):
    """Semantic pairs -> distance."""
    ids = sorted(directions)
    matrix = np.array([directions[i] for i in ids], np.float64)
    cosine = matrix @ matrix.T
    left, right = np.nonzero(np.triu(cosine >= TAU, 1))
    return {
        (ids[a], ids[b], "semantic"): 1 - cosine[a, b]
        for a, b in zip(left.tolist(), right.tolist(), strict=True)
    }


def found_pairs(spark, corpus, partitions=1, is_turned=False, **options):
    prints, embeddings, _, centroids = corpus
    step = -1 if is_turned else 1
    pairs = find_near_duplicates(
        frame(spark, "image_fingerprints", prints[::step], partitions),
        frame(spark, "image_embeddings", embeddings[::step], partitions),
        centroids,
        NearDuplicateParams(min_cosine=TAU, verify=VerifyParams(enabled=False), **options),
        Context(),
    )["near_duplicate_candidates"]
    rows = collected(pairs, "image_id_a", "image_id_b", "tier", "distance")
    assert len({row[:3] for row in rows}) == len(rows)
    return {row[:3]: row[3] for row in rows}


def test_every_pair_at_radius_4_whatever_the_partitions_and_tasks(spark, corpus):
    options = {"max_hamming": 4, "num_probes": NUM_CELLS}
    found = found_pairs(spark, corpus, **options)
    semantic = slow_cosines(corpus[2])
    expected = slow_pairs(corpus[0], 4) | semantic
    assert set(found) == set(expected)
    assert len(semantic) > 200
    for pair, distance in expected.items():
        assert found[pair] == pytest.approx(distance, abs=1e-6)
    assert found == found_pairs(spark, corpus, 5, is_turned=True, task_rows=1000, **options)


def test_every_pair_at_radius_8_and_recall_of_three_probes(spark, corpus):
    found = found_pairs(spark, corpus, max_hamming=8, num_probes=3, task_rows=700)
    hashed = {p: d for p, d in found.items() if p[2] != "semantic"}
    assert hashed == slow_pairs(corpus[0], 8)
    true = set(slow_cosines(corpus[2]))
    semantic = {p for p in found if p[2] == "semantic"}
    assert semantic <= true
    recall = recall_of(semantic, true)
    assert recall > 0.95, f"recall of 3 of {NUM_CELLS} probes: {recall:.4f}"


def recall_of(found, true):
    def sides(pairs):
        return np.array([[int(a[1:]), int(b[1:])] for a, b, _ in sorted(pairs)]).T

    return pair_recall(*sides(found), *sides(true))


def test_radius_0_and_tiers_switched_off(spark, corpus):
    off = found_pairs(spark, corpus, max_hamming=0, exact=False, semantic=False)
    expected = {p: d for p, d in slow_pairs(corpus[0], 0).items() if p[2] == "perceptual"}
    assert off == expected
    assert found_pairs(spark, corpus, exact=False, perceptual=False, semantic=False) == {}


def cell_rows(vectors):
    batches = near_pairs.cells_of(
        cell_batch(vectors), np.eye(1, vectors.shape[1], dtype=np.float32), 1
    )
    return next(iter(batches))


def cell_batch(vectors):
    ids = pa.array([f"i{i:05d}" for i in range(len(vectors))])
    return pa.RecordBatch.from_arrays([ids, from_matrix(vectors)], ["image_id", "embedding"])


def test_a_hot_vector_costs_linear_pairs():
    """1,500 copies of one embedding and 20 others near to it: stars, not a million pairs."""
    rng = np.random.default_rng(2)
    base = rng.normal(size=16)
    vectors = (
        np.tile(base, (1520, 1))
        + (np.arange(1520) >= 1500)[:, None]
        * rng.normal(size=(1520, 16))
        * 0.05
        * np.linalg.norm(base)
        / 4
    )
    rows = pa.Table.from_batches([cell_rows(vectors.astype(np.float32))])
    found = pa.Table.from_batches(list(near_pairs.pairs_of_cells(rows, 0.96)))
    assert 1499 <= found.num_rows < 1499 + 20 * 20
    linked = set(found["one"].to_pylist()) | set(found["two"].to_pylist())
    assert linked == {f"i{i:05d}" for i in range(1520)}


def test_zero_vectors_and_no_cells_give_no_rows():
    vectors = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 0]], np.float32)
    assert cell_rows(vectors)["image_id"].to_pylist() == ["i00001"]
    nothing = near_pairs.cells_of(cell_batch(vectors), np.zeros((0, 0), np.float32), 3)
    assert list(nothing) == []


def test_cells_of_a_named_version_are_kept_as_they_are(caplog):
    class Past:
        """Knows one version of the stage."""

        def count(self, rows):
            return len(rows)

        def output_of(self, version, table):
            assert (version, table) == ("0123456789ab", "embedding_cells")
            return ["centroid"] * 7

    params = NearDuplicateParams(cells_version="0123456789ab", num_probes=2)
    with caplog.at_level("INFO"):
        found = train_cells.train_cells(["image"] * 200, params, Past())
    assert found == {"embedding_cells": ["centroid"] * 7}
    assert caplog.records[-1].fields == {"cells": 7, "cells_of_a_new_training": 20}


def test_cells_of_a_sample_follow_from_its_ids_and_skip_zero_vectors():
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(50, 6)).astype(np.float32)
    vectors[[3, 30]] = 0
    rows = pa.Table.from_batches([cell_batch(vectors)])
    found = train_cells._centroids(rows, 4, 7)
    assert found["cell_id"].to_pylist() == [0, 1, 2, 3]
    turned = train_cells._centroids(rows.take(pa.array(range(49, -1, -1))), 4, 7)
    assert turned.equals(found)
    assert train_cells._centroids(rows, 100, 7).num_rows == 48
    assert train_cells._centroids(rows.slice(3, 1), 4, 7).num_rows == 0
    empty = pa.table(
        {"image_id": pa.array([], pa.string()), "embedding": pa.array([], pa.binary())}
    )
    assert train_cells._centroids(empty, 4, 7).num_rows == 0
