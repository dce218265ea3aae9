"""Spark's own speculation over the shard writer: two hosts, one try slow inside a shard."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from release_on_files import NUM_SHARDS, PER_SHARD, batches, files_of, images, pictures, shards
from submitted import submit, two_hosts
from upstream_given import publish_upstream, upstream, with_places

from pipeline.files.fetch import FetchPolicy
from pipeline.files.storage import open_storage
from pipeline.stages.release_check import release_storage
from pipeline.stages.shard_files import ShardTask
from schemas.ingested import IMAGES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.e2e,
    pytest.mark.cluster,
    pytest.mark.timeout(1800),
    pytest.mark.skipif("LAYOUTS" not in os.environ, reason="some minutes: make test-layouts"),
]

JOB = '''\
"""The job that writes the release; the first try of one task stops inside its first shard."""
import os, pathlib, time
from pyspark import TaskContext
from pipeline.runtime.cli import run_job
from pipeline.stages import write_release
from pipeline.stages.shard_files import ShardTask

MARKS = pathlib.Path("{marks}")


class Slow(ShardTask):
    def _contents(self, rows):
        task = TaskContext.get()
        number, attempt = task.partitionId(), task.attemptNumber()
        for place, content in enumerate(super()._contents(rows)):
            if place == 2:
                (MARKS / f"{{number}}-{{attempt}}").touch()
                if attempt == 0 and self.is_first(number):
                    self.wait(MARKS / f"{{number}}-1")
            yield content

    def is_first(self, number):
        try:
            (MARKS / "slow").open("x").write(str(number))
        except FileExistsError:
            return False
        return True

    def wait(self, twin):
        end = time.monotonic() + 300
        while time.monotonic() < end and not ({races} and twin.exists()):
            time.sleep(0.01)


write_release.ShardTask = Slow
run_job(write_release.STAGE)
'''
SPECULATION = {
    "spark.speculation": "true",
    "spark.speculation.interval": "100ms",
    "spark.speculation.quantile": "0.5",
    "spark.speculation.multiplier": "1.5",
    "spark.locality.wait": "0",
}
MEMORY = "runtime.worker_memory=1g", "runtime.worker_python_memory=1g"


@pytest.fixture(scope="module")
def master(tmp_path_factory):
    with two_hosts(tmp_path_factory.mktemp("hosts")) as url:
        yield url


@pytest.mark.parametrize("races", [False, True], ids=["sleeps_on", "races"])
def test_a_slow_try_and_spark_s_twin_leave_one_release(tmp_path, repository, master, races):
    """The first try sleeps until Spark kills it, or goes on beside its twin in the same shard."""
    rows = pictures()
    given = upstream(rows, NUM_SHARDS, PER_SHARD) | {IMAGES: images(rows)}
    root, empty, marks = tmp_path / "root", tmp_path / "empty", tmp_path / "marks"
    empty.mkdir()
    marks.mkdir()
    publish_upstream(root, with_places(root, given))
    job = tmp_path / "slow_job.py"
    job.write_text(JOB.format(marks=marks, races=races))
    build = [sys.executable, "jobs/build_dist.py", "app", "--out", str(tmp_path / "dist")]
    subprocess.run(build, cwd=repository, check=True)

    options = ["--preset", "demo", "--root", str(root)]
    for size in MEMORY:
        options += ["--set", size]
    package = tmp_path / "dist" / "app.zip"
    done = submit(master, package, job, empty, *options, timeout=900, settings=SPECULATION)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    slow = (marks / "slow").read_text()
    assert {p.name for p in marks.glob(f"{slow}-*")} == {f"{slow}-0", f"{slow}-1"}, "no twin"

    alone = open_storage(str(tmp_path / "alone"))
    placed = with_places(tmp_path / "alone", given)
    list(ShardTask(alone, "r", FetchPolicy(threads=1)).write(batches(placed), ["thing"]))
    release = release_storage(str(root))
    assert files_of(release).items() >= shards(alone).items()
    assert shards(release, ".").keys() == shards(alone).keys()
    assert hidden(root) == []


def hidden(root: Path) -> list[Path]:
    """What tries have left behind."""
    files = [p.relative_to(root) for p in (root / "release").rglob("*") if p.is_file()]
    return [p for p in files if p.name.startswith(".") or "_scratch" in p.parts]
