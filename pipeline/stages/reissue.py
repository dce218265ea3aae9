"""Re-issuing a release without some images: touched shards are rewritten, the others are carried.

The new release is a folder of its own whose manifest, written last, names the old one. Nothing of
the old release changes. Shards that hold none of the images are linked (locally) or copied by the
store itself: their bytes are not read here, their hashes are taken over. A killed call leaves a
folder without a manifest, which the next one goes on with.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.files.sink import FileSink
from pipeline.files.storage import Storage
from pipeline.kernels.resampling import total_weight
from pipeline.kernels.samples import sample_key
from pipeline.kernels.tar import TarLayout
from pipeline.kernels.tar_read import Member, TarReader
from pipeline.stages.reissue_files import write_reissued_files
from pipeline.stages.release_about import json_bytes
from pipeline.stages.shard_check import READ_BYTES, key_of
from pipeline.stages.shard_tally import Tally
from schemas.sample import JSON_SUFFIX, KEY_DIGITS, SUFFIXES

MANIFEST = "manifest.json"
_NAME_DIGITS = 12


@dataclass
class Rewritten:
    """What became of a touched shard.

    Attributes:
        line: of the new manifest; None where no sample is left.
        num_samples: taken out.
        num_images: different images taken out.
        before: rows of ``Tally`` over the old shard.
        after: over the new one.
        labels: label id -> samples taken out.
    """

    line: dict[str, Any] | None = None
    num_samples: int = 0
    num_images: int = 0
    before: list[dict[str, Any]] = field(default_factory=list)
    after: list[dict[str, Any]] = field(default_factory=list)
    labels: Counter[int] = field(default_factory=Counter)


def key_stems(names: Iterable[str]) -> set[str]:
    """What the keys of the named images begin with.

    Args:
        names: image_ids, or keys of any copy; an opt-out concerns every copy of an image.
    """
    stems = set()
    for name in names:
        stem, dash, copy = name.partition("-")
        is_key = len(stem) == KEY_DIGITS and set(stem) <= set("0123456789abcdef")
        stems.add(
            stem if is_key and (dash and copy.isdigit()) else sample_key(name, 0)[:KEY_DIGITS]
        )
    return stems


def reissue_release(
    old: Storage,
    home: Storage,
    names: Sequence[str],
    threads: int = 8,
    tell: Callable[[int, int], None] = lambda *_: None,
) -> Storage:
    """Issue a release without some images.

    Reads the key column of every index and the shards that hold one of the images; writes these
    shards. Memory: one sample and one index a thread. At 133,000 shards of 10,000 samples the
    indexes' keys are some 60 GB to read, a shard that is rewritten 320 MB.

    Args:
        old: folder of the release.
        home: the new one becomes a folder of it, named by what it is made from; CURRENT.json
            in it names the newest.
        names: image_ids or keys to take out, in any order.
        threads: shards worked on at once.
        tell: progress, ``tell(shards done, shards)``.

    Returns:
        folder of the new release.

    Raises:
        ValueError: none of the images is in the release, or a shard is not what its manifest says.

    Source: SPEC-dataset W6.
    """
    raw = old.read_bytes(MANIFEST)
    manifest, stems = json.loads(raw), key_stems(names)
    parent = hashlib.sha256(raw).hexdigest()
    identity = json.dumps([parent, sorted(stems)]).encode()
    folder = hashlib.sha256(identity).hexdigest()[:_NAME_DIGITS]
    new = home.child(folder)
    if not new.exists(MANIFEST):
        _issue(old, new, manifest, parent, stems, threads, tell)
    home.write_json_atomic("CURRENT.json", {"path": folder})
    return new


def _issue(
    old: Storage,
    new: Storage,
    manifest: dict[str, Any],
    parent: str,
    stems: set[str],
    threads: int,
    tell: Callable[[int, int], None],
) -> None:
    lines = manifest["shards"]
    new.make_folder("shards")

    def work(line: dict[str, Any]) -> Rewritten:
        keys = _keys(old, line)
        if not any(key[:KEY_DIGITS] in stems for key in keys):
            for part in ("name", "index"):
                _carry(old, new, line[part])
            return Rewritten(line)
        return _rewrite(old, new, line, stems)

    done: list[Rewritten] = []
    with ThreadPoolExecutor(threads, thread_name_prefix="reissue") as pool:
        for rewritten in pool.map(work, lines):
            done.append(rewritten)
            tell(len(done), len(lines))
    if not any(part.num_samples for part in done):
        new.remove("")
        raise ValueError(
            f"{old.uri}: none of the {len(stems)} images is in it, expected at least one; nothing "
            "is issued. Are these image_ids or keys of this release?"
        )
    fields = write_reissued_files(old, new, manifest, done, parent)
    fields["parent"] = {"manifest_sha256": parent}
    for name in new.list("shards"):
        if name.startswith("."):  # of a killed call
            new.remove(f"shards/{name}")
    new.write_bytes_atomic(MANIFEST, json_bytes(manifest | fields))


def _keys(old: Storage, line: dict[str, Any]) -> list[str]:
    with old.open_read(line["index"]) as handle:
        keys: list[str] = pq.read_table(handle, columns=["key"])["key"].to_pylist()
    if len(keys) != line["num_samples"]:
        raise ValueError(
            f"{old.uri}/{line['index']}: {len(keys)} rows, expected {line['num_samples']} as in "
            f"{MANIFEST}. `verify_release` tells what else is wrong."
        )
    return keys


def _carry(old: Storage, new: Storage, name: str) -> None:
    """Give a file to the new release without reading it, where the storage can do that."""
    if new.exists(name) and new.num_bytes(name) == old.num_bytes(name):
        return  # of a killed call; one of another size is part of a copy that was cut off
    if old.is_local and new.is_local:
        target = Path(new.path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(old.path(name), target)
            return
        except OSError:
            # Another disk, or one without links: copied, so that it appears as a whole.
            new.write_bytes_atomic(name, old.read_bytes(name))
            return
    if type(old.fs) is type(new.fs):
        new.fs.copy(old.path(name), new.path(name))
        return
    new.write_bytes_atomic(name, old.read_bytes(name))


def _rewrite(old: Storage, new: Storage, line: dict[str, Any], stems: set[str]) -> Rewritten:
    found, layout = Rewritten(), TarLayout()
    before, after = Tally(), Tally()
    index = pq.read_table(io.BytesIO(old.read_bytes(line["index"])))
    offsets: dict[str, int] = {}
    images: set[str] = set()
    sink = FileSink(new, line["name"])
    try:
        with old.open_read(line["name"], READ_BYTES) as handle:
            reader = TarReader(handle.read, line["num_bytes"])
            for key, members in _samples(reader, old, line):
                record = json.loads(members[-1].data)
                _count(before, members[0], record)
                if key[:KEY_DIGITS] in stems:
                    found.num_samples += 1
                    found.labels.update(record["label_ids"])
                    if record["copy_index"] == 0:
                        images.add(key[:KEY_DIGITS])
                    continue
                _count(after, members[0], record)
                (offsets[key], *_), buffers = layout.add((m.name, m.data) for m in members)
                sink.write(buffers)
        _expect_whole(reader, old, line)
        if offsets:
            sink.write((layout.end(),))
            sink.commit()
        else:
            sink.abort()
    except BaseException:
        sink.abort()
        raise
    found.num_images = len(images)
    found.before, found.after = before.rows(), after.rows()
    if offsets:
        found.line = line | _write_index(new, line["index"], index, offsets) | {
            "num_samples": len(offsets),
            "num_bytes": layout.num_bytes,
            "sha256": layout.sha256,
        }  # fmt: skip
    return found


def _samples(
    reader: TarReader, old: Storage, line: dict[str, Any]
) -> Iterator[tuple[str, list[Member]]]:
    for key, group in itertools.groupby(reader.members(), lambda m: key_of(m.name)):
        members = list(group)
        if any(m.faults for m in members) or not members[-1].name.endswith(f".{JSON_SUFFIX}"):
            raise ValueError(
                f"{old.uri}/{line['name']}: sample {key} is damaged; nothing is issued. "
                "`verify_release` tells how."
            )
        yield key, members


def _expect_whole(reader: TarReader, old: Storage, line: dict[str, Any]) -> None:
    if reader.faults or reader.sha256 != line["sha256"]:
        raise ValueError(
            f"{old.uri}/{line['name']}: sha256 {reader.sha256}, expected {line['sha256']} as in "
            f"{MANIFEST}; nothing is issued. `verify_release` tells what differs."
        )


def _count(tally: Tally, image: Member, record: dict[str, Any]) -> None:
    suffix = image.name.partition(".")[2]
    assert suffix in SUFFIXES.values(), image.name
    tally.add(
        is_first=record["copy_index"] == 0,
        num_bytes=len(image.data),
        licence=record["licence"] or "",
        num_labels=str(len(record["label_ids"])),
        source=record["source"] or "",
        suffix=suffix,
    )


def _write_index(
    new: Storage, name: str, index: pa.Table, offsets: dict[str, int]
) -> dict[str, str | float]:
    keys = index["key"].to_pylist()
    kept = index.filter(pa.array([key in offsets for key in keys]))
    moved = pa.array([offsets[key] for key in kept["key"].to_pylist()], pa.int64())
    place = kept.column_names.index("offset")
    kept = kept.set_column(place, kept.schema.field("offset"), moved)
    out = io.BytesIO()
    pq.write_table(kept, out, compression="zstd")
    new.write_bytes_atomic(name, out.getvalue())
    return {
        "index_sha256": hashlib.sha256(out.getvalue()).hexdigest(),
        "weight": total_weight(kept["weight"].to_numpy()),
    }
