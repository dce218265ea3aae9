"""Sets of images to evaluate on: a release's held-out part, a folder a tag, a Parquet table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.config.train import DataParams
from pipeline.evaluate.labels import Ragged, label_counts, label_mass, rarest_label, to_ragged
from pipeline.evaluate.pairs import LabelledPairs
from pipeline.files.storage import Storage, open_storage
from pipeline.train.holdout import is_held_out, is_trained_on
from pipeline.train.release import CorruptSampleError, Release
from pipeline.train.shard_index import ShardIndex

HELD_OUT = "held_out"
_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp"})
_COLUMNS = ("image_id", "tag", "bytes")


class File(NamedTuple):
    """An image file: its bytes, and the suffix that chooses the decoder tried first."""

    data: bytes
    suffix: str


@dataclass(frozen=True)
class ImageSet:
    """Images with what is known of them.

    Attributes:
        name: in the table of results.
        ids: n distinct ids.
        classes: int64 (n,), number of each image's tag or class, -1 for none.
        class_names: name of class 0, 1, ...
        labels: of the n images, None where there are only tags.
        read: file of the i-th image; raises CorruptSampleError.
        pairs: of the n images, where these are what is judged; the set has no classes then.
    """

    name: str
    ids: list[str]
    classes: NDArray[np.int64]
    class_names: tuple[str, ...]
    labels: Ragged | None
    read: Callable[[int], File]
    pairs: LabelledPairs | None = None


class Trained(NamedTuple):
    """What the images that are not held out say of the labels, each image counted once.

    Attributes:
        num_images: images.
        counts: int64 (C,), images with each label.
        mass: float64 (C,), see ``labels.label_mass``.
    """

    num_images: int
    counts: NDArray[np.int64]
    mass: NDArray[np.float64]


class _Place(NamedTuple):
    key: str
    shard: int
    row: int


def held_out_set(release: Release, data: DataParams) -> tuple[ImageSet, Trained]:
    """The images of a release that training with ``holdout_share`` did not show.

    An image counts once, whatever copies the release holds. Its class is the level-1 interest of
    its rarest label.

    Args:
        release: the one that was trained on.
        data: of the training.

    Raises:
        ValueError: nothing is held out.
    """
    kept: dict[int, ShardIndex] = {}
    places: list[_Place] = []
    labels: list[NDArray[np.int32]] = []
    num_labels, num_trained = release.num_labels, 0
    counts, mass = np.zeros(num_labels, np.int64), np.zeros(num_labels)
    for shard in range(len(release.shards)):
        index = release.read_index(shard)
        keys = index.keys.to_pylist()
        held, shown = is_held_out(keys, data.holdout_share), is_trained_on(keys, data)
        first = [i for i, key in enumerate(keys) if _is_first_copy(key)]
        kept[shard] = _part(index, [i for i in first if held[i]])
        for row in range(len(kept[shard].keys)):
            places.append(_Place(str(kept[shard].keys[row]), shard, row))
            labels.append(kept[shard].labels(row))
        trained = to_ragged([index.labels(i) for i in first if shown[i]])
        num_trained += len(trained.offsets) - 1
        counts += label_counts(trained, num_labels)
        mass += label_mass(trained, num_labels)
    if not places:
        raise ValueError(
            f"{release.storage.uri}: no image held out of {num_trained} by data.holdout_share = "
            f"{data.holdout_share}. Set train.data.holdout_share, e.g. 0.1, and pretrain again."
        )
    order = sorted(range(len(places)), key=lambda i: places[i].key)
    ragged = to_ragged([labels[i] for i in order])
    found = [places[i] for i in order]
    interests, names = _interests(release, rarest_label(ragged, counts))

    def read(i: int) -> File:
        _, shard, row = found[i]
        data = release.read_image(shard, kept[shard].member(row))
        return File(data, str(kept[shard].suffixes[row]))

    keys = [place.key for place in found]
    held_out = ImageSet(HELD_OUT, keys, interests, names, ragged, read)
    return held_out, Trained(num_trained, counts, mass)


def _part(index: ShardIndex, rows: list[int]) -> ShardIndex:
    """Some rows of an index, so that the whole of it need not be kept."""
    chosen = np.array(rows, np.int64)
    offsets = index.label_offsets.astype(np.int64)
    labels = Ragged(index.label_values.astype(np.int64), offsets).take(chosen)
    return ShardIndex(
        keys=index.keys.take(pa.array(chosen)),
        suffixes=index.suffixes.take(pa.array(chosen)),
        offsets=index.offsets[chosen],
        sizes=index.sizes[chosen],
        label_values=labels.values.astype(np.int32),
        label_offsets=labels.offsets,
        weights=index.weights[chosen],
    )


def _is_first_copy(key: str) -> bool:
    copy = key.rpartition("-")[2]
    return not copy.isdigit() or int(copy) == 0


def _interests(
    release: Release, rarest: NDArray[np.int64]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Class of each image from its rarest label, and the names of the classes."""
    label_map = release.storage.read_json("label_map.json")["labels"]
    of_label = [str(entry["l1_interest"]) for entry in label_map]
    names = tuple(sorted(set(of_label)))
    number = np.array([*(names.index(x) for x in of_label), -1], np.int64)
    return number[rarest], names


