"""Names of files and samples as a stranger gives them: which can be used, and what they mean.

Source: SPEC-dataset I4, Y2.
"""

from __future__ import annotations

from typing import Final

IMAGE_SUFFIXES: Final = frozenset(
    ("jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic")
)
"""Files that are pictures by name. Formats that no stage decodes are among them, so that they are
told as ``unsupported_format`` in place of being passed over."""


def unsafe_name(raw: bytes | str) -> str | None:
    """Why a relative name is not followed, in words; None where it is safe.

    Args:
        raw: with ``/`` between folders; as a string, undecodable bytes are surrogates.
    """
    if isinstance(raw, str):
        raw = raw.encode("utf-8", "surrogateescape")
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        return "a name that is not UTF-8"
    if not name:
        return "an empty name"
    if not name.isprintable():
        return "a name with control characters"
    if name[0] in "/\\" or "://" in name or name[1:3] in (":/", ":\\"):
        return "an absolute name"
    if ".." in name.replace("\\", "/").split("/"):
        return "a name with .."
    return None


def split_suffix(name: str) -> tuple[str, str]:
    """Stem and lower-case suffix at the last dot of a file name: ``a/b.c.JPG`` -> a/b.c, jpg."""
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.rpartition(".")
    return (folder + slash + stem, suffix.lower()) if dot and stem else (name, "")


def split_key(name: str) -> tuple[str, str]:
    """webdataset's key and extension, at the first dot: ``a/b.seg.png`` -> a/b, seg.png."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


def is_image(suffix: str) -> bool:
    """Whether a suffix without dot is a picture's."""
    return suffix in IMAGE_SUFFIXES
