"""Scoring terms: our probes against scikit-learn's MLPClassifier, both on every core.

Each system runs in as many processes of one thread as there are cores. The raw embeddings are made
before the clock starts, which runs to the held-out accuracy: standardising, splitting, training,
testing; ours draws its negatives as well. Both get the same rows, the same split, hidden size and
number of epochs. The
ceiling is what the same processes reach in single-precision products of 1,024 x 1,024, divided by
the arithmetic of a term (forward and weight gradient of the hidden layer; the rest is left out).
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.concreteness_data import DIMENSIONS, Positives, pool_of, strength_of
from benchmarks.harness import Measurement, Size, in_process, medians, say
from pipeline.config.labels import ScoreConcretenessParams

HIDDEN, EPOCHS, TEST_SHARE = 64, 20, 0.2
FULL_EPOCHS = {"patience": 0, "learning_rate": 0.03}
"""Without early stopping; the step size goes with the number of steps."""
MODES: dict[str, dict[str, Any]] = {
    "fp32": FULL_EPOCHS,
    "bf16": FULL_EPOCHS | {"precision": "bf16"},
    "early_stop": {},
    "early_stop_bf16": {"precision": "bf16"},
    "ridge": {"method": "ridge"},
}
SIZES: dict[Size, dict[str, int]] = {
    "full": {"terms": 192, "sklearn_terms": 192, "ridge_terms": 768}
    | {"support": 1000, "pool": 100_000, "repeats": 5},
    "small": {"terms": 16, "sklearn_terms": 12, "ridge_terms": 16}
    | {"support": 250, "pool": 5000, "repeats": 1},
}


def run(size: Size) -> Measurement:
    """Measure every mode, scikit-learn and the ceiling in turn, several times over."""
    shape, cores = SIZES[size], os.cpu_count() or 1
    terms = np.arange(shape["terms"])
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, float] = {}
    scores: dict[str, np.ndarray] = {}
    ceilings = []
    for repeat in range(shape["repeats"]):
        ceilings.append(_ceiling(cores, shape["support"]))
        theirs = terms[: shape["sklearn_terms"]]
        systems = {"sklearn": functools.partial(_sklearn, seed=repeat)}
        systems |= {mode: functools.partial(_ours, mode=mode) for mode in MODES}
        for name, system in systems.items():
            # Ridge scores more terms: with the others' its clock would show half a second.
            given = {"sklearn": theirs, "ridge": np.arange(shape["ridge_terms"])}.get(name, terms)
            ran = _on_every_core(system, given, shape, cores)
            seconds.setdefault(name, []).append(ran[1] / len(given))
            peaks[name] = max(peaks.get(name, 0.0), ran[2])
            scores[f"{name}{repeat}" if name == "sklearn" else name] = ran[0]
            say(f"{name}: {len(given) / ran[1]:.1f} terms/s, {ran[2]:.0f} MiB")
    each = medians(seconds)
    rate = {name: 1 / value for name, value in each.items()} | {
        "sgemm_ceiling": float(np.median(ceilings))
    }
    agreement = {
        mode: float(spearmanr(scores[mode][: len(theirs)], scores["sklearn0"]).statistic)
        for mode in MODES
    }
    quality = {f"spearman_sklearn_{mode}": value for mode, value in agreement.items()}
    quality["spearman_sklearn"] = min(v for m, v in agreement.items() if m != "ridge")
    if shape["repeats"] > 1:
        seeds = spearmanr(scores["sklearn0"], scores["sklearn1"]).statistic
        quality["spearman_sklearn_two_seeds"] = float(seeds)
    planted = strength_of(terms)
    for kind, name in ((terms % 3 != 2, "linear"), (terms % 3 == 2, "two_sided")):
        found = spearmanr(scores["fp32"][kind], planted[kind]).statistic
        quality[f"spearman_planted_{name}"] = float(found)
    quality |= {"score_min": scores["fp32"].min(), "score_max": scores["fp32"].max()}
    best = max(("fp32", "bf16"), key=lambda mode: rate[mode])
    best_early = max(("early_stop", "early_stop_bf16"), key=lambda mode: rate[mode])
    return Measurement(
        {"size": size, **shape, "dimensions": DIMENSIONS, "hidden": HIDDEN, "epochs": EPOCHS}
        | {"cores": cores, "best_precision": best, "best_early_stop": best_early},
        {name: value * len(terms) for name, value in each.items()},
        rate,
        {
            "sklearn": rate[best] / rate["sklearn"],
            "sklearn_fp32": rate["fp32"] / rate["sklearn"],
            "sklearn_bf16": rate["bf16"] / rate["sklearn"],
            "sklearn_early_stop": rate[best_early] / rate["sklearn"],
            "sklearn_early_stop_fp32": rate["early_stop"] / rate["sklearn"],
            "sklearn_ridge": rate["ridge"] / rate["sklearn"],
            "sgemm_ceiling": rate["fp32"] / rate["sgemm_ceiling"],
        },
        quality,
        peaks,
    )


def _on_every_core(
    system: Any, terms: np.ndarray, shape: dict[str, int], cores: int
) -> tuple[np.ndarray, float, float]:
    """Scores in the order of the terms, wall seconds of the slower process, peak MiB of all."""
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    parts = [terms[core::cores] for core in range(cores)]
    ran = in_process(_workers, system, parts, shape, environment=one_thread)
    scores = np.empty(len(terms))
    for core, (values, _) in enumerate(ran.value):
        scores[core::cores] = values
    return scores, max(seconds for _, seconds in ran.value), ran.peak_mib


def _workers(
    system: Any, parts: Sequence[np.ndarray], shape: dict[str, int]
) -> list[tuple[np.ndarray, float]]:
    """One process a part; clocks start together, when all have their data and their imports."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(len(parts))
    queue = context.SimpleQueue()
    processes = [
        context.Process(target=_worker, args=(i, system, part, shape, barrier, queue))
        for i, part in enumerate(parts)
    ]
    for process in processes:
        process.start()
    results = dict(queue.get() for _ in parts)
    for process in processes:
        process.join()
    return [results[i] for i in range(len(parts))]


