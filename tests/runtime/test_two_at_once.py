"""Two runs of one stage at once, and inputs that change under a run."""

import os
import signal
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from given import publish_rows

from pipeline.config.ingest import IngestParams
from pipeline.config.inputs import Inputs, Source
from pipeline.config.run import RunConfig
from pipeline.config.runtime import RuntimeParams
from pipeline.files.storage import open_storage
from pipeline.runtime.catalog import open_catalog
from pipeline.runtime.lifecycle import Lifecycle
from pipeline.runtime.planning import plan_stage
from pipeline.runtime.scratch import SCRATCH, scratch_folder
from pipeline.runtime.slices import SliceStore
from pipeline.runtime.sources import source_versions
from pipeline.stages.stage import BatchResult, RelationalStage
from schemas.contract import Column, Table
from schemas.ingested import IMAGE_ID
from schemas.inputs import SOURCE_BLOCKED_IMAGES

GIVEN = Table(
    name="given",
    doc="What is copied.",
    key=("image_id",),
    columns=(IMAGE_ID, Column(name="size", type="int", doc="a number", min=1)),
)
COPIED = Table(name="copied", doc="A copy.", key=GIVEN.key, columns=GIVEN.columns)
ROWS = [{"image_id": f"i{n}", "size": n + 1} for n in range(40)]


class Meanwhile:
    """A stage that copies, and what happens while it runs."""

    def __init__(self, spark, folder, inputs=None):
        self.spark, self.storage = spark, open_storage(str(folder))
        runtime = RuntimeParams(num_buckets=2)
        self.config = RunConfig(root=str(folder), runtime=runtime, inputs=inputs or Inputs())
        self.before, self.after = [], []
        self.stage = RelationalStage(
            name="copy", version=1, fn=self.copy, params=IngestParams, section="ingest",
            inputs=(GIVEN,) if inputs is None else (SOURCE_BLOCKED_IMAGES,), outputs=(COPIED,),
        )  # fmt: skip

    def copy(self, params, ctx, given=None, source_blocked_images=None):
        if self.before:
            self.before.pop()()
        if given is None:
            given = source_blocked_images.selectExpr("image_id", "1 as size")
        cut = ctx.materialise(given)
        if self.after:
            self.after.pop()()
        return {"copied": cut}

    def run(self, rows=ROWS):
        published, versions = {}, source_versions(self.config.inputs, self.storage)
        if GIVEN in self.stage.inputs:
            published = {"given": publish_rows(self.storage, GIVEN, rows, 2)}
            versions |= {"given": published["given"].version}
        planned = plan_stage(self.stage, self.config, self.storage, versions)
        return Lifecycle(self.spark, self.config, self.storage, published).run(planned)

    def found(self):
        """Rows that the pointer leads to."""
        folder = self.storage.read_json("copy/CURRENT.json")["path"]
        rows = pq.read_table(f"{self.storage.root}/copy/{folder}/copied").to_pylist()
        return sorted(rows, key=lambda r: r["size"])

    def leftovers(self):
        names = self.storage.fs.find(self.storage.path("copy"))
        return [n for n in names if "_scratch" in n or "/." in n]


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_second_of_two_runs_ends_well_too(spark, tmp_path, when):
    """After: the first to end removes the scratch that the other is about to read."""
    one, ended = Meanwhile(spark, tmp_path), []
    getattr(one, when).append(lambda: ended.append(one.run()))
    last = one.run()
    assert [m.version for m in ended] == [last.version]
    assert one.found() == ROWS
    assert one.leftovers() == []
    assert open_catalog(str(tmp_path)).stages["copy"].version == last.version


def test_a_run_that_fails_of_itself_is_not_taken_for_a_finished_one(spark, tmp_path):
    one = Meanwhile(spark, tmp_path)
    one.run()

    def fail():
        raise OSError(28, "No space left on device")

    one.after.append(fail)
    with pytest.raises(OSError, match="No space"):
        one.run()
    one.after.append(fail)
    with pytest.raises(OSError, match="No space"):
        one.run(ROWS[:7])
    assert one.found() == ROWS


