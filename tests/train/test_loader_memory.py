"""A loader's memory does not grow with the steps and epochs it has run."""

from __future__ import annotations

import gc

import numpy as np
import psutil

from pipeline.train.batch import Position
from pipeline.train.data import ShardDataset
from pipeline.train.release import open_release

EPOCHS, WARM = 7, 2
MOST_KIB_AN_EPOCH = 48
"""A Python object of 100 bytes kept for each of an epoch's 480 samples would be 47 KiB."""


def test_memory_is_flat_over_five_epochs(make_release, make_params):
    """Two warm up, five are measured: slope of the resident size, copies drawn anew each epoch."""
    root = make_release(shard_sizes=(240, 240), materialised=False, weights=(1.0, 0.5, 1.5))
    params = make_params(data={"sampling": "policy", "window": 64}, run={"index_cache": 2})
    dataset = ShardDataset(open_release(str(root)), params, 0, 1, Position())
    process, sizes, steps = psutil.Process(), [], dataset.steps(0, 1)
    plan, step = next(steps)
    for epoch in range(EPOCHS):
        while plan.epoch == epoch:
            dataset.load(plan, step)
            plan, step = next(steps)
        gc.collect()
        sizes.append(process.memory_info().rss / 1024)
    slope = np.polyfit(np.arange(EPOCHS - WARM), sizes[WARM:], 1)[0]
    assert slope < MOST_KIB_AN_EPOCH, sizes
