"""Components of DataFrames against union-find."""

import itertools
import math

import numpy as np
import pytest
from near_duplicate_rows import Context

from pipeline.stages.graph import components


def union_find(edges):
    """Smallest member of each node's component, by UTF-8 bytes; loops alone give no node."""
    parent = {}

    def root(node):
        while parent[node] != node:
            node = parent[node]
        return node

    for one, two in edges:
        if one != two:
            for node in (one, two):
                parent.setdefault(node, node)
            low, high = sorted((root(one), root(two)), key=str.encode)
            parent[high] = low
    return {node: root(node) for node in parent}


def chain(prefix, order):
    names = [f"{prefix}{i:03d}" for i in order]
    return list(itertools.pairwise(names))


def graphs():
    """Sparse random graphs, a star, loops, repeats, both directions, and ids in odd scripts."""
    rng = np.random.default_rng(8)
    edges = []
    for prefix, nodes, count in (
        ("ä", 60, 30),
        ("z", 60, 60),
        ("\U0001f600", 40, 90),
        ("a\0", 9, 9),
    ):
        ends = rng.integers(0, nodes, size=(count, 2))
        edges += [(f"{prefix}{a}", f"{prefix}{b}") for a, b in ends.tolist()]
    edges += [("hub", f"h{i}") for i in range(30)] + [("loop", "loop"), ("ｚ", "\U00010000")]
    edges += [("m", "n"), ("n", "m"), ("m", "n")] * 3 + [("m", "m"), ("a", "a\0")]
    return edges


def found(spark, edges, **options):
    df = spark.createDataFrame(edges, "one string, two string").repartition(3)
    rows = components(df, Context(), **options).collect()
    assert len(rows) == len({row.node for row in rows})
    return {row.node: row.component for row in rows}


def test_one_task_equals_union_find(spark):
    edges = graphs() + chain("c", range(200))
    assert found(spark, edges, task_edges=10_000, max_rounds=1) == union_find(edges)


def test_star_rounds_equal_union_find_and_halve_chains(spark):
    shuffled = np.random.default_rng(1).permutation(200).tolist()
    edges = graphs() + chain("c", range(200)) + chain("s", shuffled)
    bound = math.ceil(math.log2(200))
    assert found(spark, edges, task_edges=0, max_rounds=bound) == union_find(edges)


def test_too_few_rounds_and_nothing_to_do(spark):
    with pytest.raises(ValueError, match=r"max_rounds: components still change after 1 rounds"):
        found(spark, chain("c", range(20)), task_edges=5, max_rounds=1)
    assert found(spark, [], task_edges=0, max_rounds=1) == {}
    assert found(spark, [("a", "a")], task_edges=0, max_rounds=1) == {}
