"""What a cluster is sent: the project's code as a zip, its packages as an archive.

The code and the packages travel apart: a change of code needs only a new zip, and names as general
as ``jobs`` and ``schemas`` stay out of anybody's site-packages.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import importlib.resources
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path

from pipeline.runtime.errors import PackagingError

PACKAGES = ("jobs", "pipeline", "schemas")
DATA_SUFFIXES = (
    ".py",
    ".yaml",
    ".csv",
    ".json",
    ".jsonl",
    ".parquet",
    ".properties",
    ".txt",
    ".md",
    ".npz",
    ".png",
    ".html",
    ".js",
    ".css",
)
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
_MTIME = 315532800
"""1980-01-01, the oldest time that zip and tar both hold."""

FULL_EXTRAS = ("train", "text", "demo")
"""Extras that ``make dist-env-full`` adds, for stages with a model on a cluster."""


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


_PYTHON_WRAPPER = """\
#!/bin/sh
# Python {version} of this machine with the packages of this archive behind Spark's own path.
here=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}$here/lib/python{version}/site-packages"
for python in "${{ENV_PYTHON:-python{version}}}" python3; do
  if "$python" -c 'import sys; sys.exit(sys.version_info[:2] != {tuple})' 2>/dev/null; then
    exec "$python" "$@"
  fi
done
echo "error: Python {version} is not on this machine's PATH: install it or set ENV_PYTHON." >&2
exit 2
"""
_NOT_SHIPPED = ("__pycache__", "pip", "setuptools", "_distutils_hack", "distutils-precedence.pth")
_TESTED_PACKAGES = ("numpy", "pandas", "pyarrow", "scipy", "sklearn", "joblib")
"""Packages that carry their own tests, a quarter of the archive, which nothing imports."""


def requirements(extras: tuple[str, ...], repository: Path) -> list[str]:
    """Requirements of the project for a set of extras, with their ranges.

    Args:
        extras: names of pyproject.toml's optional-dependencies.
        repository: folder of pyproject.toml.

    Returns:
        requirement lines; the lock narrows them to versions.
    """
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return lines


def build_env(target: Path, extras: tuple[str, ...], repository: Path, level: int = 6) -> Path:
    """Write the packages that executors need as an archive for ``--archives env.tar.gz#env``.

    Its ``bin/python`` is a script that starts the node's own Python of the same minor version, so
    that the archive works wherever that Python lies; Spark unpacks it on every executor.

    Args:
        target: file to write, replaced in one step.
        extras: extras of pyproject.toml to add to the base list.
        repository: folder of pyproject.toml and requirements.lock.
        level: gzip level; 1 for the big archive with torch.

    Returns:
        the target.

    Raises:
        PackagingError: pip could not install the packages.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".env-") as work:
        site = Path(work) / "site-packages"
        _pip_install(site, requirements(extras, repository), repository / "requirements.lock")
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        wrapper = _PYTHON_WRAPPER.format(version=version, tuple=tuple(sys.version_info[:2]))
        partial = Path(work) / target.name
        with (
            open(partial, "wb") as raw,
            gzip.GzipFile("", "wb", level, raw, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
        ):
            for name in ("bin/python", "bin/python3"):
                _add_bytes(archive, name, wrapper.encode(), 0o755)
            for path in _shipped(site):
                _add_file(archive, f"lib/python{version}/site-packages", site, path)
        os.replace(partial, target)
    return target


def _pip_install(site: Path, lines: list[str], lock: Path) -> None:
    """Install into a folder, every version as locked."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-compile", "--target", str(site), "--constraint", str(lock), *lines]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise PackagingError(f"pip could not install the packages of the archive: {last}")


def _shipped(site: Path) -> Iterator[Path]:
    """Files of the archive, sorted."""
    for path in sorted(site.rglob("*")):
        parts = path.relative_to(site).parts
        if parts[0] in _NOT_SHIPPED or parts[0] == "bin" or "__pycache__" in parts:
            continue
        if parts[0] in _TESTED_PACKAGES and "tests" in parts[:-1]:
            continue
        if parts[:2] == ("pyarrow", "include") or parts[-1] == "RECORD":
            continue
        if path.is_file() or path.is_symlink():
            yield path


def _add_file(archive: tarfile.TarFile, prefix: str, site: Path, path: Path) -> None:
    mode = 0o755 if os.access(path, os.X_OK) else 0o644
    _add_bytes(archive, f"{prefix}/{path.relative_to(site).as_posix()}", path.read_bytes(), mode)


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(content), mode, _MTIME
    archive.addfile(info, io.BytesIO(content))
