"""Terms with planted label noise, scored by our probes or a peer, and figures of a ranking."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

Rows = NDArray[np.int64]
MAX_NOISE = 0.8
DROPPED = np.arange(0, 0.9001, 0.01)
"""Shares of terms that are dropped, of the curve behind `gain`."""


@dataclass(frozen=True)
class Term:
    """One term to score.

    Attributes:
        term_id: draws its samples and starting weights.
        positives: rows of the pictures that carry it with high confidence.
        carrying: rows that carry it at any score; they are no negatives.
        share: of the positives whose content is the term's, as it came out.
        noise: planted share of random pictures.
        pool: rows that serve as negatives; None for all.
    """

    term_id: int
    positives: Rows
    carrying: Rows
    share: float = 1.0
    noise: float = 0.0
    pool: Rows | None = None

    @property
    def support(self) -> int:
        """Number of positives."""
        return len(self.positives)


def mix(term_id: int, own: Rows, content: NDArray[np.int64], noise: float, seed: int) -> Term:
    """A term with a share of its pictures replaced by random ones; the support stays.

    The pictures that are replaced still carry the term, at some low score.
    """
    rng = np.random.default_rng([seed, term_id])
    num_random = round(noise * len(own))
    others = np.setdiff1d(np.arange(len(content)), own)
    kept = rng.choice(own, len(own) - num_random, replace=False)
    positives = np.concatenate([kept, rng.choice(others, num_random, replace=False)])
    share = float(np.mean(content[positives] == content[own[0]]))
    return Term(term_id, positives, np.union1d(own, positives), share, noise)


def noisy(members: Sequence[Rows], content: NDArray[np.int64], seed: int) -> list[Term]:
    """All terms, each with noise uniform in [0, 0.8); every tenth is all random."""
    rng = np.random.default_rng([seed, len(members)])
    noise = rng.uniform(0, MAX_NOISE, len(members))
    noise[9::10] = 1.0
    return [
        mix(t, own, content, float(q), seed)
        for t, (own, q) in enumerate(zip(members, noise, strict=True))
    ]


def random_terms(num: int, supports: tuple[int, int], num_pictures: int, seed: int) -> list[Term]:
    """Terms of random pictures, each of a support within the bounds."""
    rng = np.random.default_rng([seed, num])
    found = []
    for t in range(num):
        rows = rng.choice(num_pictures, int(rng.integers(*supports)), replace=False)
        found.append(Term(10**6 + t, rows, rows, 0.0, 1.0))
    return found


Scorer = Callable[[Path, Sequence[Term], Any], NDArray[np.float64]]


class Workers:
    """Processes that score terms, one a core, for as long as a benchmark runs; a context manager.

    Args:
        number: of processes; 0 scores in this one.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        if self._number:
            self._pool = ProcessPoolExecutor(self._number, get_context("spawn"), _one_thread)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown()

    def score(
        self, scorer: Scorer, path: Path, terms: Sequence[Term], options: Any
    ) -> tuple[NDArray[np.float64], float]:
        """Scores in the order of the terms, and processor seconds of all workers.

        Args:
            scorer: of this module; called as scorer(path, terms, options).
            path: of the vectors.
            terms: to score.
            options: of the scorer.
        """
        if self._pool is None:
            return _score(scorer, path, terms, options)
        by_cost = np.argsort([-term.support for term in terms], kind="stable")
        # Several parts a worker: those of a worker that others hold up go to another.
        parts = [by_cost[i :: 4 * self._number] for i in range(4 * self._number)]
        jobs = [
            self._pool.submit(_score, scorer, path, [terms[i] for i in part], options)
            for part in parts
            if len(part)
        ]
        scores, seconds = np.empty(len(terms)), 0.0
        for part, job in zip(parts, jobs, strict=False):
            scores[part], spent = job.result()
            seconds += spent
        return scores, seconds


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _score(
    scorer: Scorer, path: Path, terms: Sequence[Term], options: Any
) -> tuple[NDArray[np.float64], float]:
    scorer(path, [], options)  # what the terms of a file share is prepared once, off the clock
    started = time.process_time()
    return scorer(path, terms, options), time.process_time() - started


def probe_scores(path: Path, terms: Sequence[Term], params: Any) -> NDArray[np.float64]:
    """Scores by the kernel of `score_concreteness`; ``params`` are that stage's."""
    from pipeline.kernels.concreteness import score_terms
    from pipeline.stages.score_concreteness import settings_of

    vectors, hashes, whole = _whole_pool(path, params.max_components)
    settings = replace(settings_of(params), max_positives=1000)

    def scored(some: Sequence[Term], rows: Rows | None) -> list[float]:
        pool = _carrying(whole, hashes, some)
        if rows is not None:
            at = np.searchsorted(pool.image_hashes, np.sort(hashes[rows]))
            with_padding = np.append(at, len(pool.features) - 1)
            pool = replace(
                pool, image_hashes=pool.image_hashes[at], features=pool.features[with_padding],
                term_offsets=np.zeros(1, np.int64), term_rows=np.zeros(0, np.int32),
            )  # fmt: skip
        owner = np.concatenate([np.repeat(t.term_id, t.support) for t in some])
        positives = np.concatenate([t.positives for t in some])
        ids = np.array([t.term_id for t in some])
        table = score_terms(ids, owner, hashes[positives], vectors[positives], pool, settings)
        values = dict(
            zip(table["term_id"].to_pylist(), table["concreteness"].to_pylist(), strict=True)
        )
        return [values[t.term_id] for t in some]

    shared = [t for t in terms if t.pool is None]
    values = iter(scored(shared, None) if shared else ())
    return np.array(
        [next(values) if t.pool is None else scored([t], t.pool)[0] for t in terms], float
    )


