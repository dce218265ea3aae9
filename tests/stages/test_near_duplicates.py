"""All near-duplicate stages in a row, by thresholds: nothing that remains is near anything."""

import itertools

import numpy as np
import pytest
from given import publish_rows
from near_duplicate_rows import packed, print_row

from pipeline.config.images import NearDuplicateParams, VerifyParams
from pipeline.config.run import RunConfig
from pipeline.config.runtime import RuntimeParams
from pipeline.files.storage import open_storage
from pipeline.kernels.vectors import l2_normalise
from pipeline.runtime.lifecycle import Lifecycle
from pipeline.runtime.planning import plan_chain
from pipeline.runtime.reader import read_table
from pipeline.stages import (
    certify_validation,
    drop_near_duplicates,
    find_near_duplicates,
    find_validation_overlaps,
    group_near_duplicates,
    train_cells,
    verify_near_duplicates,
)
from schemas import ALL

CHAIN = (
    train_cells.STAGE,
    find_near_duplicates.STAGE,
    verify_near_duplicates.STAGE,
    find_validation_overlaps.STAGE,
    group_near_duplicates.STAGE,
    drop_near_duplicates.STAGE,
    certify_validation.STAGE,
)
PARAMS = NearDuplicateParams(
    num_probes=50, min_cosine=0.9, max_hamming=4, verify=VerifyParams(enabled=False)
)
NUM_IMAGES, NUM_VALIDATION = 120, 12


