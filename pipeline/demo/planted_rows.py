"""Rows of the planted world in the form of user tables (I1).

Source: SPEC I1, Z1.
"""

from __future__ import annotations

import unicodedata
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.demo.planted_content import draw
from pipeline.demo.planted_terms import PlantedTerms
from pipeline.kernels.hashing import hash_ints

_FILLERS: Final = ("photo", "my picture", "scan", "untitled", "view")


def image_names(numbers: NDArray[np.int64], seed: int, prefix: str = "") -> list[str]:
    """image_ids: distinct, and in no order that tells anything."""
    return [f"{prefix}{h:016x}" for h in hash_ints(numbers, seed, "image_id").tolist()]


def as_text(values: list[bytes | None]) -> pa.Array:
    """A string column that nobody looked into: may hold bytes that are not UTF-8."""
    return pa.array(values, pa.binary()).view(pa.string())


def spellings(texts: list[str]) -> list[list[str]]:
    """Ways in which users write each term; all normalise to it."""
    return [
        texts,
        [t.upper() for t in texts],
        [t.title() for t in texts],
        ["".join(_wide(c) for c in t) for t in texts],
        [f" {t[:2]}\u200b{t[2:]}  " for t in texts],
        [unicodedata.normalize("NFD", t) for t in texts],
    ]


def _wide(char: str) -> str:
    return chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char


IMAGE_SCHEMA: Final = pa.schema(
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
LONG_SCHEMA: Final = pa.schema(
    [
        ("image_id", pa.string()),
        ("term", pa.string()),
        ("language", pa.string()),
        ("score", pa.float32()),
    ]
)
ITEM: Final = pa.struct([("term_id", pa.int32()), ("score", pa.float32())])
NESTED_SCHEMA: Final = pa.schema([("image_id", pa.string()), ("annotations", pa.list_(ITEM))])


def image_rows(
    ids: list[str],
    numbers: NDArray[np.int64],
    data: list[bytes] | None,
    said: list[list[str]],
    seed: int,
) -> pa.Table:
    """Rows of `source_images`; titles and tags hold terms said of the image."""
    title_kind = draw(numbers, 0, seed, "text").tolist()
    extra = draw(numbers, 1, seed, "text").tolist()
    titles: list[str | None] = []
    descriptions: list[str | None] = []
    for words, kind, more in zip(said, title_kind, extra, strict=True):
        filler = _FILLERS[int(more * len(_FILLERS))]
        titles.append(None if kind < 0.1 else " ".join([*words[:2], filler]))
        descriptions.append(f"{filler} with {', '.join(words[1:4])}" if more < 0.5 else None)
    count = len(ids)
    uris = [None if data is not None else f"memory://planted/{i}" for i in ids]
    tags = [words if kind < 0.8 else None for words, kind in zip(said, title_kind, strict=True)]
    return pa.table(
        [
            pa.array(ids, pa.string()),
            pa.array(uris, pa.string()),
            pa.array(data, pa.binary()) if data is not None else pa.nulls(count, pa.binary()),
            pa.array(titles, pa.string()),
            pa.array(descriptions, pa.string()),
            pa.array(tags, pa.list_(pa.string())),
            pa.array(["planted world"] * count, pa.string()),
            pa.array(["CC0-1.0"] * count, pa.string()),
        ],
        schema=IMAGE_SCHEMA,
    )


def long_rows(
    ids: pa.Array,
    numbers: NDArray[np.int64],
    position: NDArray[np.int64],
    term: NDArray[np.int32],
    score: NDArray[np.float32],
    terms: PlantedTerms,
    seed: int,
) -> pa.Table:
    """Rows of `source_annotations_long`, terms in the spellings of users."""
    ways = spellings(terms.text)
    flat = pa.array([t for way in ways for t in way], pa.string())
    pair = numbers[position] * np.int64(len(terms.text)) + term
    odd = draw(pair, 0, seed, "spelling") < 0.1
    way = np.where(odd, 1 + (draw(pair, 1, seed, "spelling") * (len(ways) - 1)).astype(int), 0)
    spelled = flat.take(pa.array(way * len(terms.text) + term))
    languages = pa.array(terms.language, pa.string()).take(pa.array(term))
    unsaid = (draw(pair, 2, seed, "spelling") < 0.05) & (np.array(terms.language)[term] == "en")
    nothing = pa.scalar(None, pa.string())
    return pa.table(
        [
            ids.take(pa.array(position)),
            spelled,
            pa.compute.if_else(pa.array(unsaid), nothing, languages),
            pa.array(score, pa.float32()),
        ],
        schema=LONG_SCHEMA,
    )
