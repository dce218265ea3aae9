"""Overlaps with validation images by brute force, the certificate by hand, leaks."""

import numpy as np
import pyarrow as pa
import pytest
from near_duplicate_rows import Context, frame, packed, print_row

from pipeline.config.images import NearDuplicateParams
from pipeline.kernels.vectors import l2_normalise
from pipeline.stages.certify_validation import certify_validation
from pipeline.stages.find_validation_overlaps import STAGE, compare_batch, prepare
from schemas import ALL

PARAMS = NearDuplicateParams(max_hamming=4, min_cosine=0.9)


def rows_of(name, rows, columns=None):
    table = pa.Table.from_pylist(rows, ALL[name].arrow_schema)
    return table.select(list(columns)) if columns else table


def renamed(row):
    return {("validation_id" if k == "image_id" else k): v for k, v in row.items()}


def corpus(seed=1):
    """200 images and 40 validation images; every kind of overlap, flat images, zero vectors."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, size=240, dtype=np.uint64)
    vectors = rng.normal(size=(240, 12)).astype(np.float32)
    for i in range(60):  # near in hash, or in vector, or in both
        other = 200 + i % 40
        if i % 3:
            hashes[i] = hashes[other]
            for bit in rng.choice(64, size=1 + i % 7, replace=False):
                hashes[i] ^= np.uint64(1 << int(bit))
        if i % 2:
            vectors[i] = vectors[other] + rng.normal(size=12) * 0.4
    vectors[[5, 90, 203]] = 0
    prints = [
        print_row(f"i{i:03d}", f"d{200 + i % 17 if i % 19 == 3 else i}", int(h), i % 13 == 7)
        for i, h in enumerate(hashes)
    ]
    known = [i for i in range(240) if i % 9 != 8]
    embeddings = [{"image_id": f"i{i:03d}", "embedding": packed(vectors[i])} for i in known]
    split = lambda rows: ([r for r in rows if r["image_id"] < "i200"],  # noqa: E731
                          [renamed(r) for r in rows if r["image_id"] >= "i200"])  # fmt: skip
    return *split(prints), *split(embeddings), {f"i{i:03d}": vectors[i] for i in known}


def compared(prints, others, embeddings, other_embeddings, params=PARAMS, batches=1):
    state = prepare(
        rows_of("validation_fingerprints", others, STAGE.columns["validation_fingerprints"]),
        rows_of("validation_embeddings", other_embeddings),
        params,
    )
    results = []
    for part in np.array_split(np.arange(len(prints)), batches):
        ids = {prints[i]["image_id"] for i in part}
        results.append(
            compare_batch(
                rows_of(
                    "image_fingerprints",
                    [prints[i] for i in part],
                    STAGE.columns["image_fingerprints"],
                ),
                rows_of("image_embeddings", [r for r in embeddings if r["image_id"] in ids]),
                state,
                params,
            )
        )
    return results


def joined(results, name):
    return [row for result in results for row in result.tables[name].to_pylist()]


def slow(prints, others, vectors):
    """(image, tier) -> (distance, validation image), near or not."""
    found = {}
    unit = {i: l2_normalise(v[None])[0].astype(float) for i, v in vectors.items() if v.any()}
    for one in prints:
        for two in others:
            a, b = one["image_id"], two["validation_id"]
            near = {}
            if one["sha256"] == two["sha256"]:
                near["exact"] = 0.0
            if not (one["is_flat"] or two["is_flat"]):
                bits = (one["phash"] ^ two["phash"]) % 2**64
                near["perceptual"] = float(bits.bit_count())
            if a in unit and b in unit:
                near["semantic"] = max(0.0, 1 - float(unit[a] @ unit[b]))
            for tier, distance in near.items():
                found[a, tier] = min(found.get((a, tier), (np.inf, "")), (distance, b))
    return found


LIMITS = {"exact": 0, "perceptual": 4, "semantic": 0.1}


def test_overlaps_equal_brute_force_and_nearest_is_what_remains():
    prints, others, embeddings, other_embeddings, vectors = corpus()
    every = slow(prints, others, vectors)
    expected = {k: v for k, v in every.items() if v[0] <= LIMITS[k[1]]}
    assert {t for _, t in expected} == set(LIMITS)
    results = compared(prints, others, embeddings, other_embeddings)
    rows = joined(results, "validation_overlaps")
    found = {(r["image_id"], r["tier"]): (r["distance"], r["validation_id"]) for r in rows}
    assert list(found) == sorted(expected)
    for key, (distance, other) in expected.items():
        assert found[key] == (pytest.approx(distance, abs=1e-6), other)
    removed = {i for i, _ in expected}
    for row in joined(results, "validation_nearest"):
        left = [
            (distance, i, other)
            for (i, tier), (distance, other) in every.items()
            if tier == row["tier"] and i not in removed
        ]
        distance, image_id, other = min(left, default=(None, None, None))
        assert (row["image_id"], row["nearest_image_id"]) == ("i000", image_id)
        assert row["validation_id"] == other
        assert row["distance"] == (None if other is None else pytest.approx(distance, abs=1e-6))
    sharp = sum(not r["is_flat"] for r in prints), sum(not r["is_flat"] for r in others)
    known = [
        sum(bool(v.any()) for i, v in vectors.items() if (i < "i200") is s) for s in (True, False)
    ]
    assert results[0].counts == {
        "pairs.exact": 200 * 40,
        "pairs.perceptual": sharp[0] * sharp[1],
        "pairs.semantic": known[0] * known[1],
    }
    one = joined(results, "validation_nearest")
    many = compared(prints, others, embeddings, other_embeddings, batches=7)
    assert joined(many, "validation_overlaps") == rows
    for row in one:
        same = [r for r in joined(many, "validation_nearest") if r["tier"] == row["tier"]]
        assert sum(r["num_pairs"] for r in same) == row["num_pairs"]
        known = [r["distance"] for r in same if r["distance"] is not None]
        assert min(known, default=None) == row["distance"]


def test_tiers_that_are_off_are_neither_found_nor_counted():
    prints, others, embeddings, other_embeddings, _ = corpus()
    params = PARAMS.model_copy(update={"exact": False, "semantic": False})
    results = compared(prints, others, embeddings, other_embeddings, params)
    assert {r["tier"] for r in joined(results, "validation_overlaps")} == {"perceptual"}
    assert {r["tier"] for r in joined(results, "validation_nearest")} == {"perceptual"}
    assert set(results[0].counts) == {"pairs.perceptual"}


def test_no_images_and_no_validation_images():
    prints, others, embeddings, other_embeddings, _ = corpus()
    empty = compared([], others, [], other_embeddings)
    assert joined(empty, "validation_overlaps") + joined(empty, "validation_nearest") == []
    alone = compared(prints, [], embeddings, [])
    assert joined(alone, "validation_overlaps") == []
    assert [(r["tier"], r["num_pairs"]) for r in joined(alone, "validation_nearest")] == [
        ("exact", 0), ("perceptual", 0), ("semantic", 0),
    ]  # fmt: skip


def nearest(image_id, tier, num_pairs, other=None, distance=None):
    columns = ("image_id", "tier", "num_pairs", "nearest_image_id", "validation_id", "distance")
    near = other and "n"
    return dict(zip(columns, (image_id, tier, num_pairs, near, other, distance), strict=True))


def certified(spark, unique):
    prints = [print_row(f"i{i}", f"d{i}") for i in range(5)]
    others = [renamed(print_row(f"w/{i}", f"d{i}")) for i in range(3)]
    overlaps = [
        ("i0", "exact", "w/0", 0.0),
        ("i0", "perceptual", "w/0", 0.0),
        ("i1", "perceptual", "w/2", 4.0),
    ]
    names = ALL["validation_overlaps"].column_names
    near = [
        nearest("i0", "exact", 9),
        nearest("i0", "perceptual", 6, "w/1", 12.0),
        nearest("i3", "exact", 6),
        nearest("i3", "perceptual", 4, "w/0", 8.0),
    ]
    return certify_validation(
        frame(spark, "image_fingerprints", prints),
        frame(spark, "validation_fingerprints", others),
        frame(spark, "validation_overlaps", [dict(zip(names, r, strict=True)) for r in overlaps]),
        frame(spark, "validation_nearest", near),
        frame(spark, "unique_images", [p for p in prints if p["image_id"] in unique]),
        PARAMS,
        Context(),
    )["validation_certificate"]


def test_certificate_by_hand_and_leaks(spark):
    found = sorted(tuple(row) for row in certified(spark, {"i2", "i3", "i4"}).collect())
    assert found == [
        ("exact", 5, 3, 15.0, 1, 0.0, None),
        ("perceptual", 5, 3, 10.0, 2, 4.0, 8.0),
        ("semantic", 5, 3, 0.0, 0, pytest.approx(0.1), None),
    ]
    with pytest.raises(ValueError, match=r"unique_images: 1 images overlap .*, expected 0"):
        certified(spark, {"i1", "i2"})
