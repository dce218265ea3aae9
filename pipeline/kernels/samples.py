"""One sample of a shard as named byte strings; contract in ``schemas/sample.py``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.kernels.tar import Buffer
from schemas.sample import JSON_SUFFIX, KEY_DIGITS, SUFFIXES, TEXT_SUFFIX

_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode
"""Canonical JSON: sorted keys, no spaces, characters as they are."""


class Sample(NamedTuple):
    """What the members of a sample are made from.

    Attributes:
        key: unique in the release, no dots.
        format: jpeg, png or webp.
        image_id: as in `images`.
        copy_index: number of the copy, from 0.
        label_ids: ascending.
        sha256: hex digest of the image bytes.
        source: where the image came from, None where unknown.
        licence: of the image, None where unknown.
    """

    key: str
    format: str
    image_id: str
    copy_index: int
    label_ids: Sequence[int]
    sha256: str
    source: str | None
    licence: str | None


def sample_key(image_id: str, copy_index: int) -> str:
    """Key of a copy: 32 hex digits of the identifier's SHA-256, a dash, the copy's number.

    Fixed length and alphabet whatever the identifiers look like: they may hold dots or slashes.
    """
    digest = hashlib.sha256(image_id.encode()).hexdigest()
    return f"{digest[:KEY_DIGITS]}-{copy_index:03d}"


def sample_members(
    sample: Sample, image: Buffer, label_names: Sequence[str]
) -> tuple[tuple[str, Buffer], ...]:
    """Members of a sample in the order of the archive: image, text, JSON.

    Args:
        sample: see there.
        image: encoded image, copied through.
        label_names: name of label id 0, 1, ...

    Returns:
        (name, content) of each.

    Raises:
        KeyError: a format that shards do not hold.
        IndexError: a label id beyond the names.
    """
    names = [label_names[i] for i in sample.label_ids]
    record = {
        "copy_index": sample.copy_index,
        "image_id": sample.image_id,
        "label_ids": list(sample.label_ids),
        "label_names": names,
        "licence": sample.licence,
        "sha256": sample.sha256,
        "source": sample.source,
    }
    text = "".join(f"{name}\n" for name in names)
    return (
        (f"{sample.key}.{SUFFIXES[sample.format]}", image),
        (f"{sample.key}.{TEXT_SUFFIX}", text.encode()),
        (f"{sample.key}.{JSON_SUFFIX}", f"{_encode(record)}\n".encode()),
    )
