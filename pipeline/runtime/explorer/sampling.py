"""What every view reads from: the root's tables, samples of the big ones, pictures of examples."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.config.report import ExplorerParams
from pipeline.config.run import RunConfig
from pipeline.kernels.hashing import hash64
from pipeline.report.blocks import Value, picture
from pipeline.runtime.catalog import Catalog
from pipeline.runtime.explorer.pictures import Shelf
from pipeline.runtime.manifest import TableManifest
from pipeline.runtime.reader import aligned_slices
from schemas import ALL

_BATCH_ROWS = 1 << 16


@dataclass(frozen=True)
class Reading:
    """What a view is made from.

    Attributes:
        catalog: tables of the root.
        config: of the run.
        shelf: pictures, written as they are asked for.
    """

    catalog: Catalog
    config: RunConfig
    shelf: Shelf

    @property
    def params(self) -> ExplorerParams:
        """How much is shown."""
        return self.config.report.explorer

    @property
    def seed(self) -> int:
        """Seed of all that is drawn."""
        return self.config.report.seed

    def has(self, *tables: str) -> bool:
        """Whether all of these are published."""
        return all(self.catalog.has(name) for name in tables)

    def sample(self, table: str, columns: list[str]) -> Iterator[pa.Table]:
        """The first rows of an image table, at most ``params.max_rows``, in batches.

        Cost: those rows of those columns, whatever the corpus size.
        """
        yield from self.catalog.sample(table, columns, self.params.max_rows)

    def aligned(self, tables: Mapping[str, tuple[str, ...]]) -> Iterator[list[pa.Table]]:
        """The same sample of several tables by image, side by side.

        Args:
            tables: table -> columns with the key; the first decides which images.

        Yields:
            rows of each table, in the order of ``tables``.

        Cost: as `sample`, and of the other tables the whole buckets.
        """
        manifests: dict[str, TableManifest | None] = {n: self.catalog.tables[n] for n in tables}
        first, left = self.catalog.tables[next(iter(tables))], self.params.max_rows
        for bucket in range(first.num_buckets):
            if left <= 0:
                return
            slices = aligned_slices(
                self.catalog.storage, manifests, ALL, bucket, min(_BATCH_ROWS, left), tables
            )
            for found in slices:
                parts = [rows for rows in found.values() if rows is not None]
                yield parts
                left -= parts[0].num_rows
                if left <= 0:
                    break

    def sampled(self, table: str) -> str:
        """How much of a table `sample` reads, in words."""
        total = self.catalog.tables[table].num_rows
        if total <= self.params.max_rows:
            return f"all {total:,} rows of {table}"
        return f"{self.params.max_rows:,} of the {total:,} rows of {table}"

    def strips(
        self, members: Mapping[int, Sequence[str]], table: str = "images"
    ) -> dict[int, list[Value]]:
        """Pictures of examples.

        Args:
            members: key -> identifiers.
            table: that has them.

        Returns:
            key -> pictures, in the same order.
        """
        files = self.shelf.load(table, (i for ids in members.values() for i in ids))
        return {k: [picture(i, files.get(i)) for i in ids] for k, ids in members.items()}


def lowest_by_hash(
    rows: Iterable[tuple[str, Value]], num: int, seed: int, stream: str
) -> list[tuple[str, Value]]:
    """A sample of pairs of key and value, the lowest by hash of the key; holds ``num`` of them."""
    hashed = ((int(hash64([key], seed, stream)[0]), key, value) for key, value in rows)
    lowest = heapq.nsmallest(num, hashed, key=lambda item: item[:2])
    return [(key, value) for _, key, value in lowest]
