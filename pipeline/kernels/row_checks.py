"""Setting bad rows aside: each with one reason, none silently (I2)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from pipeline.kernels.reasons import RowReason

_MAX_DETAIL: Final = 80
REJECTED_SCHEMA: Final = pa.schema(
    [("row_key", pa.string()), ("reason", pa.string()), ("detail", pa.string())]
)
"""Columns of every `rejected_*` table."""


@dataclass(frozen=True)
class Checked:
    """Outcome of a check: rows in = valid.num_rows + rejected.num_rows, unless told otherwise.

    Attributes:
        valid: rows that passed, in input order.
        rejected: the others, as in ``REJECTED_SCHEMA``.
    """

    valid: pa.Table
    rejected: pa.Table


class RowChecker:
    """Collects the first reason against each row of a table.

    Args:
        table: rows to check; one chunk a column is fastest.
        key: columns that name a row in the rejected table, joined by "/".
    """

    def __init__(self, table: pa.Table, *key: str) -> None:
        self.table = table.combine_chunks()
        self._key = key
        self._reason = np.full(table.num_rows, -1, np.int8)
        self._detail: dict[int, str] = {}

    def column(self, name: str) -> pa.Array:
        """A column as one array."""
        return one_array(self.table[name])

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Rows without a reason so far."""
        return np.asarray(self._reason < 0)

    def reject(
        self,
        mask: NDArray[np.bool_],
        reason: RowReason,
        detail: Callable[[int], object] | None = None,
    ) -> None:
        """Set rows aside that still stand; ``detail(row)`` gives the offending value."""
        rows = np.flatnonzero(np.asarray(mask, bool) & self.ok)
        self._reason[rows] = _REASONS.index(reason)
        if detail is not None:
            self._detail.update((r, shorten(detail(r))) for r in rows.tolist())

    def reject_bad_text(self, *columns: str) -> None:
        """Set rows aside whose string or list<string> columns are not UTF-8."""
        for name in columns:
            self.reject(bad_utf8(self.column(name)), RowReason.BAD_UTF8, _always(name))

    def reject_empty(self, *columns: str) -> None:
        """Set rows aside whose key columns are null, empty or white space."""
        for name in columns:
            self.reject(is_blank(self.column(name)), RowReason.EMPTY_KEY, _always(name))

    def reject_null(self, *columns: str) -> None:
        """Set rows aside that lack a value."""
        for name in columns:
            nulls = to_mask(self.column(name).is_null())
            self.reject(nulls, RowReason.NULL_VALUE, _always(name))

    def reject_duplicates(self, *key: str) -> None:
        """Of rows that share a key, keep the one of lowest content hash."""
        losers = duplicate_losers(self.table, key, self.ok)
        self.reject(losers, RowReason.DUPLICATE_KEY)

    def finish(self, columns: dict[str, pa.Array] | None = None) -> Checked:
        """Split the table; ``columns`` replace or add columns of all rows before the split."""
        table = self.table
        for name, values in (columns or {}).items():
            at = table.schema.get_field_index(name)
            table = (
                table.append_column(name, values) if at < 0 else table.set_column(at, name, values)
            )
        return Checked(table.filter(pa.array(self.ok)), self.rejected())

    def rejected(self) -> pa.Table:
        """Rows set aside so far."""
        rows = np.flatnonzero(~self.ok)
        keys = [one_array(self.table[k]).take(pa.array(rows)) for k in self._key]
        names = ["/".join(map(as_text, parts)) for parts in zip(*map(_values, keys), strict=True)]
        return rejected_rows(
            names,
            [_REASONS[i] for i in self._reason[rows].tolist()],
            [self._detail.get(r) for r in rows.tolist()],
        )


def _always(detail: str) -> Callable[[int], object]:
    return lambda _: detail


_REASONS: Final = tuple(RowReason)


def rejected_rows(
    keys: list[str], reasons: list[RowReason] | list[str], details: list[str | None]
) -> pa.Table:
    """A `rejected_*` table of some rows."""
    columns = [keys, [str(r) for r in reasons], details]
    return pa.table([pa.array(c, pa.string()) for c in columns], schema=REJECTED_SCHEMA)


