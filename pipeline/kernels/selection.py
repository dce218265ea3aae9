"""Annotation selection: canonical, of one language, non-sensitive, confident.

An annotation that is dropped has one reason, the first that applies:

1. ``alias`` (aliases="drop": it is no canonical term) or ``alias_merged`` (aliases="merge": its
   image has the same canonical term with a better score; the survivor takes the canonical id),
2. ``language`` of the canonical term,
3. ``sensitive``: the term or its canonical term is. Such annotations take no part in the merge, so
   a sensitive alias neither lends its score to its canonical term nor takes its place,
4. ``low_score``: below the threshold of the canonical term.

Source: paper section 3.2.1 "Annotation Selection"; SPEC S1, S3, Y3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels.nested import (
    FlatAnnotations,
    flatten_annotations,
    nest_annotations,
    offsets_of,
)

REASONS = ("alias", "alias_merged", "language", "sensitive", "low_score")
"""Reasons of a drop in the order in which they are looked for."""


@dataclass(frozen=True)
class TermRules:
    """The dictionary as flat arrays over term_id.

    Attributes:
        canonical: int32 (T,), canonical term; own id where it is one (or no term has the id).
        is_in_language: bool (T,).
        is_sensitive: bool (T,), the term's own mark or that of its canonical term.
        min_score: float32 (T,), least score of a canonical term.
    """

    canonical: NDArray[np.int32]
    is_in_language: NDArray[np.bool_]
    is_sensitive: NDArray[np.bool_]
    min_score: NDArray[np.float32]

    @classmethod
    def build(
        cls,
        term_ids: NDArray[np.integer],
        canonical_term_ids: NDArray[np.integer],
        is_in_language: NDArray[np.bool_],
        is_sensitive: NDArray[np.bool_],
        min_score: float | NDArray[np.floating],
    ) -> TermRules:
        """Flat arrays from the rows of the dictionary, in any order.

        Args:
            term_ids: (n,), without repeats.
            canonical_term_ids: (n,), among ``term_ids``, each its own canonical term.
            is_in_language: bool (n,).
            is_sensitive: bool (n,).
            min_score: one number, or (n,) one a row.

        Raises:
            ValueError: a canonical term that is unknown or itself an alias.
        """
        size = int(term_ids.max()) + 1 if len(term_ids) else 0
        known = np.zeros(size, bool)
        known[term_ids] = True
        canonical = np.arange(size, dtype=np.int32)
        targets = np.asarray(canonical_term_ids, np.int64)
        outside = (targets < 0) | (targets >= size)
        if outside.any() or not known[targets].all():
            raise ValueError(
                "terms.canonical_term_id: names a term that is not in the dictionary; expected "
                "the term_id of another row or the row's own."
            )
        canonical[term_ids] = targets
        chained = canonical[canonical] != canonical
        if chained.any():
            raise ValueError(
                f"terms.canonical_term_id: {int(chained.sum())} aliases of aliases (first: term "
                f"{int(np.argmax(chained))}), expected canonical terms as targets."
            )
        language, sensitive = np.zeros(size, bool), np.zeros(size, bool)
        language[term_ids] = is_in_language
        sensitive[term_ids] = is_sensitive
        threshold = np.full(size, np.inf, np.float32)
        threshold[term_ids] = min_score
        return cls(canonical, language, sensitive | sensitive[canonical], threshold)


@dataclass(frozen=True)
class Selection:
    """Result of `select_annotations`.

    Attributes:
        annotations: list<struct<term_id, score>>, one list an image, ascending without repeats.
        counts: dropped annotations by reason, every reason present.
    """

    annotations: pa.ListArray
    counts: dict[str, int]


def select_annotations(
    annotations: pa.Array | pa.ChunkedArray, rules: TermRules, aliases: Literal["merge", "drop"]
) -> Selection:
    """Select the annotations of a batch of images.

    Args:
        annotations: list<struct<term_id, score>>, term_ids ascending without repeats.
        rules: the dictionary.
        aliases: "merge" (best score wins, ties to the canonical term itself, then to the lower id)
            or "drop", the paper's literal reading.

    Returns:
        See `Selection`. Images left without annotations have an empty list.

    Raises:
        ValueError: a term_id outside the dictionary.
    """
    flat = flatten_annotations(annotations)
    _check_terms(flat.term_ids, len(rules.canonical))
    rows, term, score = flat.rows, flat.term_ids, flat.scores
    canonical, sensitive = rules.canonical[term], rules.is_sensitive[term]
    is_alias = canonical != term
    reason = np.zeros(len(term), np.int8)  # 0: kept, else 1 + index in REASONS
    if aliases == "drop":
        reason[is_alias] = 1
    elif is_alias.any():
        order = _merge_order(rows, term, canonical, score, sensitive)
        score, canonical, sensitive = score[order], canonical[order], sensitive[order]
        again = (canonical[1:] == canonical[:-1]) & (rows[1:] == rows[:-1])
        reason[1:][again & ~sensitive[1:]] = 2
    for code, bad in (
        (3, ~rules.is_in_language[canonical]),
        (4, sensitive),
        (5, ~(score >= rules.min_score[canonical])),
    ):
        reason[(reason == 0) & bad] = code
    kept = reason == 0
    lengths = np.bincount(rows[kept], minlength=len(flat.offsets) - 1)
    result = FlatAnnotations(offsets_of(lengths), canonical[kept], score[kept])
    numbers = np.bincount(reason, minlength=len(REASONS) + 1)[1:]
    counts = {name: int(n) for name, n in zip(REASONS, numbers, strict=True)}
    return Selection(nest_annotations(result), counts)


def _merge_order(
    rows: NDArray[np.int64],
    term: NDArray[np.int32],
    canonical: NDArray[np.int32],
    score: NDArray[np.float32],
    sensitive: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Order by (image, canonical term), winner first."""
    at = np.arange(len(term), dtype=np.uint64)
    bits = [int(a.max()).bit_length() for a in (rows, canonical, at)]
    if sum(bits) > 64:
        raise ValueError("select_annotations: the batch is too large for 64-bit keys.")
    key = rows.astype(np.uint64) << np.uint64(bits[1])
    key = (key | canonical.astype(np.uint64)) << np.uint64(bits[2])
    key = np.sort(key | at)  # one packed integer each: numpy sorts those with vector instructions
    order = (key & np.uint64((1 << bits[2]) - 1)).astype(np.int64)
    group = key >> np.uint64(bits[2])
    equal = group[1:] == group[:-1]
    many = np.flatnonzero(np.append(equal, False) | np.append(False, equal))  # few
    if len(many):
        o = order[many]
        keys = (term[o], canonical[o] != term[o], -score[o], sensitive[o], group[many])
        order[many] = o[np.lexsort(keys)]
    return order


def _check_terms(term_ids: NDArray[np.int32], size: int) -> None:
    unknown = (term_ids < 0) | (term_ids >= size)
    if unknown.any():
        raise ValueError(
            f"annotations: term_id {int(term_ids[np.argmax(unknown)])} is not in the dictionary "
            f"(ids below {size}); ingest sets such annotations aside."
        )
