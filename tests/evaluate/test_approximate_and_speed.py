"""Recall of approximate search against exact search; rates and latencies by a planted clock."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.evaluate.approximate import ivf_recalls, recall_against, search_ivf
from pipeline.evaluate.retrieval import Neighbours, nearest
from pipeline.evaluate.speed import largest_batch, measure_speed


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(3)
    found = rng.normal(size=(500, 12)).astype(np.float32)
    found[250:300] = found[:50]  # copies: equals of one score
    return found, [f"{i:03d}" for i in range(500)]


def test_all_cells_looked_into_is_exact_and_fewer_are_not(vectors):
    rows, ids = vectors
    recalls = ivf_recalls(rows, ids, rows, ids, 10, 20, (1, 5, 20))
    assert recalls[20].tolist() == [1.0] * 500
    assert recalls[1].mean() < recalls[5].mean() < 1
    brute = [
        len(set(a) & set(b)) / 10
        for a, b in zip(
            nearest(rows, ids, rows, ids, 10).positions.tolist(),
            search_ivf(rows, ids, rows, ids, 10, 20, 5).positions.tolist(),
            strict=True,
        )
    ]
    # Sets of positions differ where copies tie; scores do not.
    assert (recalls[5] >= np.array(brute) - 1e-12).all()
    assert recalls[5].mean() == pytest.approx(np.mean(brute), abs=0.01)


def test_own_image_is_no_result(vectors):
    rows, ids = vectors
    found = search_ivf(rows, ids, rows, ids, 499, 20, 20)
    assert not (found.positions == np.arange(500)[:, None]).any()
    assert (found.positions >= 0).all()


def test_recall_by_hand():
    exact = Neighbours(
        np.array([[4, 2], [1, -1], [-1, -1]]), np.array([[0.9, 0.5], [0.3, -np.inf], [-np.inf] * 2])
    )
    approximate = Neighbours(
        np.array([[7, 8], [-1, -1], [-1, -1]]), np.array([[0.5, 0.4], [-np.inf] * 2, [-np.inf] * 2])
    )
    # 7 ties with the exact second; nothing was found for the next; nothing was to be found.
    assert recall_against(exact, approximate).tolist() == [0.5, 0.0, 1.0]


class Ticking(nn.Module):
    """A model that takes 5 ms plus 1 ms an image by a clock of its own; first calls ten times."""

    now = 0.0
    calls = 0

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        Ticking.calls += 1
        slow = 10 if Ticking.calls % 40 == 1 else 1
        Ticking.now += slow * (0.005 + 0.001 * len(x))
        return self.head(self.norm(x.mean(dim=(2, 3))) if len(x) > 1 else x.mean(dim=(2, 3)))


def test_rates_and_latencies_come_from_the_clock():
    model = Ticking()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = measure_speed(model, 8, torch.device("cpu"), 16, 0.5, clock=lambda: Ticking.now)
    assert found.batch == 16
    assert found.inference == pytest.approx(16 / 0.021)
    assert found.training == pytest.approx(16 / 0.021)
    assert found.latency_median_ms == pytest.approx(6.0)
    assert found.latency_p95_ms >= found.latency_median_ms
    assert found.device.startswith("CPU")
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_largest_batch_is_the_last_that_fits():
    def step_of(limit):
        def make(size):
            def step():
                if size > limit:
                    raise torch.OutOfMemoryError("full")

            return step

        return make

    assert largest_batch(step_of(40), 1024) == 32
    assert largest_batch(step_of(10_000), 48) == 32
    with pytest.raises(torch.OutOfMemoryError):
        largest_batch(step_of(0), 4)
