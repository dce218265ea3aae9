"""Few-shot and linear probes against scikit-learn and a plain solve; nested support sets."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from pipeline.evaluate import fewshot
from pipeline.evaluate.fewshot import (
    choose_penalty,
    fewshot_hits,
    nested_support,
    ridge_probe,
)
from pipeline.evaluate.linear_probe import linear_probe

L2 = (2.0**-10, 0.5, 1.0, 64.0, 2.0**19)


def clusters(rng, num, dimensions, classes, spread=1.0):
    which = rng.integers(0, classes, num)
    centres = np.random.default_rng(99).normal(size=(classes, dimensions))
    return (centres[which] + spread * rng.normal(size=(num, dimensions))).astype(np.float32), which


def whitened(support, queries):
    x, q = support.astype(np.float64), queries.astype(np.float64)
    mean, std = x.mean(axis=0), x.std(axis=0) + 1e-5
    return (x - mean) / std, (q - mean) / std


def scores_of_scikit_learn(support, classes, queries, num_classes, penalty):
    x, q = whitened(support, queries)
    # big_vision's constant, against which the penalty on its weight is nothing.
    x, q = (np.hstack([side, np.full((len(side), 1), 100.0)]) for side in (x, q))
    targets = 2.0 * np.eye(num_classes)[classes] - 1
    return Ridge(alpha=penalty, fit_intercept=False, solver="svd").fit(x, targets).predict(q)


@pytest.mark.parametrize("num", [8, 17, 60])  # fewer images than features, as many, more
def test_probe_is_ridge_regression_on_whitened_features(num):
    rng = np.random.default_rng(num)
    support, classes = clusters(rng, num, 16, 4)
    queries, _ = clusters(rng, 50, 16, 4)
    found = ridge_probe(support, classes, queries, 4, L2)
    for row, penalty in zip(found, L2, strict=True):
        scores = scores_of_scikit_learn(support, classes, queries, 4, penalty)
        chosen = scores[np.arange(50), row]
        assert chosen == pytest.approx(scores.max(axis=1), abs=1e-6)


def test_probe_by_normal_equations():
    rng = np.random.default_rng(4)
    support, classes = clusters(rng, 30, 5, 3)
    queries, _ = clusters(rng, 40, 5, 3)
    x, q = whitened(support, queries)
    x, q = (np.hstack([side, np.full((len(side), 1), 100.0)]) for side in (x, q))
    y = np.where(np.arange(3) == classes[:, None], 1.0, -1.0)
    weights = np.linalg.solve(x.T @ x + 0.5 * np.eye(6), x.T @ y)
    assert (
        ridge_probe(support, classes, queries, 3, [0.5])[0].tolist()
        == np.argmax(q @ weights, axis=1).tolist()
    )


def test_bias_is_hardly_penalised():
    """Classes of unequal size: the constant alone decides under a huge penalty."""
    support = np.random.default_rng(0).normal(size=(10, 4))
    classes = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 1])
    assert fewshot.BIAS == 100.0
    assert ridge_probe(support, classes, support[:3], 2, [2.0**40]).tolist() == [[0, 0, 0]]


def test_probe_with_constant_features_and_one_image_a_class():
    support = np.array([[1.0, 5], [2, 5]], np.float32)
    found = ridge_probe(support, np.array([0, 1]), np.array([[0.9, 5], [2.2, 5]]), 2, [1.0])
    assert found.tolist() == [[0, 1]]
    with pytest.raises(ValueError, match="0 support images"):
        ridge_probe(support[:0], np.array([], int), support, 2, [1.0])
    with pytest.raises(ValueError, match=r"penalties \[0\.0\]"):
        ridge_probe(support, np.array([0, 1]), support, 2, [0.0])


def test_support_sets_are_nested_balanced_and_know_no_order():
    rng = np.random.default_rng(0)
    classes = np.array([0] * 3 + [1] * 40 + [2] * 40)
    ids = np.array([f"i{i}" for i in range(83)])
    shots = (1, 5, 25)
    found = nested_support(ids.tolist(), classes, shots, 0)
    for few, many in itertools.pairwise(found):
        assert set(few) < set(many)
    counts = [np.bincount(classes[rows], minlength=3).tolist() for rows in found]
    assert counts == [[1, 1, 1], [3, 5, 5], [3, 25, 25]]
    order = rng.permutation(83)
    again = nested_support(ids[order].tolist(), classes[order], shots, 0)
    assert [set(ids[order][rows]) for rows in again] == [set(ids[rows]) for rows in found]
    other = nested_support(ids.tolist(), classes, shots, 1)
    assert [set(rows) for rows in other] != [set(rows) for rows in found]


def test_more_shots_are_better_and_the_penalty_is_chosen_on_other_queries():
    rng = np.random.default_rng(7)
    support, classes = clusters(rng, 400, 12, 5, spread=2.0)
    queries, truth = clusters(rng, 300, 12, 5, spread=2.0)
    ids = [str(i) for i in range(400)]
    hits = fewshot_hits((support, classes, ids), (queries, truth), (1, 5, 25), L2, (0, 1, 2))
    assert hits.shape == (3, 5, 3, 300)
    selecting = np.arange(300) < 80
    best = choose_penalty(hits, selecting)
    totals = hits[..., :80].sum(axis=(0, 2, 3))
    assert totals[best] == totals.max()
    accuracy = hits[:, best][..., 80:].mean(axis=(1, 2))
    assert accuracy[0] < accuracy[1] < accuracy[2]
    blind = hits.copy()
    blind[..., 80:] = ~blind[..., 80:]
    assert choose_penalty(blind, selecting) == best


def test_linear_probe_is_logistic_regression_with_the_best_penalty_of_a_held_fifth():
    rng = np.random.default_rng(1)
    features, classes = clusters(rng, 200, 6, 3, spread=1.5)
    queries, truth = clusters(rng, 100, 6, 3, spread=1.5)
    ids = [str(i) for i in range(200)]
    one = linear_probe(features, classes, ids, queries, [0.1], 200)
    x, q = whitened(features, queries)
    expected = LogisticRegression(C=0.1, max_iter=200).fit(x, classes).predict(q)
    assert one.tolist() == expected.tolist()
    found = linear_probe(features, classes, ids, queries, [1e-6, 0.1], 200)
    assert found.tolist() == one.tolist()
    assert (found == truth).mean() > 0.6
    with pytest.raises(ValueError, match="two classes"):
        linear_probe(features, np.zeros(200, int), ids, queries, [0.1], 10)
