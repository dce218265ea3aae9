"""The whole chain on a planted world, inside the session of the tests."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.run import RunConfig
from pipeline.demo.planted_world import PlantedWorld
from pipeline.files.storage import open_storage
from pipeline.kernels.hashing import hash_ints
from pipeline.runtime.catalog import Catalog, open_catalog
from pipeline.runtime.lifecycle import Lifecycle
from pipeline.runtime.planning import plan_chain, published_tables
from pipeline.runtime.sources import source_versions
from pipeline.runtime.world_check import release_folder, world_config
from pipeline.stages.chain import build_chain


@dataclass(frozen=True)
class WorldRun:
    """A world and a finished run over it.

    Attributes:
        world: the world.
        config: of the run.
        figures: what `check_world` says.
    """

    world: PlantedWorld
    config: RunConfig
    figures: dict[str, Any]

    @property
    def catalog(self) -> Catalog:
        return open_catalog(self.config.root)

    @property
    def release(self) -> Path:
        return Path(release_folder(open_storage(self.config.root)).root)


def run_world(spark, world: PlantedWorld, root: Path, partitions: int) -> RunConfig:
    """Run every stage, everything laid out in that many partitions."""
    sizes = [f"runtime.{name}={partitions}" for name in ("num_buckets", "shuffle_partitions")]
    config = world_config(world, str(root), sizes)
    run_chain(spark, config)
    return config


def run_chain(spark, config: RunConfig) -> None:
    """Run every stage in a session that is there already."""
    storage = open_storage(config.root)
    chain = build_chain(config)
    planned = plan_chain(chain, config, storage, source_versions(config.inputs, storage))
    lifecycle = Lifecycle(spark, config, storage, published_tables(storage, chain))
    with shuffle_partitions(spark, config.runtime.shuffle_partitions):
        for p in planned:
            lifecycle.run(p)


@contextmanager
def shuffle_partitions(spark, number: int):
    before = spark.conf.get("spark.sql.shuffle.partitions")
    spark.conf.set("spark.sql.shuffle.partitions", number)
    try:
        yield
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", before)


def shuffled(world: PlantedWorld, folder: Path, num_files: int = 3) -> PlantedWorld:
    """The same world: every input table several files in a folder, its rows in another order.

    Args:
        world: the world.
        folder: gets the tables.
        num_files: of each table.
    """
    tables = {}
    for name, path in world.tables.items():
        rows = pq.read_table(path)
        order = np.argsort(hash_ints(np.arange(rows.num_rows), 0, "shuffle"), kind="stable")
        tables[name] = folder / name
        tables[name].mkdir(parents=True)
        for number, part in enumerate(np.array_split(order, num_files)):
            pq.write_table(rows.take(pa.array(part)), tables[name] / f"part-{number}.parquet")
    return PlantedWorld(
        folder, world.num_images, world.num_terms, world.seed, True, tables, world.truth
    )
