"""Images, selected annotations and interests of benchmark size, as our stages leave them.

Chance is Zipf (s = 1) over the terms. An image's first interest draws most of its terms, so that
the restriction to interests takes some labels and leaves some, as in the paper.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.files.storage import Storage, open_storage
from pipeline.kernels.hashing import bucket_of
from pipeline.kernels.nested import offsets_of
from pipeline.runtime.manifest import FileStats, StageManifest, TableManifest
from pipeline.runtime.writer import write_part
from schemas.contract import Table
from schemas.ingested import IMAGES, INTERESTS
from schemas.labels import (
    CLUSTERS,
    IMAGE_INTERESTS,
    SELECTED_ANNOTATIONS,
    TERM_CLUSTERS,
    VISUAL_TERMS,
)

NUM_TERMS, NUM_CLUSTERS, NUM_INTERESTS = 218_879, 34_000, 24
"""Paper section 3.2.1, Table 2, section 3.1."""
VISUAL_SHARE, TWO_CLUSTERS, OWN_INTEREST = 0.7, 0.3, 0.6
"""Shares of terms in the visual dictionary, of those in two clusters, of annotations whose term is
of the image's first interest."""
INTERESTED = (0.02, 0.5, 0.3, 0.18)
"""Shares of images with 0, 1, 2, 3 interests."""
ANNOTATIONS_AN_IMAGE, UNANNOTATED = 10.0, 0.01
"""Mean, and share of images without a row of annotations."""
SEED = 7
NAMES = [f"interest_{i:02d}" for i in range(NUM_INTERESTS)]
CHUNK = 100_000


@dataclass(frozen=True)
class World:
    """Input tables on disk.

    Attributes:
        root: of all of them.
        tables: table name -> its manifest.
        num_annotations: in all.
    """

    root: str
    tables: dict[str, TableManifest]
    num_annotations: int

    def files(self, table: str) -> list[str]:
        """Paths of a table's files, by bucket."""
        manifest = self.tables[table]
        return [f"{self.root}/{manifest.path}/{f.name}" for f in manifest.files]

    def first(self, num_buckets: int) -> World:
        """The same world, images of its first buckets only."""
        tables = {
            name: table.model_copy(update={"files": table.files[:num_buckets]})
            for name, table in self.tables.items()
        }
        return World(self.root, tables, self.num_annotations)

    def published(self) -> dict[str, StageManifest]:
        """Table -> manifest of the stage that published it."""
        return {name: _stage(name, manifest) for name, manifest in self.tables.items()}


def make_world(root: str, num_images: int, num_buckets: int, num_processes: int) -> World:
    """Draw and write the inputs of label mapping.

    Args:
        root: folder.
        num_images: in all.
        num_buckets: files of every image-level table.
        num_processes: that draw and write.
    """
    storage = open_storage(root)
    files = {table.name: [write_part(storage, table.name, table, 0, 1, rows)]
             for table, rows in small_tables()}  # fmt: skip
    raw = np.random.default_rng(SEED).integers(0, 2**64, (num_images, 2), np.uint64)
    ids = np.frombuffer(raw.tobytes().hex().encode(), "S32")
    ids = np.unique(ids)
    assert len(ids) == num_images, "two images drew one identifier"
    buckets = bucket_of(pa.array(ids.astype("U32")), num_buckets)
    order = np.argsort(buckets, kind="stable")  # inside a bucket by identifier, as they stand
    parts = np.split(ids[order], np.cumsum(np.bincount(buckets, minlength=num_buckets))[:-1])
    tables = write_buckets(_write_bucket, storage, parts, num_processes, files)
    return World(root, tables, tables["selected_annotations"].totals["annotations"])


