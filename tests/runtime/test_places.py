"""Values of a stored column are where the footers and sizes say, in every row group."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.files.storage import open_storage
from pipeline.kernels.hashing import bucket_of
from pipeline.runtime import writer
from pipeline.runtime.places import locate_stored
from pipeline.runtime.writer import part_name, write_parts
from schemas.ingested import IMAGES

COLUMNS = ("image_id", "uri", "tags")


def images(n, seed=0):
    """Rows of bucket 0 of 1; every third has no bytes; sizes from 0 to 400."""
    rng = np.random.default_rng(seed)
    data = [
        rng.bytes(int(size)) if i % 3 else None for i, size in enumerate(rng.integers(0, 400, n))
    ]
    ids = sorted(f"ü{i:06d}" for i in range(n))
    given = {
        name: pa.nulls(n, IMAGES.arrow_schema.field(name).type) for name in IMAGES.column_names
    }
    given |= {
        "image_id": ids,
        "bytes": pa.array(data, pa.binary()),
        "num_bytes": [None if d is None else len(d) for d in data],
        "uri": [f"/{i}" if d is None else None for i, d in zip(ids, data, strict=True)],
        "tags": [["a", i] for i in ids],
    }
    return pa.table(given, schema=IMAGES.arrow_schema), data


def located(storage, name):
    with storage.open_read(name) as handle:
        return pa.Table.from_batches(locate_stored(handle, name, COLUMNS, "bytes", "num_bytes"))


@pytest.mark.parametrize(("rows", "group"), [(1, 5), (7, 5), (25_000, None)])
def test_every_value_is_at_its_place(tmp_path, monkeypatch, rows, group):
    if group:
        monkeypatch.setattr(writer, "STORED_ROWS", group)
    storage = open_storage(str(tmp_path))
    table, data = images(rows)
    assert set(bucket_of(table["image_id"], 1)) == {0}
    stats = write_parts(storage, "images", IMAGES, 0, 1, [table.slice(0, 3), table.slice(3)])
    assert stats.breaches == []
    name = f"images/{part_name(0)}"
    groups = pq.ParquetFile(tmp_path / name).num_row_groups
    assert groups == -(-rows // (group or writer.STORED_ROWS))
    found = located(storage, name)
    assert found.select(COLUMNS).equals(table.select(COLUMNS))
    for value, row in zip(data, found.to_pylist(), strict=True):
        if value is None:
            assert row["part"] is row["offset"] is None
        else:
            assert row["part"] == name
            assert storage.read_range(name, row["offset"], len(value)) == value


def test_a_part_of_another_program_is_refused(tmp_path):
    table, _ = images(300)
    storage = open_storage(str(tmp_path))
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    with pytest.raises(ValueError, match=r"a\.parquet: column bytes of row group 0 is ZSTD"):
        located(storage, "a.parquet")
    sizes = pa.array([None if s is None else s + 9000 for s in table["num_bytes"].to_pylist()])
    wrong = table.set_column(table.column_names.index("num_bytes"), "num_bytes", sizes)
    write_parts(storage, "t", IMAGES, 0, 1, [wrong])
    with pytest.raises(ValueError, match="expected one plain page"):
        located(storage, f"t/{part_name(0)}")
