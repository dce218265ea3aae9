"""Vectors by text, kept between runs: what an encoder computed once it need not compute again."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.files.storage import Storage

_COLUMNS = ["text", "embedding"]


@dataclass(frozen=True)
class VectorCache:
    """Cells of (text, vector) rows in one folder; a cell is one file, replaced as a whole.

    Two writers of one cell overwrite each other's additions, which costs time and nothing else.

    Attributes:
        storage: root.
        folder: below it; its name must say all that a vector depends on beside its text.
    """

    storage: Storage
    folder: str

    def read(self, cell: int) -> pa.Table | None:
        """Rows of a cell (text string, embedding fixed-size binary); None for a new one.

        Raises:
            ValueError: the file is not what :meth:`add` writes.
        """
        name = self._name(cell)
        if not self.storage.exists(name):
            return None
        try:
            rows = pq.read_table(io.BytesIO(self.storage.read_bytes(name)))
        except pa.ArrowInvalid as error:
            raise ValueError(f"{self._where(name)}: {error}. Remove it; it is a cache.") from error
        if rows.column_names != _COLUMNS:
            raise ValueError(
                f"{self._where(name)}: columns {rows.column_names}, expected {_COLUMNS}. "
                "Remove it; it is a cache."
            )
        return rows

    def add(self, cell: int, rows: pa.Table) -> None:
        """Add rows whose texts the cell does not have."""
        known = self.read(cell)
        if known is not None:
            rows = pa.concat_tables([known, rows.select(_COLUMNS)])
        buffer = io.BytesIO()
        pq.write_table(rows.select(_COLUMNS), buffer, compression="zstd")
        self.storage.write_bytes_atomic(self._name(cell), buffer.getvalue())

    def _name(self, cell: int) -> str:
        return f"{self.folder}/cell-{cell:05d}.parquet"

    def _where(self, name: str) -> str:
        return f"{self.storage.uri}/{name}"
