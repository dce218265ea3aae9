"""Connected components: the two star operations of a distributed algorithm, and a local solution.

The alternating algorithm rewires edges until every component is a star around its smallest node:

- *large star*: every node u links each neighbour v > u to m = min(neighbours of u, u);
- *small star*: every node u links each neighbour v <= u, and itself, to the smallest of them.

Neither changes connectivity. A round is one of each; when a round changes no edge, the edges are
stars and each member's centre is its label. Both need only the minimum of each node's neighbours
(``group_minimum``: a groupBy with a combinable ``min``) and then one map over edges, so a hub's
neighbours never gather in one place. Proven in O(log^2 n) rounds; a chain of n nodes in numeric
order takes about log2(n).

Nodes are integers or any numpy type with an order; identifiers sort as the caller encodes them.

Source: Kiveris, Lattanzi, Mirrokni, Rastogi, Vassilvitskii 2014, "Connected Components in
MapReduce and Beyond"; SPEC-dataset N4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components as _scipy_components

Nodes = NDArray[Any]


class Edges(NamedTuple):
    """Two node columns of equal length."""

    left: Nodes
    right: Nodes


class Labels(NamedTuple):
    """Every node that has an edge, ascending, and the smallest member of its component."""

    nodes: Nodes
    labels: Nodes


def connected_components(left: Nodes, right: Nodes) -> Labels:
    """Components of a graph that fits in memory.

    Args:
        left, right: node columns of shape (n_edges,); loops and repeats are allowed.
    """
    nodes, codes = np.unique(np.concatenate([left, right]), return_inverse=True)
    if not len(nodes):
        return Labels(nodes, nodes.copy())
    one, two = codes[: len(left)], codes[len(left) :]
    graph = coo_array((np.ones(len(one), np.int8), (one, two)), shape=(len(nodes), len(nodes)))
    _, component = _scipy_components(graph, directed=False)
    # Nodes ascend, so the first of each component is its smallest.
    _, first, code = np.unique(component, return_index=True, return_inverse=True)
    return Labels(nodes, nodes[first[code]])


def canonical(left: Nodes, right: Nodes) -> Edges:
    """Edges with left < right, without loops and repeats, in ascending order."""
    # np.minimum has no loop for strings.
    low, high = np.where(left < right, left, right), np.where(left < right, right, left)
    proper = low != high
    low, high = low[proper], high[proper]
    order = np.lexsort((high, low))
    low, high = low[order], high[order]
    fresh = np.ones(len(low), dtype=np.bool_)
    fresh[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    return Edges(low[fresh], high[fresh])


def group_minimum(node: Nodes, neighbour: Nodes) -> Nodes:
    """Smallest of a node and its listed neighbours, repeated for each row of the node.

    The array form of ``groupBy(node).agg(least(node, min(neighbour)))`` joined back to the rows.
    """
    order = np.lexsort((neighbour, node))
    ordered = node[order]
    first = np.ones(len(ordered), dtype=np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    run = np.cumsum(first) - 1
    minimum = np.empty_like(node)
    minimum[order] = neighbour[order][first][run]
    return np.where(minimum < node, minimum, node)


def large_star_map(node: Nodes, neighbour: Nodes, minimum: Nodes) -> Edges:
    """Links of the large star, row by row.

    Args:
        node, neighbour: every edge in both directions.
        minimum: ``group_minimum`` of each row's node.

    Returns:
        (neighbour, minimum) of the rows whose neighbour is greater than their node.
    """
    greater = neighbour > node
    return Edges(neighbour[greater], minimum[greater])


def small_star_map(node: Nodes, neighbour: Nodes, minimum: Nodes) -> Edges:
    """Links of the small star, row by row.

    Args:
        node, neighbour: every edge once, node > neighbour.
        minimum: ``group_minimum`` of each row's node.

    Returns:
        (neighbour, minimum) of each row and (node, minimum) of each node, loops left out, with
        repeats (a distinct follows).
    """
    left = np.concatenate([neighbour, node])
    right = np.concatenate([minimum, minimum])
    proper = left != right
    return Edges(left[proper], right[proper])


def large_star(left: Nodes, right: Nodes) -> Edges:
    """One large-star operation on undirected edges; result canonical."""
    node, neighbour = np.concatenate([left, right]), np.concatenate([right, left])
    return canonical(*large_star_map(node, neighbour, group_minimum(node, neighbour)))


def small_star(left: Nodes, right: Nodes) -> Edges:
    """One small-star operation on undirected edges; result canonical."""
    low, high = canonical(left, right)
    return canonical(*small_star_map(high, low, group_minimum(high, low)))


def alternate_stars(left: Nodes, right: Nodes, *, max_rounds: int = 100) -> tuple[Labels, int]:
    """The distributed algorithm in one process: its labels and the number of rounds.

    Args:
        left, right: node columns; loops vanish (a node with no other edge gets no label).
        max_rounds: bound on rounds, the one that changes nothing included.

    Raises:
        RuntimeError: not settled after ``max_rounds``.
    """
    edges = canonical(left, right)
    for rounds in range(1, max_rounds + 1):
        after = small_star(*large_star(*edges))
        if len(after.left) == len(edges.left) and all(map(np.array_equal, after, edges)):
            return _star_labels(edges), rounds
        edges = after
    raise RuntimeError(f"alternate_stars: edges still change after {max_rounds} rounds")


def _star_labels(edges: Edges) -> Labels:
    centres = np.unique(edges.left)
    nodes = np.concatenate([centres, edges.right])
    labels = np.concatenate([centres, edges.left])
    order = np.argsort(nodes, kind="stable")
    return Labels(nodes[order], labels[order])
