"""Writing shards: rows in shard order in, tar files with their indexes out. No Spark.

A shard is streamed to a temporary name, synced, hashed and renamed, then its index, then a small
marker. So a killed task leaves no part of a shard behind, and a retried one redoes what has no
marker; doing it twice gives the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import logging
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.files.fetch import Content, FetchPolicy, fetch, fetch_in_order, fetch_range
from pipeline.files.sink import FileSink
from pipeline.files.storage import Storage
from pipeline.kernels.resampling import total_weight
from pipeline.kernels.samples import Sample, sample_members
from pipeline.kernels.tar import TarLayout
from pipeline.stages.shard_tally import Tally
from schemas.dataset import SHARD_INDEX
from schemas.sample import SUFFIXES

logger = logging.getLogger(__name__)

MAX_FAILURES = 100
"""A shard is given up after so many samples that cannot be written."""
DONE = "_done"


class PlannedSample(NamedTuple):
    """A row of `shard_assignments`.

    The image is ``num_bytes`` from ``offset`` on in ``part``, a file below the root, or at ``uri``.
    """

    shard_id: int
    position: int
    key: str
    image_id: str
    copy_index: int
    label_ids: list[int]
    weight: float
    sha256: str
    format: str
    num_bytes: int
    uri: str | None
    part: str | None
    offset: int | None
    source: str | None
    licence: str | None


@dataclass(frozen=True)
class ShardTask:
    """What the writing of shards needs beside the rows; picklable.

    Attributes:
        storage: root of the run.
        folder: of the release, below it.
        policy: how images are read from their uris.
    """

    storage: Storage
    folder: str
    policy: FetchPolicy

    def write(
        self, batches: Iterable[pa.RecordBatch], label_names: Sequence[str]
    ) -> Iterator[dict[str, Any]]:
        """Write the shards of a partition, one after the other.

        Memory: one Arrow batch, two images a reading thread, the index of one shard.

        Args:
            batches: columns of ``PlannedSample``; whole shards, rows by (shard_id, position).
            label_names: name of label id 0, 1, ...

        Yields:
            a record a shard: the columns of SHARDS, `statistics`, and `failures`: where there are
            some, nothing was left on disk.
        """
        for shard_id, rows in itertools.groupby(_rows(batches), attrgetter("shard_id")):
            yield self.finished(shard_id) or self._write_shard(shard_id, rows, label_names)

    def finished(self, shard_id: int) -> dict[str, Any] | None:
        """Record of a shard that an earlier try wrote; None, and no marker, where files differ."""
        marker = self._marker(shard_id)
        if not self.storage.exists(marker):
            return None
        record: dict[str, Any] = self.storage.read_json(marker)
        names = [f"{self.folder}/{record[part]}" for part in ("name", "index")]
        if all(self.storage.exists(name) for name in names):
            size = int(self.storage.fs.size(self.storage.path(names[0])))
            if size == record["num_bytes"]:
                return record
        self.storage.remove(marker)
        return None

    def finished_ids(self) -> list[int]:
        """Shards whose marker, tar and index are there, by three listings."""
        done = _stems(self.storage.list(f"{self.folder}/{DONE}"), ".json")
        names = self.storage.list(f"{self.folder}/shards")
        there = _stems(names, ".tar") & _stems(names, ".index.parquet")
        return sorted(int(stem.removeprefix("shard-")) for stem in done & there)

    def _marker(self, shard_id: int) -> str:
        return f"{self.folder}/{DONE}/shard-{shard_id:06d}.json"

    def _write_shard(
        self, shard_id: int, rows: Iterator[PlannedSample], label_names: Sequence[str]
    ) -> dict[str, Any]:
        name = f"shards/shard-{shard_id:06d}"
        sink = FileSink(self.storage, f"{self.folder}/{name}.tar")
        try:
            shard = _Shard(sink, label_names)
            with contextlib.closing(self._contents(rows)) as contents:
                for row, content in contents:
                    shard.add(row, content)
                    if len(shard.failures) >= MAX_FAILURES:
                        break
            if shard.failures:
                sink.abort()
            else:
                sink.write((shard.layout.end(),))
                sink.commit()
        except BaseException:
            sink.abort()
            raise
        index = shard.index()
        record = {
            "shard_id": shard_id,
            "name": f"{name}.tar",
            "num_samples": shard.tally.num_samples,
            "num_bytes": shard.layout.num_bytes,
            "sha256": shard.layout.sha256,
            "index": f"{name}.index.parquet",
            "index_sha256": hashlib.sha256(index).hexdigest(),
            "weight": shard.weight(),
            "statistics": shard.tally.rows(),
            "failures": shard.failures,
        }
        if not shard.failures:
            self.storage.write_bytes_atomic(f"{self.folder}/{record['index']}", index)
            self.storage.write_json_atomic(self._marker(shard_id), record)
        return record

    def _contents(
        self, rows: Iterable[PlannedSample]
    ) -> Generator[tuple[PlannedSample, Content | Exception]]:
        def at_hand(row: PlannedSample) -> Content | None:
            # A read of a local file is over before a thread for it would have begun. If it fails,
            # it is read again there, where the error is noted with its key.
            if row.part is None or not self.storage.is_local:
                return None
            with contextlib.suppress(OSError):
                return stored(row)
            return None

        def read(row: PlannedSample) -> Content:
            if row.part is not None:
                return stored(row)
            if row.uri is None:
                raise FileNotFoundError("`images` has neither bytes nor a uri for it")
            return fetch(row.uri, row.num_bytes, self.policy)

        def stored(row: PlannedSample) -> Content:
            assert row.part is not None
            assert row.offset is not None
            return fetch_range(self.storage, row.part, row.offset, row.num_bytes, self.policy)

        return fetch_in_order(rows, at_hand, read, self.policy.threads)


class _Shard:
    """One shard in the making."""

    def __init__(self, sink: FileSink, label_names: Sequence[str]) -> None:
        self.layout = TarLayout()
        self.tally = Tally()
        self.failures: list[str] = []
        self._sink, self._label_names = sink, label_names
        self._num_rows = 0
        self._index: list[tuple[str, str, int, int, list[int], float]] = []

    def add(self, row: PlannedSample, content: Content | Exception) -> None:
        """Append a sample, or note why it cannot be one.

        Raises:
            ValueError: rows of the shard are missing or repeated.
        """
        if row.position != self._num_rows:
            raise ValueError(
                f"shard {row.shard_id}: found position {row.position}, expected {self._num_rows}: "
                "its rows are not all there."
            )
        self._num_rows += 1
        if problem := _problem(row, content):
            self.failures.append(f"{row.key} (image {row.image_id!r}): {problem}")
            return
        assert not isinstance(content, Exception)
        if self.failures:
            return  # the rest is only checked, so that the user hears of all failures at once
        sample = Sample(
            row.key,
            row.format,
            row.image_id,
            row.copy_index,
            row.label_ids,
            row.sha256,
            row.source,
            row.licence,
        )
        members = sample_members(sample, content, self._label_names)
        offsets, buffers = self.layout.add(members)
        self._sink.write(buffers)
        suffix = SUFFIXES[row.format]
        place = (row.key, suffix, offsets[0], len(content), row.label_ids, row.weight)
        self._index.append(place)
        self.tally.add(
            is_first=row.copy_index == 0,
            num_bytes=len(content),
            licence=row.licence or "",
            num_labels=str(len(row.label_ids)),
            source=row.source or "",
            suffix=suffix,
        )

    def weight(self) -> float:
        """Sum of the weights as the index has them, in float32."""
        return total_weight(np.array([place[-1] for place in self._index], np.float32))

    def index(self) -> bytes:
        """The member index as a Parquet file."""
        schema = SHARD_INDEX.arrow_schema
        columns = list(zip(*self._index, strict=True)) or [()] * len(schema)
        arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
        out = io.BytesIO()
        pq.write_table(pa.Table.from_arrays(arrays, schema=schema), out, compression="zstd")
        return out.getvalue()


def _problem(row: PlannedSample, content: Content | Exception) -> str:
    """Why a content is not the planned one; empty when it is."""
    if isinstance(content, Exception):
        return f"{type(content).__name__}: {content}"
    found = hashlib.sha256(content).hexdigest()
    if found == row.sha256:
        return ""
    sizes = "" if len(content) == row.num_bytes else f", not the planned {row.num_bytes} bytes"
    return f"sha256 {found}, expected {row.sha256}{sizes}"


def _rows(batches: Iterable[pa.RecordBatch]) -> Iterator[PlannedSample]:
    for batch in batches:
        columns = [batch.column(name).to_pylist() for name in PlannedSample._fields]
        yield from map(PlannedSample._make, zip(*columns, strict=True))


def _stems(names: Iterable[str], suffix: str) -> set[str]:
    return {
        name.removesuffix(suffix)
        for name in names
        if name.endswith(suffix) and name.startswith("shard-")
    }
