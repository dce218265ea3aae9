"""The judge of near-duplicate quality, by hand: what is not proposed is a miss."""

from __future__ import annotations

import numpy as np

from benchmarks.pair_quality import Ranked, pooled_threshold, recall_by_copy, with_intervals

# Three photos, two edits. Edit 1 of photo 2 was never proposed.
PAIRS = Ranked(
    photo=np.array([0, 1, 2, 0, 0, 1, 2]),
    copy=np.array([0, 0, 0, 1, 1, 1, 1]),
    is_same=np.array([True, True, True, True, False, True, False]),
    score=np.array([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0]),
    num_photos=3,
)


def test_threshold_and_recall_by_hand() -> None:
    # Right so far from the top: 4 of 4, 4 of 5, 5 of 6, 5 of 7.
    assert pooled_threshold(PAIRS, precision=1.0) == 6
    assert pooled_threshold(PAIRS, precision=0.82) == 4
    assert recall_by_copy(PAIRS, 6.0, 2).tolist() == [1.0, 1 / 3]
    assert recall_by_copy(PAIRS, 4.0, 2).tolist() == [1.0, 2 / 3]
    nothing = Ranked(PAIRS.photo, PAIRS.copy, ~PAIRS.is_same, PAIRS.score, 3)
    assert pooled_threshold(nothing, precision=1.0) == np.inf


def test_a_photo_drawn_twice_counts_twice() -> None:
    weight = np.array([2.0, 1.0, 0.0])
    assert recall_by_copy(PAIRS, 6.0, 2, weight).tolist() == [1.0, 2 / 3]
    # From the top: 2, 3, 3, 5 right of as many; then the wrong pair of photo 0 twice: 5 of 7.
    assert pooled_threshold(PAIRS, weight, precision=0.8) == 6
    # 6 of 8 at 4; the pair of photo 2, never drawn, changes nothing at 3.
    assert pooled_threshold(PAIRS, weight, precision=0.75) == 3


def test_intervals_hold_the_value_and_come_again() -> None:
    rng = np.random.default_rng(0)
    photo, copy = (axis.ravel() for axis in np.indices((40, 3)))
    is_same = rng.random(120) < 0.9
    pairs = Ranked(photo, copy, is_same, is_same + 0.3 * rng.standard_normal(120), 40)
    found = with_intervals(pairs, [0, 1], {"both": [0, 1], "last": [2]})
    assert found == with_intervals(pairs, [0, 1], {"both": [0, 1], "last": [2]})
    for value, low, high in found.values():
        assert low <= value <= high
        assert 0.02 < high - low < 0.4
