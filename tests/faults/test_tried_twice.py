"""Tasks that Spark runs twice: after a failure, after a death, and beside a slow first try."""

import contextlib
import os
import subprocess
import sys
import threading

import pytest
from given import run_stage
from release_on_files import (
    NUM_SHARDS,
    PER_SHARD,
    batches,
    files_of,
    images,
    pictures,
    samples_of,
    shards,
)
from upstream_given import publish_upstream, upstream, with_places

from pipeline.files.fetch import FetchPolicy
from pipeline.files.sink import FileSink
from pipeline.files.storage import open_storage
from pipeline.stages.release_check import release_storage
from pipeline.stages.shard_files import ShardTask
from pipeline.stages.write_release import STAGE
from schemas.ingested import IMAGES

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(1200)]

JOB = '''\
"""The job that writes the release, with tasks whose first try goes wrong."""
import os, pathlib, signal, time
from pyspark import TaskContext
from pipeline.files.sink import FileSink
from pipeline.runtime.cli import run_job
from pipeline.stages import write_release
from pipeline.stages.shard_files import ShardTask


class Disturbed(ShardTask):
    def write(self, batches, label_names):
        task = TaskContext.get()
        number = task.partitionId()
        records = super().write(batches, label_names)
        first = next(records, None)
        if first is None:
            return
        pathlib.Path("{marks}", f"{{number}}-{{task.attemptNumber()}}").touch()
        if task.attemptNumber() == 0:
            half = FileSink(self.storage, f"{{self.folder}}/shards/shard-000000.tar")
            half.write([bytes(2 << 20)])
            self.go_wrong(number)
        yield first
        yield from records

    def go_wrong(self, number):
{body}

write_release.ShardTask = Disturbed
run_job(write_release.STAGE)
'''
FAILS = """\
        if number % 2:
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("planted")
"""


@pytest.fixture(scope="module")
def given():
    rows = pictures()
    return upstream(rows, NUM_SHARDS, PER_SHARD) | {IMAGES: images(rows)}


@pytest.fixture(scope="module")
def undisturbed(spark, given, tmp_path_factory):
    root = tmp_path_factory.mktemp("undisturbed")
    run_stage(spark, root, STAGE, with_places(root, given))
    return files_of(release_storage(str(root)))


def script(folder, body):
    """The job, and where its tasks leave a mark a try."""
    marks = folder / "marks"
    marks.mkdir()
    path = folder / "disturbed_job.py"
    path.write_text(JOB.format(marks=marks, body=body))
    return path, marks


def check(root, undisturbed):
    assert samples_of(files_of(release_storage(str(root)))) == samples_of(undisturbed)
    files = [p.relative_to(root) for p in (root / "release").rglob("*") if p.is_file()]
    assert [p for p in files if p.name.startswith(".") or "_scratch" in p.parts] == []
    shards = [p.name for p in files if p.suffix == ".tar"]
    assert len(shards) == NUM_SHARDS


@pytest.mark.skipif("FAULT_TWINS" not in os.environ, reason="half a minute: make test-faults")
def test_tasks_that_fail_and_die_after_writing_are_tried_again(
    given, undisturbed, tmp_path, repository
):
    root = tmp_path / "root"
    publish_upstream(root, with_places(root, given))
    job, marks = script(tmp_path, FAILS)
    call = [sys.executable, str(job), "--preset", "demo", "--root", str(root)]
    call += ["--set", "runtime.master=local[2,3]"]
    environment = os.environ | {"PYTHONPATH": str(repository)}
    done = subprocess.run(
        call, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    tries = {tuple(map(int, p.name.split("-"))) for p in marks.iterdir()}
    assert {number for number, _ in tries} == {n for n, attempt in tries if attempt == 1}
    assert {n % 2 for n, _ in tries} == {0, 1}, "one failed, one died"
    check(root, undisturbed)


@pytest.mark.parametrize("late", ["commits", "dies"])
def test_a_slow_try_and_its_twin_write_the_same(given, undisturbed, tmp_path, late):
    """What speculation does: the twin ends while the first try is in the middle of a shard."""
    storage = open_storage(str(tmp_path))
    given = with_places(tmp_path, given)
    task = ShardTask(storage, "r", FetchPolicy(threads=1))
    reached, go_on, first = threading.Event(), threading.Event(), []

    def slowly():
        for number, batch in enumerate(batches(given)):
            if number == PER_SHARD + 2:  # inside the second shard
                reached.set()
                assert go_on.wait(60)
                if late == "dies":
                    return  # its rows end: the sink is left as a killed process leaves it
            yield batch

    def run():
        with contextlib.suppress(ValueError):
            first.extend(task.write(slowly(), ["thing"]))

    slow = threading.Thread(target=run)
    slow.start()
    assert reached.wait(60)
    twin = list(task.write(batches(given), ["thing"]))
    assert shards(storage) == of_shards(undisturbed)
    with pytest.MonkeyPatch.context() as patch:
        if late == "dies":
            patch.setattr(FileSink, "commit", lambda _: fail())
            patch.setattr(FileSink, "abort", lambda _: None)
        go_on.set()
        slow.join()
    assert shards(storage) == of_shards(undisturbed)
    hidden = [n for n in storage.list("r/shards") if n.startswith(".")]
    assert len(hidden) == (late == "dies")
    storage.sweep("r")
    assert [n for n in storage.list("r/shards") if n.startswith(".")] == []
    assert twin[: len(first)] == first


def fail():
    raise ValueError("killed")


def of_shards(files):
    return {name: data for name, data in files.items() if name.startswith("shards/")}
