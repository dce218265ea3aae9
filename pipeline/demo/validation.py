"""The demo's held-out pictures, and near-duplicates of them that stay behind in the corpus.

Three evaluation sets, chosen by hash of the image_id:

- ``demo_openclipart``: one picture in twenty of the clip art. Its other drawings of the same
  object, in other folders, stay in the corpus.
- ``demo_emoji``: the base of some emoji while its skin-tone variants stay, and one variant of
  some others while the base and the other variants stay.
- ``demo_copies``: pictures that stay in the corpus, under a new id: byte for byte, re-encoded as
  JPEG, and scaled down. A pipeline that lets their originals into a release leaks.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pipeline.demo import pictures
from pipeline.demo.records import Picture

OPENCLIPART_SHARE = 0.05
NUM_EMOJI_BASES = 20
NUM_EMOJI_VARIANTS = 20
NUM_COPIES = 15
"""Pictures of each kind of copy."""
SCALED_SIDE = 96


def _exact(data: bytes) -> bytes:
    return data


def _as_jpeg(data: bytes) -> bytes:
    return pictures.jpeg(pictures.open_image(data).convert("RGB"), quality=70)


def _scaled(data: bytes) -> bytes:
    small = pictures.shrink(pictures.open_image(data).convert("RGB"), SCALED_SIDE)
    return pictures.webp(small, quality=60)


COPIES: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
    ("exact", _exact),
    ("jpeg70", _as_jpeg),
    (f"scaled{SCALED_SIDE}", _scaled),
)


@dataclass(frozen=True)
class Split:
    """Held-out rows as (dataset, image_id, bytes), ascending, and what stays in the corpus."""

    rows: list[tuple[str, str, bytes]]
    kept: list[Picture]


def _order(stream: str, items: Iterable[Picture]) -> list[Picture]:
    """Pictures in an order that depends on nothing but their ids."""
    return sorted(
        items, key=lambda p: hashlib.sha256(f"{stream}\n{p.image_id}".encode()).hexdigest()
    )


def hold_out(corpus: Sequence[Picture], never: frozenset[str]) -> Split:
    """Split off the validation sets.

    Args:
        corpus: all pictures.
        never: image_ids that must stay in the corpus (the sample opt-outs).
    """
    free = [p for p in corpus if p.image_id not in never]
    clip_art = [p for p in free if p.image_id.startswith("openclipart/")]
    held = _order("openclipart", clip_art)[: round(len(clip_art) * OPENCLIPART_SHARE)]
    rows = [("demo_openclipart", p.image_id, p.data) for p in held]

    families: dict[str, list[Picture]] = defaultdict(list)
    for p in free:
        if p.is_variant:
            families[p.family].append(p)
    bases = _order("emoji", (p for p in free if p.image_id in families))
    variants = [
        _order("variant", families[p.image_id])[0]
        for p in bases[NUM_EMOJI_BASES : NUM_EMOJI_BASES + NUM_EMOJI_VARIANTS]
    ]
    emoji = bases[:NUM_EMOJI_BASES] + variants
    rows += [("demo_emoji", p.image_id, p.data) for p in emoji]

    gone = {image_id for _, image_id, _ in rows}
    singles = (p for p in free if p.image_id not in gone and not p.is_variant)
    sources = iter(_order("copies", (p for p in singles if p.image_id not in families)))
    for kind, edit in COPIES:
        for _ in range(NUM_COPIES):
            p = next(sources)
            rows.append(("demo_copies", f"copies/{kind}/{p.image_id}", edit(p.data)))
    return Split(sorted(rows), [p for p in corpus if p.image_id not in gone])
