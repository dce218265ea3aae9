"""Writing, checking, reading and forgetting tables, without Spark."""

import bisect
import errno
import os
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.files.storage import open_storage
from pipeline.kernels.hashing import bucket_of
from pipeline.runtime.catalog import open_catalog, rows_of
from pipeline.runtime.checks import check_file
from pipeline.runtime.garbage import collect_garbage
from pipeline.runtime.ledger import mismatches, settle
from pipeline.runtime.manifest import StageManifest, TableManifest, folder_of, publish
from pipeline.runtime.reader import aligned_slices, first_after
from pipeline.runtime.writer import PartWriter, conform, write_part
from pipeline.stages.select_visual_terms import STAGE
from pipeline.stages.stage import LedgerRule
from schemas.contract import Column, Table
from schemas.ingested import ANNOTATIONS, IMAGE_ID
from schemas.labels import IMAGE_INTERESTS, SELECTED_ANNOTATIONS

SIZES = Table(
    name="sizes",
    doc="Sizes.",
    key=("image_id",),
    columns=(IMAGE_ID, Column(name="size", type="int", doc="of it", min=1, max=9)),
)
VECTORS = Table(
    name="vectors",
    doc="Vectors.",
    key=("image_id",),
    columns=(IMAGE_ID, Column(name="embedding", type="vector", doc="bytes")),
)


def sizes(*rows):
    ids, values = zip(*rows, strict=True) if rows else ((), ())
    return pa.table({"image_id": pa.array(ids, pa.string()), "size": pa.array(values, pa.int64())})


def written(tmp_path, table, rows, bucket=0, num_buckets=1):
    storage = open_storage(str(tmp_path))
    return storage, write_part(storage, "t", table, bucket, num_buckets, rows)


def test_part_is_read_back_with_its_counts(tmp_path):
    _, stats = written(tmp_path, SIZES, sizes(("a", 3), ("b", 4)))
    assert (stats.num_rows, stats.totals, stats.breaches) == (2, {"size": 7}, [])
    assert [p.name for p in (tmp_path / "t").iterdir()] == ["part-00000.parquet"]


@pytest.mark.parametrize(
    ("rows", "breach"),
    [
        ([("b", 1), ("a", 1)], "1 rows break the order"),
        ([("a", 1), ("a", 1)], "ascending without repeats"),
        ([("a", 1), ("b", 10)], r"1 values outside, e.g. 10, expected \[1, 9\]"),
        ([("a", 1), ("b", None)], "size: 1 nulls, expected none"),
    ],
)
def test_breach_of_the_contract_is_found(tmp_path, rows, breach):
    import re

    _, stats = written(tmp_path, SIZES, sizes(*rows))
    assert any(re.search(breach, b) for b in stats.breaches), stats.breaches


def test_row_of_another_bucket_is_found(tmp_path):
    bucket = int(bucket_of(["a"], 4)[0])
    _, right = written(tmp_path, SIZES, sizes(("a", 1)), bucket, 4)
    _, wrong = written(tmp_path, SIZES, sizes(("a", 1)), (bucket + 1) % 4, 4)
    assert right.breaches == []
    assert "1 rows of another bucket" in wrong.breaches[0]


def test_foreign_file_is_refused_by_its_types(tmp_path):
    (tmp_path / "t").mkdir()
    pq.write_table(pa.table({"image_id": ["a"], "size": ["x"]}), tmp_path / "t" / "f.parquet")
    storage = open_storage(str(tmp_path))
    stats = check_file(storage, "t", "f.parquet", SIZES, 0, 1)
    assert stats.breaches == ["sizes.size: type string, expected int"]


def test_vectors_get_a_fixed_width(tmp_path):
    rows = pa.table({"image_id": ["a", "b"], "embedding": pa.array([b"12345678", b"abcdefgh"])})
    written(tmp_path, VECTORS, rows)
    schema = pq.read_schema(tmp_path / "t" / "part-00000.parquet")
    assert schema.field("embedding").type == pa.binary(8)


def test_missing_column_is_named():
    with pytest.raises(ValueError, match=r"columns \['size'\] are missing"):
        conform(pa.table({"image_id": ["a"]}), SIZES)


def test_killed_writer_leaves_the_old_file(tmp_path):
    storage, _ = written(tmp_path, SIZES, sizes(("a", 3)))
    writer = PartWriter(storage, "t", SIZES, 0, 1)
    writer.write(sizes(("z", 9)))
    writer.abort()
    assert pq.read_table(tmp_path / "t" / "part-00000.parquet")["image_id"].to_pylist() == ["a"]
    assert len(list((tmp_path / "t").iterdir())) == 1


def test_full_disk_keeps_what_was_there(tmp_path, monkeypatch):
    storage, _ = written(tmp_path, SIZES, sizes(("a", 3)))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_part(storage, "t", SIZES, 0, 1, sizes(("z", 9)))
    assert pq.read_table(tmp_path / "t" / "part-00000.parquet")["image_id"].to_pylist() == ["a"]
    assert len(list((tmp_path / "t").iterdir())) == 1


def manifest_of(table, files, folder="f"):
    return TableManifest(
        name=table.name,
        path=f"{folder}/{table.name}",
        num_buckets=1,
        num_rows=sum(f.num_rows for f in files),
        totals={},
        reasons={},
        files=files,
    )


