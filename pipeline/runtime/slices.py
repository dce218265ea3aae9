"""Results of single slices, kept until their bucket is done.

For batchwise stages whose slices take long: a killed task goes on after its last finished slice
instead of at the start of its bucket. A slice is known by its number, its rows and the keys at its
ends, so that another way of cutting finds nothing instead of something wrong.
"""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa

from pipeline.files.storage import Storage
from pipeline.stages.stage import BatchResult

FOLDER = "_slices"


class SliceStore:
    """Finished slices of one bucket.

    Args:
        storage: root.
        folder: of the stage's version, below the root.
        bucket: which.
    """

    def __init__(self, storage: Storage, folder: str, bucket: int) -> None:
        self._storage, self._folder = storage, f"{folder}/{FOLDER}/{bucket:05d}"

    def load(self, number: int, rows: pa.Table, key: str) -> BatchResult | None:
        """The result of a slice, None if it was not finished.

        Args:
            number: of the slice in its bucket.
            rows: of the primary table in the slice.
            key: first key column of that table.
        """
        name, tables = f"{self._folder}/{number:06d}", {}
        try:
            kept = self._storage.read_json(f"{name}.json")
            if kept["slice"] != _identity(rows, key):
                return None
            for table in kept["tables"]:
                data = self._storage.read_bytes(f"{name}-{table}.arrow")
                tables[table] = pa.ipc.open_stream(data).read_all()
        except FileNotFoundError:  # never kept, or its bucket was just finished by another process
            return None
        return BatchResult(tables, kept["counts"])

    def save(self, number: int, rows: pa.Table, key: str, result: BatchResult) -> None:
        """Keep the result of a slice; the small file that says so is written last."""
        name = f"{self._folder}/{number:06d}"
        for table, values in result.tables.items():
            data = io.BytesIO()
            with pa.ipc.new_stream(data, values.schema) as out:
                out.write_table(values)
            self._storage.write_bytes_atomic(f"{name}-{table}.arrow", data.getvalue())
        kept = {
            "slice": _identity(rows, key),
            "tables": list(result.tables),
            "counts": {k: int(n) for k, n in result.counts.items()},
        }
        self._storage.write_json_atomic(f"{name}.json", kept)

    def clear(self) -> None:
        """Forget the bucket's slices."""
        self._storage.remove(self._folder)


def _identity(rows: pa.Table, key: str) -> list[Any]:
    if rows.num_rows == 0:
        return [0, "", ""]
    keys = rows.column(key)
    return [rows.num_rows, str(keys[0].as_py()), str(keys[-1].as_py())]
