"""Files kept on a local disk: whole, checked, bounded, shared between processes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time

import pytest

from pipeline.files.fetch import FetchPolicy
from pipeline.files.file_cache import CachedFile, FileCache, WrongContentError
from pipeline.files.storage import TEMPORARY, Storage, StorageError, open_storage

ONCE = FetchPolicy(seconds=5, retries=0, threads=1)


def contents(i, size=1000):
    return bytes([i]) * size


@pytest.fixture
def store(tmp_path):
    storage = open_storage(str(tmp_path / "store"))
    for i in range(4):
        storage.write_bytes_atomic(f"f{i}", contents(i))
    return storage


def file_of(store, i, size=1000):
    digest = hashlib.sha256(contents(i, size)).hexdigest()
    return CachedFile(store, f"f{i}", size, digest)


def kept(folder):
    return sorted(p.stat().st_size for p in folder.iterdir() if not p.name.startswith("lock-"))


def test_a_file_is_fetched_once_and_read_in_ranges(store, tmp_path):
    cache = FileCache(tmp_path / "cache", 5000, ONCE)
    file = file_of(store, 2)
    assert cache.read_range(file, 10, 5) == contents(2)[10:15]
    store.remove("f2")
    assert cache.read_range(file, 990, 50) == contents(2)[990:]
    assert kept(tmp_path / "cache") == [1000]


def test_the_longest_unused_is_dropped(store, tmp_path):
    cache = FileCache(tmp_path / "cache", 2500, ONCE)
    for i in (0, 1):
        cache.read_range(file_of(store, i), 0, 1)
    for i, age in ((0, 100), (1, 200)):
        path = tmp_path / "cache" / file_of(store, i).sha256
        os.utime(path, (time.time() - age, time.time() - age))
    cache.read_range(file_of(store, 1), 0, 1)  # a use makes it the younger
    cache.read_range(file_of(store, 2), 0, 1)
    names = {p.name for p in (tmp_path / "cache").iterdir()}
    assert {file_of(store, 1).sha256, file_of(store, 2).sha256} <= names
    assert file_of(store, 0).sha256 not in names
    assert sum(kept(tmp_path / "cache")) <= 2500


def test_other_content_is_refused_after_a_second_look(store, tmp_path, monkeypatch):
    cache, file = FileCache(tmp_path / "cache", 5000, ONCE), file_of(store, 1)
    store.write_bytes_atomic("f1", contents(9))
    with pytest.raises(WrongContentError, match=f"expected {file.sha256}"):
        cache.read_range(file, 0, 1)
    store.write_bytes_atomic("f1", contents(1)[:10])
    with pytest.raises(WrongContentError):
        cache.read_range(file, 0, 1)
    assert kept(tmp_path / "cache") == []
    plain, reads = Storage.read_range, []

    def garbled_once(self, name, offset, size):
        reads.append(name)
        data = plain(self, name, offset, size)
        return b"x" * len(data) if len(reads) == 1 else data

    store.write_bytes_atomic("f1", contents(1))
    monkeypatch.setattr(Storage, "read_range", garbled_once)
    assert cache.read_range(file, 0, 3) == contents(1)[:3]
    assert reads == ["f1", "f1"]


def test_no_room_is_told(store, tmp_path, monkeypatch):
    cache = FileCache(tmp_path / "cache", 900, ONCE)
    with pytest.raises(StorageError, match=r"f0 of 1000 bytes does not fit.*shard_cache_bytes"):
        cache.read_range(file_of(store, 0), 0, 1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    cache = FileCache(tmp_path / "cache", 5000, ONCE)
    with pytest.raises(StorageError, match="no room for f0 of 1000 bytes"):
        cache.read_range(file_of(store, 0), 0, 1)
    assert kept(tmp_path / "cache") == []


def test_what_a_killed_process_left_is_cleared(store, tmp_path):
    cache = FileCache(tmp_path / "cache", 2500, ONCE)
    cache.read_range(file_of(store, 0), 0, 1)
    (tmp_path / "cache" / f".x.1{TEMPORARY}").write_bytes(b"y" * 1400)
    cache.read_range(file_of(store, 1), 0, 1)
    assert kept(tmp_path / "cache") == [1000, 1000]


def _read_all(root, folder, out):
    storage = open_storage(root)
    cache = FileCache(folder, 2500, ONCE)
    for turn in range(30):
        i = (turn * 7 + os.getpid()) % 4
        assert cache.read_range(file_of(storage, i), 5, 20) == contents(i)[5:25]
    out.put("good")


def test_processes_share_a_cache_that_is_too_small_for_all(store, tmp_path):
    """Files are dropped under readers all the time; none ever sees a part or another's bytes."""
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    arguments = (store.root, tmp_path / "cache", out)
    readers = [context.Process(target=_read_all, args=arguments) for _ in range(2)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
    assert [out.get(timeout=5) for _ in readers] == ["good", "good"]
    assert sum(kept(tmp_path / "cache")) <= 2500