def corpus():
    """Chains of hash neighbours, clouds of vectors, copies, blanks, opt-outs, validation images."""
    rng = np.random.default_rng(4)
    n = NUM_IMAGES + NUM_VALIDATION
    hashes = rng.integers(0, 2**64, size=n, dtype=np.uint64)
    vectors = rng.normal(size=(n, 8))
    for i in range(1, n):
        if i % 2:
            hashes[i] = hashes[i - 1 - i % 4] ^ np.uint64((1 << i % 5) - 1 << i % 50)
        if i % 3 == 0:
            vectors[i] = vectors[rng.integers(i)] + rng.normal(size=8) * 0.3
    vectors[[6, 70]] = 0
    vectors[1:20:2] = vectors[0:20:2]  # equal bytes, equal embeddings
    prints = [
        print_row(
            f"i{i:03d}",
            f"d{i // 2 if i < 20 else i}",
            int(hashes[i // 2 * 2 if i < 20 else i]),
            i % 10 == 9,
            100 + int(rng.integers(3)),
        )
        for i in range(n)
    ]
    for i in range(NUM_IMAGES, n):  # copies of images, exact and by vector
        if i % 2:
            prints[i] |= {"sha256": f"d{i - 60}", "phash": prints[i - 60]["phash"]}
        vectors[i] = vectors[i - 90] * 2
    embeddings = [{"image_id": f"i{i:03d}", "embedding": packed(vectors[i])} for i in range(n)]

    def parts(rows):
        turned = [
            row | {"validation_id": f"w/{row['image_id']}"} for row in rows[NUM_IMAGES:]
        ]  # fmt: skip
        return rows[:NUM_IMAGES], turned

    images, others = parts(prints)
    known, other_known = parts(embeddings)
    labels = [{"image_id": f"i{i:03d}", "cluster_ids": [0] * (i % 3)} for i in range(0, 120, 2)]
    blocked = [{"kind": "image_id", "value": "i004"}, {"kind": "sha256", "value": "d30"}]
    return {
        "image_fingerprints": images,
        "validation_fingerprints": others,
        "image_embeddings": known,
        "validation_embeddings": other_known,
        "image_labels": [row | {"label_terms": [[]]} for row in labels],
        "blocked_images": blocked,
        "pair_models": [],
    }


def run_all(spark, root, given, num_buckets):
    runtime = RuntimeParams(num_buckets=num_buckets)
    config = RunConfig(root=str(root), runtime=runtime, near_duplicates=PARAMS)
    storage = open_storage(config.root)
    published = {}
    for name, rows in given.items():
        columns = ALL[name].column_names
        rows = [{c: row.get(c) for c in columns} for row in rows]
        published[name] = publish_rows(storage, ALL[name], rows, num_buckets)
    planned = plan_chain(CHAIN, config, storage, {n: m.version for n, m in published.items()})
    lifecycle = Lifecycle(spark, config, storage, published)
    tables, manifests = {}, {}
    for plan in planned:
        manifests[plan.stage.name] = manifest = lifecycle.run(plan)
        for table in plan.stage.outputs:
            rows = read_table(storage, manifest.tables[table.name], table)
            keys = [(k, "ascending") for k in table.key]
            tables[table.name] = rows.sort_by(keys).to_pylist()
    return tables, manifests


@pytest.fixture(scope="module")
def given_tables():
    return corpus()


@pytest.fixture(scope="module")
def result(spark, tmp_path_factory, given_tables):
    return run_all(spark, tmp_path_factory.mktemp("one"), given_tables, 1)


def matches(given_tables):
    """One signal table for images and validation images, and a test of two of them."""
    prints, units = {}, {}
    for name in ("image", "validation"):
        for row in given_tables[f"{name}_fingerprints"]:
            prints[row.get("validation_id", row["image_id"])] = row
        for row in given_tables[f"{name}_embeddings"]:
            vector = np.frombuffer(row["embedding"], "<f4")[None]
            units[row.get("validation_id", row["image_id"])] = l2_normalise(vector)[0].astype(float)

    def match(one, two):
        a, b = prints[one], prints[two]
        bits = ((a["phash"] ^ b["phash"]) % 2**64).bit_count()
        return (
            a["sha256"] == b["sha256"]
            or (bits <= 4 and not a["is_flat"] and not b["is_flat"])
            or float(units[one] @ units[two]) >= 0.9
        )

    return match


def test_what_remains_is_far_from_everything(result, given_tables):
    tables, manifests = result
    match = matches(given_tables)
    unique = [row["image_id"] for row in tables["unique_images"]]
    dropped = {row["image_id"]: row for row in tables["dropped_images"]}
    assert sorted([*unique, *dropped]) == [
        r["image_id"] for r in given_tables["image_fingerprints"]
    ]
    assert [pair for pair in itertools.combinations(unique, 2) if match(*pair)] == []
    others = [row["validation_id"] for row in given_tables["validation_fingerprints"]]
    near = {i for i in [*unique, *dropped] for v in others if match(i, v)}
    assert near.isdisjoint(unique)
    blocked = {"i004", "i005", "i030"}
    for image_id, row in dropped.items():
        if row["reason"].startswith("duplicate_"):
            assert row["other_id"] in unique
            assert match(image_id, row["other_id"])
        elif row["reason"].startswith("validation_"):
            assert image_id in near
            assert match(image_id, row["other_id"])
    assert {i for i, r in dropped.items() if r["reason"] == "blocked"} == blocked - {"i005"}
    # Neighbours of an opt-out go with it, unless a validation set takes them.
    for image_id in unique:
        assert not any(match(image_id, other) for other in blocked)
    reasons = manifests["drop_near_duplicates"].ledger[0].dropped
    assert {"blocked", "blocked_duplicate", "duplicate_exact", "duplicate_perceptual"} < set(
        reasons
    )
    assert {"duplicate_semantic", "validation_exact", "validation_semantic"} < set(reasons)
    assert manifests["drop_near_duplicates"].ledger[0].rows_in == NUM_IMAGES


def test_certificate_counts_every_pair(result):
    rows = {row["tier"]: row for row in result[0]["validation_certificate"]}
    assert rows["exact"]["num_pairs_checked"] == NUM_IMAGES * NUM_VALIDATION
    assert rows["exact"]["nearest_remaining"] is None
    assert rows["perceptual"]["nearest_remaining"] > 4
    assert rows["semantic"]["nearest_remaining"] > 0.1
    removed = {row["image_id"] for row in result[0]["validation_overlaps"]}
    assert len(removed) < sum(row["num_removed"] for row in rows.values())


def test_rows_do_not_depend_on_the_layout_or_the_order_of_rows(
    spark, tmp_path, result, given_tables
):
    turned = {name: rows[::-1] for name, rows in given_tables.items()}
    tables, _ = run_all(spark, tmp_path, turned, 3)
    for name in set(tables) - {"validation_nearest"}:
        assert tables[name] == result[0][name], name
