"""The evaluators: what is measured on a set of images, each with its baseline beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.config.evaluate import EvaluateParams
from pipeline.evaluate.approximate import ivf_recalls
from pipeline.evaluate.bootstrap import (
    Counts,
    Estimate,
    Resampling,
    Statistic,
    bootstrap,
    draws,
    intervals,
    ratios,
)
from pipeline.evaluate.fewshot import choose_penalty, fewshot_hits
from pipeline.evaluate.labels import BANDS, Ragged, share_label
from pipeline.evaluate.linear_probe import linear_probe
from pipeline.evaluate.multilabel import average_precisions, image_sums, mean_over_bands
from pipeline.evaluate.pairs import (
    LabelledPairs,
    pair_cosines,
    recall_at_precision,
    recall_statistic,
)
from pipeline.evaluate.retrieval import nearest, precision_at_k, same_tag
from pipeline.evaluate.scores import Scores
from pipeline.evaluate.table import Row
from pipeline.kernels.hashing import hash64, uniform

MODEL, RANDOM, PRIOR = "model", "random_weights", "prior_only"
Floats = NDArray[np.float64]


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


def label_rows(data: Embedded, model: Scores, prior: Scores, bands: NDArray[np.int8]) -> list[Row]:
    """Multi-label metrics by band of the model, of the prior, and the paired difference."""
    assert data.labels is not None
    k = min(data.params.top_k, data.num_labels)
    sums = [image_sums(scores, data.labels, bands, k) for scores in (model, prior)]
    statistics = [ratios(s.numerators, s.denominators) for s in sums]
    names = [f"{metric} {band}" for metric, band in sums[0].names]
    task = f"{data.name}/labels"
    rows = _compared(task, names, (MODEL, PRIOR), statistics, len(data.ids), data.how("labels"))
    return rows + _average_precision_rows(data, (model, prior), bands)


def _average_precision_rows(
    data: Embedded, systems: tuple[Scores, Scores], bands: NDArray[np.int8]
) -> list[Row]:
    assert data.labels is not None
    num = len(data.ids)
    how = data.how("labels")._replace(resamples=data.params.map_resamples)
    weights = np.stack([np.ones(num, np.int64), *draws(num, how)])
    a, b = (
        mean_over_bands(average_precisions(scores, data.labels, weights), bands)
        for scores in systems
    )
    every = np.concatenate([a, b, a - b], axis=1)
    names = [f"mean_average_precision {band}" for band in BANDS]
    estimates = intervals(every[0], every[1:], num, how.level, is_centred=True)
    return _rows(f"{data.name}/labels", names, (MODEL, PRIOR), estimates)


def retrieval_rows(data: Embedded) -> list[Row]:
    """P@1 and average P@k of each image as a query among all others.

    With labels, a result is relevant when it shares one with the query, and every labelled image
    is a query. With tags, when the tag is the same: images whose tag no other image has are the
    distractors and no queries.
    """
    k = data.params.retrieval_k
    is_query = _retrieval_queries(data)
    if not is_query.any():
        return []
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
    return _per_query(data, "retrieval", ["P@1", f"average P@{k}"], figures)


def _retrieval_queries(data: Embedded) -> NDArray[np.bool_]:
    if data.labels is not None:
        return np.asarray(data.labels.counts > 0)
    sizes = np.bincount(data.classes[data.classes >= 0], minlength=1)
    return np.asarray((data.classes >= 0) & (sizes[data.classes] > 1))


def near_duplicate_rows(data: Embedded, pairs: LabelledPairs) -> list[Row]:
    """Recall of labelled near-duplicate pairs at a precision, scored by the cosine of features.

    Pairs of one query are resampled together. The threshold is chosen for each system and resample
    anew, as it is for the figure itself.

    Args:
        data: images of the pairs.
        pairs: of these images.

    Source: SPEC D3; paper section 4.1.2.
    """
    if not len(pairs.first):
        return []
    precision = data.params.pair_precision
    queries, group = np.unique(pairs.first, return_inverse=True)
    statistics = [
        recall_statistic(pair_cosines(vectors, pairs), pairs.is_positive, group, precision)
        for vectors in data.vectors.values()
    ]
    task, names = "near_duplicates", [f"R@P{100 * precision:g}"]
    systems = tuple(data.vectors)
    how = data.how(task)
    return _compared(f"{data.name}/{task}", names, systems, statistics, len(queries), how)


def near_duplicate_note(data: Embedded, pairs: LabelledPairs, num_lost: int) -> str:
    """What the pairs are, and where the model's recall was read off."""
    precision = data.params.pair_precision
    scores = pair_cosines(data.vectors[MODEL], pairs)
    limit = recall_at_precision(scores, pairs.is_positive, precision).threshold
    where = f"cosine {limit:.4f}" if np.isfinite(limit) else "no cosine"
    return (
        f"{data.name}: {len(scores):,} labelled pairs, {int(pairs.is_positive.sum()):,} of them "
        f"near-duplicates, {num_lost:,} left out for an unreadable image; {where} reaches "
        f"precision {precision:g}."
    )