def one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column without chunks."""
    if isinstance(column, pa.Array):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    if column.num_chunks == 0:
        return pa.array([], column.type)
    return pa.concat_arrays(column.chunks)


def to_mask(values: pa.Array) -> NDArray[np.bool_]:
    """Boolean array as numpy, null as False."""
    return np.asarray(pc.fill_null(values, False).to_numpy(zero_copy_only=False), bool)


def bad_utf8(array: pa.Array) -> NDArray[np.bool_]:
    """Which rows of a string, binary or list-of-string array hold bytes that are not UTF-8.

    Engines hand string columns over without looking inside; here every byte is looked at once.
    """
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        inner = bad_utf8(array.flatten())
        result = np.zeros(len(array), bool)
        result[np.asarray(pc.list_parent_indices(array))[inner]] = True
        return result
    if pa.types.is_null(array.type):
        return np.zeros(len(array), bool)
    raw = array.cast(pa.large_binary())
    try:
        raw.cast(pa.large_string())
    except pa.ArrowInvalid:
        return np.fromiter((_is_bad(v) for v in _values(raw)), bool, len(raw))
    return np.zeros(len(array), bool)


def is_blank(array: pa.Array) -> NDArray[np.bool_]:
    """Which rows are null, empty or white space; rows must be UTF-8 or binary."""
    if pa.types.is_null(array.type):
        return np.ones(len(array), bool)
    raw = array.cast(pa.large_binary())
    short = to_mask(pc.less_equal(pc.binary_length(raw), 64)) | to_mask(raw.is_null())
    rows = np.flatnonzero(short)
    maybe = pc.match_substring_regex(raw.take(pa.array(rows)), r"^[\s\x00]*$")
    result = to_mask(raw.is_null())
    result[rows[to_mask(maybe)]] = True
    return result


def duplicate_losers(
    table: pa.Table, key: tuple[str, ...], among: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Rows that lose against another row of the same key: all but the lowest content hash.

    Args:
        table: all rows of each key must be here.
        key: key columns.
        among: bool (n,), rows that take part.

    Returns:
        bool of shape (n,).
    """
    code = np.zeros(table.num_rows, np.int64)
    for name in key:
        encoded = one_array(table[name]).dictionary_encode()
        indices = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
        merged = code * (len(encoded.dictionary) + 1) + indices + 1
        code = np.unique(merged, return_inverse=True)[1].astype(np.int64)
    counts = np.bincount(code[among], minlength=int(code.max(initial=0)) + 1)
    rows = np.flatnonzero(among & (counts[code] > 1))
    result = np.zeros(table.num_rows, bool)
    if len(rows):
        hashes = content_hash(table.take(pa.array(rows)))
        order = np.lexsort((hashes, code[rows]))
        same = code[rows][order][1:] == code[rows][order][:-1]
        result[rows[order[1:][same]]] = True
    return result


def content_hash(table: pa.Table) -> NDArray[np.uint64]:
    """64-bit hash of the content of each row.

    Depends on column names and values only: not on column order, chunks, physical types (string or
    large_string, float32 list or tuple) or neighbours. Python speed: meant for the few rows whose
    key stands twice.

    Returns:
        uint64 of shape (n,).
    """
    names = sorted(table.column_names)
    hashers = [xxhash.xxh64() for _ in range(table.num_rows)]
    for name in names:
        for hasher, value in zip(hashers, _values(one_array(table[name])), strict=True):
            hasher.update(_pack(name) + _pack(value))
    return np.fromiter((h.intdigest() for h in hashers), np.uint64, len(hashers))


def shorten(value: object) -> str:
    """A value as short text for the `detail` column."""
    text = as_text(value)
    return text if len(text) <= _MAX_DETAIL else text[: _MAX_DETAIL - 3] + "..."


def as_text(value: object) -> str:
    """A value as text, whatever its bytes are."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)


def _values(array: pa.Array) -> list[Any]:
    """Python values; text as bytes, because it may not be UTF-8."""
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        array = array.cast(pa.large_binary())
    elif pa.types.is_list(kind) and pa.types.is_string(kind.value_type):
        array = array.cast(pa.list_(pa.binary()))
    return list(array.to_pylist())


def _is_bad(value: bytes | None) -> bool:
    if value is None:
        return False
    try:
        value.decode()
    except UnicodeDecodeError:
        return True
    return False


def _pack(value: Any) -> bytes:
    """Unambiguous bytes of a value: a tag, a length, the content."""
    if value is None:
        return b"n"
    if isinstance(value, bool):
        return b"t" if value else b"f"
    if isinstance(value, int):
        return _framed(b"i", str(value).encode())
    if isinstance(value, float):
        return b"d" + struct.pack("<d", value)
    if isinstance(value, str):
        return _framed(b"s", value.encode())
    if isinstance(value, bytes):
        return _framed(b"s", value)
    if isinstance(value, dict):
        return _framed(b"m", b"".join(_pack(k) + _pack(v) for k, v in sorted(value.items())))
    if isinstance(value, list | tuple):
        return _framed(b"l", b"".join(map(_pack, value)))
    return _framed(b"o", str(value).encode())


def _framed(tag: bytes, content: bytes) -> bytes:
    return tag + struct.pack("<q", len(content)) + content
