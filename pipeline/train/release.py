"""A published release as the trainer sees it: manifest, label map, shard indexes, image bytes.

Only the manifest and the label map are read at start. A shard's index is read, and checked against
its hash, when a sample of the shard is wanted first, so start-up does not grow with the corpus.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.files.storage import Storage, open_storage

FORMAT = 1
TAR_HEADER_BYTES = 512
_INDEX_COLUMNS = ["key", "suffix", "offset", "size", "label_ids", "weight"]


class CorruptSampleError(Exception):
    """One sample cannot be used; training goes on with it masked."""


@dataclass(frozen=True)
class Shard:
    """One line of the manifest."""

    name: str
    num_samples: int
    num_bytes: int
    sha256: str
    index: str
    index_sha256: str


@dataclass(frozen=True)
class ShardIndex:
    """Where the samples of one shard are, and their labels.

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


@dataclass(frozen=True)
class Release:
    """One version of a release.

    Attributes:
        storage: the folder that holds manifest.json.
        materialised: whether repeats of the sampling policy are stored as samples.
        policy: name of the release's sampling policy.
        shards: the manifest's shards in order.
        label_names: name of label id 0, 1, ...
        label_map_sha256: hash of label_map.json; ties a checkpoint to its labels.
        manifest_sha256: hash of manifest.json; ties a run to its data.
        certificate_sha256: hash of certificate.json (what was removed and why), "" without one.
    """

    storage: Storage
    materialised: bool
    policy: str
    shards: tuple[Shard, ...]
    label_names: tuple[str, ...]
    label_map_sha256: str
    manifest_sha256: str
    certificate_sha256: str

    @property
    def num_labels(self) -> int:
        """Number of labels, the width of the head."""
        return len(self.label_names)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Samples in each shard, int64 (num_shards,)."""
        return np.array([s.num_samples for s in self.shards], np.int64)

    @property
    def num_samples(self) -> int:
        """Samples in the release."""
        return int(self.lengths.sum())

    def read_index(self, shard: int) -> ShardIndex:
        """Read and check one shard's index.

        Raises:
            ValueError: the file is not the one of the manifest, or does not fit the label map.
        """
        entry = self.shards[shard]
        data = self.storage.read_bytes(entry.index)
        where = f"{self.storage.uri}/{entry.index}"
        _expect(where, "sha256", hashlib.sha256(data).hexdigest(), entry.index_sha256)
        table = pq.read_table(io.BytesIO(data), columns=_INDEX_COLUMNS).combine_chunks()
        _expect(where, "rows", table.num_rows, entry.num_samples)
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
        self._check_labels(index, where)
        return index

    def _check_labels(self, index: ShardIndex, where: str) -> None:
        values = index.label_values.astype(np.int64)
        if len(values) and not 0 <= int(values.min()) <= int(values.max()) < self.num_labels:
            raise ValueError(
                f"{where}: label_ids from {values.min()} to {values.max()}, expected "
                f"0 to {self.num_labels - 1} as in label_map.json."
            )
        rows = np.repeat(np.arange(len(index.offsets)), np.diff(index.label_offsets))
        pairs = np.unique(rows * self.num_labels + values)
        _expect(where, "distinct (sample, label) pairs", len(pairs), len(values))

    def read_image(self, shard: int, index: ShardIndex, row: int) -> bytes:
        """Bytes of one image file.

        The tar header in front of them is read along and its name compared with the key, which
        finds swapped and truncated shards at no cost.

        Raises:
            CorruptSampleError: the bytes there are not this sample's.
            OSError: the shard cannot be read.
        """
        name = f"{index.keys[row]}.{index.suffixes[row]}"
        start = int(index.offsets[row]) - TAR_HEADER_BYTES
        wanted = int(index.sizes[row]) + TAR_HEADER_BYTES
        data = self.storage.read_range(self.shards[shard].name, start, wanted)
        found = data[:100].rstrip(b"\0").decode(errors="replace")
        if found != name:
            raise CorruptSampleError(f"tar member {found!r} at offset {start}, expected {name!r}")
        if data[156:157] not in (b"0", b"\0"):
            raise CorruptSampleError(f"{name} at offset {start}: a link or folder, expected a file")
        if len(data) != wanted:
            raise CorruptSampleError(f"{len(data)} bytes at offset {start}, expected {wanted}")
        return data[TAR_HEADER_BYTES:]


def open_release(uri: str) -> Release:
    """Open a release.

    Args:
        uri: folder with CURRENT.json (the newest version is taken) or with manifest.json.

    Raises:
        FileNotFoundError: neither file is there.
        ValueError: unknown format, or a label map that is not the manifest's.
    """
    storage = open_storage(uri)
    if storage.exists("CURRENT.json"):
        storage = storage.child(str(storage.read_json("CURRENT.json")["path"]))
    if not storage.exists("manifest.json"):
        missing = f"{storage.uri}/manifest.json"
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), missing)
    raw = storage.read_bytes("manifest.json")
    manifest = json.loads(raw)
    where = f"{storage.uri}/manifest.json"
    _expect(where, "format", manifest["format"], FORMAT)
    label_map = storage.read_bytes("label_map.json")
    label_map_sha256 = hashlib.sha256(label_map).hexdigest()
    _expect(
        f"{storage.uri}/label_map.json", "sha256", label_map_sha256, manifest["label_map_sha256"]
    )
    shards = tuple(Shard(**{f: s[f] for f in Shard.__annotations__}) for s in manifest["shards"])
    _expect(where, "num_samples", sum(s.num_samples for s in shards), manifest["num_samples"])
    return Release(
        storage=storage,
        materialised=bool(manifest["sampling"]["materialised"]),
        policy=str(manifest["sampling"]["policy"]),
        shards=shards,
        label_names=_label_names(json.loads(label_map), storage.uri, manifest["num_labels"]),
        label_map_sha256=label_map_sha256,
        manifest_sha256=hashlib.sha256(raw).hexdigest(),
        certificate_sha256=_hash_if_there(storage, "certificate.json"),
    )


def _label_names(label_map: dict[str, Any], uri: str, num_labels: int) -> tuple[str, ...]:
    labels = label_map["labels"]
    where = f"{uri}/label_map.json"
    _expect(where, "number of labels", len(labels), num_labels)
    _expect(where, "label_ids", [x["label_id"] for x in labels], list(range(len(labels))))
    return tuple(str(x["name"]) for x in labels)


def _hash_if_there(storage: Storage, name: str) -> str:
    return hashlib.sha256(storage.read_bytes(name)).hexdigest() if storage.exists(name) else ""


def _expect(where: str, what: str, found: object, expected: object) -> None:
    if found != expected:
        raise ValueError(f"{where}: {what} {str(found)[:80]}, expected {str(expected)[:80]}.")
