"""Search and signals of pairs: known crops are found, turns and order do not matter."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.kernels.pair_search import (
    INNER_SIDES,
    SCAN_SIDE,
    area_weights,
    grid,
    refine,
    sample,
    scan,
    shrink,
    turned,
    turned_each,
)
from pipeline.kernels.pair_signals import SIGNALS, pair_signals
from pipeline.kernels.turned_hashes import turned_distance, turned_hashes

LARGE = 128


def landscape(seed: int, side: int = LARGE) -> np.ndarray:
    """A smooth random picture with structure at every size, float32 (side, side), 0 to 255."""
    rng = np.random.default_rng(seed)
    total = np.zeros((side, side))
    for cells in (3, 6, 12, 24):
        total += np.kron(rng.standard_normal((cells, cells)), np.ones((side // cells + 1,) * 2))[
            :side, :side
        ]
    blurred = area_weights(side, side // 2) @ total @ area_weights(side, side // 2).T
    back = np.kron(blurred, np.ones((2, 2)))
    return (255 * (back - back.min()) / np.ptp(back)).astype(np.float32)


def thumbnail(picture: np.ndarray) -> np.ndarray:
    return shrink(picture[None], 64)[0].round().astype(np.uint8)


def signals(a: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
    a, b = np.atleast_3d(a), np.atleast_3d(b)
    distance, _ = turned_distance(turned_hashes(a), turned_hashes(b))
    found = pair_signals(a, b, distance, np.full(len(a), 0.5))
    return dict(zip(SIGNALS, found.T, strict=True))


def test_turns_are_those_of_numpy() -> None:
    p = np.arange(9.0, dtype=np.float32).reshape(1, 3, 3)
    ways = turned(p)[0]
    assert np.array_equal(ways[1], np.rot90(p[0]))
    assert np.array_equal(ways[4], p[0, :, ::-1])
    assert len({way.tobytes() for way in ways}) == 8
    each = turned_each(np.repeat(p, 8, axis=0), np.arange(8))
    assert np.array_equal(each, ways)


def test_area_weights_by_hand() -> None:
    assert area_weights(3, 2) == pytest.approx(np.array([[2, 1, 0], [0, 1, 2]]) / 3)
    assert np.array_equal(area_weights(64, 64), np.eye(64))


@pytest.mark.parametrize("turn", [0, 3, 6])
def test_scan_finds_a_planted_cut(turn: int) -> None:
    outer = shrink(landscape(0)[None], SCAN_SIDE)
    small = INNER_SIDES[2]
    cut = outer[:, 2 : 2 + small, 4 : 4 + small]
    # The scan shrinks the inner picture: give it one that shrinks to the cut, turned back.
    back = np.kron(cut[0], np.ones((SCAN_SIDE, SCAN_SIDE)))[None].astype(np.float32)
    inner = shrink(back, SCAN_SIDE)
    undo = next(
        k for k in range(8) if np.array_equal(turned(turned(inner)[:, k])[0, turn], inner[0])
    )
    found = scan(turned(inner)[:, undo], outer)
    assert found.turn[0] == turn
    assert found.score[0] > 0.95
    assert found.warp[0, 0, 0] == pytest.approx(small / SCAN_SIDE)
    centre = np.array([4 + small / 2, 2 + small / 2]) * 2 / SCAN_SIDE - 1
    assert found.warp[0, :, 2] == pytest.approx(centre, abs=1 / SCAN_SIDE)


def test_scan_score_equals_the_textbook_correlation() -> None:
    inner, outer = (shrink(landscape(k)[None], SCAN_SIDE) for k in (1, 2))
    best = -2.0
    for small in INNER_SIDES:
        template = shrink(inner, small)
        room = SCAN_SIDE - small
        places = range(0, room + 1, 2)
        for way in turned(template)[0]:
            for top in places:
                for left in places:
                    window = outer[0, top : top + small, left : left + small]
                    best = max(best, np.corrcoef(way.ravel(), window.ravel())[0, 1])
    assert scan(inner, outer).score[0] == pytest.approx(best, abs=1e-3)


def test_sample_by_hand_and_identity() -> None:
    picture = np.array([[[0.0, 10.0], [20.0, 30.0]]], np.float32)
    still = np.array([[[1, 0, 0], [0, 1, 0]]], np.float32)
    values, is_inside = sample(picture, still, 2)
    assert values[0].tolist() == [0, 10, 20, 30]
    assert is_inside.all()
    middle, _ = sample(picture, 0 * still, 1)
    assert middle[0, 0] == 15
    away = still + np.array([0, 0, 3], np.float32)
    assert not sample(picture, away, 2)[1].any()


def test_refinement_recovers_a_planted_map() -> None:
    outer = shrink(landscape(3)[None], 64)
    angle = np.deg2rad(4)
    truth = np.array(
        [[[0.8 * np.cos(angle), -0.8 * np.sin(angle), 0.06],
          [0.74 * np.sin(angle), 0.74 * np.cos(angle), -0.04]]],
        np.float32,
    )  # fmt: skip
    inner = sample(outer, truth, 64)[0].reshape(1, 64, 64)
    start = np.array([[[0.8, 0, 0.1], [0, 0.8, 0]]], np.float32)
    found = refine(inner, outer, start, 15)
    corners = grid(64)[:, [0, 63, -64, -1]]
    assert np.abs(found @ corners - truth @ corners).max() < 1 / 64  # half a pixel


CHANGES = {
    "nothing": lambda p: p,
    "crop75": lambda p: p[16:112, 16:112],
    "border": lambda p: np.pad(p, 13),
    "darker": lambda p: 0.6 * p + 10,
    "bar": lambda p: np.concatenate([p[:102], 0 * p[102:]]),
    "quarter_turn": lambda p: np.rot90(p),
    "mirrored_crop": lambda p: p[8:120, 8:120][:, ::-1],
}


@pytest.mark.parametrize("change", CHANGES)
def test_edited_copies_stand_out(change: str) -> None:
    picture = landscape(4)
    copy = thumbnail(np.ascontiguousarray(CHANGES[change](picture)))
    other = thumbnail(landscape(5))
    original = thumbnail(picture)
    found = signals(np.stack([copy, copy]), np.stack([original, other]))
    assert found["block_median"][0] > 0.85 > 0.7 > found["block_median"][1]
    assert found["edge_correlation"][0] > found["edge_correlation"][1] + 0.2


def test_order_does_not_matter_at_all() -> None:
    # The last pair all but ties: at full size the scan scores nearly the same both ways.
    a = np.stack([thumbnail(landscape(k)) for k in (6, 7, 8, 9)])
    twisted = np.array([[[1, -0.01, 0], [0.01, 1, 0]]], np.float32)
    tied = sample(landscape(9)[None] * 0.8, twisted, LARGE)[0].reshape(LARGE, LARGE)
    crop = thumbnail(landscape(6)[10:110, 5:105])
    b = np.stack([crop, thumbnail(landscape(10)), a[2], thumbnail(tied)])
    there, back = signals(a, b), signals(b, a)
    for name in SIGNALS:
        assert np.array_equal(there[name], back[name]), name


def test_turns_do_not_matter() -> None:
    a = thumbnail(landscape(10))
    b = thumbnail(landscape(10)[12:115, 4:107])
    plain = signals(a[None], b[None])
    for way in turned(a[None].astype(np.float32))[0].astype(np.uint8):
        again = signals(way[None], b[None])
        for name in set(SIGNALS) - {"hash_distance"}:
            assert again[name] == pytest.approx(plain[name], abs=2e-2), name
        assert abs(again["hash_distance"] - plain["hash_distance"]) <= 2


def test_blocks_of_pairs_and_flat_pictures() -> None:
    a = np.stack([thumbnail(landscape(k)) for k in range(11, 16)])
    flat = np.full((5, 64, 64), 90, np.uint8)
    zero = np.zeros(5)
    whole, cut = (pair_signals(a, a[::-1], zero, zero, block=size) for size in (5, 2))
    assert whole == pytest.approx(cut, abs=1e-5)
    unseen = pair_signals(flat, a, zero, np.full(5, np.nan))
    is_cosine = np.array(SIGNALS) == "cosine"
    assert np.isnan(unseen[:, is_cosine]).all()
    assert np.isfinite(unseen[:, ~is_cosine]).all()
    assert pair_signals(flat, flat, zero, zero)[:, SIGNALS.index("num_blocks")].max() == 0
    assert pair_signals(a[:0], a[:0], zero[:0], zero[:0]).shape == (0, len(SIGNALS))


def test_hashes_of_turned_pictures_are_near() -> None:
    a = thumbnail(landscape(20))[None]
    b = np.rot90(a, axes=(1, 2))
    distance, turn = turned_distance(turned_hashes(a), turned_hashes(b))
    assert (distance[0], turn[0]) == (0, 1)
    far, _ = turned_distance(turned_hashes(a), turned_hashes(thumbnail(landscape(21))[None]))
    assert far[0] > 8