def nested(*rows):
    return pa.table(
        {
            "image_id": pa.array([i for i, _ in rows], pa.string()),
            "annotations": pa.array(
                [[{"term_id": t, "score": 0.5} for t in terms] for _, terms in rows],
                ANNOTATIONS.arrow_schema.field("annotations").type,
            ),
        }
    )


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 100])
def test_aligned_slices_show_every_row_once(tmp_path, batch_rows):
    storage = open_storage(str(tmp_path))
    left = nested(*[(f"i{n}", [n]) for n in (1, 3, 5, 7)])
    right = pa.table(
        {
            "image_id": [f"i{n}" for n in (0, 1, 4, 5, 9)],
            "l1_interests": pa.array([["x"]] * 5, pa.list_(pa.string())),
        }
    )
    contracts = {"selected_annotations": SELECTED_ANNOTATIONS, "image_interests": IMAGE_INTERESTS}
    manifests = {}
    for (name, table), rows in zip(contracts.items(), (left, right), strict=True):
        stats = write_part(storage, f"f/{name}", table, 0, 1, rows)
        manifests[name] = manifest_of(table, [stats])
    seen = {name: [] for name in contracts}
    for slices in aligned_slices(storage, manifests, contracts, 0, batch_rows, {}):
        keys = {name: rows["image_id"].to_pylist() for name, rows in slices.items()}
        for name, ids in keys.items():
            seen[name] += ids
        shared = set(keys["image_interests"]) & {"i1", "i3", "i5", "i7"}
        assert shared <= set(keys["selected_annotations"])
    assert seen["selected_annotations"] == left["image_id"].to_pylist()
    assert seen["image_interests"] == right["image_id"].to_pylist()


def published(tmp_path, version, rows):
    storage = open_storage(str(tmp_path))
    folder = folder_of(STAGE, version, 1)
    stats = write_part(storage, f"{folder}/selected_annotations", SELECTED_ANNOTATIONS, 0, 1, rows)
    table = manifest_of(SELECTED_ANNOTATIONS, [stats], folder)
    publish(
        storage,
        STAGE,
        StageManifest(
            stage=STAGE.name,
            version=version,
            layout=1,
            params={},
            inputs={},
            tables={table.name: table},
            counts={},
            ledger=[],
            seconds=1.0,
            finished="2026-01-01T00:00:00+00:00",
            commit="x",
        ),
    )


def test_end_of_a_slice_is_where_bisection_finds_it():
    random = np.random.default_rng(1)
    for _ in range(2_000):
        keys = sorted(random.choice(list("abcdefgh"), random.integers(0, 13)).tolist())
        cut = int(random.integers(0, len(keys) + 1))
        chunks = [pa.array(part, pa.string()) for part in (keys[:cut], keys[cut:])]
        start, last = int(random.integers(0, len(keys) + 1)), str(random.choice(list("abcdefgh")))
        want = max(start, bisect.bisect_right(keys, last))
        assert first_after(pa.chunked_array(chunks), last, start) == want


def test_catalog_reads_what_the_pointer_names(tmp_path):
    published(tmp_path, "a" * 12, nested(("x", [1])))
    published(tmp_path, "b" * 12, nested(("x", [2]), ("y", [3])))
    catalog = open_catalog(str(tmp_path))
    assert catalog.read("selected_annotations").num_rows == 2
    found = rows_of(catalog, "selected_annotations", ["y", "absent"], ["image_id"])
    assert found["image_id"].to_pylist() == ["y"]
    with pytest.raises(ValueError, match="'nothing' is not published; found selected_annotations"):
        catalog.read("nothing")


def test_catalog_passes_over_pointers_of_others(tmp_path):
    storage = open_storage(str(tmp_path))
    storage.write_json_atomic("pretrain/CURRENT.json", {"version": "x", "path": "run1"})
    assert open_catalog(str(tmp_path)).stages == {}


def test_garbage_is_what_no_pointer_names_and_is_old(tmp_path):
    published(tmp_path, "a" * 12, nested(("x", [1])))
    published(tmp_path, "b" * 12, nested(("x", [2])))
    old = f"{STAGE.name}/{'a' * 12}-00001"
    assert collect_garbage(str(tmp_path), days=1) == []
    past = time.time() - 3 * 86400
    for path in (tmp_path / STAGE.name).rglob("*"):
        os.utime(path, (past, past))
    assert collect_garbage(str(tmp_path), days=1, dry_run=True) == [old]
    assert (tmp_path / old).exists()
    assert collect_garbage(str(tmp_path), days=1) == [old]
    assert not (tmp_path / old).exists()
    assert open_catalog(str(tmp_path)).read("selected_annotations").num_rows == 1


def test_ledger_adds_tables_lists_and_counts():
    table = TableManifest(
        name="out", path="", num_buckets=1, num_rows=3, totals={"xs": 7}, reasons={}, files=[]
    )
    lost = table.model_copy(update={"name": "lost", "num_rows": 2, "reasons": {"bad": 2}})
    rules = (
        LedgerRule("images", ("source_in",), ("out",), dropped=("lost",)),
        LedgerRule("items", ("#items",), ("out.xs",), dropped_counts="items.dropped."),
    )
    counts = {"items": 9, "items.dropped.low": 1}
    lines = settle(rules, {}, {"out": table, "lost": lost}, counts, lambda name: 5)
    assert [(x.rows_in, x.rows_out, x.dropped) for x in lines] == [
        (5, 3, {"bad": 2}),
        (9, 7, {"low": 1}),
    ]
    assert mismatches("s", lines) == [
        "s: 9 items in, 7 out, 1 dropped {'low': 1}: 1 unaccounted for, expected 0"
    ]
