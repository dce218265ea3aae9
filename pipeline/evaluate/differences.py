"""Intervals for figures of several trainings over the same queries.

Both the seeds and the queries are draws: another seed would train another model, another set would
ask other queries. The variance of the mean over a table of seeds and queries is that of the crossed
two-way layout with random effects, (MS_seeds + MS_queries - MS_rest) / (seeds x queries); its
degrees of freedom are Satterthwaite's, so few seeds give a wide interval.

Source: SPEC D4; Satterthwaite 1946; Scheffe 1959, chapter 7.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from pipeline.evaluate.bootstrap import Estimate


def crossed_estimate(values: NDArray[np.floating], level: float = 0.95) -> Estimate:
    """Mean of a table with an interval over seeds and queries.

    Args:
        values: float (seeds, queries), at least two of each: a figure of each query for each seed,
            or its difference between two models that were trained with the same seed.
        level: of the interval.

    Raises:
        ValueError: fewer than two seeds or queries.
    """
    table = np.asarray(values, np.float64)
    if table.ndim != 2 or min(table.shape) < 2:
        raise ValueError(f"table of shape {table.shape}, expected at least 2 seeds x 2 queries.")
    num_seeds, num_queries = table.shape
    mean = float(table.mean())
    of_seed, of_query = table.mean(axis=1) - mean, table.mean(axis=0) - mean
    rest = table - mean - of_seed[:, None] - of_query[None, :]
    freedom = np.array([num_seeds - 1, num_queries - 1, (num_seeds - 1) * (num_queries - 1)])
    sums = [num_queries * (of_seed**2).sum(), num_seeds * (of_query**2).sum(), (rest**2).sum()]
    parts = np.array(sums) / freedom / table.size
    # The estimate may fall below one of its parts, or below 0, by chance.
    variance = max(float(parts[0] + parts[1] - parts[2]), float(parts[0]), float(parts[1]))
    if variance == 0:
        return Estimate(mean, mean, mean, num_queries)
    degrees = max(variance**2 / float((parts**2 / freedom).sum()), 1.0)
    half = float(student.ppf((1 + level) / 2, degrees)) * math.sqrt(variance)
    return Estimate(mean, mean - half, mean + half, num_queries)
