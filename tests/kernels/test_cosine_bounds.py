"""The bound leaves out no pair, and stops where it does not pay."""

import numpy as np
import pytest

from pipeline.kernels import cosine_bounds
from pipeline.kernels.cells import MARGIN, cosine_pairs, cosine_pairs_between
from pipeline.kernels.cosine_bounds import Nominator
from pipeline.kernels.vectors import l2_normalise


def vectors(num, width=256, spread=1.0, seed=0):
    """Unit vectors around one direction, every tenth with a near copy at its own distance."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=width)
    x = centre + spread * rng.normal(size=(num, width))
    copies = x[::10] + rng.uniform(0, 0.4, (len(x[::10]), 1)) * rng.normal(size=x[::10].shape)
    return l2_normalise(np.concatenate([x, copies]).astype(np.float32))


def exactly(a, b, tau):
    cosine = a.astype(np.float64) @ b.T.astype(np.float64)
    return {(int(i), int(j)) for i, j in np.argwhere(cosine >= tau)}


def found(pairs):
    return set(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))


@pytest.mark.parametrize("tau", [0.9, 0.95, 0.999])
@pytest.mark.parametrize("spread", [0.05, 0.4, 1.0])
def test_pairs_are_those_of_whole_products(tau, spread):
    """From vectors that are all near each other, where the bound holds nothing back, to spread."""
    x = vectors(700, spread=spread)
    every = exactly(x, x, tau)
    assert found(cosine_pairs(x, tau, block=300)) == {(i, j) for i, j in every if i < j}
    a, b = x[:400], x[400:]
    assert found(cosine_pairs_between(a, b, tau, block=130)) == exactly(a, b, tau)


def test_the_bound_holds_pairs_back_by_a_quarter_of_the_width():
    """A pair that the factors call far is not looked at again."""
    x = vectors(1000)
    nominator = Nominator(0.95, MARGIN)
    one, other = nominator.sides(x, x)
    assert one.factor.shape == (len(x), 256 // 4 + 2)
    bound = one.factor.astype(np.float64) @ other.factor.T.astype(np.float64)
    cosine = x.astype(np.float64) @ x.T
    assert (bound >= cosine - 1 - 1e-6).all()  # |p - q|^2 / 2 <= 1 - cosine
    left, right = nominator.pairs(one, other)
    assert {*zip(left.tolist(), right.tolist(), strict=True)} >= exactly(x, x, 0.95)
    away = other.factor - np.float32(9) * (np.arange(66) == 65)
    assert len(nominator.pairs(one, other._replace(factor=away))[0]) == 0


@pytest.mark.parametrize(("spread", "num_whole"), [(0.05, 6), (1.0, 0)])
def test_where_most_pairs_are_left_whole_products_are_made(monkeypatch, spread, num_whole):
    """Of the six blocks in the upper half; after three in a row none is looked at first."""
    shapes = []
    whole = np.flatnonzero

    def watched(mask):
        shapes.append(mask.shape)
        return whole(mask)

    monkeypatch.setattr(cosine_bounds.np, "flatnonzero", watched)
    cosine_pairs(vectors(1300, spread=spread), 0.95, block=512)
    assert len(shapes) == (6 if num_whole == 0 else num_whole + 3)


@pytest.mark.parametrize(
    ("rows", "width", "tau"), [(200, 256, 0.95), (400, 64, 0.95), (400, 256, 0.8)]
)
def test_small_sides_and_low_thresholds_have_no_bound(rows, width, tau):
    x = vectors(rows, width)[:rows]
    assert Nominator(tau, MARGIN).sides(x, x)[0].factor is None
