"""The rule of verification: what is related, what is taken, and the same for search and groups."""

import numpy as np
import pytest

from pipeline.kernels.groups import EXACT, NONE, VERIFIED
from pipeline.kernels.pair_model import PairModel
from pipeline.kernels.pair_signals import SIGNALS, pair_signals
from pipeline.kernels.pair_verifier import PairRule, PictureVerifier, as_thumbnails, cosines
from pipeline.kernels.turned_hashes import framed_hashes, turned_distance, turned_hashes
from pipeline.kernels.vectors import l2_normalise


def by_correlation():
    """A model that asks for one signal: chance above a half if `block_median` is above 0.8."""
    zeros, weight = np.zeros(len(SIGNALS)), np.zeros(len(SIGNALS))
    mean, scale = zeros.copy(), zeros + 1
    at = SIGNALS.index("block_median")
    mean[at], scale[at], weight[at] = 0.8, 0.05, 1.0
    none = np.zeros((len(SIGNALS), 0))
    return PairModel(mean, scale, none, np.zeros(0), weight, bias=0.0)


def rule(**options):
    given = {"min_probability": 0.5, "radius": 8, "is_turned": True, "tau": 0.9}
    return PairRule(by_correlation(), **given | options)


def pictures(seed=0):
    """Four smooth pictures; the second is the first mirrored, the third the first, brighter."""
    rng = np.random.default_rng(seed)
    waves = np.cos(np.pi * np.arange(8)[:, None] * (np.arange(64) + 0.5) / 64)
    first, other = (
        np.clip(128 + 9 * (waves.T @ rng.normal(size=(8, 8)) @ waves), 0, 255) for _ in range(2)
    )
    stack = np.stack([first, first[:, ::-1], first * 0.8 + 20, other])
    return np.round(stack).astype(np.uint8)


def test_related_by_hand():
    distance = np.array([8, 9, 8, 64])
    cosine = np.array([np.nan, 0.89, 0.95, 0.9])
    flat = np.array([False, False, True, True])
    assert rule().is_related(distance, cosine, flat).tolist() == [True, False, True, True]
    assert rule(tau=None).is_related(distance, cosine, flat).tolist() == [True] + [False] * 3
    assert rule(radius=None).is_related(distance, cosine, flat).tolist() == [False] * 2 + [True] * 2


def verifier(stack, **options):
    n = len(stack)
    return PictureVerifier(
        np.arange(n), np.zeros(n, np.uint64), np.zeros(n, np.bool_), None,
        options.pop("vectors", None), 1.0, stack, framed_hashes(stack), rule(**options),
    )  # fmt: skip


def test_match_is_what_the_search_would_say():
    stack = pictures()
    one, two = np.array([0, 1, 2, 3, 0]), np.array([1, 0, 0, 0, 0])
    got = verifier(stack).match(one, two)
    assert got.tier.tolist() == [VERIFIED, VERIFIED, VERIFIED, NONE, EXACT]
    assert np.isnan(got.distance[3])
    assert got.distance[0] == got.distance[1]  # whichever way round
    hashes = turned_hashes(stack)
    distance, _ = turned_distance(hashes[:1], hashes[1:2])
    chance = rule().probability(stack[:1], stack[1:2], distance, np.array([np.nan]))
    assert got.distance[0] == 1 - chance[0]


def test_unrelated_pairs_are_never_looked_at():
    stack = pictures()
    upright = verifier(stack, is_turned=False, tau=None)
    zero = np.zeros(3, np.int64)
    assert upright.match(zero, np.array([1, 2, 3])).tier.tolist() == [NONE, VERIFIED, NONE]
    # A cosine makes any two related; the model still decides.
    vectors = l2_normalise(np.ones((4, 3)))
    by_cosine = verifier(stack, radius=None, vectors=vectors)
    assert by_cosine.match(zero, np.array([1, 2, 3])).tier.tolist() == [VERIFIED, VERIFIED, NONE]


def test_probability_is_the_models_and_does_not_depend_on_company():
    stack = pictures(3)
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, 4, 40), rng.integers(0, 4, 40)
    distance, cosine = np.zeros(40, np.int64), np.full(40, np.nan)
    every = rule().probability(stack[one], stack[two], distance, cosine)
    model = by_correlation().predict(pair_signals(stack[one], stack[two], distance, cosine))
    assert every == pytest.approx(model, abs=1e-6)
    for k in (0, 7, 39):
        at = slice(k, k + 1)
        alone = rule().probability(stack[one][at], stack[two][at], distance[at], cosine[at])
        assert alone.tobytes() == every[at].tobytes()


def test_cosines_of_unknown_vectors_are_nan():
    vectors = np.array([[1, 0], [0, 0], [0.6, 0.8]], np.float32)
    got = cosines(vectors, np.array([0, 0]), np.array([2, 1]))
    assert got[0] == pytest.approx(0.6)
    assert np.isnan(got[1])
    assert np.isnan(cosines(None, np.array([0]), np.array([0]))).all()


def test_thumbnails_of_another_size_are_refused():
    assert as_thumbnails([]).shape == (0, 64, 64)
    assert as_thumbnails([bytes(range(64)) * 64])[0, 5, 7] == 7
    with pytest.raises(ValueError, match="7 bytes, expected 4096"):
        as_thumbnails([bytes(4096), bytes(7)])
