"""What a table promises: its columns with meaning, unit and range, and its key.

A contract is plain data. Types are written in Spark DDL so that Spark takes them as they stand;
``Table.arrow_schema`` gives the same types to pyarrow, so that the trainer and the batchwise stages
need no Spark.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

_PRIMITIVES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "binary": pa.binary(),
    "vector": pa.binary(),
}

Layout = Literal["bucketed", "single"]


def arrow_type(ddl: str) -> pa.DataType:
    """Arrow type of a Spark DDL type, e.g. ``array<struct<term_id:int,score:float>>``.

    ``vector`` is binary here; files hold it as fixed-size binary, whose width is the data's own.

    Raises:
        ValueError: a type that contracts do not use.
    """
    text = ddl.strip()
    if text in _PRIMITIVES:
        return _PRIMITIVES[text]
    if text.startswith("array<") and text.endswith(">"):
        return pa.list_(arrow_type(text[6:-1]))
    if text.startswith("struct<") and text.endswith(">"):
        return pa.struct([_struct_field(part) for part in _split(text[7:-1])])
    raise ValueError(
        f"contract type {ddl!r}: expected one of {sorted(_PRIMITIVES)}, array or struct."
    )


def _struct_field(part: str) -> pa.Field:
    name, _, kind = part.partition(":")
    return pa.field(name.strip(), arrow_type(kind))


def _split(text: str) -> list[str]:
    """Split at commas outside angle brackets."""
    parts, depth, start = [], 0, 0
    for i, char in enumerate(text):
        depth += (char == "<") - (char == ">")
        if char == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table.

    Attributes:
        name: column name.
        type: Spark DDL type, or ``vector`` (little-endian float bytes).
        doc: meaning, in a sentence.
        unit: unit of the values, empty for none.
        nullable: whether null is a legal value.
        min: least legal value (numbers; applies to the elements of an array), None for no bound.
        max: greatest legal value.
        is_stored: values of a binary column stand in the files as they are, uncompressed and one
            after the other, so that one of them can be read alone; for encoded images.
    """

    name: str
    type: str
    doc: str
    unit: str = ""
    nullable: bool = False
    min: float | None = None
    max: float | None = None
    is_stored: bool = False

    @property
    def spark_type(self) -> str:
        """Type as Spark knows it."""
        return "binary" if self.type == "vector" else self.type

    @property
    def range(self) -> str:
        """Legal range in words, for documentation and errors."""
        if self.min is None and self.max is None:
            return ""
        low = "" if self.min is None else f"{self.min:g}"
        high = "" if self.max is None else f"{self.max:g}"
        return f"[{low}, {high}]" if low and high else (f">= {low}" if low else f"<= {high}")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Contract of one table.

    Attributes:
        name: plural noun.
        doc: what a row is.
        columns: in the order of the files.
        key: columns that identify a row; files are sorted by them.
        layout: ``bucketed`` tables have one file a bucket of the first key column, so that all of
            them are aligned; ``single`` tables are one file.
        is_unique: whether the key identifies a row; if not, it only orders the rows.
    """

    name: str
    doc: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    layout: Layout = "bucketed"
    is_unique: bool = True
    _by_name: dict[str, Column] = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {c.name: c for c in self.columns})
        missing = [k for k in self.key if k not in self._by_name]
        assert not missing, f"{self.name}: key columns {missing} are not columns"
        assert len(self._by_name) == len(self.columns), f"{self.name}: a column stands twice"

    def __getitem__(self, column: str) -> Column:
        return self._by_name[column]

    @property
    def column_names(self) -> list[str]:
        """Column names in file order."""
        return [c.name for c in self.columns]

    @property
    def ddl(self) -> str:
        """Spark schema string."""
        return ", ".join(f"{c.name} {c.spark_type}" for c in self.columns)

    @property
    def arrow_schema(self) -> pa.Schema:
        """Arrow schema; vectors are ``binary``."""
        return pa.schema([pa.field(c.name, arrow_type(c.type)) for c in self.columns])

    def empty(self) -> pa.Table:
        """A table of no rows."""
        return self.arrow_schema.empty_table()

    @property
    def stored(self) -> list[str]:
        """Names of the columns whose values can be read alone."""
        return [c.name for c in self.columns if c.is_stored]

    def to_markdown(self) -> str:
        """The contract as a Markdown section, for TABLES.md."""
        rule = "Key" if self.is_unique else "Order"
        place = "one file a bucket" if self.layout == "bucketed" else "one file"
        lines = [
            f"## {self.name}\n",
            f"{self.doc}\n",
            f"{rule}: {', '.join(f'`{k}`' for k in self.key)}; {place}.\n",
            "| column | type | meaning | unit | range | null |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        lines += [
            f"| {c.name} | `{c.type}` | {c.doc} | {c.unit} | {c.range} | "
            f"{'yes' if c.nullable else ''} |"
            for c in self.columns
        ]
        return "\n".join(lines) + "\n"
