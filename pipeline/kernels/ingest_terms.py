"""Checks and conversions of a user's small and labelled tables: dictionary, interests, block list.

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
from pipeline.kernels.text import normalise_texts, sensitive_terms
from schemas.ingested import BLOCKED_IMAGES, TERMS

NO_INTEREST = "none"
"""What a seed term is labelled that has no interest: an example of what to leave uncategorised."""


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
    ids = _integers(checker.column("term_id"))
    outside = (ids < 0) | (ids > MAX_TERM_ID)
    checker.reject(outside, RowReason.ID_OUT_OF_RANGE, lambda r: ids[r])
    checker.reject_bad_text("text", "language")
    checker.reject_null("is_sensitive")
    texts = _normalised(checker, "text")
    checker.reject_duplicates("term_id")
    canonical = _integers(checker.column("canonical_term_id"))
    canonical = np.where(to_mask(checker.column("canonical_term_id").is_null()), ids, canonical)
    languages = pc.utf8_lower(_safe(checker, "language"))
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


def check_interest_seeds(table: pa.Table, taxonomy: Iterable[str]) -> Checked:
    """Seed rows (text, l1_interest, source_node), one list a normalised text.

    Texts that normalise to one are one seed with the interests and nodes of all. Besides the
    taxonomy's, an interest may be ``NO_INTEREST``.

    Returns:
        ``valid``: `interest_seeds`. ``rejected``: as `check_interests`.
    """
    checked = check_interests(table, "text", sorted({*taxonomy, NO_INTEREST}))
    texts = one_array(checked.valid["text"])
    given = table.filter(pc.is_valid(table["source_node"]))
    node = pc.utf8_trim_whitespace(given["source_node"])
    pairs = pa.table({"text": normalise_texts(one_array(given["text"])), "node": one_array(node)})
    known = pc.and_(pc.is_in(pairs["text"], texts), pc.not_equal(pairs["node"], ""))
    pairs = pairs.filter(known).group_by(["text", "node"]).aggregate([])
    pairs = pairs.sort_by([("text", "ascending"), ("node", "ascending")])
    at = pc.index_in(pairs["text"], value_set=texts).to_numpy()
    offsets = np.r_[0, np.cumsum(np.bincount(at, minlength=len(texts)))].astype(np.int32)
    nodes = pa.ListArray.from_arrays(pa.array(offsets), one_array(pairs["node"]).cast(pa.string()))
    return Checked(checked.valid.append_column("source_nodes", nodes), checked.rejected)


def check_interests(table: pa.Table, key: str, taxonomy: Iterable[str]) -> Checked:
    """Labelled rows (key, l1_interest), one list a key.

    Args:
        table: ``key`` (image_id string, term_id integer, or text, which is normalised) and
            l1_interest.
        key: name of the key column.
        taxonomy: legal interests, compared after normalisation of case and white space.

    Returns:
        ``valid``: key, l1_interests list<string> ascending without repeats, ascending by key.
        ``rejected``: one row an input row that gave nothing; an interest given again is ``merged``.
    """
    checker = RowChecker(table.select([key, "l1_interest"]), key, "l1_interest")
    if pa.types.is_integer(checker.column(key).type):
        checker.reject(to_mask(checker.column(key).is_null()), RowReason.EMPTY_KEY)
        ids = _integers(checker.column(key))
        outside = (ids < 0) | (ids > MAX_TERM_ID)
        checker.reject(outside, RowReason.ID_OUT_OF_RANGE, lambda r: ids[r])
    else:
        checker.reject_bad_text(key)
        checker.reject_empty(key)
    checker.reject_bad_text("l1_interest")
    checker.reject_null("l1_interest")
    names = sorted(taxonomy)
    plain = normalise_texts(pa.array(names, pa.string()))
    given = normalise_texts(_safe(checker, "l1_interest"))
    found = pc.fill_null(pc.index_in(given, value_set=plain), -1).to_numpy(zero_copy_only=False)
    checker.reject(found < 0, RowReason.UNKNOWN_INTEREST, lambda r: given[r].as_py())
    columns = {"l1_interest": pa.array(names, pa.string()).take(pa.array(np.maximum(found, 0)))}
    if key == "text":
        columns[key] = _normalised(checker, key)
    done = checker.finish(columns)
    _reject_repeats(checker, columns.get(key, checker.column(key)), columns["l1_interest"])
    pairs = (
        done.valid.group_by([key, "l1_interest"])
        .aggregate([])
        .sort_by([(key, "ascending"), ("l1_interest", "ascending")])
    )
    keys = one_array(pairs[key])
    if not pa.types.is_integer(keys.type):
        keys = keys.cast(pa.string())
    return Checked(
        _as_lists(keys, one_array(pairs["l1_interest"]), key, "l1_interests"), checker.rejected()
    )


def _reject_repeats(checker: RowChecker, *columns: pa.Array) -> None:
    """Set rows aside as merged that repeat the values of a row that stands."""
    rows = np.flatnonzero(checker.ok)
    code = np.zeros(len(rows), np.int64)
    for column in columns:
        encoded = column.take(pa.array(rows)).dictionary_encode()
        indices = encoded.indices.to_numpy(zero_copy_only=False)
        merged = code * (len(encoded.dictionary) + 1) + indices
        code = np.unique(merged, return_inverse=True)[1].astype(np.int64)
    repeats = np.ones(len(rows), bool)
    repeats[np.unique(code, return_index=True)[1]] = False
    mask = np.zeros(checker.table.num_rows, bool)
    mask[rows[repeats]] = True
    checker.reject(mask, RowReason.MERGED)


def check_interactions(table: pa.Table, taxonomy: Iterable[str]) -> Checked:
    """Interaction counts (image_id, l1_interest, count), one list an image; repeats are added up.

    Returns:
        ``valid``: `image_interactions`, ascending by image_id. ``rejected``: one row an input row
        that is not an item of its own; counts that were added to another row are ``merged``.
    """
    checker = RowChecker(
        table.select(["image_id", "l1_interest", "count"]), "image_id", "l1_interest"
    )
    checker.reject_bad_text("image_id", "l1_interest")
    checker.reject_empty("image_id")
    checker.reject_null("l1_interest", "count")
    count = _integers(checker.column("count"))
    checker.reject(count < 0, RowReason.NEGATIVE_COUNT, lambda r: count[r])
    names = sorted(taxonomy)
    plain = normalise_texts(pa.array(names, pa.string()))
    given = normalise_texts(_safe(checker, "l1_interest"))
    found = pc.fill_null(pc.index_in(given, value_set=plain), -1).to_numpy(zero_copy_only=False)
    checker.reject(found < 0, RowReason.UNKNOWN_INTEREST, lambda r: given[r].as_py())
    interest = pa.array(names, pa.string()).take(pa.array(np.maximum(found, 0)))
    done = checker.finish({"l1_interest": interest, "count": pa.array(count, pa.int64())})
    _reject_repeats(checker, checker.column("image_id"), interest)
    sums = done.valid.group_by(["image_id", "l1_interest"]).aggregate([("count", "sum")])
    sums = sums.sort_by([("image_id", "ascending"), ("l1_interest", "ascending")])
    items = pa.StructArray.from_arrays(
        [one_array(sums["l1_interest"]), one_array(sums["count_sum"])], ["l1_interest", "count"]
    )
    keys = one_array(sums["image_id"]).cast(pa.string())
    return Checked(_as_lists(keys, items, "image_id", "interactions"), checker.rejected())


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
    digests = pc.utf8_lower(pc.utf8_trim_whitespace(_safe(checker, "sha256")))
    is_digest = to_mask(pc.match_substring_regex(digests, "^[0-9a-f]{64}$"))
    checker.reject(~no_hash & ~is_digest, RowReason.BAD_SHA256)
    ok = checker.ok
    by_id = _safe(checker, "image_id").filter(pa.array(ok & ~no_id))
    by_hash = digests.filter(pa.array(ok & ~no_hash))
    kinds = ["image_id"] * len(by_id) + ["sha256"] * len(by_hash)
    pairs = pa.table([pa.array(kinds, pa.string()), pa.concat_arrays([by_id, by_hash])],
                     schema=BLOCKED_IMAGES.arrow_schema)  # fmt: skip
    unique = pairs.group_by(["kind", "value"]).aggregate([])
    ordered = unique.sort_by([("kind", "ascending"), ("value", "ascending")])
    return Checked(ordered.select(BLOCKED_IMAGES.column_names), checker.rejected())


def _as_lists(keys: pa.Array, items: pa.Array, key: str, name: str) -> pa.Table:
    """Group sorted (key, item) rows into one list a key."""
    runs = keys.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(np.r_[True, runs[1:] != runs[:-1]]) if len(runs) else np.zeros(0, int)
    offsets = pa.array(np.r_[starts, len(runs)].astype(np.int32))
    return pa.table(
        {key: keys.take(pa.array(starts)), name: pa.ListArray.from_arrays(offsets, items)}
    )


def _integers(array: pa.Array) -> NDArray[np.int64]:
    filled = pc.fill_null(array.cast(pa.int64()), 0)
    return np.asarray(filled.to_numpy(zero_copy_only=False), np.int64)


def _safe(checker: RowChecker, name: str) -> pa.Array:
    """A text column with an empty string for null and for rows already set aside."""
    column = checker.column(name)
    if pa.types.is_null(column.type):
        return pa.array([""] * len(column), pa.string())
    kept = pc.if_else(pa.array(checker.ok), column.cast(pa.large_binary()), b"")
    return pc.fill_null(kept, b"").cast(pa.string())


def _normalised(checker: RowChecker, name: str) -> pa.Array:
    """Normalised text; rows of which nothing is left are set aside."""
    texts = normalise_texts(_safe(checker, name))
    checker.reject(to_mask(pc.equal(texts, "")), RowReason.EMPTY_TEXT)
    return texts
