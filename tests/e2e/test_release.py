"""The release of a run over the planted world, as its readers see it."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import pytest
from planted_run import WorldRun

from pipeline.train.release import open_release

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3600)]


def test_manifest_names_every_file_by_its_hash(run: WorldRun) -> None:
    manifest = json.loads((run.release / "manifest.json").read_bytes())
    told = {f["name"]: f["sha256"] for f in manifest["files"]}
    told |= {s["name"]: s["sha256"] for s in manifest["shards"]}
    told |= {s["index"]: s["index_sha256"] for s in manifest["shards"]}
    found = {n: hashlib.sha256((run.release / n).read_bytes()).hexdigest() for n in told}
    assert found == told
    assert manifest["label_map_sha256"] == told["label_map.json"]
    assert [s["num_bytes"] for s in manifest["shards"]] == [
        (run.release / s["name"]).stat().st_size for s in manifest["shards"]
    ]
    there = {p.name for p in (run.release / "shards").iterdir()}
    assert there == {Path(n).name for n in told if n.startswith("shards/")}


def test_tarfile_webdataset_and_the_trainer_read_the_same(run: WorldRun) -> None:
    webdataset = pytest.importorskip("webdataset")
    opened = open_release(str(run.release.parent))
    assert (
        opened.manifest_sha256
        == hashlib.sha256((run.release / "manifest.json").read_bytes()).hexdigest()
    )
    shards = [str(run.release / shard.name) for shard in opened.shards]
    streamed = {s["__key__"]: s for s in webdataset.WebDataset(shards, shardshuffle=False)}
    assert len(streamed) == opened.num_samples
    for number, path in enumerate(shards):
        index = opened.read_index(number)
        with tarfile.open(path) as tar:
            members = {m.name: tar.extractfile(m).read() for m in tar}
        assert len(members) == 3 * len(index.keys)
        for row, key in enumerate(index.keys.to_pylist()):
            suffix = index.suffixes[row].as_py()
            image = opened.read_image(number, index.member(row))
            assert image == members[f"{key}.{suffix}"] == streamed[key][suffix]
            meta = json.loads(members[f"{key}.json"])
            assert meta == json.loads(streamed[key]["json"])
            assert index.labels(row).tolist() == meta["label_ids"]
            assert meta["label_names"] == [opened.label_names[i] for i in meta["label_ids"]]
            assert members[f"{key}.txt"] == streamed[key]["txt"]
