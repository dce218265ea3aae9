"""The index of one shard: where its samples are, their labels and weights."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

_COLUMNS = ["key", "suffix", "offset", "size", "label_ids", "weight"]


class Member(NamedTuple):
    """One image in a tar: its key, suffix without a dot, first byte and bytes."""

    key: str
    suffix: str
    offset: int
    size: int


@dataclass(frozen=True)
class ShardIndex:
    """Where the samples of one shard are, and their labels; about 100 bytes a sample.

    Attributes:
        keys: n strings, the shard's order.
        suffixes: n strings without a dot.
        offsets: int64 (n,), first byte of the image in the tar.
        sizes: int64 (n,), bytes of the image.
        label_values: int32, the label ids of all samples one after the other.
        label_offsets: int64 (n + 1,); ``labels(i)`` cuts the labels of sample i.
        weights: float32 (n,), expected appearances an epoch under the release's policy.
    """

    keys: pa.Array
    suffixes: pa.Array
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    label_values: NDArray[np.int32]
    label_offsets: NDArray[np.int64]
    weights: NDArray[np.float32]

    def labels(self, row: int) -> NDArray[np.int32]:
        """Label ids of one sample, int32 (k,)."""
        return self.label_values[self.label_offsets[row] : self.label_offsets[row + 1]]

    def member(self, row: int) -> Member:
        """Where one sample's image is."""
        return self.members(np.array([row]))[0]

    def members(self, at: NDArray[np.integer]) -> list[Member]:
        """Where the images of the rows ``at`` (n,) are; less time than row by row."""
        columns = (
            self.keys.take(pa.array(at)).to_pylist(),
            self.suffixes.take(pa.array(at)).to_pylist(),
            self.offsets[at].tolist(),
            self.sizes[at].tolist(),
        )
        return [Member(*values) for values in zip(*columns, strict=True)]


def parse_index(data: bytes, where: str, num_labels: int) -> ShardIndex:
    """Parse and check an index.

    Args:
        data: a Parquet file.
        where: its name, for errors.
        num_labels: size of the label map.

    Raises:
        ValueError: label ids that the map does not have, or one twice at a sample.
    """
    table = pq.read_table(io.BytesIO(data), columns=_COLUMNS).combine_chunks()
    labels = table["label_ids"].combine_chunks()
    counts = labels.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    index = ShardIndex(
        keys=table["key"].combine_chunks(),
        suffixes=table["suffix"].combine_chunks(),
        offsets=table["offset"].to_numpy().astype(np.int64),
        sizes=table["size"].to_numpy().astype(np.int64),
        label_values=labels.flatten().to_numpy(zero_copy_only=False).astype(np.int32),
        label_offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        weights=table["weight"].to_numpy().astype(np.float32),
    )
    _check_labels(index, where, num_labels)
    return index


def _check_labels(index: ShardIndex, where: str, num_labels: int) -> None:
    values = index.label_values.astype(np.int64)
    if len(values) and not 0 <= int(values.min()) <= int(values.max()) < num_labels:
        raise ValueError(
            f"{where}: label_ids from {values.min()} to {values.max()}, expected "
            f"0 to {num_labels - 1} as in label_map.json."
        )
    rows = np.repeat(np.arange(len(index.offsets)), np.diff(index.label_offsets))
    pairs = np.unique(rows * num_labels + values)
    if len(pairs) != len(values):
        raise ValueError(
            f"{where}: distinct (sample, label) pairs {len(pairs)}, expected {len(values)}."
        )