def _worker(
    number: int, system: Any, terms: np.ndarray, shape: dict[str, int], barrier: Any, queue: Any
) -> None:
    prepare = system(shape=shape)
    prepare(terms[:2])()  # imports, first allocations
    score = prepare(terms)
    barrier.wait()
    started = time.perf_counter()
    values = score()
    queue.put((number, (values, time.perf_counter() - started)))


def _ours(mode: str, shape: dict[str, int]) -> Any:
    import torch

    from pipeline.kernels.concreteness import score_terms
    from pipeline.stages.score_concreteness import settings_of

    torch.set_num_threads(1)
    params = ScoreConcretenessParams(hidden=HIDDEN, epochs=EPOCHS, **MODES[mode])
    settings = settings_of(params)
    pool, positives = pool_of(shape["pool"]), Positives(shape["support"])

    def prepare(terms: np.ndarray) -> Any:
        slices = []
        for first in range(0, len(terms), 32):  # as the stage's
            chunk = terms[first : first + 32]
            rows, hashes = zip(*(positives.of(int(t)) for t in chunk), strict=True)
            owner = np.repeat(chunk, [len(r) for r in rows])
            slices.append((chunk, owner, np.concatenate(hashes), np.concatenate(rows)))

        def score() -> np.ndarray:
            tables = [score_terms(*given, pool, settings) for given in slices]
            return np.concatenate([table["concreteness"].to_numpy() for table in tables])

        return score

    return prepare


def _sklearn(shape: dict[str, int], seed: int) -> Any:
    from sklearn.neural_network import MLPClassifier

    warnings.filterwarnings("ignore", category=UserWarning)
    pool, positives = pool_of(shape["pool"]), Positives(shape["support"])
    num_test = round(shape["support"] * TEST_SHARE)

    def prepare(terms: np.ndarray) -> Any:
        given = []
        for term in terms.tolist():
            # The rows and the split that ours uses: both sides in the order of their hashes.
            rows, hashes = positives.of(term)
            order = np.argsort(_ranks(hashes, term))
            given.append((rows[order], pool.draw(term, hashes, len(rows), 0)))

        def score() -> np.ndarray:
            found = np.empty(len(given))
            for i, (rows, drawn) in enumerate(given):
                own, others = pool.preparation.apply(rows)[:-1], pool.features[drawn]
                x = np.concatenate([own[num_test:], others[num_test:]])
                y = np.repeat([1, 0], len(own) - num_test)
                model = MLPClassifier((HIDDEN,), max_iter=EPOCHS, random_state=seed).fit(x, y)
                test = np.concatenate([own[:num_test], others[:num_test]])
                found[i] = model.score(test, np.repeat([1, 0], num_test))
            return found

        return score

    return prepare


def _ranks(hashes: np.ndarray, term: int) -> np.ndarray:
    from pipeline.kernels.concreteness_sampling import sample_hashes

    return sample_hashes(hashes, term, 0, "concreteness.positives")


def _ceiling(cores: int, support: int) -> float:
    """Terms a second that products at the machine's own rate would allow."""
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    ran = in_process(
        _workers, _sgemm, [np.arange(24)] * cores, {"support": support}, environment=one_thread
    )
    flops = sum(float(values[0]) for values, _ in ran.value)
    num_train = 2 * (support - round(support * TEST_SHARE))
    return flops / (2 * 2 * num_train * DIMENSIONS * HIDDEN * EPOCHS)


def _sgemm(shape: dict[str, int]) -> Any:
    import torch

    del shape
    torch.set_num_threads(1)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)

    def prepare(repeats: np.ndarray) -> Any:
        def score() -> np.ndarray:
            rates = []
            for _ in repeats:
                started = time.perf_counter()
                torch.mm(a, b)
                rates.append(2 * 1024**3 / (time.perf_counter() - started))
            return np.array([np.median(rates)])

        return score

    return prepare