@functools.lru_cache(maxsize=2)
def _whole_pool(path: Path, max_components: int) -> tuple[Any, Any, Any]:
    """Vectors of a file, their hashes, and a pool of them all that carry nothing."""
    from pipeline.kernels.concreteness import NegativePool
    from pipeline.kernels.hashing import hash_ints

    vectors = np.load(path, mmap_mode="r")
    hashes = hash_ints(np.arange(len(vectors)), 0, "bench.image")
    nothing = np.zeros(len(vectors) + 1, np.int64)
    pool = NegativePool.build(hashes, vectors, nothing, nothing[:0], max_components=max_components)
    return vectors, hashes, pool


def _carrying(pool: Any, hashes: NDArray[np.uint64], terms: Sequence[Term]) -> Any:
    """The pool, its pictures carrying the given terms."""
    from pipeline.kernels.concreteness import NegativePool

    carrier = np.concatenate([t.carrying for t in terms])
    carried = np.concatenate([np.repeat(t.term_id, len(t.carrying)) for t in terms])
    order = np.argsort(carrier, kind="stable")
    offsets = np.searchsorted(carrier[order], np.arange(len(hashes) + 1))
    index = NegativePool.build(hashes, np.zeros((len(hashes), 1)), offsets, carried[order])
    return replace(pool, term_offsets=index.term_offsets, term_rows=index.term_rows)


@functools.lru_cache(maxsize=2)
def _standardised(path: Path) -> NDArray[np.float32]:
    vectors = np.load(path)
    mean, scale = vectors.mean(axis=0), np.maximum(vectors.std(axis=0), 1e-12)
    return np.asarray((vectors - mean) / scale, np.float32)


@functools.lru_cache(maxsize=2)
def _unit(path: Path) -> NDArray[np.float32]:
    vectors = np.load(path)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def sklearn_scores(path: Path, terms: Sequence[Term], seed: int) -> NDArray[np.float64]:
    """scikit-learn's MLPClassifier, one hidden layer of 64, 20 epochs, five folds."""
    import warnings

    from sklearn.neural_network import MLPClassifier

    warnings.filterwarnings("ignore", category=UserWarning)
    x = _standardised(path)
    found = []
    for term in terms:
        own, others = _both_sides(term, len(x), seed)
        rows, side = np.concatenate([own, others]), np.repeat([1, 0], term.support)
        fold, right = np.tile(np.arange(term.support) % 5, 2), 0.0
        for test in (fold == f for f in range(5)):
            model = MLPClassifier((64,), max_iter=20, random_state=seed)
            model.fit(x[rows[~test]], side[~test])
            right += model.score(x[rows[test]], side[test]) * test.sum()
        found.append(right / len(rows))
    return np.array(found)


def neighbour_scores(path: Path, terms: Sequence[Term], seed: int) -> NDArray[np.float64]:
    """Share of a term's pictures and as many random ones whose nearest neighbour by cosine, among
    these, is on their own side."""
    x = _unit(path)
    found = []
    for term in terms:
        own, others = _both_sides(term, len(x), seed)
        rows = x[np.concatenate([own, others])]
        likeness = rows @ rows.T
        np.fill_diagonal(likeness, -np.inf)
        is_own = np.arange(len(rows)) < len(own)
        found.append(float(np.mean(is_own[likeness.argmax(axis=1)] == is_own)))
    return np.array(found)


def _both_sides(term: Term, num_pictures: int, seed: int) -> tuple[Rows, Rows]:
    rng = np.random.default_rng([seed, term.term_id])
    others = np.setdiff1d(np.arange(num_pictures), term.carrying)
    return rng.permutation(term.positives), rng.choice(others, term.support, replace=False)


def spearman(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Rank correlation."""
    return float(spearmanr(a, b).statistic)


def spearman_interval(
    a: NDArray[np.floating], b: NDArray[np.floating], draws: int = 1000
) -> tuple[float, float]:
    """95% bootstrap interval of a rank correlation, over its pairs."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(a), (draws, len(a)))
    low, high = np.nanquantile([spearman(a[r], b[r]) for r in rows], [0.025, 0.975])
    return float(low), float(high)


def gain(share: NDArray[np.floating], scores: NDArray[np.floating]) -> float:
    """What dropping the lowest-scored terms gains in mean share over dropping at random, as a part
    of what the shares themselves would gain: ratio of the areas over 0-90% dropped."""
    return _area(share, scores) / _area(share, share)


def _area(share: NDArray[np.floating], scores: NDArray[np.floating]) -> float:
    ordered = share[np.argsort(-scores, kind="stable")]
    purity = np.cumsum(ordered) / np.arange(1, len(share) + 1)
    kept = np.maximum(1, np.round(len(share) * (1 - DROPPED))).astype(int)
    return float(np.mean(purity[kept - 1] - share.mean()))
