"""The life of a stage: versions, skipping, checks, the ledger, publishing last."""

import dataclasses
import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from pipeline.config.ingest import IngestParams
from pipeline.config.inputs import Inputs, Source
from pipeline.config.run import RunConfig
from pipeline.config.runtime import RuntimeParams
from pipeline.files.storage import open_storage
from pipeline.kernels.vectors import from_matrix, to_matrix
from pipeline.runtime.lifecycle import Lifecycle
from pipeline.runtime.planning import plan_chain, plan_stage, published_tables
from pipeline.runtime.reader import read_table
from pipeline.runtime.slices import SliceStore
from pipeline.runtime.sources import source_versions
from pipeline.stages.stage import BatchResult, BatchwiseStage, LedgerRule, RelationalStage
from schemas.contract import Column, Table
from schemas.ingested import IMAGE_EMBEDDINGS, IMAGE_ID
from schemas.inputs import SOURCE_IMAGE_EMBEDDINGS

KEPT = Table(
    name="kept",
    doc="Images with a positive first component.",
    key=("image_id",),
    columns=(IMAGE_ID, Column(name="size", type="int", doc="components", min=1)),
)
DROPPED = Table(
    name="dropped",
    doc="The others.",
    key=("image_id",),
    columns=(IMAGE_ID, Column(name="reason", type="string", doc="why")),
)


def take(source_image_embeddings, params, ctx):
    """Keep the rows as they are, floats as bytes."""
    rows = source_image_embeddings

    def pack(batches):
        for batch in batches:
            matrix = to_matrix(batch.column("embedding"))
            yield pa.RecordBatch.from_arrays(
                [batch.column("image_id"), from_matrix(matrix).cast(pa.binary())],
                ["image_id", "embedding"],
            )

    return {"image_embeddings": rows.mapInArrow(pack, IMAGE_EMBEDDINGS.ddl)}


def split(image_embeddings, state, params):
    first = to_matrix(image_embeddings["embedding"])[:, 0]
    ids = image_embeddings["image_id"]
    keep = pa.array(first > 0)
    kept = ids.filter(keep)
    dropped = ids.filter(pc.invert(keep))
    size = pa.array(np.full(len(kept), state, np.int32))
    reason = pa.array(["not_positive"] * len(dropped), pa.string())
    return BatchResult(
        {
            "kept": pa.table({"image_id": kept, "size": size}),
            "dropped": pa.table({"image_id": dropped, "reason": reason}),
        }
    )


def prepare(params):
    return 3


TAKE = RelationalStage(
    name="take",
    version=1,
    fn=take,
    params=IngestParams,
    section="ingest",
    inputs=(SOURCE_IMAGE_EMBEDDINGS,),
    outputs=(IMAGE_EMBEDDINGS,),
    ledger=(LedgerRule("images", ("source_image_embeddings",), ("image_embeddings",)),),
)
SPLIT = BatchwiseStage(
    name="split",
    version=1,
    kernel=split,
    prepare=prepare,
    params=IngestParams,
    section="ingest",
    aligned=(IMAGE_EMBEDDINGS,),
    outputs=(KEPT, DROPPED),
    batch_rows=7,
    ledger=(LedgerRule("images", ("image_embeddings",), ("kept",), dropped=("dropped",)),),
)
CHAIN = (TAKE, SPLIT)


@pytest.fixture
def given(tmp_path):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(100, 3)).astype(np.float32)
    table = pa.table(
        {"image_id": [f"i{i:03d}" for i in range(100)], "embedding": list(map(list, matrix))}
    )
    pq.write_table(table, tmp_path / "embeddings.parquet")
    return matrix


def config_of(tmp_path, num_buckets=3):
    return RunConfig(
        root=str(tmp_path / f"root{num_buckets}"),
        inputs=Inputs(image_embeddings=Source(path=str(tmp_path / "embeddings.parquet"))),
        runtime=RuntimeParams(num_buckets=num_buckets),
    )


def run_chain(spark, config, chain=CHAIN):
    storage = open_storage(config.root)
    planned = plan_chain(chain, config, storage, source_versions(config.inputs, storage))
    lifecycle = Lifecycle(spark, config, storage, published_tables(storage, chain))
    return storage, [lifecycle.run(p) for p in planned if p.current is None]


def test_chain_writes_aligned_buckets_and_settles_the_ledger(spark, tmp_path, given):
    storage, manifests = run_chain(spark, config_of(tmp_path))
    kept = read_table(storage, manifests[1].tables["kept"], KEPT).sort_by("image_id")
    expected = [f"i{i:03d}" for i in np.flatnonzero(given[:, 0] > 0)]
    assert kept["image_id"].to_pylist() == expected
    assert set(kept["size"].to_pylist()) == {3}
    line = manifests[1].ledger[0]
    assert (line.rows_in, line.rows_out) == (100, len(expected))
    assert line.dropped == {"not_positive": 100 - len(expected)}


def test_second_run_finds_every_stage_current(spark, tmp_path, given):
    config = config_of(tmp_path)
    run_chain(spark, config)
    assert run_chain(spark, config)[1] == []


def test_rows_and_versions_do_not_depend_on_the_number_of_buckets(spark, tmp_path, given):
    tables, versions = [], []
    for num_buckets in (1, 4):
        storage, manifests = run_chain(spark, config_of(tmp_path, num_buckets))
        tables.append(read_table(storage, manifests[1].tables["kept"], KEPT).sort_by("image_id"))
        versions.append([m.version for m in manifests])
    assert tables[0].equals(tables[1])
    assert versions[0] == versions[1]


