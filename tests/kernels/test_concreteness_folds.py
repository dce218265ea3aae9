"""Cross-validation at low support: negatives of every fold, rounds, small pools."""

from dataclasses import replace

import numpy as np
import pytest
from planted_probes import DIM, SETTINGS, image_hashes, mixed_support, planted, with_splits

from pipeline.kernels import concreteness as kernel
from pipeline.kernels.concreteness import score_terms
from pipeline.kernels.concreteness_sampling import NegativePool

pytestmark = pytest.mark.usefixtures("one_thread")


def test_repeats_use_other_negatives_and_folds_and_count_each_item_once(monkeypatch):
    _, owner, ids, x, pool = planted(num_terms=2, support=40)
    seen = []
    real = kernel._mlp_hits
    monkeypatch.setattr(kernel, "_mlp_hits", lambda p, s: seen.extend(p) or real(p, s))
    settings = with_splits(SETTINGS, num_repeats=3)
    table = score_terms(np.arange(2), owner, ids, x, pool, settings)
    assert table["num_test"].to_pylist() == [80, 80]
    mine = [p for p in seen if p.key[0] == 1]
    assert sorted(p.key for p in mine) == [(1, f, r) for f in range(5) for r in range(3)]
    drawn = {p.key[2]: p.sides[1][1][:-1] for p in mine}  # without the padding row
    assert len(np.unique(np.concatenate(list(drawn.values())))) == 120
    folds = {p.key[1:]: p.plan.test.tolist() for p in mine}
    assert folds[0, 0] != folds[0, 1] != folds[0, 2]
    once = score_terms(np.arange(2), owner, ids, x, pool, SETTINGS)
    rows, single = table.to_pylist(), once.to_pylist()
    for row, one in zip(rows, single, strict=True):
        hits = row["concreteness"] * 240
        assert hits == pytest.approx(round(hits), abs=1e-6)
        assert abs(row["concreteness"] - one["concreteness"]) < 0.15
        p = row["concreteness"]
        assert row["standard_error"] == pytest.approx((p * (1 - p) / 80) ** 0.5)


def test_a_small_pool_gives_overlapping_negatives_to_repeats():
    owner, ids, x, _ = mixed_support()
    small = NegativePool.build(
        image_hashes(np.arange(60)), np.random.default_rng(0).normal(size=(60, DIM)),
        np.zeros(61, int), np.zeros(0, int),
    )  # fmt: skip
    few = owner == 5  # 40 positives: folds
    settings = with_splits(SETTINGS, num_repeats=3)
    row = score_terms(np.array([5]), *(a[few] for a in (owner, ids, x)), small, settings)
    assert (row["num_positives"][0].as_py(), row["num_test"][0].as_py()) == (40, 80)


def test_every_fold_of_every_round_has_negatives_of_its_own_where_the_pool_allows(monkeypatch):
    owner, ids, x, pool = mixed_support()
    settings = with_splits(replace(SETTINGS, epochs=1), num_repeats=2)
    seen = {}
    real = kernel._mlp_hits

    def spy(probes, settings):
        for probe in probes:
            seen.setdefault(probe.key[0], []).append(set(probe.sides[1][1][:-1].tolist()))
        return real(probes, settings)

    monkeypatch.setattr(kernel, "_mlp_hits", spy)
    score_terms(np.arange(9), owner, ids, x, pool, settings)
    probes = seen[5]  # 40 positives, 2 x 5 folds: 400 of the pool's 600
    assert len(probes) == 10
    assert [len(rows) for rows in probes] == [40] * 10
    assert len(set.union(*probes)) == 400
    small = NegativePool.build(
        pool.image_hashes[:70], np.asarray(pool.features[:70]), np.zeros(71, int), np.zeros(0, int)
    )
    seen.clear()
    score_terms(np.arange(9), owner, ids, x, small, settings)
    assert [len(rows) for rows in seen[5]] == [40] * 10
