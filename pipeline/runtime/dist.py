"""What a cluster is sent: the project's code as a zip, its packages as an archive.

The code and the packages travel apart: a change of code needs only a new zip, and names as general
as ``jobs`` and ``schemas`` stay out of anybody's site-packages.
"""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import io
import os
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path

PACKAGES = ("jobs", "pipeline", "schemas")
DATA_SUFFIXES = (".py", ".yaml", ".csv", ".json", ".parquet", ".properties", ".txt", ".md", ".npz")
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
_MTIME = 315532800
"""1980-01-01, the oldest time that zip and tar both hold."""

SPARK_SIDE_EXTRAS: tuple[str, ...] = ()
"""Extras of pyproject.toml in env.tar.gz: none, the base list is what executors need."""
FULL_EXTRAS = ("train", "text", "demo")
"""Extras that ``make dist-env-full`` adds, for embed_images and embed_terms on a cluster."""


def app_files() -> Iterator[tuple[str, bytes]]:
    """Files of the zip, sorted by name.

    Yields:
        (name in the zip, bytes) of every source and data file of the project's packages.
    """
    for package in PACKAGES:
        yield from _files_under(importlib.resources.files(package), package)


def _files_under(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        name = f"{prefix}/{entry.name}"
        if entry.name.startswith((".", "__pycache__")):
            continue
        if entry.is_dir():
            yield from _files_under(entry, name)
        elif entry.name.endswith(DATA_SUFFIXES) or entry.name.startswith(("NOTICE", "LICENSE")):
            yield name, entry.read_bytes()


def build_app_zip(target: Path) -> Path:
    """Write the code as a zip for ``--py-files``: equal sources give equal bytes.

    Args:
        target: file to write, replaced in one step.

    Returns:
        the target.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, content in app_files():
            info = zipfile.ZipInfo(name, _ZIP_DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    return _publish(target, buffer.getvalue())


def _publish(target: Path, content: bytes) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.chmod(partial, 0o644)
    os.replace(partial, target)
    return target
