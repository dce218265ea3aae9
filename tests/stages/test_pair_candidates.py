"""Candidates of verification by brute force, over partitionings and task sizes; the cap by hand."""

import numpy as np
import pytest
from near_duplicate_rows import Context, cells, collected, frame, packed, print_row
from PIL import Image

from pipeline.config.images import NearDuplicateParams, VerifyParams
from pipeline.kernels.hashing import hash64
from pipeline.kernels.pair_search import turned
from pipeline.kernels.turned_hashes import framed_hashes, turned_distance
from pipeline.kernels.vectors import l2_normalise
from pipeline.stages.find_near_duplicates import find_near_duplicates
from pipeline.stages.pair_candidates import cap
from schemas.images import NEAR_DUPLICATE_CANDIDATES

NUM, RADIUS, TAU, NEAREST = 90, 6, 0.8, 3
COLUMNS = ("image_id_a", "image_id_b", "tier", "distance")


def thumbnails():
    """Smooth pictures, some of them turned or noisy copies of earlier ones, some the very same."""
    rng = np.random.default_rng(8)
    waves = np.cos(np.pi * np.arange(8)[:, None] * (np.arange(64) + 0.5) / 64)
    grey = waves.T @ rng.normal(size=(NUM, 8, 8)) @ waves
    stack = np.clip(128 + 25 * grey, 0, 255).astype(np.uint8)
    for i in range(40, NUM):
        ways = turned(stack[i - 40][None])[0]
        noise = rng.normal(size=(64, 64)) * (i % 4) * 6
        stack[i] = np.clip(ways[i % 8] + noise, 0, 255).astype(np.uint8)
        if i % 5 == 4:
            stack[i] = in_a_frame(stack[i], 6)
    stack[30:38] = stack[29]
    return stack


def in_a_frame(picture, width):
    size = (64 - 2 * width,) * 2
    small = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
    return np.pad(small, width, constant_values=3)


@pytest.fixture(scope="module")
def corpus():
    """Rows of both tables, the thumbnails and the unit vectors."""
    stack = thumbnails()
    rng = np.random.default_rng(9)
    vectors = l2_normalise(
        rng.normal(size=(12, 9))[np.arange(NUM) % 12] + rng.normal(size=(NUM, 9)) * 0.3
    )
    vectors[5] = 0
    prints = [
        print_row(f"i{i:02d}", "twins" if i in (50, 51) else f"d{i}", 0, i % 13 == 0,
                  thumbnail=stack[i].tobytes())
        for i in range(NUM)
    ]  # fmt: skip
    embeddings = [{"image_id": f"i{i:02d}", "embedding": packed(vectors[i])} for i in range(NUM)]
    return prints, embeddings, stack, vectors


def found_pairs(spark, corpus, partitions=1, max_candidates=1000, task_rows=10**6, **limits):
    prints, embeddings, _, _ = corpus

    def shuffled(rows):
        order = np.argsort(hash64([r["image_id"] for r in rows], partitions, "order"))
        return [rows[i] for i in order]

    verify = VerifyParams(
        max_hamming=RADIUS, min_cosine=TAU, num_nearest=NEAREST, max_candidates=max_candidates,
        **limits,
    )  # fmt: skip
    tables = find_near_duplicates(
        frame(spark, "image_fingerprints", shuffled(prints), partitions),
        frame(spark, "image_embeddings", shuffled(embeddings), partitions),
        cells(np.eye(1, 9)),
        NearDuplicateParams(num_probes=1, task_rows=task_rows, verify=verify),
        Context(),
    )
    assert tables["near_duplicate_candidates"].columns == NEAR_DUPLICATE_CANDIDATES.column_names
    rows = collected(tables["near_duplicate_candidates"], *COLUMNS)
    over = dict(collected(tables["candidate_overflows"], "image_id", "num_over_cap"))
    return {row[:3]: row[3] for row in rows}, over


def slow_hashes(corpus, is_turned):
    """Perceptual pairs: distinct hashes by brute force, images of one hash with each other."""
    prints, _, stack, _ = corpus
    rows = [i for i in range(NUM) if not prints[i]["is_flat"] and i != 51]  # 51: bytes of 50
    hashes = framed_hashes(stack)
    upright = {}
    for i in rows:
        upright.setdefault(int(hashes[i, 0]), []).append(i)
    found = {(a, b): 0 for same in upright.values() for a in same for b in same if a < b}
    first_of = {}  # the first image that has a hash in a turn stands for it
    for i in rows:
        inside = range(8, 16) if (hashes[i, 8:] != hashes[i, :8]).any() else ()
        for k in (*range(1, 8), *inside):
            if is_turned or k == 8:
                first_of.setdefault(int(hashes[i, k]), i)
    for h, same in upright.items():
        others = [(g, again[0]) for g, again in upright.items()]
        others += list(first_of.items())
        for g, j in others:
            bits, i = (h ^ g).bit_count(), same[0]
            if bits <= RADIUS and i != j:
                pair = (min(i, j), max(i, j))
                found[pair] = min(found.get(pair, 64), bits)
    return {(f"i{a:02d}", f"i{b:02d}", "perceptual"): bits for (a, b), bits in found.items()}