def few_shot_rows(data: Embedded) -> list[Row]:
    """Accuracy of the ridge probe by shots, a mean over seeds; one penalty for all of them."""
    params = data.params.few_shot
    support, queries = np.flatnonzero(data.is_support), np.flatnonzero(data.is_query)
    draw = uniform(hash64([data.ids[i] for i in queries], data.params.seed, "select-penalty"))
    selecting = draw < params.selection_share
    if len(support) == 0 or selecting.all() or not selecting.any():
        return []
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
    return _per_query(data, "few_shot", [f"accuracy at {s} shots" for s in shots], figures)


def linear_probe_rows(data: Embedded) -> list[Row]:
    """Accuracy of logistic regression on all support images."""
    support, queries = np.flatnonzero(data.is_support), np.flatnonzero(data.is_query)
    if len(np.unique(data.classes[support])) < 2 or len(queries) == 0:
        return []
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
    return _per_query(data, "linear_probe", ["accuracy"], figures)


def approximate_rows(data: Embedded) -> list[Row]:
    """Recall of an inverted file against exact search, on the model's features."""
    params, k = data.params.approximate, min(data.params.retrieval_k, len(data.ids) - 1)
    if k < 1:
        return []
    vectors = data.vectors[MODEL]
    lists = min(params.num_lists, len(data.ids))
    probes = [p for p in params.probes if p <= lists]
    recalls = ivf_recalls(vectors, data.ids, vectors, data.ids, k, lists, probes)
    figures = {MODEL: np.stack(list(recalls.values()), axis=1)}
    names = [f"recall@{k}, {lists} lists, {p} probes" for p in recalls]
    return _per_query(data, "approximate_index", names, figures)


def _per_query(
    data: Embedded, task: str, names: list[str], figures: Mapping[str, Floats]
) -> list[Row]:
    """Rows of figures of shape (queries, metrics), one array a system."""
    systems = tuple(figures)
    statistics = [ratios(values) for values in figures.values()]
    num = len(figures[systems[0]])
    return _compared(f"{data.name}/{task}", names, systems, statistics, num, data.how(task))


def _compared(
    task: str,
    names: list[str],
    systems: tuple[str, ...],
    statistics: list[Statistic],
    num: int,
    how: Resampling,
) -> list[Row]:
    """Rows of one system, or of two and their paired difference, under the same resamples."""

    def every(counts: Counts) -> Floats:
        parts = [statistic(counts) for statistic in statistics]
        return np.concatenate(parts if len(parts) == 1 else [*parts, parts[0] - parts[1]])

    return _rows(task, names, systems, bootstrap(every, num, how))


def _rows(
    task: str, names: list[str], systems: tuple[str, ...], estimates: list[Estimate]
) -> list[Row]:
    told = systems if len(systems) == 1 else (*systems, f"{systems[0]} - {systems[1]}")
    return [
        Row(task, name, system, estimates[s * len(names) + i])
        for i, name in enumerate(names)
        for s, system in enumerate(told)
    ]
