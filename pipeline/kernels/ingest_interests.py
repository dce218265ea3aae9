"""Checks and conversions of labelled tables: interests of terms and images, seeds, interactions.

Source: SPEC I1-I3, L1-L4.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.kernels.ingest import MAX_TERM_ID
from pipeline.kernels.reasons import RowReason
from pipeline.kernels.row_checks import Checked, RowChecker, one_array, to_mask
from pipeline.kernels.row_values import integers, normalised, safe
from pipeline.kernels.text import normalise_texts

NO_INTEREST = "none"
"""What a seed term is labelled that has no interest: an example of what to leave uncategorised."""


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
        ids = integers(checker.column(key))
        outside = (ids < 0) | (ids > MAX_TERM_ID)
        checker.reject(outside, RowReason.ID_OUT_OF_RANGE, lambda r: ids[r])
    else:
        checker.reject_bad_text(key)
        checker.reject_empty(key)
    checker.reject_bad_text("l1_interest")
    checker.reject_null("l1_interest")
    names = sorted(taxonomy)
    plain = normalise_texts(pa.array(names, pa.string()))
    given = normalise_texts(safe(checker, "l1_interest"))
    found = pc.fill_null(pc.index_in(given, value_set=plain), -1).to_numpy(zero_copy_only=False)
    checker.reject(found < 0, RowReason.UNKNOWN_INTEREST, lambda r: given[r].as_py())
    columns = {"l1_interest": pa.array(names, pa.string()).take(pa.array(np.maximum(found, 0)))}
    if key == "text":
        columns[key] = normalised(checker, key)
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
    count = integers(checker.column("count"))
    checker.reject(count < 0, RowReason.NEGATIVE_COUNT, lambda r: count[r])
    names = sorted(taxonomy)
    plain = normalise_texts(pa.array(names, pa.string()))
    given = normalise_texts(safe(checker, "l1_interest"))
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


def _as_lists(keys: pa.Array, items: pa.Array, key: str, name: str) -> pa.Table:
    """Group sorted (key, item) rows into one list a key."""
    runs = keys.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(np.r_[True, runs[1:] != runs[:-1]]) if len(runs) else np.zeros(0, int)
    offsets = pa.array(np.r_[starts, len(runs)].astype(np.int32))
    return pa.table(
        {key: keys.take(pa.array(starts)), name: pa.ListArray.from_arrays(offsets, items)}
    )
