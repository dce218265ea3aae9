"""Checks and conversions of a user's small tables: dictionary and block list.

Source: SPEC I1-I3, Y3.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.kernels.ingest import MAX_TERM_ID
from pipeline.kernels.reasons import RowReason
from pipeline.kernels.row_checks import Checked, RowChecker, is_blank, one_array, to_mask
from pipeline.kernels.row_values import integers, normalised, safe
from pipeline.kernels.text import sensitive_terms
from schemas.ingested import BLOCKED_IMAGES, TERMS


def check_terms(
    table: pa.Table, sensitive: Iterable[str] = (), default_language: str = "en"
) -> Checked:
    """The dictionary, whole: texts normalised, aliases resolved, sensitivity spread.

    - An alias of an alias points to the last of the chain.
    - Terms of one language that normalise to one text are one term: with all their aliases they
      point to the lowest canonical id among them.
    - Sensitive is what is flagged, looks like or contains a flagged text or one of ``sensitive``,
      or is an alias of such a term.

    Args:
        table: columns of `source_terms`.
        sensitive: further sensitive texts.
        default_language: what a null language means.

    Returns:
        ``valid``: `terms`, ascending by term_id.
    """
    checker = RowChecker(table.select(TERMS.column_names), "term_id")
    checker.reject(to_mask(checker.column("term_id").is_null()), RowReason.EMPTY_KEY)
    ids = integers(checker.column("term_id"))
    outside = (ids < 0) | (ids > MAX_TERM_ID)
    checker.reject(outside, RowReason.ID_OUT_OF_RANGE, lambda r: ids[r])
    checker.reject_bad_text("text", "language")
    checker.reject_null("is_sensitive")
    texts = normalised(checker, "text")
    checker.reject_duplicates("term_id")
    canonical = integers(checker.column("canonical_term_id"))
    canonical = np.where(to_mask(checker.column("canonical_term_id").is_null()), ids, canonical)
    languages = pc.utf8_lower(safe(checker, "language"))
    languages = pc.if_else(
        pc.equal(pc.utf8_trim_whitespace(languages), ""), default_language, languages
    )
    # A flag counts even where its row is set aside, e.g. as the double of an unflagged one.
    flagged = texts.filter(pc.fill_null(checker.column("is_sensitive"), False)).to_pylist()
    _follow_aliases(checker, ids, canonical)
    canonical = _merge_equal_texts(checker.ok, ids, canonical, texts, languages)
    done = checker.finish(
        {
            "text": texts,
            "language": languages,
            "canonical_term_id": pa.array(canonical, pa.int64()),
        }
    )
    valid = done.valid.cast(TERMS.arrow_schema).sort_by("term_id")
    flags = sensitive_terms(
        valid["term_id"].to_numpy(),
        valid["canonical_term_id"].to_numpy(),
        valid["text"].to_pylist(),
        to_mask(one_array(valid["is_sensitive"])),
        [*sensitive, *flagged],
    )
    at = valid.schema.get_field_index("is_sensitive")
    return Checked(valid.set_column(at, "is_sensitive", pa.array(flags)), done.rejected)


def _follow_aliases(
    checker: RowChecker, ids: NDArray[np.int64], canonical: NDArray[np.int64]
) -> None:
    """Replace each canonical id by the end of its chain, in place; refuse loose ends and cycles."""
    start = canonical.copy()
    while True:  # a refused target makes its aliases loose ends: once more
        rows = np.flatnonzero(checker.ok)
        order = rows[np.argsort(ids[rows], kind="stable")]
        at = np.minimum(np.searchsorted(ids[order], start), max(len(order) - 1, 0))
        known = ids[order[at]] == start if len(order) else np.zeros(len(start), bool)
        loose = checker.ok & ~known
        checker.reject(loose, RowReason.UNKNOWN_CANONICAL_TERM, lambda r: start[r])
        if not loose.any():
            break
    if not len(order):
        return
    target = np.arange(len(ids))
    target[rows] = order[at[rows]]
    for _ in range(max(len(rows).bit_length(), 1) + 1):  # pointer doubling
        target = target[target]
    is_end = target[target] == target
    in_cycle = checker.ok & ~(is_end & (start[target] == ids[target]))
    checker.reject(in_cycle, RowReason.ALIAS_CYCLE, lambda r: start[r])
    canonical[:] = ids[target]


def _merge_equal_texts(
    ok: NDArray[np.bool_],
    ids: NDArray[np.int64],
    canonical: NDArray[np.int64],
    texts: pa.Array,
    languages: pa.Array,
) -> NDArray[np.int64]:
    """Canonical ids after terms of equal text and language have become one, with their aliases."""
    rows = np.flatnonzero(ok)
    if not len(rows):
        return canonical
    keys = pc.binary_join_element_wise(languages, texts, "\x1f").take(pa.array(rows))
    code = keys.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    by_id = np.argsort(ids[rows], kind="stable")
    end = by_id[np.searchsorted(ids[rows][by_id], canonical[rows])]  # position of the canonical
    here = np.arange(len(rows))
    first = np.full(int(code.max()) + 1, -1)
    first[code[::-1]] = here[::-1]  # any one of each text
    links = coo_array(
        (np.ones(2 * len(rows)), (np.r_[here, here], np.r_[end, first[code]])),
        shape=(len(rows), len(rows)),
    )
    group = connected_components(links, directed=False)[1]
    lowest = np.full(int(group.max()) + 1, np.iinfo(np.int64).max)
    is_end = end == here
    np.minimum.at(lowest, group[is_end], ids[rows][is_end])
    result = canonical.copy()
    result[rows] = lowest[group]
    return result


def check_blocked(table: pa.Table) -> Checked:
    """Opt-outs as (kind, value), ascending without repeats.

    A row may name an image by image_id, by sha256, or by both; each becomes one entry.

    Returns:
        ``valid``: `blocked_images`. ``rejected``: rows that name nothing, or a broken digest.
    """
    checker = RowChecker(table.select(["image_id", "sha256"]), "image_id", "sha256")
    checker.reject_bad_text("image_id", "sha256")
    no_id, no_hash = is_blank(checker.column("image_id")), is_blank(checker.column("sha256"))
    checker.reject(no_id & no_hash, RowReason.EMPTY_KEY)
    digests = pc.utf8_lower(pc.utf8_trim_whitespace(safe(checker, "sha256")))
    is_digest = to_mask(pc.match_substring_regex(digests, "^[0-9a-f]{64}$"))
    checker.reject(~no_hash & ~is_digest, RowReason.BAD_SHA256)
    ok = checker.ok
    by_id = safe(checker, "image_id").filter(pa.array(ok & ~no_id))
    by_hash = digests.filter(pa.array(ok & ~no_hash))
    kinds = ["image_id"] * len(by_id) + ["sha256"] * len(by_hash)
    pairs = pa.table([pa.array(kinds, pa.string()), pa.concat_arrays([by_id, by_hash])],
                     schema=BLOCKED_IMAGES.arrow_schema)  # fmt: skip
    unique = pairs.group_by(["kind", "value"]).aggregate([])
    ordered = unique.sort_by([("kind", "ascending"), ("value", "ascending")])
    return Checked(ordered.select(BLOCKED_IMAGES.column_names), checker.rejected())
