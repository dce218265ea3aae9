"""One stage of the label half in a process of its own, through its real life."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.label_world import World

CORES = 2
DRIVER_MEMORY = "6g"
VERSION = "benchmark000"


class StageRun(NamedTuple):
    """A stage that ran.

    Attributes:
        seconds: from the first read to the published manifest; the start of Java is not in it,
            that of the Python workers is.
        tables: output table -> its manifest.
        costs: of `spark_costs.Costs`, what this stage added, by name.
    """

    seconds: float
    tables: Mapping[str, Any]
    costs: Mapping[str, float]


def run_stage(name: str, world: World, num_buckets: int, scratch: str) -> StageRun:
    """Run a stage over the tables of a world, with the defaults of its parameters.

    Args:
        name: of the stage and its module.
        world: holds what it reads.
        num_buckets: of the tables, and partitions of its shuffles.
        scratch: folder of shuffles and spills.
    """
    import importlib

    from benchmarks.spark_costs import costs_of
    from pipeline.config.run import RunConfig
    from pipeline.files.storage import open_storage
    from pipeline.runtime.lifecycle import Lifecycle
    from pipeline.runtime.planning import PlannedStage, params_of
    from pipeline.runtime.session import open_session

    stage = importlib.import_module(f"pipeline.stages.{name}").STAGE
    runtime = {
        "cores": CORES,
        "num_buckets": num_buckets,
        "shuffle_partitions": num_buckets,
        "driver_memory": DRIVER_MEMORY,
    }
    config = RunConfig.model_validate({"root": world.root, "runtime": runtime})
    inputs = {t.name: VERSION for t in stage.reads if t.name in world.tables}
    planned = PlannedStage(stage, params_of(config, stage), inputs, VERSION, None)
    spark = open_session(name, config.runtime, scratch)
    life = Lifecycle(spark, config, open_storage(world.root), world.published())
    before, started = costs_of(spark), time.perf_counter()
    manifest = life.run(planned)
    seconds = time.perf_counter() - started
    costs = costs_of(spark).since(before)._asdict()
    spark.stop()
    shutil.rmtree(scratch, ignore_errors=True)
    return StageRun(seconds, manifest.tables, costs)


def drop_tables(world: World, names: Sequence[str]) -> World:
    """Delete tables that nothing reads any more; the disk is small."""
    for name in names:
        shutil.rmtree(Path(world.root) / world.tables[name].path)
    kept = {name: table for name, table in world.tables.items() if name not in names}
    return World(world.root, kept, world.num_annotations)
