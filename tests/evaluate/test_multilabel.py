"""Multi-label metrics against loops in float64, scikit-learn, and the trainer's own loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from pipeline.evaluate.bootstrap import Resampling, draws, intervals
from pipeline.evaluate.labels import (
    BANDS,
    band_of,
    label_counts,
    label_mass,
    prior_logits,
    rarest_label,
    to_ragged,
)
from pipeline.evaluate.multilabel import (
    average_precisions,
    image_sums,
    mean_over_bands,
    top_labels,
)
from pipeline.evaluate.scores import DenseScores, LinearScores, PriorScores
from pipeline.train.loss import Labels, loss_sum

NUM, C, K = 40, 9, 3
GROUPS = {"all": (1, 2, 3), "head": (1,), "middle": (2,), "tail": (3,)}


@pytest.fixture(scope="module")
def case():
    """Coarse logits with many ties; images of 0 to 4 labels; three bands."""
    rng = np.random.default_rng(11)
    logits = rng.integers(-3, 4, (NUM, C)).astype(np.float32)
    labels = [np.sort(rng.permutation(C)[: rng.integers(0, 5)]) for _ in range(NUM)]
    bands = np.array([1, 1, 2, 2, 2, 3, 3, 3, 3], np.int8)
    return logits, labels, bands


def brute(logits, labels, bands):
    """Every figure of every band by plain loops."""
    out = {}
    for band, members in GROUPS.items():
        sums = {
            name: [0.0, 0.0]
            for name in ("precision@1", f"precision@{K}", f"recall@{K}", "excess_loss")
        }
        for z, own in zip(logits.astype(np.float64), labels, strict=True):
            if len(own) == 0:
                continue
            ranked = sorted(range(C), key=lambda c: (-z[c], c))
            log_sum = math.log(sum(math.exp(x) for x in z))
            for name, cut in (("precision@1", 1), (f"precision@{K}", K)):
                named = [c for c in ranked[:cut] if bands[c] in members]
                sums[name][0] += sum(c in own for c in named)
                sums[name][1] += len(named)
            for c in (c for c in own if bands[c] in members):
                sums[f"recall@{K}"][0] += c in ranked[:K]
                sums[f"recall@{K}"][1] += 1
                sums["excess_loss"][0] += (log_sum - z[c] - math.log(len(own))) / len(own)
                sums["excess_loss"][1] += 1 / len(own)
        for name, (top, bottom) in sums.items():
            out[name, band] = top / bottom if bottom else math.nan
    return out


@pytest.mark.parametrize("block", [1, 7, 1024])
def test_every_band_by_plain_loops(case, block):
    logits, labels, bands = case
    found = image_sums(DenseScores(logits), to_ragged(labels), bands, K, block)
    values = found.numerators.sum(axis=0) / found.denominators.sum(axis=0)
    expected = brute(logits, labels, bands)
    assert found.names == list(expected) or set(found.names) == set(expected)
    for name, value in zip(found.names, values, strict=True):
        assert value == pytest.approx(expected[name], abs=1e-12), name


def test_excess_is_the_trainers_loss_less_its_floor(case):
    logits, labels, bands = case
    ragged = to_ragged(labels)
    result = loss_sum(
        "multilabel_softmax",
        torch.from_numpy(logits).double(),
        Labels(torch.from_numpy(ragged.values), torch.from_numpy(ragged.offsets)),
    )
    found = image_sums(DenseScores(logits), ragged, bands, K)
    column = found.names.index(("excess_loss", "all"))
    assert found.numerators[:, column].sum() == pytest.approx(float(result.loss - result.floor))
    assert found.denominators[:, column].sum() == (ragged.counts > 0).sum()
    parts = [found.names.index(("excess_loss", band)) for band in BANDS[1:]]
    assert found.numerators[:, parts].sum(axis=1) == pytest.approx(found.numerators[:, column])


def test_average_precision_is_scikit_learns_with_weights_and_ties(case):
    logits, labels, _ = case
    ragged = to_ragged(labels)
    z = logits.astype(np.float64)
    log_p = np.round(z - np.log(np.exp(z).sum(axis=1, keepdims=True)), 12)
    truth = ragged.matrix(C).toarray()
    weights = np.stack([np.ones(NUM, int), *draws(NUM, Resampling(resamples=3))])
    labelled = ragged.counts > 0
    for block in (2, 128):
        found = average_precisions(DenseScores(logits), ragged, weights, block)
        for w, row in zip(weights * labelled, found, strict=True):
            for c in range(C):
                expected = average_precision_score(truth[:, c], log_p[:, c], sample_weight=w)
                assert row[c] == pytest.approx(expected, abs=1e-9)


def test_a_constant_score_has_the_labels_share_as_its_average_precision(case):
    _, labels, _ = case
    ragged = to_ragged(labels)
    prior = PriorScores(prior_logits(label_mass(ragged, C)), NUM)
    found = average_precisions(prior, ragged, np.ones((1, NUM), int))[0]
    share = label_counts(ragged, C) / (ragged.counts > 0).sum()
    assert found == pytest.approx(share, abs=1e-12)


def test_labels_without_images_are_left_out_of_means():
    average = np.array([[0.5, np.nan, 1.0, 0.25]])
    found = mean_over_bands(average, np.array([1, 1, 3, 3], np.int8))
    assert found[0, [0, 1, 3]] == pytest.approx([1.75 / 3, 0.5, 0.625])
    assert np.isnan(found[0, 2])


def test_intervals_of_average_precision_hold_what_is_expected_at_that_size():
    """Images drawn twice raise the average precision of rare labels; centring undoes that."""
    num, shares = 200, [0.3] + [0.02] * 30
    bands = np.ones(len(shares), np.int8)

    def world(seed):
        rng = np.random.default_rng(seed)
        truth = rng.random((num, len(shares))) < shares
        truth[~truth.any(axis=1), 0] = True
        logits = (rng.normal(size=truth.shape) + 1.2 * truth).astype(np.float32)
        return DenseScores(logits), to_ragged([np.flatnonzero(t) for t in truth])

    def figure(scores, labels, weights):
        return mean_over_bands(average_precisions(scores, labels, weights), bands)[:, :1]

    once = np.ones((1, num), int)
    truth = np.mean([figure(*world(s), once) for s in range(1000, 1200)])
    held = {False: 0, True: 0}
    for seed in range(80):
        scores, labels = world(seed)
        drawn = np.stack(list(draws(num, Resampling(seed, resamples=80))))
        whole, resampled = figure(scores, labels, once)[0], figure(scores, labels, drawn)
        for is_centred in held:
            found = intervals(whole, resampled, num, 0.95, is_centred)[0]
            held[is_centred] += found.low <= truth <= found.high
    assert held[True] / 80 >= 0.9
    assert held[False] / 80 < 0.87


def test_ties_rank_by_label_id():
    z = np.array([[1.0, 2, 2, 0, 2], [0, 0, 0, 0, 0]])
    assert top_labels(z, 2).tolist() == [[1, 2], [0, 1]]
    assert top_labels(z, 5).tolist() == [[1, 2, 4, 0, 3], [0, 1, 2, 3, 4]]


def test_scores_agree_in_rows_and_columns():
    rng = np.random.default_rng(0)
    features, weight = rng.normal(size=(6, 4)), rng.normal(size=(5, 4))
    bias = rng.normal(size=5)
    every = (features @ weight.T + bias).astype(np.float32)
    linear = LinearScores(*(x.astype(np.float32) for x in (features, weight, bias)))
    prior = PriorScores(every[0], 6)
    for scores, dense in (
        (linear, every),
        (prior, np.tile(every[0], (6, 1))),
        (DenseScores(every), every),
    ):
        assert scores.shape == (6, 5)
        assert scores.rows(2, 9) == pytest.approx(dense[2:9], abs=1e-5)
        assert scores.columns(1, 4) == pytest.approx(dense[:, 1:4], abs=1e-5)


def test_bands_prior_and_rarest_label_by_hand():
    counts = np.array([100, 20, 19, 0, 101])
    assert band_of(counts, 100, 19).tolist() == [1, 2, 3, 3, 1]
    with pytest.raises(ValueError, match="tail_max = 5"):
        band_of(counts, 5, 5)
    labels = to_ragged([np.array([0, 1]), np.array([1]), np.array([], int)])
    assert label_counts(labels, 3).tolist() == [1, 2, 0]
    assert label_mass(labels, 3).tolist() == [0.5, 1.5, 0.0]
    assert np.exp(prior_logits(label_mass(labels, 3))) == pytest.approx(
        [1 / 3.5, 2 / 3.5, 0.5 / 3.5]
    )
    assert rarest_label(labels, np.array([5, 2, 9])).tolist() == [1, 1, -1]
    assert rarest_label(labels, np.array([2, 2, 9])).tolist() == [0, 1, -1]


def test_the_prior_is_the_best_constant(case):
    """No other constant prediction has a smaller loss on the images it was counted on."""
    _, labels, bands = case
    ragged = to_ragged(labels)
    mass = label_mass(ragged, C)
    best = np.log(mass / mass.sum()).astype(np.float32)

    def loss(logits):
        sums = image_sums(PriorScores(logits, NUM), ragged, bands, 1)
        return sums.numerators[:, sums.names.index(("excess_loss", "all"))].sum()

    rng = np.random.default_rng(1)
    others = [best + 0.1 * rng.normal(size=C).astype(np.float32) for _ in range(20)]
    assert loss(best) < min(map(loss, others))


def test_what_does_not_fit(case):
    logits, labels, bands = case
    for given in ((labels[:3], bands, K), (labels, bands[:4], K), (labels, bands, C + 1)):
        with pytest.raises(ValueError, match="multi-label metrics"):
            image_sums(DenseScores(logits), to_ragged(given[0]), *given[1:])
