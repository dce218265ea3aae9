"""The nearest few within a cell against sorting all of it."""

import numpy as np
import pytest

from pipeline.kernels.cell_neighbours import nearest_in_cell
from pipeline.kernels.vectors import l2_normalise


def slow(x, tau, num_nearest):
    """Pairs -> cosine, by a sort of every row in float64."""
    cosine = x.astype(np.float64) @ x.T.astype(np.float64)
    found = {}
    for i in range(len(x)):
        others = sorted((j for j in range(len(x)) if j != i), key=lambda j: (-cosine[i, j], j))
        for j in others[:num_nearest]:
            if cosine[i, j] >= tau:
                found[(min(i, j), max(i, j))] = cosine[i, j]
    return found


@pytest.mark.parametrize("num_nearest", [1, 3, 200])
def test_pairs_equal_a_sort(num_nearest):
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(9, 6))
    x = l2_normalise(centres[rng.integers(0, 9, 120)] + rng.normal(size=(120, 6)) * 0.4)
    found = nearest_in_cell(x, 0.8, num_nearest, block=50)
    expected = slow(x, 0.8, num_nearest)
    assert list(zip(found.left.tolist(), found.right.tolist(), strict=True)) == sorted(expected)
    assert found.cosine == pytest.approx([expected[pair] for pair in sorted(expected)], abs=1e-6)
    assert 0 < len(found.left) <= 120 * num_nearest


def test_of_equal_vectors_the_first_count():
    x = np.tile(np.array([[1, 0]], np.float32), (5, 1))
    found = nearest_in_cell(x, 0.9, 1)
    assert list(zip(found.left.tolist(), found.right.tolist(), strict=True)) == [
        (0, 1), (0, 2), (0, 3), (0, 4),
    ]  # fmt: skip


@pytest.mark.parametrize("count", [0, 1])
def test_none_and_one_have_no_neighbours(count):
    found = nearest_in_cell(np.eye(3, dtype=np.float32)[:count], -1.0, 4)
    assert len(found.left) == len(found.right) == len(found.cosine) == 0
