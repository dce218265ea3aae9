"""Inputs of the label half of the chain, from 1M to 100M images, planted as tables.

Terms, interests and clusters are those of `label_world`. Annotations here are candidates, with
confidences, aliases, terms of other languages and sensitive ones, so that selection has something
to select. Image stages did not run: `unique_images` is drawn. Identifiers are 32 hex digits and
digests 64, so that neither compresses better than real ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.label_world import (
    NUM_TERMS,
    SEED,
    World,
    draw_annotations,
    draw_interests,
    rows_of,
    small_tables,
    write_buckets,
)
from pipeline.files.storage import Storage, open_storage
from pipeline.kernels.hashing import bucket_of
from pipeline.runtime.manifest import FileStats
from pipeline.runtime.writer import ROW_GROUP_ROWS, STORED_ROWS, leaves_of, part_name, write_part
from schemas.contract import Table
from schemas.images import UNIQUE_IMAGES
from schemas.ingested import ANNOTATIONS, IMAGES, TERMS
from schemas.labels import IMAGE_INTERESTS

ALIASES, FOREIGN, SENSITIVE = 0.2, 0.05, 0.02
"""Shares of the dictionary's terms; aliases of every second one."""
UNIQUE = 0.85
"""Share of images that near-duplicate removal keeps (assumed)."""
MEAN_BYTES = 30_000
UNANNOTATED = 0.01
CHUNK, ID_CHUNK = 100_000, 1_000_000
ONCE = ("image_id", "uri", "sha256", "num_bytes")
"""Columns whose values do not repeat."""


def make_world(root: str, num_images: int, num_buckets: int, num_processes: int) -> World:
    """Draw and write the inputs of the label half.

    Args:
        root: folder.
        num_images: in all.
        num_buckets: files of every image-level table.
        num_processes: that draw and write.
    """
    storage = open_storage(root)
    small = [*small_tables(), (TERMS, _terms())]
    files = {t.name: [write_part(storage, t.name, t, 0, 1, rows)] for t, rows in small}
    ids, starts = _ids_by_bucket(num_images, num_buckets)
    parts = [ids[start:end] for start, end in itertools.pairwise(starts)]
    tables = write_buckets(_write_bucket, storage, parts, num_processes, files)
    return World(root, tables, tables["annotations"].totals["annotations"])


def _terms() -> pa.Table:
    """The dictionary; an alias's canonical term is the one before it."""
    rng = np.random.default_rng([SEED, 1])
    term_id = np.arange(NUM_TERMS)
    is_alias = rng.random(NUM_TERMS) < ALIASES
    is_alias &= term_id % 2 == 1  # the term before is none
    canonical = term_id - is_alias
    return rows_of(
        TERMS,
        term_id=term_id,
        text=[f"term {number}" for number in range(NUM_TERMS)],
        language=np.where(rng.random(NUM_TERMS) < FOREIGN, "de", "en").astype(object),
        canonical_term_id=canonical,
        is_sensitive=rng.random(NUM_TERMS) < SENSITIVE,
    )


