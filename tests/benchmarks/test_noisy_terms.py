"""Planted noise and the figures of a ranking, by hand; the benchmark itself on planted pictures."""

import numpy as np
import pytest

from benchmarks import photos
from benchmarks.bench_concreteness_quality import PROBE
from benchmarks.noisy_terms import (
    Term,
    gain,
    mix,
    neighbour_scores,
    noisy,
    probe_scores,
    random_terms,
)

CONTENT = np.repeat(np.arange(10), 100)
OWN = np.arange(40)


def test_mixing_keeps_the_support_and_what_is_replaced_still_carries_the_term():
    term = mix(0, OWN, CONTENT, 0.25, seed=1)
    assert term.support == len(np.unique(term.positives)) == 40
    assert np.isin(term.positives, OWN).sum() == 30
    assert set(OWN) < set(term.carrying.tolist()) >= set(term.positives.tolist())
    assert term.share == np.mean(CONTENT[term.positives] == 0) >= 0.75
    assert mix(0, OWN, CONTENT, 0.0, seed=1).share == 1
    assert not np.array_equal(mix(0, OWN, CONTENT, 0.25, seed=2).positives, term.positives)


def test_every_tenth_term_is_random_and_the_rest_below_the_stated_noise():
    terms = noisy([OWN + 50 * i for i in range(19)], CONTENT, seed=0)
    assert [t.term_id for t in terms if t.noise == 1] == [9]
    assert max(t.noise for t in terms if t.noise < 1) < 0.8
    for term in random_terms(3, (20, 30), 1000, seed=0):
        assert 20 <= term.support < 30
        assert term.share == 0


def test_gain_by_hand():
    rng = np.random.default_rng(0)
    share = rng.random(4000)
    assert gain(share, share) == pytest.approx(1)
    assert gain(share, -share) < -0.5
    assert abs(gain(share, rng.random(4000))) < 0.05
    rare = np.repeat([1.0, 0.0], [400, 3600])  # by hand: 0.156 and -0.097
    assert -0.75 < gain(rare, -rare) < -0.5
    # A score that only tells the upper half from the lower gains half of the oracle's at 50%.
    assert 0.6 < gain(share, (share > 0.5) * 1.0) < 0.95


@pytest.fixture
def planted(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    return photos.planted_photos(num_classes=4, each=60, dimensions=8, distance=2.0)


@pytest.mark.parametrize("scorer", [probe_scores, neighbour_scores])
def test_clean_terms_score_above_random_ones(planted, scorer):
    options = PROBE.model_copy(update={"num_repeats": 1}) if scorer is probe_scores else 0
    clean = [mix(t, rows, planted.content, 0.0, 0) for t, rows in enumerate(planted.members[::3])]
    nothing = random_terms(4, (30, 40), len(planted.vectors), seed=0)
    scores = scorer(planted.path, clean + nothing, options)
    assert scores[:4].min() > scores[4:].max() + 0.1


def test_a_pool_of_its_own_gives_the_negatives_of_a_term(planted):
    """Negatives that are the term's own class cannot be told from its positives."""
    own = planted.members[0][:30]
    same, other = np.arange(30, 60), np.arange(60, 240)
    terms = [Term(0, own[:30], own[:30], pool=rows) for rows in (same, other)]
    alike, apart = probe_scores(planted.path, terms, PROBE)
    assert alike < 0.7 < 0.85 < apart


def test_missing_photos_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"found no .*cifar100_search_terms.*BENCH_DATA"):
        photos.search_terms()
