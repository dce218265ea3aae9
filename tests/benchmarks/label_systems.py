"""Label mapping by ours, DuckDB, Polars and Spark SQL: the same files in, the same columns out.

Every function is for a process of its own. It reads the Parquet files of `label_world`, writes
Parquet with Zstandard at level 1 below ``out`` and returns the seconds from the first read to the
last byte. The start of the JVM is in none of them, the start of Spark's Python workers is in ours.

Ours writes labelled images in one table and the others with a reason in a second, syncs both to
disk and reads them back; a peer writes one row an image, null where it has no label, unsynced.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

from benchmarks.label_world import World

CORES = 2
LEVEL = 1
"""Of Zstandard, as pyarrow has it by default."""
TERM_BITS = 1 << 20
"""A packed pair is cluster_id * TERM_BITS + term_id."""


def ours(world: World, out: str) -> float:
    """The stage through its real life: scheduled by Spark, written, read back, published."""
    from pipeline.config.run import RunConfig
    from pipeline.files.storage import open_storage
    from pipeline.runtime.lifecycle import Lifecycle
    from pipeline.runtime.planning import PlannedStage
    from pipeline.runtime.session import open_session
    from pipeline.stages.label_images import STAGE

    num_buckets = len(world.files("images"))
    runtime = {"cores": CORES, "num_buckets": num_buckets}
    config = RunConfig.model_validate({"root": world.root, "runtime": runtime})
    spark = open_session("label_images", config.runtime)
    storage = open_storage(world.root)
    inputs = {t.name: "benchmark" for t in STAGE.reads}
    version = hashlib.sha256(out.encode()).hexdigest()[:12]
    planned = PlannedStage(STAGE, STAGE.params(), inputs, version, None)
    started = time.perf_counter()
    Lifecycle(spark, config, storage, world.published()).run(planned)
    seconds = time.perf_counter() - started
    spark.stop()
    home = Path(world.root) / STAGE.name
    (home / f"{version}-{num_buckets:05d}").rename(out)
    return seconds


def duckdb_packed(world: World, out: str, files_at_once: int) -> float:
    """One aggregation an image over packed pairs, taken apart in its list."""
    return _duckdb(
        world,
        out,
        files_at_once,
        f"""labels as (
            select row, list_sort(list_distinct(list(cluster_id))) cluster_ids,
                list_sort(list(cluster_id::bigint * {TERM_BITS} + term_id)) pairs
            from pairs group by row)
        select image_id, cluster_ids, list_transform(cluster_ids, lambda c: list_transform(
            list_filter(pairs, lambda p: p // {TERM_BITS} = c), lambda p: (p % {TERM_BITS})::int
        )) label_terms from images left join labels using (row)""",
    )


def duckdb_grouped(world: World, out: str, files_at_once: int) -> float:
    """Two aggregations: terms of (image, cluster), then clusters of the image."""
    return _duckdb(
        world,
        out,
        files_at_once,
        """provenance as (
            select row, cluster_id, list_sort(list(term_id)) terms
            from pairs group by row, cluster_id),
        labels as (
            select row, list_sort(list({'c': cluster_id, 't': terms})) found
            from provenance group by row)
        select image_id, list_transform(found, lambda x: x.c) cluster_ids,
            list_transform(found, lambda x: x.t) label_terms
        from images left join labels using (row)""",
    )


def _duckdb(world: World, out: str, files_at_once: int, query: str) -> float:
    import duckdb

    link = duckdb.connect()
    scratch = f"{out}.scratch"
    link.sql(f"set threads = {CORES}")
    link.sql(f"set temp_directory = '{scratch}'")
    link.sql("set preserve_insertion_order = false")
    Path(out).mkdir(parents=True)
    started = time.perf_counter()
    small = {
        name: f"read_parquet('{world.files(name)[0]}')"
        for name in ("term_clusters", "visual_terms", "clusters")
    }
    link.sql(
        f"""create temp table allowed as select term_id, cluster_id, l1_interest
        from {small["term_clusters"]} m join {small["visual_terms"]} v using (term_id)
        join {small["clusters"]} c using (cluster_id)"""
    )
    num_files = len(world.files("images"))
    for first in range(0, num_files, files_at_once):
        images, annotations, interests = (
            f"read_parquet({world.files(name)[first : first + files_at_once]})"
            for name in ("images", "selected_annotations", "image_interests")
        )
        link.sql(
            f"""copy (with images as materialized (
                select image_id, row_number() over () as row, annotations, l1_interests
                from (select image_id from {images}) left join {annotations} a using (image_id)
                left join {interests} i using (image_id)),
            terms as (
                select row, l1_interests, unnest(annotations).term_id as term_id from images),
            pairs as (
                select row, cluster_id, term_id from terms join allowed using (term_id)
                where list_contains(l1_interests, l1_interest)),
            {query}) to '{out}/{first:05d}.parquet'
            (format parquet, compression zstd, compression_level {LEVEL})"""
        )
    return time.perf_counter() - started


def polars_sorted(world: World, out: str, files_at_once: int) -> float:
    """Interests by semi-join, pairs sorted once, groups in their order."""
    return _polars(world, out, files_at_once, True)


def polars_grouped(world: World, out: str, files_at_once: int) -> float:
    """Interests by a look into the image's list, groups sorted one by one."""
    return _polars(world, out, files_at_once, False)


def _polars(world: World, out: str, files_at_once: int, is_sorted: bool) -> float:
    import polars as pl

    Path(out).mkdir(parents=True)
    started = time.perf_counter()
    read = {
        name: pl.scan_parquet(world.files(name))
        for name in ("term_clusters", "visual_terms", "clusters")
    }
    allowed = (
        read["term_clusters"]
        .select("term_id", "cluster_id")
        .join(read["visual_terms"].select("term_id"), on="term_id", how="semi")
        .join(read["clusters"].select("cluster_id", "l1_interest"), on="cluster_id")
        .collect()
        .lazy()
    )
    for first in range(0, len(world.files("images")), files_at_once):
        tables = (
            pl.scan_parquet(world.files(name)[first : first + files_at_once])
            for name in ("images", "selected_annotations", "image_interests")
        )
        frame = _polars_labels(pl, *tables, allowed, is_sorted)
        frame.collect(engine="streaming").write_parquet(
            f"{out}/{first:05d}.parquet", compression="zstd", compression_level=LEVEL
        )
    return time.perf_counter() - started


def _polars_labels(
    pl: Any, images: Any, annotations: Any, interests: Any, allowed: Any, is_sorted: bool
) -> Any:
    joined = (
        images.select("image_id")
        .join(annotations, on="image_id", how="left")
        .join(interests, on="image_id", how="left")
        .with_row_index("row")
        .collect(engine="streaming")
        .lazy()
    )
    term_ids = pl.col("annotations").list.eval(pl.element().struct.field("term_id"))
    terms = joined.select("row", "l1_interests", term_ids.alias("term_id")).explode("term_id")
    if is_sorted:
        own = joined.select("row", l1_interest="l1_interests").explode("l1_interest")
        pairs = (
            terms.select("row", "term_id")
            .join(allowed, on="term_id")
            .join(own, on=["row", "l1_interest"], how="semi")
            .select("row", "cluster_id", "term_id")
            .sort("row", "cluster_id", "term_id")
        )
        labels = (
            pairs.group_by("row", "cluster_id", maintain_order=True)
            .agg("term_id")
            .group_by("row", maintain_order=True)
            .agg(cluster_ids="cluster_id", label_terms="term_id")
        )
    else:
        is_own = pl.col("l1_interests").list.contains(pl.col("l1_interest"))
        labels = (
            terms.join(allowed, on="term_id")
            .filter(is_own)
            .group_by("row", "cluster_id")
            .agg(pl.col("term_id").sort())
            .group_by("row")
            .agg(
                cluster_ids=pl.col("cluster_id").sort(),
                label_terms=pl.col("term_id").sort_by("cluster_id"),
            )
        )
    return joined.select("row", "image_id").join(labels, on="row", how="left").drop("row")


def spark_sql_grouped(world: World, out: str, num_files: int) -> float:
    """Explode, broadcast join, two aggregations over one shuffle by image."""
    return _spark_sql(
        world,
        out,
        num_files,
        """select image_id, transform(found, x -> x.cluster_id) cluster_ids,
            transform(found, x -> x.terms) label_terms
        from images left join (
            select image_id, sort_array(collect_list(struct(cluster_id, terms))) found from (
                select image_id, cluster_id, sort_array(collect_list(term_id)) terms
                from pairs group by image_id, cluster_id)
            group by image_id) using (image_id)""",
    )


def spark_sql_packed(world: World, out: str, num_files: int) -> float:
    """Explode, broadcast join, one aggregation over packed pairs, taken apart in its array."""
    return _spark_sql(
        world,
        out,
        num_files,
        f"""select image_id, cluster_ids, transform(cluster_ids, c -> transform(
            filter(pairs, p -> p div {TERM_BITS} = c), p -> cast(p % {TERM_BITS} as int)
        )) label_terms
        from images left join (
            select image_id, sort_array(collect_set(cluster_id)) cluster_ids,
                sort_array(collect_list(cast(cluster_id as bigint) * {TERM_BITS} + term_id)) pairs
            from pairs group by image_id) using (image_id)""",
    )


def _spark_sql(world: World, out: str, num_files: int, query: str) -> float:
    from pipeline.config.runtime import RuntimeParams
    from pipeline.runtime.session import open_session

    # Twice our driver's heap, since all of its work is in Java.
    settings = RuntimeParams(cores=CORES, driver_memory="6g", shuffle_partitions=16)
    spark = open_session("label_images_sql", settings, f"{out}.scratch")
    started = time.perf_counter()
    for name in world.tables:
        spark.read.parquet(*world.files(name)[:num_files]).createOrReplaceTempView(name)
    spark.sql("select image_id from images").createOrReplaceTempView("images")
    spark.sql(
        """select term_id, cluster_id, l1_interest from term_clusters
        join visual_terms using (term_id) join clusters using (cluster_id)"""
    ).createOrReplaceTempView("allowed")
    spark.sql(
        """select /*+ broadcast(allowed) */ image_id, cluster_id, term_id from (
            select image_id, l1_interests, explode(annotations.term_id) term_id
            from selected_annotations join image_interests using (image_id)
            join images using (image_id))
        join allowed using (term_id) where array_contains(l1_interests, l1_interest)"""
    ).createOrReplaceTempView("pairs")
    writer = spark.sql(query).write.option("compression", "zstd")
    writer.option("parquet.compression.codec.zstd.level", LEVEL).parquet(out)
    seconds = time.perf_counter() - started
    spark.stop()
    return seconds
