"""The same stage started twice on one root, as two processes: both end well, nothing is mixed."""

import os
import subprocess
import sys
import time

import pytest
from given import run_stage
from release_on_files import NUM_SHARDS, PER_SHARD, files_of, images, pictures, samples_of
from upstream_given import publish_upstream, upstream, with_places

from pipeline.runtime.catalog import open_catalog
from pipeline.stages.release_check import release_storage
from pipeline.stages.write_release import STAGE
from schemas.ingested import IMAGES

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(3600)]
NUM_ROUNDS = int(os.environ.get("FAULT_TWINS", "0"))
"""A minute each, so `make test-faults` alone takes them."""


@pytest.mark.parametrize("number", range(NUM_ROUNDS))
def test_both_end_well_and_the_release_is_whole(spark, tmp_path, repository, number):
    rows = pictures()
    given = upstream(rows, NUM_SHARDS, PER_SHARD) | {IMAGES: images(rows)}
    root = tmp_path / "root"
    publish_upstream(root, with_places(root, given))
    call = [sys.executable, "jobs/run_pipeline.py", "--preset", "demo", "--root", str(root)]
    call += ["--only", "fingerprint_images", "--only", "write_release"]
    environment = os.environ | {"PYTHONPATH": str(repository)}
    twins = []
    for delay in (0, 0.7 * number):  # later rounds shift the second
        time.sleep(delay)
        log = (tmp_path / f"{len(twins)}.log").open("wb")
        twins.append(
            subprocess.Popen(call, cwd=repository, env=environment, stdout=log, stderr=log)
        )
    codes = [twin.wait(600) for twin in twins]
    said = [(tmp_path / f"{i}.log").read_text()[-3000:] for i in range(2)]
    assert codes == [0, 0], said
    alone = tmp_path / "alone"
    run_stage(spark, alone, STAGE, with_places(alone, given))
    expected = samples_of(files_of(release_storage(str(alone))))
    assert samples_of(files_of(release_storage(str(root)))) == expected
    stages = open_catalog(str(root)).stages
    for stage in ("fingerprint_images", "write_release"):
        for table in stages[stage].tables.values():
            for file in table.files:
                assert (root / table.path / file.name).stat().st_size == file.num_bytes
    left = [p for p in root.rglob("*") if p.name.startswith(".") or p.name == "_scratch"]
    assert left == []
