"""Corrupt rows of the planted world, each with what must be said of it.

Source: SPEC I2, Y1, Z1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa

from pipeline.demo.planted_pictures import broken_pictures
from pipeline.demo.planted_rows import IMAGE_SCHEMA, ITEM, LONG_SCHEMA, NESTED_SCHEMA, as_text
from pipeline.demo.planted_terms import PlantedTerms

_BAD_TEXT: Final = b"caf\xe9"
_NEAR_VALUES: Final = {"score_not_finite": (np.nan, np.inf, -np.inf),
                       "score_out_of_range": (1.5, -0.25, 2.0)}  # fmt: skip


@dataclass
class CorruptRows:
    """Planted corrupt rows and what must be said of each.

    Attributes:
        table: input table of each row.
        row_key: key that its `rejected_*` row must carry.
        reason: the reason it must carry.
    """

    table: list[str] = field(default_factory=list)
    row_key: list[str] = field(default_factory=list)
    reason: list[str] = field(default_factory=list)

    def add(self, table: str, row_key: str, reason: str) -> None:
        """Note one planted row."""
        self.table.append(table)
        self.row_key.append(row_key)
        self.reason.append(reason)

    def to_table(self) -> pa.Table:
        """Columns table, row_key, reason."""
        columns = (self.table, self.row_key, self.reason)
        return pa.table(
            [pa.array(c, pa.string()) for c in columns], names=["table", "row_key", "reason"]
        )


def as_key(value: bytes) -> str:
    """Bytes as the `row_key` column shows them."""
    return value.decode("utf-8", "backslashreplace")


def corrupt_images(
    doubled: dict[str, bytes | None],
    count: int,
    jpeg: bytes | None,
    seed: int,
    truth: CorruptRows,
) -> pa.Table:
    """Rows of `source_images` that ingest or fingerprinting must set aside, ``count`` of each.

    Args:
        doubled: image_ids of the world that come a second time, with their own bytes.
        count: rows of each reason.
        jpeg: bytes that are sound, None for a world without bytes.
        seed: seed of the world.
        truth: is told of every row.
    """
    rows: list[tuple[bytes | None, bytes | None, bytes | None]] = []  # image_id, title, bytes
    uri: list[str | None] = []

    def add(name: bytes | None, title: bytes | None, data: bytes | None, place: str | None) -> None:
        rows.append((name, title, data))
        uri.append(place)

    where = None if jpeg is not None else "memory://planted/extra"
    for i in range(count):
        add((b"", None, b"  ")[i % 3], b"no key", jpeg, where)
        truth.add("images", ("", "", "  ")[i % 3], "empty_key")
        add(f"bad-text-{i}".encode(), _BAD_TEXT, jpeg, where)
        truth.add("images", f"bad-text-{i}", "bad_utf8")
        add(f"nowhere-{i}".encode(), b"no bytes", None, None)
        truth.add("images", f"nowhere-{i}", "no_uri_or_bytes")
        for name, data in broken_pictures(seed, i).items() if jpeg is not None else ():
            key = f"broken-{name}-{i}"
            add(key.encode(), b"broken", data, None)
            reason = {"truncated_png": "truncated", "unsupported_text": "unsupported_format"}
            truth.add("fingerprints", key, reason.get(name, name))
    for again, data in doubled.items():
        add(again.encode(), b"again", data, where)
        truth.add("images", again, "duplicate_key")
    names, titles, files = zip(*rows, strict=True)
    nulls = pa.nulls(len(rows), pa.string())
    return pa.table(
        [
            as_text(list(names)),
            pa.array(uri, pa.string()),
            pa.array(files, pa.binary()),
            as_text(list(titles)),
            nulls,
            pa.nulls(len(rows), pa.list_(pa.string())),
            nulls,
            nulls,
        ],
        schema=IMAGE_SCHEMA,
    )


def corrupt_long(ids: list[str], count: int, good: str, truth: CorruptRows) -> pa.Table:
    """Rows of `source_annotations_long` that ingest must set aside."""
    rows: list[tuple[bytes, bytes, float]] = []

    def add(image: str, term: bytes, score: float, reason: str) -> None:
        rows.append((image.encode(), term, score))
        truth.add("annotations", f"{image}/{as_key(term)}", reason)

    for i in range(count):
        image = ids[(i * 53) % len(ids)]
        for reason, values in _NEAR_VALUES.items():
            add(image, good.encode(), values[i % 3], reason)
        add(image, f"unheard of {i}".encode(), 0.5, "unknown_term")
        add(image, (b"", b" \t", "\u200b".encode())[i % 3], 0.5, "empty_text")
        add(image, _BAD_TEXT, 0.5, "bad_utf8")
        add("", good.encode(), 0.5, "empty_key")
    images, texts, scores = zip(*rows, strict=True)
    return pa.table(
        [
            as_text(list(images)),
            as_text(list(texts)),
            pa.array(["en"] * len(rows), pa.string()),
            pa.array(scores, pa.float32()),
        ],
        schema=LONG_SCHEMA,
    )


def corrupt_nested(count: int, good: int, num_terms: int, truth: CorruptRows) -> pa.Table:
    """Rows of `source_annotations_nested` with items that ingest must set aside."""
    names: list[bytes | None] = []
    lists: list[list[dict[str, float]]] = []
    for i in range(count):
        name = f"bad-items-{i}"
        items: list[dict[str, float]] = [{"term_id": num_terms + i, "score": 0.5}]
        truth.add("annotations", f"{name}/{num_terms + i}", "unknown_term")
        for reason, values in _NEAR_VALUES.items():
            items.append({"term_id": good, "score": values[i % 3]})
            truth.add("annotations", f"{name}/{good}", reason)
        names += [name.encode(), b"", _BAD_TEXT]
        lists += [items, items[:1], items[:1]]
        for key, reason in (("", "empty_key"), (as_key(_BAD_TEXT), "bad_utf8")):
            truth.add("annotated_images", key, reason)
            truth.add("annotations", f"{key}/{num_terms + i}", "bad_image_row")
    return pa.table([as_text(names), pa.array(lists, pa.list_(ITEM))], schema=NESTED_SCHEMA)


def corrupt_embeddings(count: int, width: int, truth: CorruptRows) -> pa.Table:
    """Rows of `source_image_embeddings` that ingest must set aside."""
    names: list[str] = []
    vectors: list[list[float] | None] = []
    for i in range(count):
        for kind, reason, vector in (
            ("short", "wrong_embedding_length", [0.5] * (width - 1)),
            ("long", "wrong_embedding_length", [0.5] * (width + 3)),
            ("null", "wrong_embedding_length", None),
            ("nan", "embedding_not_finite", [0.5] * (width - 1) + [float("nan")]),
            ("inf", "embedding_not_finite", [float("-inf")] + [0.5] * (width - 1)),
        ):
            names.append(f"bad-vector-{kind}-{i}")
            vectors.append(vector)
            truth.add("image_embeddings", names[-1], reason)
    return pa.table(
        [pa.array(names, pa.string()), pa.array(vectors, pa.list_(pa.float32()))],
        names=["image_id", "embedding"],
    )


def corrupt_terms(terms: PlantedTerms, truth: CorruptRows) -> pa.Table:
    """Rows of `source_terms` that ingest must set aside; one of each reason."""
    first = len(terms.text)
    rows: list[tuple[int, bytes, int, bool | None, str]] = [
        (first, "\u200b ".encode(), first, False, "empty_text"),
        (first + 1, _BAD_TEXT, first + 1, False, "bad_utf8"),
        (first + 2, b"loose end", 2**26, False, "unknown_canonical_term"),
        (first + 3, b"ring one", first + 4, False, "alias_cycle"),
        (first + 4, b"ring two", first + 3, False, "alias_cycle"),
        (first + 5, b"no flag", first + 5, None, "null_value"),
        (-7, b"below zero", 0, False, "id_out_of_range"),
    ]
    for row in rows:
        truth.add("terms", str(row[0]), row[4])
    ids, texts, canonical, flags, _ = zip(*rows, strict=True)
    return pa.table(
        [
            pa.array(ids, pa.int32()),
            as_text(list(texts)),
            pa.array(["en"] * len(rows), pa.string()),
            pa.array(canonical, pa.int32()),
            pa.array(flags, pa.bool_()),
        ],
        names=["term_id", "text", "language", "canonical_term_id", "is_sensitive"],
    )
