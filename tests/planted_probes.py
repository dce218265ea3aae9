"""Small planted terms and settings for the tests of concreteness probes."""

from dataclasses import replace

import numpy as np

from pipeline.kernels.concreteness import ProbeSettings, SplitSettings
from pipeline.kernels.concreteness_sampling import NegativePool
from pipeline.kernels.hashing import hash_ints

DIM = 12
SETTINGS = ProbeSettings(
    method="mlp", precision="fp32", device="cpu", max_positives=150, min_positives=10,
    splits=SplitSettings(
        test_share=0.2, folds_below=60, num_folds=5, num_repeats=1, max_repeated_rows=10**6,
        validation_share=0.0,
        batch_size=64, min_batch_size=16, batches_per_epoch=4,
    ),
    hidden=16, epochs=12, fold_epochs=12, patience=0, min_improvement=0.0, learning_rate=3e-3,
    fold_learning_rate=3e-3, epsilon=1e-8,
    weight_decay=0.0, ridge_alpha=1.0, confidence=0.95, seed=3, probes_per_batch=32,
)  # fmt: skip


def with_splits(settings, **changes):
    return replace(settings, splits=replace(settings.splits, **changes))


def image_hashes(ids):
    return hash_ints(np.asarray(ids), 0, "image")


def planted(num_terms=30, support=120, seed=0, pool_size=1500):
    """Terms whose positives are shifted by a growing amount, in a plane's two opposite directions
    for every third (not linearly separable). The pool carries no term."""
    rng = np.random.default_rng(seed)
    strength = np.linspace(0, 5, num_terms)
    owner, vectors = [], []
    for t in range(num_terms):
        direction = rng.normal(size=DIM)
        direction /= np.linalg.norm(direction)
        x = rng.normal(size=(support, DIM))
        sign = rng.choice([-1, 1], (support, 1)) if t % 3 == 2 else 1.0
        owner.append(np.full(support, t, np.int32))
        vectors.append(x + sign * strength[t] * direction)
    owner = np.concatenate(owner)
    ids = image_hashes(np.arange(len(owner)) + 10**6)
    pool_x = rng.normal(size=(pool_size, DIM)).astype(np.float32)
    pool = NegativePool.build(
        image_hashes(np.arange(pool_size)), pool_x, np.zeros(pool_size + 1, int), np.zeros(0, int)
    )
    return strength, owner, ids, np.concatenate(vectors).astype(np.float32), pool


def scores(table):
    return np.array(table["concreteness"].to_pylist(), float)


def mixed_support():
    """Supports that give several shapes, folds, and both kinds of refusal."""
    _, owner, ids, x, pool = planted(num_terms=9, support=150, seed=5, pool_size=600)
    keep = np.array([150, 150, 90, 90, 61, 40, 40, 12, 3])
    rank = np.concatenate([np.arange(150)] * 9)
    rows = rank < keep[owner]
    return owner[rows], ids[rows], x[rows], pool
