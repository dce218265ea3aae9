"""The distributed search for candidates without Spark: block-permuted keys and coarse cells.

The kernels of `pipeline.stages.pair_candidates` and `near_pairs`, between queries and a base.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.config.images import NearDuplicateParams
from pipeline.demo.edit_pairs import Limits, Searched, Tier
from pipeline.kernels.block_keys import plan_tables
from pipeline.kernels.cell_training import train_centroids
from pipeline.kernels.cells import assign_cells, num_cells_for
from pipeline.kernels.hamming import near_pairs_between


def search(queries: Searched, base: Searched, limits: Limits) -> list[Tier]:
    """Candidates as a run finds them, with its defaults for cells."""
    params = NearDuplicateParams()
    cells = _by_cells(queries.vectors, base.vectors, limits.num_nearest, params)
    return [_by_keys(queries.hashes, base.hashes[:, 0], limits.max_hamming), cells]


def _by_keys(turns: NDArray[np.uint64], base: NDArray[np.uint64], radius: int) -> Tier:
    """Each of the eight hashes of a query against upright ones, every table."""
    plan = plan_tables(len(base), radius)
    best: dict[tuple[int, int], int] = {}
    for table in range(plan.num_tables):
        found = near_pairs_between(turns.ravel(), base, plan, table)
        for left, right, distance in zip(*(a.tolist() for a in found), strict=True):
            pair = left // turns.shape[1], right
            best[pair] = min(best.get(pair, 64), distance)
    return _tier(best)


def _by_cells(
    queries: NDArray[np.float32],
    base: NDArray[np.float32],
    num_nearest: int,
    params: NearDuplicateParams,
) -> Tier:
    """The nearest of the base in each of a query's cells, above the least cosine."""
    num_cells = num_cells_for(len(base), params.num_probes)
    centroids = train_centroids(base, num_cells, seed=params.seed)
    of_base = assign_cells(base, centroids, params.num_probes)
    best: dict[tuple[int, int], int] = {}
    for query, cells in enumerate(assign_cells(queries, centroids, params.num_probes)):
        for cell in cells:
            members = np.flatnonzero((of_base == cell).any(axis=1))
            cosine = base[members] @ queries[query]
            order = np.lexsort((members, -cosine))[:num_nearest]
            for at in order[cosine[order] >= params.verify.min_cosine]:
                best[(query, int(members[at]))] = int((1 - cosine[at]) * 1e6)
    return _tier(best)


def _tier(best: dict[tuple[int, int], int]) -> Tier:
    rows = np.array([(q, b, order) for (q, b), order in sorted(best.items())], np.int64)
    query, base, order = rows.reshape(-1, 3).T
    return query, base, order
