"""A page of pictures with a sentence each, that opens from a file."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;"
    "color:#1f2933;background:#fff}img{max-width:100%;height:auto}"
    "table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right;"
    "border-bottom:1px solid #dee2e6}td:first-child,th:first-child{text-align:left}"
)


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Attributes:
        title: heading.
        text: what is to be seen.
        picture: file name of a PNG beside the page, empty for none.
        header: column names of a table, empty for none.
        rows: its cells.
    """

    title: str
    text: str
    picture: str = ""
    header: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...]] = ()


def to_html(title: str, sections: Sequence[Section]) -> str:
    """The sections as one HTML page without scripts or outside links."""
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}'
        f'</title><meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><main><h1>{html.escape(title)}</h1>"
    ]
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2><p>{html.escape(section.text)}</p>")
        if section.rows:
            parts.append(_table(section))
        if section.picture:
            alt = html.escape(f"{section.title}. {section.text}", quote=True)
            parts.append(f'<img src="{html.escape(section.picture, quote=True)}" alt="{alt}">')
    parts.append("</main></body></html>\n")
    return "\n".join(parts)


def _table(section: Section) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in section.header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in section.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
