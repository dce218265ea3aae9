"""The explorer's folder: one page, its scripts, and data in scripts that it loads when needed.

Data stands in ``.js`` files because a page opened from a file may not read any other kind. Each one
hands a JSON value to the page; strings are set as text there.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources.abc import Traversable

from jinja2 import Environment, StrictUndefined

from pipeline.files.storage import Storage
from pipeline.report.blocks import Value, View

DATA, STATIC = "data", "static"
_PACKAGE = "pipeline.report"


def write_site(
    folder: Storage, title: str, about: str, views: Sequence[View], packs: Iterable[str] = ()
) -> None:
    """Write page, scripts and data; the page last, so that it never names what is not there.

    Args:
        folder: of the explorer.
        title: of the page.
        about: one line below it.
        views: in order.
        packs: data files that stand there already and are part of it.
    """
    for name, content in static_files():
        folder.write_bytes_atomic(f"{STATIC}/{name}", content)
    values = {view.name: {block.name: block.data for block in view.blocks} for view in views}
    for view in views:
        values |= view.parts
    for name, value in values.items():
        write_data(folder, name, value)
    folder.write_bytes_atomic("index.html", page(title, about, views).encode())
    current = {f"{name}.js" for name in (*values, *packs)}
    for name in folder.list(DATA):
        if name not in current:
            folder.remove(f"{DATA}/{name}")


def write_data(folder: Storage, name: str, value: Value) -> None:
    """Write one data file, a script that hands a value to the page.

    Raises:
        ValueError: the value has a number that JSON cannot say.
    """
    content = json.dumps(value, allow_nan=False, separators=(",", ":"))
    text = f"explorer.take({json.dumps(name)},{content});\n"
    folder.write_bytes_atomic(f"{DATA}/{name}.js", text.encode())


def page(title: str, about: str, views: Sequence[View]) -> str:
    """The HTML of the page: navigation, headings and texts; blocks are filled by its scripts."""
    source = importlib.resources.files(_PACKAGE).joinpath("templates", "explorer.html")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(source.read_text(encoding="utf-8"))
    return template.render(title=title, about=about, views=views)


def static_files() -> Iterator[tuple[str, bytes]]:
    """Scripts and styles with the libraries and their licences.

    Yields:
        (name, content), by name.
    """
    yield from _below(importlib.resources.files(_PACKAGE).joinpath(STATIC), "")


def _below(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if entry.is_dir():
            yield from _below(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry.read_bytes()