def slow_cosines(corpus):
    vectors = corpus[3].astype(float)
    found = {}
    known = [i for i in range(NUM) if i not in (5, 51)]
    for i in known:
        near = sorted((-(vectors[i] @ vectors[j]), j) for j in known if j != i)[:NEAREST]
        for cosine, j in near:
            if -cosine >= TAU:
                found[(f"i{min(i, j):02d}", f"i{max(i, j):02d}", "semantic")] = 1 + cosine
    return found


@pytest.mark.parametrize("is_turned", [True, False])
def test_candidates_equal_brute_force_whatever_the_partitions(spark, corpus, is_turned):
    found, over = found_pairs(spark, corpus, turned=is_turned)
    expected = slow_hashes(corpus, is_turned) | slow_cosines(corpus)
    expected[("i50", "i51", "exact")] = 0
    assert set(found) == set(expected)
    for pair, distance in expected.items():
        assert found[pair] == pytest.approx(distance, abs=1e-6)
    assert over == {}
    again = found_pairs(spark, corpus, 5, task_rows=300, turned=is_turned)
    assert again == (found, over)
    # Every copy within the radius of the upright hash is there, turned ones where asked for.
    hashes = framed_hashes(corpus[2])
    flat = {i for i in range(NUM) if i % 13 == 0} | {51}
    copies = [(i - 40, i) for i in range(40, NUM) if not {i, i - 40} & flat]
    near = [(a, b) for a, b in copies if turned_distance(hashes[[a]], hashes[[b]])[0][0] <= RADIUS]
    assert len(near) > 30
    missing = [p for p in near if (f"i{p[0]:02d}", f"i{p[1]:02d}", "perceptual") not in found]
    assert (len(missing) > 10) != is_turned


def test_the_cap_keeps_the_best_of_either_image_and_counts_the_others(spark, corpus):
    found, over = found_pairs(spark, corpus, max_candidates=2)
    every, _ = found_pairs(spark, corpus)
    assert set(found) < set(every)
    assert found == {pair: every[pair] for pair in found}
    own, twins = {}, {f"i{i}" for i in range(30, 38)}  # nine of one hash are a star under this cap
    for a, b, tier in every:
        if tier != "exact" and not {a, b} <= twins:
            own.setdefault(a, set()).add(b)
            own.setdefault(b, set()).add(a)
    expected = {i: len(others) - 2 for i, others in own.items()}
    assert over == {i: n for i, n in expected.items() if n > 0}
    assert ("i50", "i51", "exact") in found  # exact pairs are not capped
    assert found_pairs(spark, corpus, 4, max_candidates=2) == (found, over)


def test_the_cap_by_hand(spark):
    rows = [
        ("a", "b", "perceptual", 3.0),
        ("a", "c", "perceptual", 1.0),
        ("a", "d", "semantic", 0.25),
        ("a", "e", "semantic", 0.125),
        ("a", "e", "perceptual", 6.0),
        ("b", "d", "semantic", 0.25),
        ("b", "c", "perceptual", 2.0),
    ]
    # a takes c and e (the best of each tier), b takes c and d; d has a and b alone, c both.
    given = spark.createDataFrame(
        rows, "image_id_a string, image_id_b string, tier string, distance float"
    )
    kept, over = cap(given, 2, Context())
    expected = [r for r in rows if r[:2] not in {("a", "b")}]
    assert collected(kept, *COLUMNS) == sorted(expected)
    assert collected(over, "image_id", "num_over_cap") == [("a", 2), ("b", 1)]


def test_many_images_of_one_hash_are_a_star(spark):
    stack = thumbnails()[:1]
    prints = [print_row(f"i{i:02d}", f"d{i}", thumbnail=stack[0].tobytes()) for i in range(20)]
    nobody = [{"image_id": "x", "embedding": packed([1.0])}]
    found, over = found_pairs(spark, (prints, nobody, stack, None), max_candidates=5)
    assert set(found) == {("i00", f"i{i:02d}", "perceptual") for i in range(1, 20)}
    assert over == {"i00": 14}
