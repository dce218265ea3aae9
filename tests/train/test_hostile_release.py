"""Shards that somebody tampered with: the trainer refuses the sample and follows nothing."""

import pytest
from release_given import write_small_release

from pipeline.train.release import CorruptSampleError, open_release

HEADER = 512


@pytest.mark.parametrize(
    "kind", [b"1", b"2", b"5", b"6"], ids=["hard", "symbolic", "folder", "pipe"]
)
def test_a_member_that_is_no_file_is_refused(tmp_path, kind):
    storage = write_small_release(tmp_path)
    release = open_release(str(tmp_path))
    index = release.read_index(0)
    start = int(index.offsets[1]) - HEADER
    raw = bytearray(storage.read_bytes(release.shards[0].name))
    raw[start + 156 : start + 157] = kind
    raw[start + 157 : start + 168] = b"/etc/passwd"
    storage.write_bytes_atomic(release.shards[0].name, bytes(raw))
    assert release.read_image(0, index.member(0))
    with pytest.raises(CorruptSampleError, match="a link or folder, expected a file"):
        release.read_image(0, index.member(1))


@pytest.mark.parametrize("name", [b"../../x.jpg", b"/etc/passwd", b"other.jpg"])
def test_a_member_of_another_name_is_refused(tmp_path, name):
    storage = write_small_release(tmp_path)
    release = open_release(str(tmp_path))
    index = release.read_index(0)
    start = int(index.offsets[1]) - HEADER
    raw = bytearray(storage.read_bytes(release.shards[0].name))
    raw[start : start + 100] = name.ljust(100, b"\0")
    storage.write_bytes_atomic(release.shards[0].name, bytes(raw))
    with pytest.raises(CorruptSampleError, match="tar member"):
        release.read_image(0, index.member(1))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(storage.list())
