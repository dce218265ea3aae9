"""Images as bytes in a table, and the planned samples of a release over them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.files.storage import open_storage
from pipeline.kernels.hashing import bucket_of
from pipeline.kernels.samples import Sample, sample_key, sample_members
from pipeline.runtime.places import locate_stored
from pipeline.runtime.writer import part_name, write_parts
from schemas.dataset import SHARD_ASSIGNMENTS
from schemas.ingested import IMAGES

NUM_BUCKETS = 8
SHARDS = {True: 10, False: 4}
"""Of a large world and of a small one."""
LARGE = 10_000
MEAN_BYTES, SPREAD_BYTES = 31_000, 8_000
LABELS = [f"label {i}" for i in range(1000)]


@dataclass(frozen=True)
class World:
    """Folders below ``root``.

    Attributes:
        root: of the tables.
        num_images: each is one sample.
        num_bytes: of all images.
        num_shards: of the release.
    """

    root: str
    num_images: int
    num_bytes: int
    num_shards: int

    def folder(self, name: str) -> str:
        """``images``, ``shard_assignments`` (a bucket a shard), or ``members`` (key, jpg, txt and
        json of each sample, in the order of the images)."""
        return f"{self.root}/{name}"


def make_world(root: str, num_images: int) -> World:
    """Random bytes in place of JPEGs, which nobody decodes: they compress as little."""
    num_shards = SHARDS[num_images > LARGE]
    ids = pa.array(f"image-{i:08d}" for i in range(num_images))
    buckets = bucket_of(ids, NUM_BUCKETS)
    places = np.random.default_rng(0).permutation(num_images)
    planned: list[dict[str, Any]] = []
    for bucket in range(NUM_BUCKETS):
        rows = np.flatnonzero(buckets == bucket)
        planned += _bucket(root, bucket, ids, rows, places, num_shards)
    Path(root, "shard_assignments").mkdir(parents=True)
    assigned = SHARD_ASSIGNMENTS.arrow_schema
    table = pa.Table.from_pylist(planned).select(assigned.names).cast(assigned)
    table = table.sort_by([("shard_id", "ascending"), ("position", "ascending")])
    for bucket in range(num_shards):
        part = table.filter(pa.array(table["shard_id"].to_numpy() == bucket))
        pq.write_table(part, f"{root}/shard_assignments/{part_name(bucket)}", compression="zstd")
    return World(root, num_images, int(sum(row["num_bytes"] for row in planned)), num_shards)


def _bucket(
    root: str, bucket: int, ids: pa.Array, rows: Any, places: Any, num_shards: int
) -> list[dict[str, Any]]:
    """Write one bucket of the images, and its samples' members; returns the planned rows."""
    rng = np.random.default_rng([1, bucket])
    sizes = rng.normal(MEAN_BYTES, SPREAD_BYTES, len(rows)).clip(2_000).astype(int).tolist()
    data = [rng.bytes(size) for size in sizes]
    given = {field.name: pa.nulls(len(rows), field.type) for field in IMAGES.arrow_schema}
    given |= {
        "image_id": ids.take(pa.array(rows)),
        "bytes": pa.array(data, pa.binary()),
        "num_bytes": pa.array(sizes, pa.int64()),
        "source": pa.array(["camera"] * len(rows)),
        "licence": pa.array(["CC0"] * len(rows)),
    }
    storage = open_storage(root)
    table = pa.table(given, schema=IMAGES.arrow_schema)
    write_parts(storage, "images", IMAGES, bucket, NUM_BUCKETS, [table])
    name = f"images/{part_name(bucket)}"
    with storage.open_read(name) as handle:
        found = locate_stored(handle, name, ("image_id",), "bytes", "num_bytes")
        offsets = pa.Table.from_batches(found)["offset"].to_pylist()
    planned, members = [], []
    for at, row in enumerate(rows.tolist()):
        labels = sorted(rng.choice(len(LABELS), 3, replace=False).tolist())
        image_id = given["image_id"][at].as_py()
        row_of = {
            "shard_id": int(places[row] % num_shards),
            "position": int(places[row] // num_shards),
            "key": sample_key(image_id, 0),
            "image_id": image_id,
            "copy_index": 0,
            "label_ids": labels,
            "weight": 1.0,
            "sha256": hashlib.sha256(data[at]).hexdigest(),
            "format": "jpeg",
            "num_bytes": sizes[at],
            "uri": None,
            "part": name,
            "offset": offsets[at],
            "source": "camera",
            "licence": "CC0",
        }
        planned.append(row_of)
        sample = Sample(
            row_of["key"], "jpeg", image_id, 0, labels, row_of["sha256"], "camera", "CC0"
        )
        _, text, record = sample_members(sample, b"", LABELS)
        members.append((row_of["key"], data[at], text[1], record[1]))
    Path(root, "members").mkdir(exist_ok=True)
    columns = [pa.array(column) for column in zip(*members, strict=True)]
    pq.write_table(
        pa.table(columns, names=["key", "jpg", "txt", "json"]),
        f"{root}/members/{part_name(bucket)}",
        compression="none",
        row_group_size=2048,
    )
    return planned
