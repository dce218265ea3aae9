"""A disk that is full, or fails at a sync: a clear error, no file, and the old content stays."""

import errno
import fcntl
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from release_given import IMAGES_FILE, content, image_id, row, schema

from pipeline.files import sink as sink_module
from pipeline.files.fetch import FetchPolicy
from pipeline.files.sink import FileSink
from pipeline.files.storage import open_storage
from pipeline.runtime.explain import explain
from pipeline.runtime.writer import PartWriter
from pipeline.stages.shard_files import ShardTask
from schemas.ingested import IMAGES

LABELS = ("tree", "blue jay", "ärger")
NUM_SHARDS, PER_SHARD = 2, 40
NUM_PLACES = 8


class Failing:
    """A call of the operating system that fails at its n-th time, and then again."""

    def __init__(self, patch, name, at, number=errno.ENOSPC, where=os):
        self._call, self._at, self._number = getattr(where, name), at, number
        self.calls = 0
        patch.setattr(where, name, self)

    def __call__(self, *args):
        if self._call.__name__ == "close" and not is_written(args[0]):
            return self._call(*args)
        self.calls += 1
        if self.calls > self._at:
            raise OSError(self._number, os.strerror(self._number))
        return self._call(*args)


def is_written(handle):
    """Images are read by handles as well, whose failures are another matter."""
    return fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


@pytest.fixture(autouse=True)
def without_sync():
    """Hundreds of files to sync: minutes on a busy disk, and only their failure is asked here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


def batches(folder):
    """Images of up to 100 KB, so that a shard is flushed several times; they stand in a file."""
    rows = [
        row(i, 0, i, NUM_SHARDS, lambda n: content(n) * 150, "jpeg")
        for i in range(NUM_SHARDS * PER_SHARD)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / IMAGES_FILE).open("wb") as stored:
        for i, planned in enumerate(rows):
            planned["offset"] = stored.tell()
            stored.write(content(i) * 150)
    rows.sort(key=lambda r: (r["shard_id"], r["position"]))
    assert rows[0]["image_id"] == image_id(0)
    return [pa.RecordBatch.from_pylist(rows, schema())]


def write(folder):
    task = ShardTask(open_storage(str(folder)), "r", FetchPolicy(threads=1))
    return list(task.write(batches(folder), LABELS))


def files(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != IMAGES_FILE
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    write(folder)
    return files(folder)


CALLS = [("writev", errno.ENOSPC), ("fsync", errno.EIO), ("fsync", errno.ENOSPC)]
CALLS += [("writev", errno.EDQUOT), ("close", errno.EIO)]


@pytest.mark.parametrize(("call", "number"), CALLS)
def test_whenever_it_fails_no_part_of_a_shard_shows_and_a_rerun_completes(
    tmp_path, whole, call, number
):
    with pytest.MonkeyPatch.context() as patch:
        counted = Failing(patch, call, 1 << 30)
        write(tmp_path / "count")
    places = np.unique(np.linspace(0, counted.calls - 1, NUM_PLACES).astype(int))
    for at in places.tolist():
        folder = tmp_path / f"{call}{at}"
        with pytest.MonkeyPatch.context() as patch:
            Failing(patch, call, at, number)
            with pytest.raises(OSError, match="shard-00000") as error:
                write(folder)
        assert error.value.errno == number
        assert ("The disk is full" if number != errno.EIO else "has failed") in explain(error.value)
        assert "shard-00000" in explain(error.value)
        found = files(folder)
        assert [name for name in found if "/." in name] == []
        assert {name: whole[name] for name in found} == found
        write(folder)
        assert files(folder) == whole


def test_a_short_write_before_the_disk_is_full_leaves_nothing(tmp_path):
    calls = []

    def some(fd, parts):
        calls.append(fd)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(fd, b"".join(parts)[:7])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sink_module.os, "writev", some)
        sink = FileSink(open_storage(str(tmp_path)), "x.tar")
        with pytest.raises(OSError, match=r"No space left.*x\.tar"):
            sink.write([bytes(2 << 20)])
        sink.abort()
    assert list(tmp_path.iterdir()) == []
    assert len(calls) == 3


@pytest.mark.parametrize("call", ["writev", "fsync"])
def test_a_table_that_does_not_fit_leaves_the_old_part(tmp_path, call):
    storage = open_storage(str(tmp_path))
    rows = pa.Table.from_pylist(
        [dict.fromkeys(IMAGES.column_names) | {"image_id": "a", "bytes": bytes(9)}],
        IMAGES.arrow_schema,
    )

    def part():
        writer = PartWriter(storage, "images", IMAGES, 0, 1)
        try:
            writer.write(rows)
            return writer.close()
        except BaseException:
            writer.abort()
            raise

    assert part().breaches == []
    old = files(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        Failing(patch, call, 0)
        with pytest.raises(OSError, match=r"No space left.*part-00000\.parquet"):
            part()
    assert files(tmp_path) == old


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_small_file_that_cannot_be_written_keeps_its_old_content(tmp_path, call):
    storage = open_storage(str(tmp_path))
    storage.write_json_atomic("CURRENT.json", {"path": "old"})
    with pytest.MonkeyPatch.context() as patch:
        Failing(patch, call, 0, errno.EIO)
        with pytest.raises(OSError, match=r"Input/output error.*CURRENT\.json"):
            storage.write_json_atomic("CURRENT.json", {"path": "new"})
    assert storage.read_json("CURRENT.json") == {"path": "old"}
    assert storage.list() == ["CURRENT.json"]


def test_every_file_is_synced_before_it_gets_its_name(tmp_path, monkeypatch):
    """And its folder afterwards: what a power cut leaves cannot be tried here, its order can."""
    done, rename = [], Path.replace

    def replace(temporary, target):
        done.append(("name", str(temporary), str(target)))
        return rename(temporary, target)

    monkeypatch.setattr(
        os, "fsync", lambda fd: done.append(("sync", os.readlink(f"/proc/self/fd/{fd}")))
    )
    monkeypatch.setattr(Path, "replace", replace)
    write(tmp_path)
    names = [(place, event) for place, event in enumerate(done) if event[0] == "name"]
    assert len(names) == 3 * NUM_SHARDS, "a shard, its index, its marker"
    for place, (_, temporary, target) in names:
        assert ("sync", temporary) in done[:place]
        assert done[place + 1] == ("sync", str(Path(target).parent))
    order = [Path(event[2]).suffix for _, event in names]
    assert order == [".tar", ".parquet", ".json"] * NUM_SHARDS
