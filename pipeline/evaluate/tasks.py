"""The evaluators: what is measured on a set of images, each with its baseline beside it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
from pipeline.evaluate.labels import BANDS
from pipeline.evaluate.multilabel import average_precisions, image_sums, mean_over_bands
from pipeline.evaluate.pairs import (
    LabelledPairs,
    pair_cosines,
    recall_at_precision,
    recall_statistic,
)
from pipeline.evaluate.queries import (
    Embedded,
    QueryFigures,
    few_shot_figures,
    linear_probe_figures,
    retrieval_figures,
)
from pipeline.evaluate.scores import Scores
from pipeline.evaluate.table import Row

MODEL, RANDOM, PRIOR = "model", "random_weights", "prior_only"
Floats = NDArray[np.float64]


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
    """P@1 and average P@k of each image as a query among all others."""
    return _of_queries(data, retrieval_figures(data))


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
    return _of_queries(data, few_shot_figures(data))


def linear_probe_rows(data: Embedded) -> list[Row]:
    """Accuracy of logistic regression on all support images."""
    return _of_queries(data, linear_probe_figures(data))


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
    return _of_queries(data, QueryFigures("approximate_index", names, figures))


def _of_queries(data: Embedded, figures: QueryFigures | None) -> list[Row]:
    """Rows of what the queries score, with the paired difference of two systems."""
    if figures is None:
        return []
    systems = tuple(figures.of_system)
    statistics = [ratios(values) for values in figures.of_system.values()]
    num, task = len(figures.of_system[systems[0]]), f"{data.name}/{figures.task}"
    return _compared(task, figures.metrics, systems, statistics, num, data.how(figures.task))


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