def write_buckets(
    write: Callable[[Storage, int, int, Any], dict[str, FileStats]],
    storage: Storage,
    parts: Sequence[Any],
    num_processes: int,
    files: dict[str, list[FileStats]],
) -> dict[str, TableManifest]:
    """Write the buckets of a world, several at once.

    Args:
        write: a module's function, from storage, bucket, number of buckets and the bucket's part to
            the file of each table.
        storage: of the world.
        parts: one a bucket.
        num_processes: that write.
        files: of the tables of one file.

    Returns:
        table name -> its manifest.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_processes, context) as pool:
        jobs = [pool.submit(write, storage, b, len(parts), part) for b, part in enumerate(parts)]
        for job in jobs:
            for name, stats in job.result().items():
                files.setdefault(name, []).append(stats)
    breaches = [b for found in files.values() for f in found for b in f.breaches]
    assert not breaches, breaches
    return {name: manifest_of(name, found) for name, found in files.items()}


def small_tables() -> list[tuple[Table, pa.Table]]:
    """Dictionary, clusters and interests."""
    rng = np.random.default_rng(SEED)
    visual = np.flatnonzero(rng.random(NUM_TERMS) < VISUAL_SHARE)
    # Clusters c and terms t belong to interest c % 24 and t % 24; a second cluster to any interest.
    per_interest = NUM_CLUSTERS // NUM_INTERESTS
    first = visual % NUM_INTERESTS + NUM_INTERESTS * rng.integers(0, per_interest, len(visual))
    second = rng.integers(0, NUM_CLUSTERS, len(visual))
    has_two = (rng.random(len(visual)) < TWO_CLUSTERS) & (first != second)
    # One visual term in a hundred has no interest and so no cluster.
    has_one = rng.random(len(visual)) >= 0.01
    pairs = np.concatenate(
        [
            np.stack([visual[has_one], first[has_one]], 1),
            np.stack([visual[has_one & has_two], second[has_one & has_two]], 1),
        ]
    )
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    clusters = np.arange(NUM_CLUSTERS)
    return [
        (VISUAL_TERMS, rows_of(VISUAL_TERMS, term_id=visual, num_positives=visual % 97)),
        (TERM_CLUSTERS, rows_of(TERM_CLUSTERS, term_id=pairs[:, 0], cluster_id=pairs[:, 1])),
        (INTERESTS, rows_of(INTERESTS, l1_interest=NAMES)),
        (
            CLUSTERS,
            rows_of(
                CLUSTERS,
                cluster_id=clusters,
                l1_interest=[NAMES[c % NUM_INTERESTS] for c in clusters],
                num_terms=np.ones(NUM_CLUSTERS, np.int32),
            ),
        ),
    ]


def rows_of(table: Table, **columns: object) -> pa.Table:
    """Rows of a contract; columns that are not given hold zero, an empty text or list."""
    num = len(next(iter(columns.values())))
    arrays = []
    for field in table.arrow_schema:
        if field.name in columns:
            arrays.append(pa.array(columns[field.name]).cast(field.type))
        elif pa.types.is_list(field.type):
            arrays.append(pa.array([[]] * num, field.type))
        else:
            empty = "" if pa.types.is_string(field.type) else 0
            arrays.append(pa.array([empty] * num, field.type))
    return pa.table(arrays, schema=table.arrow_schema)


def _write_bucket(
    storage: Storage, bucket: int, num_buckets: int, ids: NDArray[np.bytes_]
) -> dict[str, FileStats]:
    rng = np.random.default_rng([SEED, bucket])
    tables: dict[str, list[pa.Table]] = {"images": [], "image_interests": []}
    tables["selected_annotations"] = []
    for start in range(0, len(ids), CHUNK):
        part = pa.array(ids[start : start + CHUNK].astype("U32"))
        interests, own = draw_interests(rng, len(part))
        absent = [pa.nulls(len(part), f.type) for f in IMAGES.arrow_schema if f.name != "image_id"]
        tables["images"].append(pa.table([part, *absent], schema=IMAGES.arrow_schema))
        tables["image_interests"].append(
            pa.table([part, interests], schema=IMAGE_INTERESTS.arrow_schema)
        )
        found = pa.table(
            [part, draw_annotations(rng, own)], schema=SELECTED_ANNOTATIONS.arrow_schema
        )
        is_there = rng.random(len(part)) >= UNANNOTATED
        tables["selected_annotations"].append(found.filter(pa.array(is_there)))
    contracts = (IMAGES, IMAGE_INTERESTS, SELECTED_ANNOTATIONS)
    return {
        t.name: write_part(
            storage, t.name, t, bucket, num_buckets, pa.concat_tables(tables[t.name])
        )
        for t in contracts
        if tables[t.name]
    }


def draw_interests(rng: np.random.Generator, num: int) -> tuple[pa.ListArray, NDArray[np.int64]]:
    """Interests of images, names ascending, and the interest that draws their terms."""
    drawn = rng.integers(0, NUM_INTERESTS, (num, 3))
    amount = rng.choice(len(INTERESTED), num, p=INTERESTED)
    keys = np.where(np.arange(3) < amount[:, None], drawn, NUM_INTERESTS)
    keys.sort(axis=1)
    is_new = keys < NUM_INTERESTS
    is_new[:, 1:] &= keys[:, 1:] != keys[:, :-1]
    values = pa.array(NAMES).take(pa.array(keys[is_new]))
    offsets = pa.array(offsets_of(is_new.sum(axis=1)), pa.int32())
    return pa.ListArray.from_arrays(offsets, values), drawn[:, 0]


def draw_annotations(rng: np.random.Generator, own: NDArray[np.int64]) -> pa.ListArray:
    """Distinct terms of images, ascending, with scores."""
    # Repeats go: some more are drawn so that ten are left.
    amount = rng.poisson(ANNOTATIONS_AN_IMAGE * 1.11, len(own))
    image = np.repeat(np.arange(len(own)), amount)
    rank = np.exp(rng.random(len(image)) * np.log(NUM_TERMS)).astype(np.int64) - 1
    is_own = rng.random(len(image)) < OWN_INTEREST
    rank[is_own] += own[image[is_own]] - rank[is_own] % NUM_INTERESTS
    term = _scattered(np.clip(rank, 0, NUM_TERMS - 1))
    keys = np.sort(image * (1 << 20) + term)
    keys = keys[np.append(True, keys[1:] != keys[:-1])[: len(keys)]]
    image, term = keys >> 20, keys & ((1 << 20) - 1)
    values = pa.StructArray.from_arrays(
        [
            pa.array(term, pa.int32()),
            pa.array(np.round(rng.random(len(term), np.float32), 3), pa.float32()),
        ],
        names=["term_id", "score"],
    )
    offsets = pa.array(offsets_of(np.bincount(image, minlength=len(own))), pa.int32())
    return pa.ListArray.from_arrays(offsets, values)


def _scattered(rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """Term of each rank: frequent terms stand anywhere among the rest, interests kept."""
    groups = NUM_TERMS // NUM_INTERESTS
    group, interest = np.divmod(rank, NUM_INTERESTS)
    return np.where(group < groups, group * 4_001 % groups, group) * NUM_INTERESTS + interest


def manifest_of(name: str, files: list[FileStats]) -> TableManifest:
    """Manifest of a table that has these files."""
    totals: dict[str, int] = {}
    for stats in files:
        for column, amount in stats.totals.items():
            totals[column] = totals.get(column, 0) + amount
    num_rows = sum(f.num_rows for f in files)
    return TableManifest(
        name=name, path=name, num_buckets=len(files), num_rows=num_rows, totals=totals,
        reasons={}, files=files,
    )  # fmt: skip


def _stage(name: str, manifest: TableManifest) -> StageManifest:
    return StageManifest(
        stage=name, version="benchmark", layout=manifest.num_buckets, params={}, inputs={},
        tables={name: manifest}, counts={}, ledger=[], seconds=0, finished="", commit="",
    )  # fmt: skip
