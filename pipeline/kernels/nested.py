"""Nested annotation columns as flat arrays and back.

Source: SPEC I1 (the nested form is read in every pass, without explode).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

ANNOTATION_TYPE = pa.list_(pa.struct([("term_id", pa.int32()), ("score", pa.float32())]))


@dataclass(frozen=True)
class FlatAnnotations:
    """Annotations of n images, all in a row.

    Attributes:
        offsets: int64 (n + 1,), from 0: image i has [offsets[i], offsets[i + 1]).
        term_ids: int32 (m,).
        scores: float32 (m,).
    """

    offsets: NDArray[np.int64]
    term_ids: NDArray[np.int32]
    scores: NDArray[np.float32]

    @property
    def rows(self) -> NDArray[np.int64]:
        """int64 (m,), image of each annotation."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


def flatten_annotations(column: pa.Array | pa.ChunkedArray) -> FlatAnnotations:
    """Flat form of a column list<struct<term_id, score>>; a null list counts as an empty one.

    Raises:
        ValueError: nulls inside a list.
    """
    array = one_chunk(column)
    values = array.flatten()
    terms, scores = values.field("term_id"), values.field("score")
    nulls = values.null_count + terms.null_count + scores.null_count
    if nulls:
        raise ValueError(f"annotations: {nulls} null structs, terms or scores, expected none.")
    return FlatAnnotations(
        list_offsets(array),
        np.asarray(terms.cast(pa.int32()).to_numpy(zero_copy_only=False)),
        np.asarray(scores.cast(pa.float32()).to_numpy(zero_copy_only=False)),
    )


def flatten_terms(
    column: pa.Array | pa.ChunkedArray,
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Offsets and terms of a column list<struct<term_id, ...>>; a null list counts as an empty one.

    Returns:
        int64 (n + 1,) from 0, and int32 (m,).

    Raises:
        ValueError: nulls inside a list.
    """
    array = one_chunk(column)
    values = array.flatten()
    terms = values.field("term_id")
    nulls = values.null_count + terms.null_count
    if nulls:
        raise ValueError(f"annotations: {nulls} null structs or terms, expected none.")
    flat = np.asarray(terms.cast(pa.int32()).to_numpy(zero_copy_only=False))
    return list_offsets(array), flat


def nest_annotations(flat: FlatAnnotations) -> pa.ListArray:
    """Column of ``ANNOTATION_TYPE``, without nulls."""
    values = pa.StructArray.from_arrays(
        [pa.array(flat.term_ids, pa.int32()), pa.array(flat.scores, pa.float32())],
        fields=list(ANNOTATION_TYPE.value_type),
    )
    return pa.ListArray.from_arrays(pa.array(flat.offsets, pa.int32()), values)


def list_offsets(array: pa.Array) -> NDArray[np.int64]:
    """Offsets from 0 of a list column into its ``flatten()``, slices and nulls minded."""
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    return offsets_of(lengths)


def offsets_of(lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """int64 (n + 1,) running sum of n lengths, from 0."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


def one_chunk(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The column as one array."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    joined = column.combine_chunks()
    return joined if isinstance(joined, pa.Array) else pa.concat_arrays(joined.chunks)


def without_null_items(lists: pa.Array) -> pa.Array:
    """Lists without their null elements, which say nothing; null lists stay null."""
    items = lists.flatten() if not pa.types.is_null(lists.type) else lists[:0]
    if items.null_count == 0:
        return lists
    valid = items.is_valid()
    parents = pc.list_parent_indices(lists).filter(valid)
    lengths = np.bincount(np.asarray(parents), minlength=len(lists))
    offsets = pa.array(np.r_[0, np.cumsum(lengths)].astype(np.int32))
    return pa.ListArray.from_arrays(offsets, items.filter(valid), mask=lists.is_null())
