"""A published release as the trainer sees it: manifest, label map, shard indexes, image bytes.

Only the manifest and the label map are read at start. A shard's index is read, and checked against
its hash, when a sample of the shard is wanted first, so start-up does not grow with the corpus.

What damage is and what is an outage differ. Bytes that are missing or are not the promised ones are
a ``CorruptSampleError``: they will not come back, the sample is masked and counted. A store that
does not answer after all tries is a ``StorageError``: the run stops and can be resumed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.files.fetch import FetchPolicy, fetch_file, fetch_range
from pipeline.files.file_cache import CachedFile, FileCache, WrongContentError
from pipeline.files.storage import Storage, StorageError, open_storage
from pipeline.train.shard_index import Member, ShardIndex, parse_index

FORMAT = 1
TAR_HEADER_BYTES = 512


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


class Shards(Sequence[Shard]):
    """The manifest's shards in order, as columns.

    132,900 of them take 30 MB that forked loader processes share; as objects they would take 90 MB,
    and every process would copy them by counting references.

    Attributes:
        lengths: int64 (num_shards,), samples in each shard.
        sizes: int64 (num_shards,), bytes of each tar.
        weights: float64 (num_shards,), sum of the samples' weights; None where the manifest does
            not tell them (`write_release` before version 3).
    """

    def __init__(self, lines: Sequence[dict[str, Any]]) -> None:
        """Take the lines of a manifest."""
        self._text = {
            name: pa.array([str(line[name]) for line in lines], pa.large_string())
            for name in ("name", "sha256", "index", "index_sha256")
        }
        self.lengths = np.array([line["num_samples"] for line in lines], np.int64)
        self.sizes = np.array([line["num_bytes"] for line in lines], np.int64)
        has_weights = all("weight" in line for line in lines)
        self.weights = (
            np.array([line["weight"] for line in lines], np.float64) if has_weights else None
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def name(self, at: int) -> str:
        """Path of one tar in the release; a whole ``Shard`` takes ten times as long to make."""
        return str(self._text["name"][at])

    @overload
    def __getitem__(self, at: int) -> Shard: ...
    @overload
    def __getitem__(self, at: slice) -> list[Shard]: ...
    def __getitem__(self, at: int | slice) -> Shard | list[Shard]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        text = {name: column[at].as_py() for name, column in self._text.items()}
        return Shard(num_samples=int(self.lengths[at]), num_bytes=int(self.sizes[at]), **text)


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
        fetch: time-out and retries of every read.
        cache: keeps whole shards on a local disk; None reads from the storage.
    """

    storage: Storage
    materialised: bool
    policy: str
    shards: Shards
    label_names: tuple[str, ...]
    label_map_sha256: str
    manifest_sha256: str
    certificate_sha256: str
    fetch: FetchPolicy = field(default_factory=FetchPolicy)
    cache: FileCache | None = None

    @property
    def num_labels(self) -> int:
        """Number of labels, the width of the head."""
        return len(self.label_names)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Samples in each shard, int64 (num_shards,)."""
        return self.shards.lengths

    @cached_property
    def num_samples(self) -> int:
        """Samples in the release."""
        return int(self.lengths.sum())

    def read_index(self, shard: int) -> ShardIndex:
        """Read and check one shard's index.

        Raises:
            CorruptSampleError: the file is missing or not the one of the manifest: no sample of the
                shard can be used.
            ValueError: it does not fit the label map, or the manifest's number of samples.
            StorageError: the storage does not answer.
        """
        entry = self.shards[shard]
        try:
            with self.storage.named(entry.index):
                data = fetch_file(self.storage, entry.index, self.fetch)
        except FileNotFoundError as error:
            raise CorruptSampleError(f"{entry.index}: no such file") from error
        found = hashlib.sha256(data).hexdigest()
        if found != entry.index_sha256:
            raise CorruptSampleError(
                f"{entry.index}: sha256 {found}, expected {entry.index_sha256}"
            )
        where = f"{self.storage.uri}/{entry.index}"
        index = parse_index(data, where, self.num_labels)
        _expect(where, "rows", len(index.offsets), entry.num_samples)
        return index

    def read_image(self, shard: int, member: Member) -> bytes:
        """Bytes of one image file.

        The tar header in front of them is read along and its name compared with the key, which
        finds swapped and truncated shards at no cost.

        Raises:
            CorruptSampleError: the bytes there are not this sample's, or the shard is missing.
            StorageError: the storage does not answer.
        """
        name = f"{member.key}.{member.suffix}"
        start, wanted = member.offset - TAR_HEADER_BYTES, member.size + TAR_HEADER_BYTES
        data = self._read_range(shard, start, wanted)
        found = data[:100].rstrip(b"\0").decode(errors="replace")
        if found != name:
            raise CorruptSampleError(f"tar member {found!r} at offset {start}, expected {name!r}")
        if data[156:157] not in (b"0", b"\0"):
            raise CorruptSampleError(f"{name} at offset {start}: a link or folder, expected a file")
        if len(data) != wanted:
            raise CorruptSampleError(f"{len(data)} bytes at offset {start}, expected {wanted}")
        return data[TAR_HEADER_BYTES:]

    def _read_range(self, shard: int, start: int, size: int) -> bytes:
        name, storage = self.shards.name(shard), self.storage
        try:
            if self.cache is not None:
                entry = self.shards[shard]
                file = CachedFile(storage, entry.name, entry.num_bytes, entry.sha256)
                return self.cache.read_range(file, start, size)
            if storage.is_local:
                return storage.read_range(name, start, size)
            with storage.named(name):
                return fetch_range(storage, name, start, size, self.fetch)
        except FileNotFoundError as error:
            raise CorruptSampleError("no such file") from error
        except WrongContentError as error:
            raise CorruptSampleError(str(error)) from error
        except StorageError as error:
            # What S3 says of a range that begins behind the end.
            if getattr(error.__cause__, "errno", None) == errno.EINVAL:
                raise CorruptSampleError(f"0 bytes at offset {start}, expected {size}") from error
            raise


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
    shards = Shards(manifest["shards"])
    _expect(where, "num_samples", int(shards.lengths.sum()), manifest["num_samples"])
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
