"""Components: stars against union-find and networkx on random graphs, chains in log rounds."""

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.components import (
    alternate_stars,
    canonical,
    connected_components,
    group_minimum,
    large_star,
    small_star,
)


def union_find(edges):
    parent = {}

    def root(node):
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for one, two in edges:
        low, high = sorted((root(one), root(two)))
        parent[high] = low
    return {node: root(node) for node in parent}


def columns(edges, dtype=np.int64):
    array = np.array(edges, dtype=dtype).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def labels(result):
    return dict(zip(result.nodes.tolist(), result.labels.tolist(), strict=True))


def random_graph(seed):
    rng = np.random.default_rng(seed)
    nodes = int(rng.integers(2, 120))
    count = int(nodes * rng.choice([0.3, 0.7, 1.0, 2.0])) + 1
    names = rng.permutation(nodes * 3)[:nodes] - nodes
    return [tuple(names[rng.integers(0, nodes, 2)].tolist()) for _ in range(count)]


def test_200_random_graphs():
    for seed in range(200):
        edges = random_graph(seed)
        want = union_find(edges)
        graph = networkx.Graph(edges)
        seen = {n: min(c) for c in networkx.connected_components(graph) for n in c}
        assert labels(connected_components(*columns(edges))) == want == seen
        stars, rounds = alternate_stars(*columns(edges))
        proper = [edge for edge in edges if edge[0] != edge[1]]
        assert labels(stars) == union_find(proper)
        assert rounds <= 10


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), max_size=40))
def test_each_star_keeps_components(edges):
    want = union_find([e for e in edges if e[0] != e[1]])
    pair = canonical(*columns(edges))
    for operation in (large_star, small_star):
        pair = operation(*pair)
        got = union_find(zip(pair.left.tolist(), pair.right.tolist(), strict=True))
        assert got == want


def test_stars_by_hand():
    """1-5, 5-7, 5-3: the large star of 5 links 7 to 1; the small star of 5 links 3 to 1."""
    left, right = columns([(1, 5), (5, 7), (3, 5)])
    got = large_star(left, right)
    assert list(zip(got.left.tolist(), got.right.tolist(), strict=True)) == [
        (1, 5), (1, 7), (3, 5),
    ]  # fmt: skip
    got = small_star(*got)
    assert list(zip(got.left.tolist(), got.right.tolist(), strict=True)) == [
        (1, 3), (1, 5), (1, 7),
    ]  # fmt: skip


def test_canonical_by_hand():
    got = canonical(*columns([(4, 2), (3, 3), (2, 4), (1, 9), (2, 3)]))
    assert list(zip(got.left.tolist(), got.right.tolist(), strict=True)) == [
        (1, 9), (2, 3), (2, 4),
    ]  # fmt: skip


def test_group_minimum_by_hand():
    node = np.array([4, 2, 4, 9])
    neighbour = np.array([6, 5, 3, 1])
    assert group_minimum(node, neighbour).tolist() == [3, 2, 3, 1]


@pytest.mark.parametrize("order", ["ascending", "random", "zigzag"])
def test_long_chains_in_log_rounds(order):
    count = 100_000
    rng = np.random.default_rng(0)
    chain = np.arange(count)
    if order == "random":
        chain = rng.permutation(count)
    elif order == "zigzag":
        chain = np.stack([chain[: count // 2], chain[: count // 2 - 1 : -1]], axis=1).ravel()
    result, rounds = alternate_stars(chain[:-1], chain[1:])
    assert (result.labels == 0).all()
    assert len(result.nodes) == count
    assert rounds <= np.log2(count) + 3


def test_strings_and_unsigned():
    left, right = np.array(["b", "d"]), np.array(["c", "b"])
    assert labels(connected_components(left, right)) == {"b": "b", "c": "b", "d": "b"}
    assert labels(alternate_stars(left, right)[0]) == {"b": "b", "c": "b", "d": "b"}
    top = (1 << 64) - 1
    left, right = columns([(top, 1 << 63)], np.uint64)
    assert labels(connected_components(left, right)) == {top: 1 << 63, 1 << 63: 1 << 63}


def test_empty_and_loops():
    none = np.zeros(0, np.int64)
    assert labels(connected_components(none, none)) == {}
    assert labels(alternate_stars(none, none)[0]) == {}
    assert labels(connected_components(np.array([3]), np.array([3]))) == {3: 3}
    assert labels(alternate_stars(np.array([3]), np.array([3]))[0]) == {}


def test_rounds_are_bounded():
    chain = np.arange(1000)
    with pytest.raises(RuntimeError, match="after 3 rounds"):
        alternate_stars(chain[:-1], chain[1:], max_rounds=3)


def test_a_hub_is_one_round_and_a_check():
    hub = np.zeros(200_000, np.int64)
    result, rounds = alternate_stars(hub, np.arange(1, 200_001))
    assert rounds == 1
    assert (result.labels == 0).all()
