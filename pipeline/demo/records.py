"""The one shape in which both sources hand over their pictures, and the tables' Arrow schemas."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa

IMAGES = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("bytes", pa.binary()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("source", pa.string()),
        ("licence", pa.string()),
    ]
)
VALIDATION_IMAGES = pa.schema(
    [
        ("dataset", pa.string()),
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("bytes", pa.binary()),
    ]
)
TERMS = pa.schema(
    [
        ("term_id", pa.int32()),
        ("text", pa.string()),
        ("language", pa.string()),
        ("canonical_term_id", pa.int32()),
        ("is_sensitive", pa.bool_()),
    ]
)
IMAGE_INTEREST_SEEDS = pa.schema([("image_id", pa.string()), ("l1_interest", pa.string())])
BLOCKED_IMAGES = pa.schema([("image_id", pa.string()), ("sha256", pa.string())])


@dataclass(frozen=True)
class Picture:
    """One picture with what its source says about it.

    Attributes:
        image_id: readable and stable, e.g. ``openclipart/animals/birds/hen_01.png``.
        data: WebP bytes.
        title, description, tags: the source's own words; description may be missing.
        source, licence: for the release's provenance.
        interests: L1 interests that its folder or emoji group stands for; empty when unclear.
    """

    image_id: str
    data: bytes
    title: str | None
    description: str | None
    tags: tuple[str, ...]
    source: str
    licence: str
    interests: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """image_id of the picture that this one is a skin-tone variant of; else its own."""
        return family_of(self.image_id)

    @property
    def is_variant(self) -> bool:
        """Whether this is a skin-tone variant of another picture."""
        return self.family != self.image_id


def family_of(image_id: str) -> str:
    """Base of an emoji variant: ``fluent/a/b+dark.webp`` -> ``fluent/a/b.webp``; others as is."""
    stem, plus, _ = image_id.partition("+")
    return f"{stem}.webp" if plus and stem.startswith("fluent/") else image_id


@dataclass
class Harvest:
    """Pictures of one source in order of image_id, and what was left out, by reason."""

    pictures: list[Picture] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
