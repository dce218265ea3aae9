"""Kernels under ``mapInArrow``: rows of a key together, valid rows and rejected ones apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.kernels.ingest import CheckedNested
from pipeline.kernels.row_checks import REJECTED_SCHEMA, Checked
from pipeline.stages.stage import StageContext
from schemas.contract import Table

MIN_ROWS = 131_072
"""Rows that a check sees at least, so that its cost a call (a lookup in the dictionary: 90 ms) does
not count."""
MIN_BYTES = 64 << 20
"""Bytes at which a check is called even with fewer rows."""

_ITEM, _ROW = "item", "row"
"""What was rejected."""
_TAGS = ("unit", *REJECTED_SCHEMA.names)
Check = Callable[[pa.Table], Checked]


def check_rows(
    df: DataFrame, key: str, valid: Table, check: Check, ctx: StageContext, whole: bool = False
) -> tuple[DataFrame, DataFrame]:
    """Run a check over rows grouped by key.

    Cost: one shuffle of the input, which is written and read once in the scratch folder.

    Args:
        df: rows in any order.
        key: rows of equal key are seen by one call.
        valid: contract of the valid rows.
        check: from rows to valid and rejected ones; must not depend on their order.
        ctx: of the stage.
        whole: one call sees all rows; for small tables.

    Returns:
        valid rows, rejected rows.
    """
    good, bad, _ = check_nested(df, key, valid, check, ctx, whole)
    return good, bad


def check_nested(
    df: DataFrame, key: str, valid: Table, check: Check, ctx: StageContext, whole: bool = False
) -> tuple[DataFrame, DataFrame, DataFrame]:
    """As :func:`check_rows`, for a check whose result has ``rejected_rows`` too.

    Returns:
        valid rows, rejected items, rejected rows.
    """
    grouped = df.repartition(1) if whole else df.repartition(F.col(key))
    rows = grouped.sortWithinPartitions(key)

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        groups = all_rows(batches) if whole else whole_keys(batches, key)
        for group in groups:
            yield from _tagged(check(group), valid).to_batches()

    ddl = f"{valid.ddl}, {', '.join(f'_{name} string' for name in _TAGS)}"
    tagged = ctx.materialise(rows.mapInArrow(run, ddl))
    good = tagged.where(F.col("_unit").isNull()).select(*valid.column_names)
    columns = [F.col(f"_{name}").alias(name) for name in REJECTED_SCHEMA.names]
    bad_items, bad_rows = (
        tagged.where(F.col("_unit") == unit).select(*columns) for unit in (_ITEM, _ROW)
    )
    return good, bad_items, bad_rows


def whole_keys(batches: Iterable[pa.RecordBatch], key: str) -> Iterator[pa.Table]:
    """Regroup batches sorted by key so that no key is cut in two; null is no key.

    Args:
        batches: rows sorted by ``key``, null first.
        key: column.

    Yields:
        tables of at least ``MIN_ROWS`` rows or ``MIN_BYTES`` bytes, but for the last.
    """
    held: list[pa.Table] = []
    num_rows = num_bytes = 0
    for batch in batches:
        if batch.num_rows == 0:
            continue
        rows = pa.Table.from_batches([batch])
        held.append(rows)
        num_rows, num_bytes = num_rows + rows.num_rows, num_bytes + rows.nbytes
        if num_rows < MIN_ROWS and num_bytes < MIN_BYTES:
            continue
        together = pa.concat_tables(held)
        cut = _start_of_last_key(together.column(key))
        if cut == 0:
            continue
        yield together.slice(0, cut)
        left = together.slice(cut)
        held, num_rows, num_bytes = [left], left.num_rows, left.nbytes
    if num_rows:
        yield pa.concat_tables(held)


def with_null_row(df: DataFrame) -> DataFrame:
    """The rows and one of nulls: without any row Spark would plan no task at all."""
    nulls = [F.lit(None).cast(field.dataType).alias(field.name) for field in df.schema.fields]
    return df.unionByName(df.sparkSession.range(1).select(*nulls))


def all_rows(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """All batches as one table; nothing for no batch."""
    found = [pa.Table.from_batches([batch]) for batch in batches]
    if found:
        yield pa.concat_tables(found)


def _start_of_last_key(keys: pa.ChunkedArray) -> int:
    last = keys[-1]
    if not last.is_valid:  # any number of rows may lack a key, and none needs the others
        return len(keys)
    same = pc.equal(keys, last).fill_null(False)
    return len(keys) - int(pc.sum(same).as_py())


def _tagged(checked: Checked, valid: Table) -> pa.Table:
    """Valid rows and rejected ones in one table, each with nulls in the other's columns."""
    good = pa.table(
        [_plain(checked.valid.column(f.name), f.type) for f in valid.arrow_schema],
        schema=valid.arrow_schema,
    )
    for name in _TAGS:
        good = good.append_column(f"_{name}", pa.nulls(good.num_rows, pa.string()))
    tables = [good]
    rejected = {_ITEM: checked.rejected}
    if isinstance(checked, CheckedNested):
        rejected[_ROW] = checked.rejected_rows
    for unit, bad in rejected.items():
        columns = [pa.nulls(bad.num_rows, f.type) for f in valid.arrow_schema]
        columns.append(pa.array([unit] * bad.num_rows, pa.string()))
        columns += [bad.column(name).combine_chunks() for name in REJECTED_SCHEMA.names]
        tables.append(pa.table(columns, schema=good.schema))
    return pa.concat_tables(tables)


def _plain(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    return column if column.type == kind else column.cast(kind)
