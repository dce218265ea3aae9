"""What the explorer is made of: views of blocks, as plain JSON values.

A value is data only: text is set as text by the page, never as markup, so that labels and image
ids may hold anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["facts", "chart", "table", "gallery", "clusters", "text"]
CellKind = Literal["text", "count", "real", "percent", "link", "pictures", "searched"]
Value = Any
"""A JSON value."""


@dataclass(frozen=True)
class Block:
    """One thing to look at.

    Attributes:
        name: identifier, unique in its view; letters and hyphens.
        kind: how the page shows it.
        title: heading; empty for none.
        text: what is to be seen.
        data: JSON values that the page draws; see the makers below.
    """

    name: str
    kind: Kind
    title: str
    text: str
    data: Mapping[str, Value]


@dataclass(frozen=True)
class View:
    """One page of the explorer.

    Attributes:
        name: its address after ``#``; letters and hyphens.
        title: in the navigation and as heading.
        text: what is to be seen.
        blocks: in order.
        parts: further data files, name -> value, loaded when they are asked for.
    """

    name: str
    title: str
    text: str
    blocks: Sequence[Block]
    parts: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [block.name for block in self.blocks]
        assert len(set(names)) == len(names), f"view {self.name}: blocks {names}, a name twice"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: heading.
        kind: ``text``, ``count`` (thousands separated), ``real`` (four digits), ``percent`` (of
            a share), ``link`` (a pair of text and address in the page), ``pictures`` (a list of
            `picture`), ``searched`` (text that is searched and not shown).
        is_choice: offer a menu of the column's values as a filter.
    """

    title: str
    kind: CellKind = "text"
    is_choice: bool = False


def facts(name: str, title: str, text: str, pairs: Iterable[tuple[str, str]]) -> Block:
    """Names with values."""
    return Block(name, "facts", title, text, {"pairs": [list(pair) for pair in pairs]})


def table(
    name: str,
    title: str,
    text: str,
    columns: Sequence[Column],
    rows: Iterable[Sequence[Value]],
    order: tuple[int, Literal["asc", "desc"]] | None = None,
) -> Block:
    """A table that sorts, searches and turns pages.

    Args:
        name: of the block.
        title: its heading.
        text: what is to be seen.
        columns: of every row.
        rows: cells of each row, in the order of the columns; None where there is nothing.
        order: column to sort by at first, and how; None keeps the order of the rows.
    """
    named = [{"title": c.title, "kind": c.kind, "choice": c.is_choice} for c in columns]
    cells = [[rounded(cell) for cell in row] for row in rows]
    data = {"columns": named, "rows": cells, "order": list(order) if order else None}
    return Block(name, "table", title, text, data)


def chart(
    name: str, title: str, text: str, option: Mapping[str, Value], height: int = 340
) -> Block:
    """A chart.

    Args:
        name: of the block.
        title: its heading.
        text: what is to be seen; also what a screen reader is told.
        option: of Apache ECharts; see `pipeline.report.charts`.
        height: in pixels.
    """
    return Block(name, "chart", title, text, {"option": option, "height": height, "label": text})


def gallery(name: str, title: str, text: str, groups: Iterable[Mapping[str, Value]]) -> Block:
    """Groups of pictures, made by `group`."""
    return Block(name, "gallery", title, text, {"groups": list(groups)})


def group(title: str, text: str, pictures: Sequence[Mapping[str, Value]]) -> dict[str, Value]:
    """Pictures that belong together."""
    return {"title": title, "text": text, "pictures": list(pictures)}


def picture(
    image_id: str, file: str | None, caption: str = "", mark: Literal["", "kept", "dropped"] = ""
) -> dict[str, Value]:
    """One picture.

    Args:
        image_id: shown when it has no file, and read out.
        file: ``pack/place`` of the picture; None where its bytes could not be read.
        caption: below it.
        mark: whether it was kept or dropped, shown as a word and a colour.
    """
    return {"id": image_id, "file": file, "caption": caption, "mark": mark}


def text(name: str, title: str, about: str, content: str) -> Block:
    """Text as it stands, e.g. a configuration."""
    return Block(name, "text", title, about, {"content": content})


def rounded(value: Value) -> Value:
    """A float with five digits, None where it is not finite; other values as they are."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.5g}") if math.isfinite(value) else None


def rounded_all(values: Iterable[float]) -> list[float | None]:
    """`rounded` of each."""
    return [rounded(float(value)) for value in values]