def _ids_by_bucket(
    num_images: int, num_buckets: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Identifiers as 128 bits, ordered by bucket, and the first row of each bucket and the end.

    Returns:
        uint64 (num_images, 2), big-endian halves of the 16 bytes, and int64 (num_buckets + 1,).
    """
    raw = np.random.default_rng(SEED).integers(0, 2**64, (num_images, 2), np.uint64)
    buckets = np.empty(num_images, np.uint16)
    for start in range(0, num_images, ID_CHUNK):
        part = slice(start, min(start + ID_CHUNK, num_images))
        buckets[part] = bucket_of(_hex(raw[part]), num_buckets)
    order = np.argsort(buckets, kind="stable")
    sizes = np.bincount(buckets, minlength=num_buckets)
    return raw[order], np.append(0, np.cumsum(sizes))


def _hex(halves: NDArray[np.uint64]) -> pa.Array:
    """Big-endian hex digits of each row, as strings."""
    width = 16 * halves.shape[1]
    data = halves.astype(">u8").tobytes().hex().encode()
    offsets = np.arange(0, len(data) + 1, width, dtype=np.int32)
    return pa.StringArray.from_buffers(len(halves), pa.py_buffer(offsets), pa.py_buffer(data))


def _write_bucket(
    storage: Storage, bucket: int, num_buckets: int, ids: NDArray[np.uint64]
) -> dict[str, FileStats]:
    rng = np.random.default_rng([SEED, bucket])
    ids = ids[np.lexsort((ids[:, 1], ids[:, 0]))]
    assert (np.diff(ids, axis=0) != 0).any(axis=1).all(), "two images drew one identifier"
    tables: dict[Table, list[pa.Table]] = {
        table: [] for table in (IMAGES, ANNOTATIONS, IMAGE_INTERESTS, UNIQUE_IMAGES)
    }
    for start in range(0, len(ids), CHUNK):
        names = _hex(ids[start : start + CHUNK])
        interests, own = draw_interests(rng, len(names))
        tables[IMAGES].append(_images(names))
        found = pa.table([names, interests], schema=IMAGE_INTERESTS.arrow_schema)
        tables[IMAGE_INTERESTS].append(found)
        annotated = pa.array(rng.random(len(names)) >= UNANNOTATED)
        found = pa.table([names, draw_annotations(rng, own)], schema=ANNOTATIONS.arrow_schema)
        tables[ANNOTATIONS].append(found.filter(annotated))
        unique = names.filter(pa.array(rng.random(len(names)) < UNIQUE))
        tables[UNIQUE_IMAGES].append(_unique(rng, unique))
    return {t.name: plant_part(storage, t, bucket, parts) for t, parts in tables.items() if parts}


def plant_part(
    storage: Storage, table: Table, bucket: int, batches: Sequence[pa.Table]
) -> FileStats:
    """Write a part as `write_part` does, in a third of the time: no sync, not read back.

    Dictionaries are made of repeating columns only; `write_part` tries them on all.
    """
    name = part_name(bucket)
    path = Path(storage.path(f"{table.name}/{name}"))
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = batches[0].schema
    leaves = [leaf for leaf in leaves_of(schema) if leaf not in table.stored]
    with pq.ParquetWriter(
        path,
        schema,
        compression=dict.fromkeys(leaves, "zstd") | dict.fromkeys(table.stored, "none"),
        use_dictionary=[leaf for leaf in leaves if leaf not in ONCE],
        write_statistics=leaves,
        data_page_size=1 << 30 if table.stored else None,
    ) as writer:
        rows_a_group = STORED_ROWS if table.stored else ROW_GROUP_ROWS
        writer.write_table(pa.concat_tables(batches), row_group_size=rows_a_group)
    totals: dict[str, int] = {}
    for field in schema:
        if pa.types.is_list(field.type):
            lengths = (pc.sum(pc.list_value_length(rows[field.name])).as_py() for rows in batches)
            totals[field.name] = sum(length or 0 for length in lengths)
    return FileStats(
        name=name,
        bucket=bucket,
        num_rows=sum(rows.num_rows for rows in batches),
        num_bytes=path.stat().st_size,
        totals=totals,
    )


def _images(names: pa.Array) -> pa.Table:
    """Images that stand at a uri."""
    num = len(names)
    uri = pc.binary_join_element_wise("s3://corpus/images", names, "/")
    given = {
        "image_id": names,
        "uri": uri,
        "source": pa.repeat("planted", num),
        "licence": pa.repeat("CC-BY-4.0", num),
    }
    schema = IMAGES.arrow_schema
    arrays = [given.get(f.name, pa.nulls(num, f.type)) for f in schema]
    return pa.table(arrays, schema=schema)


def _unique(rng: np.random.Generator, names: pa.Array) -> pa.Table:
    digests = _hex(rng.integers(0, 2**64, (len(names), 4), np.uint64))
    sizes = np.maximum(rng.exponential(MEAN_BYTES, len(names)).astype(np.int64), 1)
    formats = pa.repeat("jpeg", len(names))
    return pa.table([names, digests, formats, sizes], schema=UNIQUE_IMAGES.arrow_schema)
