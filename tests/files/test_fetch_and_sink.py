"""Reads with time-out, retries and limit; files that appear whole or not at all."""

import threading
import time

import fsspec
import pytest

from pipeline.files import fetch as module
from pipeline.files import sink as sink_module
from pipeline.files.fetch import FetchPolicy, fetch, fetch_in_order
from pipeline.files.sink import FLUSH_BUFFERS, FLUSH_BYTES, FileSink
from pipeline.files.storage import open_storage

PATIENT = FetchPolicy(seconds=5, retries=2, threads=4)


@pytest.fixture
def flaky(monkeypatch):
    """Reads that fail a given number of times; returns the list of calls."""
    monkeypatch.setattr(module, "_FIRST_PAUSE_SECONDS", 0.001)
    calls = []

    def install(failures, error=None):
        def read(uri, size):
            calls.append(uri)
            if len(calls) <= failures:
                raise error or OSError("reset")
            return b"content"

        monkeypatch.setattr(module, "_read", read)
        return calls

    return install


def test_local_paths_and_object_stores_are_read_up_to_the_limit(tmp_path):
    (tmp_path / "a::b.bin").write_bytes(b"0123456789")
    path = str(tmp_path / "a::b.bin")
    assert fetch(path, 10, PATIENT) == fetch(f"file://{path}", 20, PATIENT) == b"0123456789"
    assert fetch(path, 3, PATIENT) == b"0123"
    fsspec.filesystem("memory").pipe_file("/bucket/x.bin", b"0123456789")
    assert fetch("memory://bucket/x.bin", 3, PATIENT) == b"0123"


@pytest.mark.parametrize("uri", ["pipe:ls", "http://a/b", "simplecache::s3://a/b", "s3://a::b/c"])
def test_other_protocols_are_refused(uri):
    with pytest.raises((ValueError, FileNotFoundError)):
        fetch(uri, 10, PATIENT)


def test_failed_reads_are_tried_again(flaky):
    calls = flaky(2)
    assert fetch("x", 10, PATIENT) == b"content"
    assert len(calls) == 3


def test_the_last_failure_is_told(flaky):
    calls = flaky(3)
    with pytest.raises(OSError, match="reset"):
        fetch("x", 10, PATIENT)
    assert len(calls) == 3


def test_missing_files_are_not_tried_again(flaky):
    calls = flaky(1, FileNotFoundError("gone"))
    with pytest.raises(FileNotFoundError):
        fetch("x", 10, PATIENT)
    assert len(calls) == 1


def test_a_read_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(module, "_FIRST_PAUSE_SECONDS", 0.001)
    release = threading.Event()
    monkeypatch.setattr(module, "_read", lambda uri, size: release.wait(10) and b"late")
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"memory://x: no answer within 0\.05 s"):
        fetch("memory://x", 10, FetchPolicy(seconds=0.05, retries=1))
    assert time.monotonic() - started < 5
    release.set()


def test_order_is_kept_and_the_window_bounded():
    taken, delivered = [], 0

    def items():
        for i in range(50):
            taken.append(i)
            assert len(taken) - delivered <= 2 * 3 + 1
            yield i

    def read(i):
        time.sleep(0.002 * (i % 3))
        if i == 7:
            raise OSError("seven")
        return b"%d" % i

    outcomes = fetch_in_order(
        items(), lambda i: b"here" if i in {20, 41} else None, read, threads=3
    )
    for i, content in outcomes:
        assert i == delivered
        delivered += 1
        expected = b"here" if i in {20, 41} else b"%d" % i
        assert isinstance(content, OSError) if i == 7 else content == expected
    assert delivered == 50


@pytest.mark.parametrize("uri", ["local", "memory://sink"])
def test_sink_writes_every_byte_once(tmp_path, uri):
    storage = open_storage(str(tmp_path) if uri == "local" else uri)
    pieces = [b"%d," % i * (i % 7) for i in range(3 * FLUSH_BUFFERS)] + [bytes(FLUSH_BYTES + 5)]
    sink = FileSink(storage, "a/b.tar")
    for i in range(0, len(pieces), 5):
        sink.write(pieces[i : i + 5])
    sink.commit()
    sink.abort()
    assert storage.read_bytes("a/b.tar") == b"".join(pieces)
    assert storage.list("a") == ["b.tar"]


def test_sink_survives_short_writes(tmp_path, monkeypatch):
    import os

    whole = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, parts: whole(fd, [b"".join(parts)[:7]]))
    sink = FileSink(open_storage(str(tmp_path)), "x")
    sink.write([b"0123456789", b"abc", memoryview(b"defghij")])
    sink.commit()
    assert (tmp_path / "x").read_bytes() == b"0123456789abcdefghij"


def test_aborted_sink_leaves_the_old_file(tmp_path):
    (tmp_path / "x").write_bytes(b"old")
    sink = FileSink(open_storage(str(tmp_path)), "x")
    sink.write([bytes(FLUSH_BYTES)])
    assert (tmp_path / "x").read_bytes() == b"old"
    sink.abort()
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_what_is_written_is_on_its_way_to_disk_before_the_sync(tmp_path, monkeypatch):
    """In steps, each byte once, and nothing is lost by it."""
    told = []
    monkeypatch.setattr(sink_module, "WRITE_BACK_BYTES", 3 << 20)
    monkeypatch.setattr(
        sink_module.os, "posix_fadvise", lambda _fd, start, size, _how: told.append((start, size))
    )
    sink = FileSink(open_storage(str(tmp_path)), "big")
    parts = [bytes([i]) * (1 << 20) for i in range(10)]
    for part in parts:
        sink.write((part,))
    sink.commit()
    assert told == [(0, 3 << 20), (3 << 20, 3 << 20), (6 << 20, 3 << 20)]
    assert (tmp_path / "big").read_bytes() == b"".join(parts)
