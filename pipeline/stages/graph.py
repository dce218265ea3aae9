"""Connected components of edges in DataFrames (SPEC N4)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.kernels.components import connected_components
from pipeline.stages.arrow import all_rows
from pipeline.stages.stage import StageContext

logger = logging.getLogger(__name__)


def components(edges: DataFrame, ctx: StageContext, task_edges: int, max_rounds: int) -> DataFrame:
    """Component of every node that has an edge.

    Up to ``task_edges`` distinct edges one task solves the graph. Beyond that, rounds of large star
    and small star rewire the edges until every component is a star around its smallest node: each
    is one combinable minimum and one map, so no node's neighbours gather anywhere; O(log^2 n)
    rounds, each materialised, each shuffling the edges four times.

    Args:
        edges: ``one``, ``two``, strings; loops, repeats and either order allowed.
        ctx: of the stage.
        task_edges: edges that one task may hold.
        max_rounds: bound on rounds.

    Returns:
        ``node``, ``component``: the smallest node of the component.

    Raises:
        ValueError: not settled after ``max_rounds``.

    Source: Kiveris et al. 2014, "Connected Components in MapReduce and Beyond".
    """
    current = ctx.materialise(_canonical(edges))
    count = ctx.count(current)
    if count <= task_edges:
        return current.repartition(1).mapInArrow(_solve, "node string, component string")
    for number in range(1, max_rounds + 1):
        after = ctx.materialise(small_star(large_star(current)))
        changed = ctx.count(after.join(current, on=["one", "two"], how="left_anti"))
        was, count = count, ctx.count(after)
        fields = {"round": number, "edges": count, "changed": changed}
        logger.info("components_round", extra={"fields": fields})
        if changed == 0 and was == count:
            return _labels(after)
        current = after
    raise ValueError(
        f"near_duplicates.max_rounds: components still change after {max_rounds} rounds; raise it."
    )


def large_star(edges: DataFrame) -> DataFrame:
    """Link each greater neighbour of every node to the node's smallest neighbour or itself."""
    both = edges.unionByName(edges.select(F.col("two").alias("one"), F.col("one").alias("two")))
    least = both.groupBy("one").agg(F.least("one", F.min("two")).alias("least"))
    linked = both.join(least, on="one", how="inner").where(F.col("two") > F.col("one"))
    return _canonical(linked.select(F.col("two").alias("one"), F.col("least").alias("two")))


def small_star(edges: DataFrame) -> DataFrame:
    """Link each smaller neighbour of every node, and the node, to the smallest of them."""
    turned = edges.select(F.col("two").alias("one"), F.col("one").alias("two"))
    least = turned.groupBy("one").agg(F.min("two").alias("least"))
    linked = turned.join(least, on="one", how="inner")
    neighbours = linked.select(F.col("two").alias("one"), F.col("least").alias("two"))
    own = least.select("one", F.col("least").alias("two"))
    return _canonical(neighbours.unionByName(own))


def _canonical(edges: DataFrame) -> DataFrame:
    """Edges with one < two, without loops and repeats."""
    ordered = edges.select(
        F.least("one", "two").alias("one"), F.greatest("one", "two").alias("two")
    )
    return ordered.where(F.col("one") != F.col("two")).distinct()


def _labels(stars: DataFrame) -> DataFrame:
    members = stars.select(F.col("two").alias("node"), F.col("one").alias("component"))
    centre = F.col("one")
    centres = stars.select(centre.alias("node"), centre.alias("component")).distinct()
    return members.unionByName(centres)


def _solve(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for rows in all_rows(batches):
        one, two = (rows[name].to_numpy().astype(str) for name in ("one", "two"))
        found = connected_components(one, two)
        columns = [pa.array(found.nodes, pa.string()), pa.array(found.labels, pa.string())]
        yield pa.RecordBatch.from_arrays(columns, ["node", "component"])
