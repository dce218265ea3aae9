"""Visual concreteness: planted terms, scikit-learn as oracle, invariance, bad input."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted_probes import (
    DIM,
    SETTINGS,
    image_hashes,
    mixed_support,
    planted,
    scores,
    with_splits,
)
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier

from pipeline.kernels import concreteness as kernel
from pipeline.kernels.concreteness import score_terms
from pipeline.kernels.concreteness_ridge import fit_ridge, predict_ridge
from pipeline.kernels.concreteness_sampling import NegativePool, sample_hashes

pytestmark = pytest.mark.usefixtures("one_thread")

STOPS_EARLY = {"patience": 2, "min_improvement": 0.002, "epochs": 12}


def stopping(settings):
    splits = replace(settings.splits, validation_share=0.15)
    return replace(settings, splits=splits, **STOPS_EARLY)


def sklearn_score(x, y, is_test):
    model = MLPClassifier(
        (SETTINGS.hidden,), max_iter=SETTINGS.epochs, batch_size=64, learning_rate_init=3e-3,
        random_state=0,
    )  # fmt: skip
    model.fit(x[~is_test], y[~is_test])
    return model.score(x[is_test], y[is_test])


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_ranks_terms_as_scikit_learn_does_and_tells_concrete_from_abstract():
    strength, owner, ids, x, pool = planted()
    every_row = with_splits(SETTINGS, folds_below=1000)  # less noise than one split
    ours = scores(score_terms(np.arange(30), owner, ids, x, pool, every_row))
    ridge = scores(
        score_terms(np.arange(30), owner, ids, x, pool, replace(every_row, method="ridge"))
    )
    rng = np.random.default_rng(1)
    theirs = []
    for t in range(30):
        own = pool.preparation.apply(x[owner == t])[:-1]
        both = np.concatenate([own, pool.features[rng.choice(1500, len(own), replace=False)]])
        y = np.repeat([1, 0], len(own))
        fold = rng.permutation(240) % 3
        theirs.append(np.mean([sklearn_score(both, y, fold == f) for f in range(3)]))
    assert spearmanr(ours, theirs).statistic >= 0.9
    ends = (strength < 0.7) | (strength >= 3)
    assert roc_auc_score(strength[ends] >= 3, ours[ends]) == 1.0
    linear = np.arange(30) % 3 != 2
    assert spearmanr(ridge[linear], strength[linear]).statistic >= 0.9
    assert ridge[29] < 0.6 < 0.7 < ours[29]  # two opposite directions: only the MLP sees them


@pytest.mark.parametrize("method", ["mlp", "early stop", "repeats", "ridge"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_scores_do_not_depend_on_batching_or_row_order(method, precision):
    if (method, precision) == ("ridge", "bf16"):
        with pytest.raises(ValueError, match="ridge needs precision fp32"):
            replace(SETTINGS, method=method, precision=precision)
        return
    owner, ids, x, pool = mixed_support()
    settings = replace(SETTINGS, precision=precision, epochs=4, fold_epochs=4)
    if method == "early stop":
        settings = stopping(settings)
    if method == "repeats":
        settings = with_splits(settings, num_repeats=2)
    if method == "ridge":
        settings = replace(settings, method="ridge")
    want = score_terms(np.arange(9), owner, ids, x, pool, settings)
    assert want["status"].to_pylist() == ["ok"] * 8 + ["too_few_positives"]
    for size in (1, 2, 5):
        got = score_terms(
            np.arange(9), owner, ids, x, pool, replace(settings, probes_per_batch=size)
        )
        assert got.equals(want)
    shuffled = np.random.default_rng(0).permutation(len(owner))
    for split in ([[8, 3, 0], [1], [7, 2, 6, 4, 5]], [[t] for t in range(9)]):
        rows = {}
        for part in split:
            mine = shuffled[np.isin(owner[shuffled], part)]
            table = score_terms(np.array(part), owner[mine], ids[mine], x[mine], pool, settings)
            rows |= {row["term_id"]: row for row in table.to_pylist()}
        assert [rows[t] for t in range(9)] == want.to_pylist()


def test_early_stopping_keeps_the_ranking():
    _, owner, ids, x, pool = planted(num_terms=40, support=300, pool_size=3000)
    settings = with_splits(replace(SETTINGS, max_positives=300), test_share=0.4)
    whole = score_terms(np.arange(40), owner, ids, x, pool, replace(settings, epochs=30))
    early = stopping(settings)
    stopped = score_terms(np.arange(40), owner, ids, x, pool, replace(early, epochs=30))
    again = score_terms(np.arange(40), owner, ids, x, pool, replace(settings, epochs=30, seed=4))
    agree = spearmanr(scores(whole), scores(stopped)).statistic
    assert agree >= 0.95
    assert agree >= spearmanr(scores(whole), scores(again)).statistic - 0.02


def test_seeds_move_terms_independently():
    _, owner, ids, x, pool = planted(num_terms=24, support=100, seed=7)
    x = np.random.default_rng(0).normal(size=x.shape).astype(np.float32) * 1.0
    a, b = (
        scores(score_terms(np.arange(24), owner, ids, x, pool, replace(SETTINGS, seed=s)))
        for s in (0, 1)
    )
    assert np.abs(spearmanr(a, b).statistic) < 0.6
    assert len(np.unique(a - b)) > 5


def test_ridge_equals_scikit_learn_in_float64():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 30, 5)), rng.normal(size=(3, 30))
    mask = np.ones((3, 30))
    mask[1, 22:] = 0
    x[1, 22:] = 0
    w, b = fit_ridge(*(torch.from_numpy(a) for a in (x, y, mask)), 0.7)
    got = [predict_ridge(torch.from_numpy(x[i]), w[i], b[i]).numpy() for i in range(3)]
    for i, rows in enumerate((30, 22, 30)):
        oracle = Ridge(alpha=0.7).fit(x[i, :rows], y[i, :rows])
        np.testing.assert_allclose(w[i], oracle.coef_, rtol=1e-10)
        np.testing.assert_allclose(got[i], oracle.predict(x[i]), rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="ridge alpha"):
        fit_ridge(torch.zeros(1, 2, 2), torch.zeros(1, 2), torch.ones(1, 2), 0.0)


def test_refusals_and_degenerate_terms():
    owner, ids, x, pool = mixed_support()
    everywhere = NegativePool.build(
        pool.image_hashes, pool.features[:-1], np.arange(pool.size + 1), np.zeros(pool.size, int)
    )
    table = score_terms(np.arange(10), owner, ids, np.zeros_like(x), everywhere, SETTINGS)
    rows = table.to_pylist()
    assert rows[0]["status"] == "too_few_negatives"
    assert rows[0]["concreteness"] is None
    assert rows[1]["status"] == "ok"  # zero vectors are data
    assert (rows[9]["status"], rows[9]["num_positives"]) == ("too_few_positives", 0)
    assert rows[8]["num_positives"] == 3
    broken = x.copy()
    broken[5, 0] = np.nan
    with pytest.raises(ValueError, match=r"positive embeddings: 1 rows with NaN.*row 5"):
        score_terms(np.arange(9), owner, ids, broken, pool, SETTINGS)
    with pytest.raises(ValueError, match="width 11, expected the pool's 12"):
        score_terms(np.arange(9), owner, ids, x[:, :-1], pool, SETTINGS)
    twice = ids.copy()
    twice[1] = twice[0]
    with pytest.raises(ValueError, match="given twice for term 0"):
        score_terms(np.arange(9), owner, twice, x, pool, SETTINGS)
    with pytest.raises(ValueError, match="term 8 is not among"):
        score_terms(np.arange(8), owner, ids, x, pool, SETTINGS)
    with pytest.raises(ValueError, match="repeated image hash"):
        NegativePool.build(np.zeros(2, int), np.zeros((2, 1)), np.zeros(3, int), np.zeros(0, int))


def test_fewer_negatives_than_positives_keeps_both_sides_equal():
    owner, ids, x, _ = mixed_support()
    small = NegativePool.build(
        image_hashes(np.arange(70)), np.random.default_rng(0).normal(size=(70, DIM)),
        np.zeros(71, int), np.zeros(0, int),
    )  # fmt: skip
    row = score_terms(np.array([0]), *(a[owner == 0] for a in (owner, ids, x)), small, SETTINGS)
    assert row["num_positives"].to_pylist() == [70]
    assert row["num_test"].to_pylist() == [28]


def test_more_positives_than_wanted_takes_the_lowest_hashes(monkeypatch):
    _, owner, ids, x, pool = planted(num_terms=1, support=300)
    settings = replace(SETTINGS, max_positives=100)
    seen = []
    real = kernel._mlp_hits
    monkeypatch.setattr(kernel, "_mlp_hits", lambda p, s: seen.extend(p) or real(p, s))
    row = score_terms(np.array([0]), owner, ids, x, pool, settings)
    order = np.argsort(sample_hashes(ids, 0, settings.seed, "concreteness.positives"))
    assert list(seen[0].sides[0][1]) == [*order[:100], len(x)]  # the last is the padding row
    assert row["num_positives"].to_pylist() == [100]
    assert row["num_test"].to_pylist() == [40]