def test_a_new_version_of_an_input_does_not_touch_the_run_that_reads_the_old_one(spark, tmp_path):
    one = Meanwhile(spark, tmp_path)
    one.before.append(lambda: publish_rows(one.storage, GIVEN, ROWS[:3], 2))
    first = one.run()
    assert one.found() == ROWS
    second = one.run(ROWS[:3])
    assert one.found() == ROWS[:3]
    assert first.inputs != second.inputs
    assert first.version != second.version


def test_an_input_version_that_is_deleted_under_a_run_fails_it(spark, tmp_path):
    one = Meanwhile(spark, tmp_path)
    one.before.append(lambda: one.storage.remove("given"))
    with pytest.raises(Exception, match=r"given-\w+-2/part-0000\d\.parquet"):
        one.run()
    assert not one.storage.exists("copy/CURRENT.json")
    one.run()
    assert one.found() == ROWS


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_users_file_that_is_replaced_under_a_run_is_found(spark, tmp_path, when):
    path = tmp_path / "blocked.parquet"

    def put(ids):
        pq.write_table(pa.table({"image_id": ids}), path)

    put(["a", "b"])
    inputs = Inputs(blocked_images=Source(path=str(path)))
    one = Meanwhile(spark, tmp_path / "root", inputs)
    getattr(one, when).append(lambda: put(["a", "c"]))
    with pytest.raises(ValueError, match=r"copy: the files of .*blocked\.parquet changed while"):
        one.run()
    assert not one.storage.exists("copy/CURRENT.json")
    one.run()
    assert [row["image_id"] for row in one.found()] == ["a", "c"]


def test_a_slice_that_vanishes_is_computed_again(tmp_path):
    """Its bucket was finished by another process, which then clears the slices."""
    storage = open_storage(str(tmp_path))
    store = SliceStore(storage, "folder", 0)
    rows = pa.table({"image_id": ["a", "b"]})
    store.save(0, rows, "image_id", BatchResult({"t": rows}, {}))
    assert store.load(0, rows, "image_id") is not None
    storage.remove("folder/_slices/00000/000000-t.arrow")
    assert store.load(0, rows, "image_id") is None
    store.clear()
    assert store.load(0, rows, "image_id") is None


def test_a_folder_that_two_remove_at_once_is_gone(tmp_path, monkeypatch):
    storage = open_storage(str(tmp_path))
    for name in ("a/1", "a/2", "a/b/3"):
        storage.write_bytes_atomic(name, b"")
    remove, calls = storage.fs.rm, []

    def raced(path, recursive):
        calls.append(path)
        if len(calls) == 1:
            (tmp_path / "a" / "1").unlink()
            raise FileNotFoundError(path)
        remove(path, recursive=recursive)

    monkeypatch.setattr(storage.fs, "rm", raced)
    storage.remove("a")
    assert not (tmp_path / "a").exists()
    storage.remove("a")
    assert len(calls) == 2


HOLD = """
import sys, time
from pipeline.files.storage import open_storage
from pipeline.runtime.scratch import scratch_folder
with scratch_folder(open_storage(sys.argv[1])) as folder:
    open(folder + "/block", "w").close()
    print(folder, flush=True)
    time.sleep(600)
"""


def test_scratch_of_the_living_is_kept_and_of_the_dead_removed(tmp_path, repository):
    def hold():
        environment = os.environ | {"PYTHONPATH": str(repository)}
        call = [sys.executable, "-c", HOLD, str(tmp_path)]
        process = subprocess.Popen(call, stdout=subprocess.PIPE, text=True, env=environment)
        return process, process.stdout.readline().strip()

    storage = open_storage(str(tmp_path))
    living, its = hold()
    dead, other = hold()
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    try:
        assert os.path.exists(f"{other}/block")
        with scratch_folder(storage) as mine:
            assert os.path.exists(f"{its}/block")
            assert not os.path.exists(other)
            assert len({mine, its, other}) == 3
        assert not os.path.exists(mine)
        assert os.path.exists(f"{its}/block")
    finally:
        living.kill()
        living.wait()
    with scratch_folder(storage):
        assert not os.path.exists(its)
    assert not storage.exists(SCRATCH)
    with scratch_folder(open_storage("memory://root")) as none:
        assert none is None