def tagged_set(name: str, path: str) -> ImageSet:
    """A set of images with one tag each.

    Args:
        name: in the table of results.
        path: a ``.parquet`` file with image_id, tag and bytes, a folder of such files, or a folder
            with one folder of image files a tag.

    Raises:
        ValueError: neither of these, no image, an id twice, or a missing column.
    """
    return _read_set(name, path, is_tagged=True)


def untagged_set(name: str, path: str) -> ImageSet:
    """A set of images that nothing else is known of; their class is -1.

    Args:
        name: in the table of results.
        path: as in `tagged_set`; a table needs no tag, and images may lie in the folder itself.

    Raises:
        ValueError: as `tagged_set`.
    """
    found = _read_set(name, path, is_tagged=False)
    return replace(found, classes=np.full(len(found.ids), -1, np.int64), class_names=())


def _read_set(name: str, path: str, is_tagged: bool) -> ImageSet:
    columns = tuple(c for c in _COLUMNS if is_tagged or c != "tag")
    if path.endswith(".parquet"):
        folder, _, file = path.rpartition("/")
        return _parquet_set(name, open_storage(folder or "."), [file], columns)
    storage = open_storage(path)
    names = storage.list()
    tables = [x for x in names if x.endswith(".parquet")]
    if tables:
        return _parquet_set(name, storage, tables, columns)
    files = [] if is_tagged else [("", file) for file in names if _is_image(file)]
    files += [(tag, file) for tag in names for file in storage.list(tag) if _is_image(file)]
    ids = [f"{tag}/{file}" if tag else file for tag, file in files]

    def read(i: int) -> File:
        try:
            return File(storage.read_bytes(ids[i]), ids[i].rpartition(".")[2].lower())
        except FileNotFoundError as error:
            raise CorruptSampleError(f"{ids[i]}: gone since the folder was listed") from error

    return _tagged(name, storage.uri, ids, [tag for tag, _ in files], read)


def _is_image(file: str) -> bool:
    return file.rpartition(".")[2].lower() in _SUFFIXES


def _parquet_set(
    name: str, storage: Storage, files: list[str], columns: tuple[str, ...]
) -> ImageSet:
    ids: list[str] = []
    tags: list[str] = []
    groups: list[tuple[str, int]] = []
    ends: list[int] = []
    for file in files:
        with storage.open_read(file) as handle:
            parquet = pq.ParquetFile(handle)
            missing = sorted(set(columns) - set(parquet.schema_arrow.names))
            if missing:
                raise ValueError(f"{storage.uri}/{file}: no column {', '.join(missing)}.")
            for group in range(parquet.num_row_groups):
                rows = parquet.read_row_group(group, columns=[c for c in columns if c != "bytes"])
                ids += map(str, rows["image_id"].to_pylist())
                is_tagged = "tag" in columns
                tags += map(str, rows["tag"].to_pylist()) if is_tagged else [""] * len(rows)
                groups.append((file, group))
                ends.append(len(ids))
    bounds = np.array(ends, np.int64)
    held: dict[int, list[bytes]] = {}

    def read(i: int) -> File:
        at = int(np.searchsorted(bounds, i, side="right"))
        if at not in held:
            held.clear()
            with storage.open_read(groups[at][0]) as handle:
                part = pq.ParquetFile(handle).read_row_group(groups[at][1], columns=["bytes"])
            held[at] = part["bytes"].to_pylist()
        data = held[at][i - (int(bounds[at - 1]) if at else 0)]
        if data is None:
            raise CorruptSampleError(f"{ids[i]}: bytes are null")
        return File(data, "jpg" if data[:2] == b"\xff\xd8" else "")

    return _tagged(name, storage.uri, ids, tags, read)


def _tagged(
    name: str, where: str, ids: list[str], tags: list[str], read: Callable[[int], File]
) -> ImageSet:
    if not ids:
        raise ValueError(
            f"{where}: no tagged image, expected FOLDER/TAG/IMAGE.{{{','.join(sorted(_SUFFIXES))}}}"
            " or a Parquet table of image_id, tag, bytes."
        )
    if len(set(ids)) != len(ids):
        twice = next(x for x in sorted(ids) if ids.count(x) > 1)
        raise ValueError(f"{where}: image_id {twice!r} twice, expected distinct ids.")
    names, classes = np.unique(np.array(tags), return_inverse=True)
    return ImageSet(name, ids, classes.astype(np.int64), tuple(map(str, names)), None, read)
