"""Contracts: types, keys, documentation."""

from pathlib import Path

import pyarrow as pa
import pytest

from schemas import ALL, SECTIONS, to_markdown
from schemas.contract import Column, Table, arrow_type


def test_arrow_types_of_nested_ddl():
    kind = arrow_type("array<struct<term_id:int,score:float>>")
    assert kind == pa.list_(pa.struct([("term_id", pa.int32()), ("score", pa.float32())]))
    assert arrow_type("array<array<int>>") == pa.list_(pa.list_(pa.int32()))
    deep = arrow_type("struct<a:array<struct<x:int,y:string>>,b:bigint>")
    assert deep.field("b").type == pa.int64()
    assert deep.field("a").type.value_type.field("y").type == pa.string()


def test_unknown_type_is_named():
    with pytest.raises(ValueError, match="'map<int,int>'"):
        arrow_type("map<int,int>")


def test_names_are_unique_over_all_sections():
    assert len(ALL) == sum(len(part) for part in SECTIONS.values())


@pytest.mark.parametrize("table", ALL.values(), ids=lambda t: t.name)
def test_contract_is_complete(table):
    assert table.doc.endswith((".", "`"))
    assert table.name.islower()
    for column in table.columns:
        assert column.doc
        arrow_type(column.type)
    assert table.empty().column_names == table.column_names


def test_key_must_be_a_column():
    with pytest.raises(AssertionError, match="key columns"):
        Table(name="t", doc="d", columns=(Column(name="a", type="int", doc="d"),), key=("b",))


def test_range_in_words():
    assert Column(name="a", type="int", doc="d", min=0, max=1).range == "[0, 1]"
    assert Column(name="a", type="int", doc="d", min=2).range == ">= 2"
    assert Column(name="a", type="int", doc="d", max=2).range == "<= 2"
    assert Column(name="a", type="int", doc="d").range == ""


def test_tables_page_is_fresh():
    page = Path(__file__).parents[2] / "schemas" / "TABLES.md"
    assert page.read_text() == to_markdown(SECTIONS), "run `make tables`"
