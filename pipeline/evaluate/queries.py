"""Figures of each query of a set: retrieval, the closed-form probe, logistic regression.

What stands in a table is a mean over queries with an interval; whoever compares models on the same
queries needs the figures themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.config.evaluate import EvaluateParams
from pipeline.evaluate.bootstrap import Resampling
from pipeline.evaluate.fewshot import choose_penalty, fewshot_hits
from pipeline.evaluate.labels import Ragged, share_label
from pipeline.evaluate.linear_probe import linear_probe
from pipeline.evaluate.pairs import LabelledPairs
from pipeline.evaluate.retrieval import nearest, precision_at_k, same_tag
from pipeline.kernels.hashing import hash64, uniform

Floats = NDArray[np.float64]


class QueryFigures(NamedTuple):
    """What every query of a task scores.

    Attributes:
        task: e.g. ``retrieval``.
        metrics: names of m figures.
        of_system: system -> float64 (queries, m); the queries are the same for all.
    """

    task: str
    metrics: list[str]
    of_system: Mapping[str, Floats]


@dataclass(frozen=True)
class Embedded:
    """A set whose images went through the encoders.

    Attributes:
        name: of the set.
        ids: n ids.
        classes: int64 (n,), -1 for none.
        vectors: float32 (n, d) of each system.
        labels: of the n images, or None.
        num_labels: width of the label map.
        params: of the evaluation.
        pairs: of the n images, where these are what is judged, or None.
    """

    name: str
    ids: list[str]
    classes: NDArray[np.int64]
    vectors: Mapping[str, NDArray[np.float32]]
    labels: Ragged | None
    num_labels: int
    params: EvaluateParams
    pairs: LabelledPairs | None = None

    def how(self, task: str) -> Resampling:
        """Resampling of a task's queries."""
        stream = f"{self.name}/{task}"
        return Resampling(self.params.seed, stream, self.params.resamples)

    @cached_property
    def is_support(self) -> NDArray[np.bool_]:
        """Images that probes are fitted to, bool (n,); the others are queries."""
        draw = uniform(hash64(self.ids, self.params.seed, "support"))
        return np.asarray((draw < self.params.support_share) & (self.classes >= 0))

    @cached_property
    def is_query(self) -> NDArray[np.bool_]:
        """Images that probes are scored on: their class is among the support's."""
        known = np.isin(self.classes, self.classes[self.is_support])
        return np.asarray(known & ~self.is_support & (self.classes >= 0))


def retrieval_figures(data: Embedded) -> QueryFigures | None:
    """P@1 and average P@k of each image as a query among all others.

    With labels, a result is relevant when it shares one with the query, and every labelled image
    is a query. With tags, when the tag is the same: images whose tag no other image has are the
    distractors and no queries. None without a query.
    """
    k = data.params.retrieval_k
    is_query = _retrieval_queries(data)
    if not is_query.any():
        return None
    ids = np.array(data.ids)
    chosen = np.flatnonzero(is_query)
    figures = {}
    for system, vectors in data.vectors.items():
        found = nearest(vectors[chosen], ids[chosen].tolist(), vectors, data.ids, k)
        if data.labels is not None:
            relevant = share_label(found, data.labels.take(chosen), data.labels, data.num_labels)
        else:
            relevant = same_tag(found, data.classes[chosen], data.classes)
        figures[system] = np.stack(
            [precision_at_k(relevant, 1), precision_at_k(relevant, k)], axis=1
        )
    return QueryFigures("retrieval", ["P@1", f"average P@{k}"], figures)


def _retrieval_queries(data: Embedded) -> NDArray[np.bool_]:
    if data.labels is not None:
        return np.asarray(data.labels.counts > 0)
    sizes = np.bincount(data.classes[data.classes >= 0], minlength=1)
    return np.asarray((data.classes >= 0) & (sizes[data.classes] > 1))


def few_shot_figures(data: Embedded) -> QueryFigures | None:
    """Accuracy of the ridge probe by shots, a mean over seeds; one penalty for all of them."""
    params = data.params.few_shot
    support, queries = np.flatnonzero(data.is_support), np.flatnonzero(data.is_query)
    draw = uniform(hash64([data.ids[i] for i in queries], data.params.seed, "select-penalty"))
    selecting = draw < params.selection_share
    if len(support) == 0 or selecting.all() or not selecting.any():
        return None
    largest = int(np.bincount(data.classes[support]).max())
    shots = [s for i, s in enumerate(params.shots) if i == 0 or params.shots[i - 1] < largest]
    ids = [data.ids[i] for i in support]
    figures = {}
    for system, vectors in data.vectors.items():
        hits = fewshot_hits(
            (vectors[support], data.classes[support], ids),
            (vectors[queries], data.classes[queries]),
            shots,
            params.l2,
            params.seeds,
        )
        chosen = hits[:, choose_penalty(hits, selecting)]
        figures[system] = chosen[..., ~selecting].mean(axis=1).T
    return QueryFigures("few_shot", [f"accuracy at {s} shots" for s in shots], figures)


def linear_probe_figures(data: Embedded) -> QueryFigures | None:
    """Accuracy of logistic regression on all support images."""
    support, queries = np.flatnonzero(data.is_support), np.flatnonzero(data.is_query)
    if len(np.unique(data.classes[support])) < 2 or len(queries) == 0:
        return None
    params = data.params.linear_probe
    ids = [data.ids[i] for i in support]
    figures = {}
    for system, vectors in data.vectors.items():
        found = linear_probe(
            vectors[support],
            data.classes[support],
            ids,
            vectors[queries],
            params.inverse_penalties,
            params.max_iterations,
            data.params.seed,
        )
        figures[system] = (found == data.classes[queries]).astype(np.float64)[:, None]
    return QueryFigures("linear_probe", ["accuracy"], figures)
