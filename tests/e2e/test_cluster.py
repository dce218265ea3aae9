"""Stages of every kind on two executors, from the zip, in an empty directory."""

import hashlib
import importlib.resources
import io
import json
import shutil
import subprocess
import sys
import tarfile

import pyarrow.parquet as pq
import pytest
from release_on_files import images as images_of
from submitted import submit
from upstream_given import NUM_SHARDS, PER_SHARD, publish_upstream, upstream, with_places

from pipeline.config.load import load_config
from pipeline.files.storage import open_storage
from pipeline.kernels.samples import sample_key
from pipeline.runtime.manifest import home_of, read_current
from pipeline.stages.chain import build_chain
from schemas.ingested import IMAGES

RELATIONAL, BATCHWISE, WRITER = "ingest_images", "fingerprint_images", "write_release"


def corpus():
    """Rows of the demo corpus by image_id."""
    file = importlib.resources.files("pipeline.demo") / "data" / "images.parquet"
    with importlib.resources.as_file(file) as path:
        return pq.read_table(path, columns=["image_id", "bytes"]).sort_by("image_id").to_pylist()


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.cluster
@pytest.mark.spark
def test_every_kind_of_stage_runs_on_a_local_cluster_from_the_zip(tmp_path, repository):
    images = corpus()
    chosen = images[:: len(images) // (NUM_SHARDS * PER_SHARD)][: NUM_SHARDS * PER_SHARD]
    root, empty = tmp_path / "root", tmp_path / "empty"
    empty.mkdir()
    given = with_places(root, upstream(chosen) | {IMAGES: images_of(chosen)})
    publish_upstream(root, {table: rows for table, rows in given.items() if table is not IMAGES})
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
