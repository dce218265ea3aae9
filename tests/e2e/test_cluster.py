"""Stages of every kind on two executors, from the zip, in an empty directory."""

import hashlib
import importlib.resources
import io
import itertools
import json
import shutil
import subprocess
import sys
import tarfile

import pyarrow.parquet as pq
import pytest
from given import publish_rows
from submitted import submit

from pipeline.config.load import load_config
from pipeline.files.storage import open_storage
from pipeline.kernels.samples import sample_key
from pipeline.runtime.manifest import home_of, publish, read_current
from pipeline.stages.chain import build_chain
from schemas.dataset import (
    LABEL_MAP,
    RESAMPLING_REPORT,
    SAMPLING_POLICY,
    SHARD_ASSIGNMENTS,
    SHARD_PLAN,
)

NUM_SHARDS, PER_SHARD = 3, 20
RELATIONAL, BATCHWISE, WRITER = "ingest_images", "fingerprint_images", "write_release"


def corpus():
    """Rows of the demo corpus by image_id."""
    file = importlib.resources.files("pipeline.demo") / "data" / "images.parquet"
    with importlib.resources.as_file(file) as path:
        return pq.read_table(path, columns=["image_id", "bytes"]).sort_by("image_id").to_pylist()


def upstream(root, images):
    """Rows of the tables that the shard writer reads: a release of one label."""
    count = len(images)
    root.mkdir()
    (root / "images.bin").write_bytes(b"".join(image["bytes"] for image in images))
    ends = itertools.accumulate(len(image["bytes"]) for image in images)
    samples = [
        dict.fromkeys(SHARD_ASSIGNMENTS.column_names)
        | {
            "shard_id": i % NUM_SHARDS,
            "position": i // NUM_SHARDS,
            "key": sample_key(image["image_id"], 0),
            "image_id": image["image_id"],
            "copy_index": 0,
            "label_ids": [0],
            "weight": 1.0,
            "sha256": hashlib.sha256(image["bytes"]).hexdigest(),
            "format": "png" if image["bytes"].startswith(b"\x89PNG") else "webp",
            "num_bytes": len(image["bytes"]),
            "part": "images.bin",
            "offset": end - len(image["bytes"]),
        }
        for i, (image, end) in enumerate(zip(images, ends, strict=True))
    ]
    label = {"label_id": 0, "cluster_id": 7, "name": "thing", "l1_interest": "art"}
    policy = {"policy": "inverse_sqrt", "materialised": True, "threshold": 0.1, "cap": None}
    policy |= {"max_copies": 20, "seed": 3, "num_images": count}
    plan = {"seed": 9, "samples_per_shard": PER_SHARD, "num_shards": NUM_SHARDS}
    return {
        SHARD_ASSIGNMENTS: samples,
        SHARD_PLAN: [plan | {"num_samples": count}],
        LABEL_MAP: [label | {"num_images": count}],
        SAMPLING_POLICY: [policy],
        RESAMPLING_REPORT: [
            {"label_id": 0, "num_before": count, "expected_after": count, "realised_after": count}
        ],
    }


def publish_upstream(root, given):
    """Publish literal rows as what their stages would have made."""
    config = load_config("demo", root=str(root))
    storage = open_storage(config.root)
    for stage in build_chain(config):
        tables = [t for t in stage.outputs if t in given]
        made = [publish_rows(storage, t, given[t], config.runtime.num_buckets) for t in tables]
        if made:
            mine = {name: table for manifest in made for name, table in manifest.tables.items()}
            publish(storage, stage, made[0].model_copy(update={"tables": mine}))


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.cluster
@pytest.mark.spark
def test_every_kind_of_stage_runs_on_a_local_cluster_from_the_zip(tmp_path, repository):
    images = corpus()
    chosen = images[:: len(images) // (NUM_SHARDS * PER_SHARD)][: NUM_SHARDS * PER_SHARD]
    root, empty = tmp_path / "root", tmp_path / "empty"
    empty.mkdir()
    publish_upstream(root, upstream(root, chosen))
    build = [sys.executable, "jobs/build_dist.py", "app", "--out", str(tmp_path / "dist")]
    subprocess.run(build, cwd=repository, check=True)
    job = shutil.copy(repository / "jobs" / "run_pipeline.py", tmp_path / "run_pipeline.py")

    options = ["--preset", "demo", "--root", str(root)]
    for stage in (RELATIONAL, BATCHWISE, WRITER):
        options += ["--only", stage]
    package = tmp_path / "dist" / "app.zip"
    done = submit("local-cluster[2,1,2048]", package, job, empty, *options)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert list(empty.iterdir()) == []

    storage = open_storage(str(root))
    chain = {s.name: s for s in build_chain(load_config("demo", root=str(root)))}
    found = {n: read_current(storage, home_of(chain[n])) for n in (RELATIONAL, BATCHWISE, WRITER)}
    assert {m.commit for m in found.values()} == {"unknown"}, "the code is not the zip's"
    assert found[RELATIONAL].tables["images"].num_rows == len(images)
    assert found[BATCHWISE].tables["image_fingerprints"].num_rows == len(images)
    assert found[WRITER].tables["written_shards"].num_rows == NUM_SHARDS
    assert released(root) == {
        f"{sample_key(i['image_id'], 0)}": hashlib.sha256(i["bytes"]).hexdigest() for i in chosen
    }


def released(root):
    """Key -> sha256 of every image in the release's shards, whose own hashes are checked."""
    pointer = json.loads((root / "release" / "CURRENT.json").read_text())
    folder = root / "release" / pointer["path"]
    manifest = json.loads((folder / "manifest.json").read_text())
    found = {}
    for shard in manifest["shards"]:
        raw = (folder / shard["name"]).read_bytes()
        assert hashlib.sha256(raw).hexdigest() == shard["sha256"]
        with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
            for member in tar:
                key, suffix = member.name.split(".")
                if suffix not in ("txt", "json"):
                    found[key] = hashlib.sha256(tar.extractfile(member).read()).hexdigest()
    return found
