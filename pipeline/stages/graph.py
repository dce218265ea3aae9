"""Connected components of edges in DataFrames (SPEC N4)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipeline.kernels.components import connected_components
from pipeline.kernels.row_checks import one_array
from pipeline.stages.arrow import all_rows
from pipeline.stages.stage import StageContext

logger = logging.getLogger(__name__)


def components(edges: DataFrame, ctx: StageContext, task_edges: int, max_rounds: int) -> DataFrame:
    """Component of every node that has an edge.

    Up to ``task_edges`` distinct edges one task solves the graph. Beyond that, rounds of large star
    and small star rewire the edges until every component is a star around its smallest node: each
    is one combinable minimum and one map, so no node's neighbours gather anywhere; O(log^2 n)
    rounds, each materialised, each shuffling the edges six times.

    Args:
        edges: ``one``, ``two``, strings; loops, repeats and either order allowed.
        ctx: of the stage.
        task_edges: edges that one task may hold.
        max_rounds: bound on rounds.

    Returns:
        ``node``, ``component``: the smallest node of the component.

    Raises:
        ValueError: no stars after ``max_rounds``.

    Source: Kiveris et al. 2014, "Connected Components in MapReduce and Beyond".
    """
    current = ctx.materialise(_canonical(edges))
    if ctx.count(current) <= task_edges:
        return current.repartition(1).mapInArrow(_solve, "node string, component string")
    for number in range(1, max_rounds + 1):
        current = ctx.materialise(small_star(large_star(current)))
        unsettled = ctx.count(_unsettled(current))
        fields = {"round": number, "unsettled": unsettled}
        logger.info("components_round", extra={"fields": fields})
        if unsettled == 0:
            return _labels(current)
    raise ValueError(
        f"near_duplicates.max_rounds: components still change after {max_rounds} rounds; raise it."
    )


def _unsettled(edges: DataFrame) -> DataFrame:
    """Nodes that have a smaller neighbour and another one: none if and only if all is stars."""
    ends = edges.select(
        F.inline(
            F.array(
                F.struct(F.col("two").alias("node"), F.lit(1).alias("smaller")),
                F.struct(F.col("one").alias("node"), F.lit(0).alias("smaller")),
            )
        )
    )
    nodes = ends.groupBy("node").agg(F.sum("smaller").alias("smaller"), F.count("*").alias("n"))
    return nodes.where((F.col("smaller") > 0) & (F.col("n") > 1))


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
        ends = pa.concat_arrays([one_array(rows[name]) for name in ("one", "two")])
        encoded = ends.dictionary_encode()
        # Integers in the order of the identifiers' bytes, which is Spark's.
        order = pc.sort_indices(encoded.dictionary).to_numpy().astype(np.int64)
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        codes = rank[encoded.indices.to_numpy()]
        found = connected_components(codes[: rows.num_rows], codes[rows.num_rows :])
        names = encoded.dictionary.take(pa.array(order))
        columns = [names.take(pa.array(found.nodes)), names.take(pa.array(found.labels))]
        yield pa.RecordBatch.from_arrays(columns, ["node", "component"])
