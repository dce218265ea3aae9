"""The queries that arms are compared on: tagged images that none of them was trained on."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.evaluate import TaggedSet
from pipeline.config.run import RunConfig
from pipeline.evaluate.sets import HELD_OUT
from pipeline.files.storage import Storage, open_storage
from pipeline.kernels.samples import sample_key
from pipeline.runtime.ablations.releases import HOME, ArmRelease
from pipeline.runtime.sources import local_path
from pipeline.train.holdout import image_part, is_held_out
from pipeline.train.release import Release, open_release

MIN_QUERIES = 20
"""Fewer say nothing."""


def query_sets(
    config: RunConfig, storage: Storage, arms: Mapping[str, ArmRelease]
) -> tuple[TaggedSet, ...]:
    """The sets that the configuration names, and its tagged images that training holds out.

    Args:
        config: the run.
        storage: its root; the held-out set is written below it.
        arms: what the arms are trained on.

    Raises:
        ValueError: no set, a share of images to hold out that differs or is missing, or hardly an
            image that is held out and tagged.
    """
    params = config.ablations
    sets = list(params.tagged)
    if params.tags is not None:
        sets.append(TaggedSet(name=HELD_OUT, path=_held_out(config, storage, arms)))
    if not sets:
        raise ValueError(
            "ablations: nothing to compare on. Give ablations.tagged (sets of tagged images) or "
            "ablations.tags (a Parquet table of image_id and tag, of the run's own images)."
        )
    return tuple(sets)


def _held_out(config: RunConfig, storage: Storage, arms: Mapping[str, ArmRelease]) -> str:
    """Write the tagged images that every arm holds out as one table of image_id, tag, bytes."""
    share = _holdout_share(arms)
    releases = {arm.uri: open_release(arm.uri) for arm in arms.values()}
    tags = _tags(config, storage)
    common = set(tags)
    for release in releases.values():
        common &= {image_part(key) for key in _held_keys(release, share)}
    if len(common) < MIN_QUERIES:
        raise ValueError(
            f"ablations.tags = {config.ablations.tags}: {len(common)} of its {len(tags)} images "
            f"are held out by train.data.holdout_share = {share} in every arm, expected at least "
            f"{MIN_QUERIES}. Raise the share, or tag more images."
        )
    images = _read(next(iter(releases.values())), share, common)
    table = pa.table(
        {
            "image_id": sorted(images),
            "tag": [tags[name] for name in sorted(images)],
            "bytes": pa.array([images[name] for name in sorted(images)], pa.binary()),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    name = f"{HOME}/queries/{hashlib.sha256(buffer.getvalue()).hexdigest()[:16]}.parquet"
    if not storage.exists(name):
        storage.write_bytes_atomic(name, buffer.getvalue())
    return storage.path(name) if storage.is_local else f"{storage.uri}/{name}"


def _holdout_share(arms: Mapping[str, ArmRelease]) -> float:
    shares = {name: arm.config.train.data.holdout_share for name, arm in arms.items()}
    if len(set(shares.values())) > 1 or not all(shares.values()):
        raise ValueError(
            f"train.data.holdout_share of the arms: {shares}, expected one share above 0 in all: "
            "the images of ablations.tags must be held out of every training."
        )
    return next(iter(shares.values()))


def _tags(config: RunConfig, storage: Storage) -> dict[str, str]:
    """Image part of the key -> tag, of the images with one tag."""
    params = config.ablations
    assert params.tags is not None
    folder, _, name = local_path(params.tags, storage).rpartition("/")
    with open_storage(folder or ".").open_read(name) as handle:
        table = pq.read_table(handle)
    missing = [c for c in ("image_id", params.tag_column) if c not in table.column_names]
    if missing:
        raise ValueError(
            f"{params.tags}: no column {', '.join(missing)}, found {', '.join(table.column_names)}."
        )
    found: dict[str, set[str]] = {}
    columns = (table[name].to_pylist() for name in ("image_id", params.tag_column))
    for image_id, tag in zip(*columns, strict=True):
        if image_id is not None and tag is not None:
            found.setdefault(image_part(sample_key(str(image_id), 0)), set()).add(str(tag))
    return {name: next(iter(tags)) for name, tags in found.items() if len(tags) == 1}


def _held_keys(release: Release, share: float) -> list[str]:
    held: list[str] = []
    for shard in range(len(release.shards)):
        keys = release.read_index(shard).keys.to_pylist()
        held += [k for k, out in zip(keys, is_held_out(keys, share), strict=True) if out]
    return held


def _read(release: Release, share: float, wanted: set[str]) -> dict[str, bytes]:
    """Bytes of some images of a release, by the image part of their key."""
    images: dict[str, bytes] = {}
    for shard in range(len(release.shards)):
        index = release.read_index(shard)
        for row, key in enumerate(index.keys.to_pylist()):
            part = image_part(key)
            if part in wanted and part not in images:
                images[part] = release.read_image(shard, index.member(row))
    return images
