"""The same release and the same rows, whatever the partitions, the cores and the order of inputs.

`make test-layouts` runs the chain some twenty times, each a minute or two; `make test` compares two
of these layouts in tests/faults/test_kills.py, with a kill between.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chain_process import Chain, Layout, settle, strike
from planted_run import run_chain
from root_hashes import differences
from submitted import submit

from pipeline.config.run import RunConfig
from pipeline.demo.planted_world import generate
from pipeline.runtime.catalog import open_catalog
from pipeline.runtime.session import open_session

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.spark,
    pytest.mark.timeout(3600),
    pytest.mark.skipif("LAYOUTS" not in os.environ, reason="most of an hour: make test-layouts"),
]

NUM_IMAGES = int(os.environ.get("LAYOUTS") or "400")
FIRST = Layout(1, 1, False)
LAYOUTS = [
    Layout(partitions, cores, is_shuffled)
    for cores, partitions, is_shuffled in itertools.product((1, 2), (1, 2, 7, 200), (False, True))
]
KILLS = (Layout(2, 2, True), "jvm", 14), (Layout(7, 2, True), "worker", 26)
"""Layouts, their victims, and the number of published stages after which they are struck."""


class Sessions:
    """One Spark session at a time, all in one Java: a warm chain takes a fraction of a cold one."""

    def __init__(self, scratch: Path) -> None:
        self._scratch, self._cores, self._spark = scratch, 0, None

    def run(self, config: RunConfig) -> None:
        """Run the chain on the cores of its configuration."""
        if self._cores != config.runtime.cores:
            self.close()
            self._spark = open_session("layouts", config.runtime, self._scratch)
            self._cores = config.runtime.cores
        assert self._spark.sparkContext.defaultParallelism == self._cores, "a session of others"
        run_chain(self._spark, config)

    def close(self) -> None:
        if self._spark is not None:
            self._spark.stop()


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    opened = Sessions(tmp_path_factory.mktemp("spark"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    world = generate(tmp_path_factory.mktemp("world"), NUM_IMAGES)
    return Chain(tmp_path_factory.mktemp("layouts"), world)


@pytest.fixture(scope="module")
def first(chain: Chain, sessions: Sessions) -> Path:
    """Root of the run that all others are compared with."""
    root = chain.folder / "first"
    sessions.run(chain.config(root, FIRST))
    found = open_catalog(str(root))
    for name in ("near_duplicate_pairs", "rejected_pairs", "resampled_out", "dropped_images"):
        assert found.tables[name].num_rows > 0, f"{name}: nothing to compare"
    assert found.tables["written_shards"].num_rows > 1
    return root


def check_equal(root: Path, first: Path) -> None:
    """Release byte for byte, tables row for row; every difference is named at once."""
    assert differences(root, first) == []
    shutil.rmtree(root)


@pytest.mark.parametrize("layout", [x for x in LAYOUTS if x != FIRST], ids=str)
def test_layout_does_not_show(
    chain: Chain, sessions: Sessions, first: Path, layout: Layout
) -> None:
    root = chain.folder / str(layout)
    sessions.run(chain.config(root, layout))
    manifests = open_catalog(str(root)).stages.values()
    assert {manifest.layout for manifest in manifests} == {layout.partitions}
    check_equal(root, first)


def test_killed_twice_and_resumed_in_a_third_layout(chain: Chain, first: Path) -> None:
    """Stages of three layouts end up in one root."""
    root = chain.folder / "killed"
    for layout, victim, num_published in KILLS:
        job = chain.start(root, layout)
        while job.poll() is None and len(list(root.glob("*/CURRENT.json"))) < num_published:
            time.sleep(0.05)
        assert strike(job, victim, 0) == 1
        assert settle(job) != 0 or victim == "worker"
    chain.finish(root, Layout(1, 1, True))
    check_equal(root, first)


@pytest.mark.cluster
def test_a_local_cluster_from_the_zip_makes_the_same(
    chain: Chain, first: Path, tmp_path: Path, repository: Path
) -> None:
    root, empty, layout = tmp_path / "root", tmp_path / "empty", Layout(7, 2, True)
    empty.mkdir()
    build = [sys.executable, "jobs/build_dist.py", "app", "--out", str(tmp_path / "dist")]
    subprocess.run(build, cwd=repository, check=True)
    job = shutil.copy(repository / "jobs" / "run_pipeline.py", tmp_path / "run_pipeline.py")
    package, preset = tmp_path / "dist" / "app.zip", str(chain.preset(layout))
    arguments = ("--preset", preset, "--root", str(root))
    done = submit("local-cluster[2,1,2048]", package, job, empty, *arguments, timeout=3000)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert {m.commit for m in open_catalog(str(root)).stages.values()} == {"unknown"}, "not the zip"
    check_equal(root, first)
