"""Published tables of a root by name, for notebooks, reports and curious people. No Spark.

>>> run = open_catalog("build/demo")          # doctest: +SKIP
>>> run.read("clusters").to_pandas()          # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from pipeline.files.storage import Storage, open_storage
from pipeline.runtime.manifest import StageManifest, TableManifest, read_current
from pipeline.runtime.reader import bucket_path, read_part, read_table
from schemas import ALL


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
        if not home.startswith(("_", ".")):
            manifest = read_current(storage, home)
            if manifest is not None:
                stages[manifest.stage] = manifest
    return Catalog(storage, stages)