def test_changed_parameter_reruns_the_stage_and_what_follows(spark, tmp_path, given):
    config = config_of(tmp_path)
    run_chain(spark, config)
    changed = config.model_copy(update={"ingest": IngestParams(language="de")})
    storage = open_storage(config.root)
    planned = plan_chain(CHAIN, changed, storage, source_versions(changed.inputs, storage))
    assert [p.current for p in planned] == [None, None]


def test_ledger_that_does_not_close_publishes_nothing(spark, tmp_path, given):
    def lossy(image_embeddings, state, params):
        return split(image_embeddings.slice(1), state, params)

    broken = dataclasses.replace(SPLIT, kernel=lossy)
    with pytest.raises(ValueError, match=r"unaccounted for, expected 0"):
        run_chain(spark, config_of(tmp_path), (TAKE, broken))
    assert not open_storage(config_of(tmp_path).root).exists("split/CURRENT.json")


def test_every_breach_of_a_contract_is_named(spark, tmp_path, given):
    def wrong(source_image_embeddings, params, ctx):
        rows = take(source_image_embeddings, params, ctx)["image_embeddings"]
        return {
            "image_embeddings": rows.union(rows).withColumn("embedding", F.lit(None).cast("binary"))
        }

    broken = dataclasses.replace(TAKE, fn=wrong, ledger=())
    with pytest.raises(ValueError, match="nulls, expected none") as error:
        run_chain(spark, config_of(tmp_path), (broken,))
    assert "ascending without repeats" in str(error.value)


def test_killed_run_continues_with_the_buckets_that_are_missing(spark, tmp_path, given):
    config = config_of(tmp_path)
    seen = tmp_path / "seen"
    seen.mkdir()

    def counting(image_embeddings, state, params):
        ids = image_embeddings["image_id"].to_pylist()
        (seen / ids[0]).touch()
        if not (tmp_path / "healed").exists() and "i001" in ids:
            # Spark cancels what still runs when a task fails: the others must be done by then.
            deadline = time.monotonic() + 120
            while len(list(tmp_path.glob("root3/split/*/_done/*.json"))) < 2:
                assert time.monotonic() < deadline, "the other buckets never finished"
                time.sleep(0.05)
            raise RuntimeError("killed")
        return split(image_embeddings, state, params)

    chain = (TAKE, dataclasses.replace(SPLIT, kernel=counting, batch_rows=1000))
    with pytest.raises(Exception, match="killed"):
        run_chain(spark, config, chain)
    assert not open_storage(config.root).exists("split/CURRENT.json")
    before = {p.name for p in seen.iterdir()}
    assert len(before) == 3
    for mark in seen.iterdir():
        mark.unlink()
    (tmp_path / "healed").touch()
    run_chain(spark, config, chain)
    assert len(list(seen.iterdir())) == 1


def test_killed_bucket_continues_after_its_last_finished_slice(spark, tmp_path, given):
    """Slices of 3 rows in one bucket; the run dies in the middle, later cuts differ."""
    config = config_of(tmp_path, 1)
    seen = tmp_path / "slices"
    seen.mkdir()

    def counting(image_embeddings, state, params):
        ids = image_embeddings["image_id"].to_pylist()
        (seen / ids[0]).touch()
        if len(list(seen.iterdir())) == 5 and not (tmp_path / "healed").exists():
            raise RuntimeError("killed")
        return split(image_embeddings, state, params)

    other = config.model_copy(update={"root": str(tmp_path / "whole")})
    whole = run_chain(spark, other)[1][-1]
    stage = dataclasses.replace(SPLIT, kernel=counting, batch_rows=3, keep_slices=True)
    with pytest.raises(Exception, match="killed"):
        run_chain(spark, config, (TAKE, stage))
    done = {p.name for p in seen.iterdir()}
    assert len(list(tmp_path.glob("root*/split/*/_slices/00000/*.json"))) == 4
    (tmp_path / "healed").touch()
    for mark in seen.iterdir():
        mark.unlink()
    manifest = run_chain(spark, config, (TAKE, stage))[1][-1]
    again = {p.name for p in seen.iterdir()} & done
    assert len(again) == 1  # the slice that died
    assert manifest.counts == whole.counts
    assert manifest.tables == whole.tables
    assert not list(tmp_path.glob("root*/split/*/_slices/*"))


def test_slices_that_were_cut_otherwise_are_not_taken(tmp_path):
    store = SliceStore(open_storage(str(tmp_path)), "stage/version", 0)
    rows = pa.table({"image_id": ["a", "b", "c"]})
    result = BatchResult({"out": pa.table({"image_id": ["a"]})}, {"images": 3})
    store.save(0, rows, "image_id", result)
    assert store.load(0, rows, "image_id").counts == {"images": 3}
    assert store.load(0, rows, "image_id").tables["out"].equals(result.tables["out"])
    assert store.load(0, rows.slice(1), "image_id") is None
    assert store.load(1, rows, "image_id") is None
    store.clear()
    assert store.load(0, rows, "image_id") is None


def test_missing_input_is_named(tmp_path, given):
    config = RunConfig(root=str(tmp_path / "r"))
    with pytest.raises(ValueError, match=r"inputs \['image_embeddings'\] are not given"):
        plan_stage(TAKE, config, open_storage(config.root), {})
