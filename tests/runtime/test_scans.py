"""Scans of an input table: rows of some keys, from the files and row groups that have them."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.files.storage import open_storage
from pipeline.kernels.hashing import bucket_of
from pipeline.runtime import scans, writer
from pipeline.runtime.relational import RelationalContext
from pipeline.runtime.scans import InputFiles, Parts
from pipeline.runtime.writer import write_part
from schemas.ingested import IMAGE_EMBEDDINGS

NUM, BUCKETS, GROUP = 120, 3, 8
IDS = [f"i{i:03d}" for i in range(NUM)]


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Storage and the names of three files with row groups of eight rows."""
    monkeypatch.setattr(writer, "ROW_GROUP_ROWS", GROUP)
    storage = open_storage(str(tmp_path))
    buckets = bucket_of(IDS, BUCKETS)
    names = []
    for bucket in range(BUCKETS):
        mine = [i for i, b in zip(IDS, buckets, strict=True) if b == bucket]
        vectors = [i.encode() * 3 for i in mine]
        rows = pa.table({"image_id": mine, "embedding": pa.array(vectors, pa.binary())})
        stats = write_part(storage, "t", IMAGE_EMBEDDINGS, bucket, BUCKETS, rows)
        names.append(f"t/{stats.name}")
    return storage, names


def ids_of(batches):
    return [i for batch in batches for i in batch.column("image_id").to_pylist()]


def test_row_groups_without_a_wanted_key_are_not_read(table, tmp_path):
    storage, names = table
    path = tmp_path / names[1]
    file = pq.ParquetFile(path)
    assert file.num_row_groups > 3
    last = file.read_row_group(file.num_row_groups - 1)["image_id"].to_pylist()
    chunk = file.metadata.row_group(0).column(1)
    data = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(data)
    parts = Parts(storage, ("image_id", "embedding"))
    assert ids_of(parts.rows(names[1], pa.array(last[1:]))) == last[1:]
    with pytest.raises(OSError, match=r"zstd|ZSTD|[Cc]orrupt|deserialize|page"):
        list(parts.rows(names[1]))
    assert list(parts.rows("no such file", pa.array([], pa.string()))) == []


def test_rows_of_kilobytes_come_in_small_batches(table, monkeypatch):
    storage, names = table
    parts = Parts(storage, ("image_id", "embedding"))
    assert max(batch.num_rows for batch in parts.rows(names[0])) == GROUP
    monkeypatch.setattr(scans, "SCAN_BYTES", 100)
    found = list(parts.rows(names[0]))
    assert max(batch.num_rows for batch in found) < GROUP
    assert ids_of(found) == parts.keys(names[0]).to_pylist()


def test_a_set_of_keys_comes_to_the_files(spark, table):
    storage, names = table
    frame = spark.createDataFrame([], IMAGE_EMBEDDINGS.ddl)
    context = RelationalContext(
        spark, storage, "scratch", [InputFiles(frame, names[:2], NUM, BUCKETS)]
    )
    wanted = [*IDS[10:40], "nobody", IDS[11]]
    keys = spark.createDataFrame([(i, 1) for i in wanted], "image_id string, n int").repartition(4)
    calls = []

    def tagged(batches):
        found = ids_of(batches)
        calls.append(found)
        yield pa.RecordBatch.from_pydict({"ids": [found]})

    scanned = context.scan(
        frame, ("image_id", "embedding"), tagged, "ids array<string>", among=keys
    )
    found = [row.ids for row in scanned.collect()]
    buckets = dict(zip(IDS, bucket_of(IDS, BUCKETS).tolist(), strict=True))
    expected = [[i for i in IDS[10:40] if buckets[i] == bucket] for bucket in (0, 1)]
    assert sorted(found) == sorted(expected)  # once a file; the third has no rows in the table
    nothing = keys.where("n = 2")
    assert (
        context.scan(frame, ("image_id",), tagged, "ids array<string>", among=nothing).count() == 0
    )


def test_a_scan_is_not_taken_for_small_and_broadcast(spark, table):
    storage, names = table
    frame = spark.createDataFrame([], IMAGE_EMBEDDINGS.ddl)
    context = RelationalContext(spark, storage, "scratch", [InputFiles(frame, names, NUM, BUCKETS)])

    def as_they_are(batches):
        yield from batches

    scanned = context.scan(frame, ("image_id",), as_they_are, "image_id string")
    rows = spark.createDataFrame([(i,) for i in IDS], "image_id string")
    joined = rows.join(scanned, on="image_id", how="left")
    assert joined.count() == NUM
    plan = joined._jdf.queryExecution().executedPlan().toString()
    assert "SortMergeJoin" in plan
    assert "BroadcastHashJoin" not in plan
