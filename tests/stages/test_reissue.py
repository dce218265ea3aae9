"""Opt-out: what is gone, what is read and written, what a killed call leaves."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem
from release_given import image_id, verify_here, write_small_release

from pipeline.files.storage import Storage, open_storage
from pipeline.kernels.samples import sample_key
from pipeline.stages import reissue
from pipeline.stages.reissue import key_stems, reissue_release
from pipeline.train.release import open_release


class CountingFileSystem(LocalFileSystem):
    """Keeps the names of files that are opened for reading."""

    cachable = False

    def __init__(self):
        super().__init__()
        self.opened = []

    def _open(self, path, mode="rb", **options):
        self.opened.append(Path(path).name)
        return super()._open(path, mode, **options)


def keys_of(release):
    opened = open_release(release.uri)
    found = {}
    for i, shard in enumerate(opened.shards):
        for key in opened.read_index(i).keys.to_pylist():
            found.setdefault(shard.name, []).append(key)
    return found


def contents(folder):
    files = (p for p in Path(folder.root).rglob("*") if p.is_file())
    return {str(p.relative_to(folder.root)): p.read_bytes() for p in files}


@pytest.fixture(autouse=True)
def without_sync():
    """8,000 files to sync: minutes on a busy disk, and not what is asked here."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: None)
        yield


def test_an_opt_out_touches_only_the_shards_that_hold_it(tmp_path):
    old = write_small_release(tmp_path / "old", num_shards=1000, per_shard=2, image=small)
    keys = keys_of(old)
    chosen = [keys[name][0] for name in sorted(keys)[::10]]
    assert len(chosen) == 100
    stems = {key[:32] for key in chosen}
    touched = {n for n, of_shard in keys.items() if any(key[:32] in stems for key in of_shard)}
    assert 100 <= len(touched) <= 200  # with the second copies
    fs = CountingFileSystem()
    watched = Storage(fs, old.root, old.uri)
    new = reissue_release(
        watched, Storage(fs, str(tmp_path / "new"), str(tmp_path / "new")), chosen
    )
    opened = {name for name in fs.opened if name.endswith(".tar")}
    assert opened == {Path(name).name for name in touched}
    for name in keys:
        ours, theirs = (Path(folder.path(name)) for folder in (new, old))
        if ours.exists():
            assert ours.samefile(theirs) == (name not in touched)
    manifest = new.read_json("manifest.json")
    parent = hashlib.sha256(old.read_bytes("manifest.json")).hexdigest()
    assert manifest["parent"] == {"manifest_sha256": parent}
    assert manifest["removed"]["num_images"] == 100
    left = [key for of_shard in keys_of(new).values() for key in of_shard]
    assert sorted(left) == sorted(k for ks in keys.values() for k in ks if k[:32] not in stems)
    assert verify_here(new).told == []
    assert verify_here(old).told == []


def small(i):
    return b"%d" % i


def test_every_copy_of_an_image_goes_by_id_or_by_key(tmp_path):
    old = write_small_release(tmp_path / "old")
    home = open_storage(str(tmp_path / "new"))
    by_id = reissue_release(old, home, [image_id(4)])
    assert by_id.uri == reissue_release(old, home, [sample_key(image_id(4), 1)]).uri
    assert by_id.read_json("manifest.json")["removed"] == {
        "num_images": 1, "num_samples": 2, "num_shards": 0
    }  # fmt: skip
    again = reissue_release(by_id, home, [image_id(0), image_id(1)])
    assert again.read_json("manifest.json")["removed"]["num_samples"] == 5
    assert verify_here(by_id).told == verify_here(again).told == []
    assert open_release(home.uri).num_samples == 12 - 5
    assert not any(image_id(4).encode() in raw for raw in contents(again).values())


def test_names_are_ids_or_keys():
    key = sample_key("a", 3)
    assert key_stems(["a"]) == key_stems([key]) == {key[:32]}
    assert key_stems(["0" * 32 + "-x"]) == {sample_key("0" * 32 + "-x", 0)[:32]}


def test_nobody_known_is_an_error_and_leaves_nothing(tmp_path):
    old = write_small_release(tmp_path / "old")
    home = open_storage(str(tmp_path / "new"))
    with pytest.raises(ValueError, match="none of the 1 images is in it"):
        reissue_release(old, home, ["stranger"])
    assert not (tmp_path / "new" / "CURRENT.json").exists()
    assert contents(home) == {}


def test_a_damaged_shard_is_not_issued_anew(tmp_path):
    old = write_small_release(tmp_path / "old", num_shards=1)
    raw = bytearray(old.read_bytes("shards/shard-000000.tar"))
    raw[512] ^= 1
    old.write_bytes_atomic("shards/shard-000000.tar", bytes(raw))
    with pytest.raises(ValueError, match=r"shard-000000\.tar: sha256"):
        reissue_release(old, open_storage(str(tmp_path / "new")), [image_id(1)])


class Killed(BaseException):
    """Stands for a signal."""


@pytest.mark.parametrize("step", ["_rewrite", "_write_index", "write_reissued_files", "json_bytes"])
def test_killed_it_leaves_the_old_release_and_goes_on_later(tmp_path, monkeypatch, step):
    old = write_small_release(tmp_path / "old")
    home, names = open_storage(str(tmp_path / "new")), [image_id(0), image_id(5)]
    before = contents(old)

    def die(*_):
        raise Killed

    monkeypatch.setattr(reissue, step, die)
    with pytest.raises(Killed):
        reissue_release(old, home, names)
    monkeypatch.undo()
    assert contents(old) == before
    assert not list((tmp_path / "new").rglob("manifest.json"))
    new = reissue_release(old, home, names)
    assert contents(old) == before
    assert verify_here(new).told == []
    other = reissue_release(old, open_storage(str(tmp_path / "other")), names)
    assert contents(new) == contents(other)
    assert json.loads((tmp_path / "new" / "CURRENT.json").read_text())["path"] in new.uri


def test_a_copy_that_was_cut_off_is_made_again(tmp_path):
    old = write_small_release(tmp_path / "old")
    home = open_storage(str(tmp_path / "new"))
    new = reissue_release(old, home, [image_id(4)])
    lines = zip(*(s.read_json("manifest.json")["shards"] for s in (old, new)), strict=True)
    name = next(a["name"] for a, b in lines if a == b)  # untouched: a link to the old file
    whole = old.read_bytes(name)
    new.remove("manifest.json")
    new.remove(name)
    new.write_bytes_atomic(name, whole[:700])
    assert reissue_release(old, home, [image_id(4)]).read_bytes(name) == whole
    assert old.read_bytes(name) == whole
