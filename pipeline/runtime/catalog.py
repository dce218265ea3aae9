"""Published tables of a root by name, for notebooks, reports and curious people. No Spark.

>>> run = open_catalog("build/demo")          # doctest: +SKIP
>>> run.read("clusters").to_pandas()          # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.files.storage import Storage, open_storage
from pipeline.kernels.hashing import bucket_of
from pipeline.runtime.manifest import (
    POINTER,
    VERSION_FOLDER,
    StageManifest,
    TableManifest,
    read_current,
)
from pipeline.runtime.reader import bucket_path, read_part, read_table
from schemas import ALL

_BATCH_ROWS = 1 << 16


@dataclass(frozen=True)
class Catalog:
    """What a root has published.

    Attributes:
        storage: the root.
        stages: stage name -> manifest of its current version.
    """

    storage: Storage
    stages: dict[str, StageManifest]

    @property
    def tables(self) -> dict[str, TableManifest]:
        """Table name -> manifest."""
        return {n: t for manifest in self.stages.values() for n, t in manifest.tables.items()}

    def has(self, table: str) -> bool:
        """Whether a table is published."""
        return table in self.tables

    def read(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """A whole table. Meant for small ones: a big one is read by `batches`.

        Raises:
            ValueError: the table is not published; names those that are.
        """
        return read_table(self.storage, self._manifest(table), ALL[table], columns)

    def batches(self, table: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """A table bucket by bucket."""
        manifest = self._manifest(table)
        for file in manifest.files:
            path = bucket_path(manifest, file.bucket)
            if path is not None:
                yield read_part(self.storage, path, columns)

    def sample(self, table: str, columns: list[str], max_rows: int) -> Iterator[pa.Table]:
        """The first rows of a table in batches; buckets are hashes, so they are a fair sample.

        Cost: those rows of those columns, whatever the size of the table.
        """
        left, manifest = max_rows, self._manifest(table)
        for file in manifest.files:
            if not file.num_rows or left <= 0:
                continue
            with self.storage.open_read(f"{manifest.path}/{file.name}") as handle:
                batches = pq.ParquetFile(handle).iter_batches(_BATCH_ROWS, columns=columns)
                for batch in batches:
                    yield pa.Table.from_batches([batch]).slice(0, left)
                    left -= batch.num_rows
                    if left <= 0:
                        break

    def _manifest(self, table: str) -> TableManifest:
        found = self.tables.get(table)
        if found is None:
            raise ValueError(
                f"{self.storage.uri}: table {table!r} is not published; "
                f"found {', '.join(sorted(self.tables)) or 'none'}."
            )
        return found


def open_catalog(root: str) -> Catalog:
    """Read the pointers below a root.

    Args:
        root: folder or URI of a run.
    """
    storage = open_storage(root)
    stages = {}
    for home in storage.list():
        pointer = f"{home}/{POINTER}"
        if home.startswith(("_", ".")) or not storage.exists(pointer):
            continue
        if VERSION_FOLDER.fullmatch(storage.read_json(pointer)["path"]):
            manifest = read_current(storage, home)
            assert manifest is not None
            stages[manifest.stage] = manifest
    return Catalog(storage, stages)


def rows_of(catalog: Catalog, table: str, ids: list[str], columns: list[str]) -> pa.Table:
    """Rows of a bucketed table by string key, reading only the buckets that hold them.

    Args:
        catalog: of a root.
        table: bucketed by a string key.
        ids: wanted keys; absent ones are left out.
        columns: columns to read.

    Returns:
        rows in the order of the files.
    """
    contract, manifest = ALL[table], catalog.tables[table]
    wanted = pa.array(sorted(set(ids)), pa.string())
    buckets = set(bucket_of(wanted, manifest.num_buckets).tolist())
    parts = []
    for bucket in sorted(buckets):
        path = bucket_path(manifest, bucket)
        if path is None:
            continue
        keys = read_part(catalog.storage, path, [contract.key[0]])
        mask = pc.is_in(keys.column(0), value_set=wanted)
        if pc.any(mask).as_py():
            parts.append(read_part(catalog.storage, path, columns).filter(mask))
    return pa.concat_tables(parts) if parts else contract.empty().select(columns)
