"""The tar writer against tarfile, GNU tar and webdataset; samples against their contract."""

import hashlib
import io
import json
import shutil
import subprocess
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.samples import Sample, sample_key, sample_members
from pipeline.kernels.tar import TarLayout, member_header
from schemas.sample import SAMPLE_FIELDS

NAMES = st.text("abc019.-_", min_size=1, max_size=100).filter(lambda n: n[0] != ".")
MEMBERS = st.lists(st.tuples(NAMES, st.binary(max_size=1500)), unique_by=lambda m: m[0], max_size=8)
SAMPLE = Sample(
    key=sample_key("a.b/ü", 2),
    format="jpeg",
    image_id="a.b/ü",
    copy_index=2,
    label_ids=[0, 2],
    sha256="00ff",
    source=None,
    licence="CC0",
)


def archive(members):
    layout, parts, offsets = TarLayout(), [], {}
    for name, data in members:
        (offsets[name],), buffers = layout.add([(name, data)])
        parts += buffers
    parts.append(layout.end())
    raw = b"".join(parts)
    assert len(raw) == layout.num_bytes
    assert hashlib.sha256(raw).hexdigest() == layout.sha256
    return raw, offsets


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(4090, 4100) | st.integers(0, 9000), max_size=6), st.integers(0, 6))
def test_members_together_are_members_one_by_one(sizes, first):
    members = [(f"k{i}.bin", bytes([65 + i]) * size) for i, size in enumerate(sizes)]
    raw, offsets = archive(members)
    layout = TarLayout()
    found, buffers = [], []
    for part in (members[:first], members[first:]):
        at, more = layout.add(part)
        found, buffers = found + at, buffers + more
    assert b"".join([*buffers, layout.end()]) == raw
    assert layout.sha256 == hashlib.sha256(raw).hexdigest()
    assert found == list(offsets.values())


def test_header_is_the_one_tarfile_writes():
    info = tarfile.TarInfo("k-000.jpg")
    info.size = 12345
    ours, theirs = member_header("k-000.jpg", 12345), info.tobuf(tarfile.USTAR_FORMAT)
    # Between them: the device fields, which Python versions fill in different ways, so the sum too.
    assert [ours[:148], ours[156:329], ours[345:]] == [theirs[:148], theirs[156:329], theirs[345:]]
    found = tarfile.TarInfo.frombuf(ours, "ascii", "strict").get_info()
    assert found | {"chksum": 0} == info.get_info()


@settings(max_examples=60, deadline=None)
@given(MEMBERS)
def test_what_went_in_comes_out(members):
    raw, offsets = archive(members)
    for name, data in members:
        assert raw[offsets[name] : offsets[name] + len(data)] == data
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        infos = tar.getmembers()
        assert [(i.name, tar.extractfile(i).read()) for i in infos] == members
        assert [i.offset_data for i in infos] == list(offsets.values())
        assert {(i.mode, i.uid, i.gid, i.uname, i.gname, i.mtime) for i in infos} <= {
            (0o644, 0, 0, "", "", 0)
        }
    assert archive(members)[0] == raw


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar program")
def test_gnu_tar_reads_it_without_a_complaint(tmp_path):
    raw, _ = archive([("a.jpg", b"x" * 700), ("a.txt", b""), ("b" * 100, b"y" * 512)])
    (tmp_path / "t.tar").write_bytes(raw)
    found = subprocess.run(
        ["tar", "--list", "--file", str(tmp_path / "t.tar")], capture_output=True, check=True
    )
    assert found.stdout.decode().split() == ["a.jpg", "a.txt", "b" * 100]
    assert found.stderr == b""


@pytest.mark.parametrize(
    "name", ["", "a" * 101, "/etc/passwd", "..", "../a", "ü.jpg", "a\nb", ".h"]
)
def test_unsafe_and_long_names_are_refused(name):
    with pytest.raises(ValueError, match="tar member"):
        member_header(name, 0)


def test_too_big_a_member_is_refused():
    assert len(member_header("a", 8**11 - 1)) == 512
    with pytest.raises(ValueError, match="8589934592 bytes, expected 0 to 8589934591"):
        member_header("a", 8**11)


def test_members_of_a_sample():
    members = sample_members(SAMPLE, b"bytes", ["jaguar", "tree", "blue moon"])
    key = hashlib.sha256("a.b/ü".encode()).hexdigest()[:32] + "-002"
    assert [name for name, _ in members] == [f"{key}.jpg", f"{key}.txt", f"{key}.json"]
    assert members[0][1] == b"bytes"
    assert members[1][1] == b"jaguar\nblue moon\n"
    assert members[2][1].decode() == (
        '{"copy_index":2,"image_id":"a.b/ü","label_ids":[0,2],"label_names":["jaguar","blue moon"],'
        '"licence":"CC0","sha256":"00ff","source":null}\n'
    )
    assert list(json.loads(members[2][1])) == [field.name for field in SAMPLE_FIELDS]


def test_webdataset_groups_the_members(tmp_path):
    wds = pytest.importorskip("webdataset")
    other = SAMPLE._replace(key=sample_key("z", 0), image_id="z", format="png", label_ids=[1])
    members = [m for s in (SAMPLE, other) for m in sample_members(s, b"bytes", ["a", "b", "c"])]
    (tmp_path / "t.tar").write_bytes(archive(members)[0])
    got = list(wds.WebDataset(str(tmp_path / "t.tar"), shardshuffle=False))
    assert [g["__key__"] for g in got] == [SAMPLE.key, other.key]
    assert got[0]["jpg"] == got[1]["png"] == b"bytes"
    assert json.loads(got[1]["json"])["label_names"] == ["b"]
    assert got[0]["txt"] == b"a\nc\n"
