"""k-means of the terms of 24 interests: ours, scikit-learn with k-means++, faiss with its starts.

Groups: two real ones, the words of wordfreq nearest to a topic, embedded by MiniLM, and planted
ones, made of a real one by turning each vector toward a neighbour. Peers run on the two real and
two planted groups, ours on all, every system as Spark runs tasks: one process a core, of one thread
each, a group at a time. scikit-learn also runs as one process with a thread a core
(`sklearn_threads`); the better of the two is the peer `sklearn`.
"""

from __future__ import annotations

import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Measurement, Size, in_process, say

TOPICS = ("animals", "food and drink")
FAISS_STARTS = ("RANDOM", "KMEANS_PLUS_PLUS", "AFK_MC2")
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
FULL, SMALL = (24, 9000, 1400), (4, 600, 94)
"""Groups, terms a group, clusters a group."""


def run(size: Size) -> Measurement:
    """Seconds a group of each system and inertia over scikit-learn's."""
    num_groups, num_terms, k = FULL if size == "full" else SMALL
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        in_process(make_groups, folder, num_groups, num_terms, environment=ONE_THREAD)
        few, every = list(range(min(3, num_groups) + 1)), list(range(num_groups))
        say(f"{num_groups} groups of {num_terms} terms are made")
        plan: list[tuple[str, Any, list[int], int]] = [("ours", ours, every, cores)]
        plan += [
            ("sklearn", scikit_learn, few, cores),
            ("sklearn_threads", scikit_learn, few[:2], 1),
        ]
        for start in FAISS_STARTS:
            plan.append((f"faiss_{start.lower()}", partial(faiss_start, start=start), few, cores))
        plan.append(("ours_again", ours, every, cores))
        seconds, peak, cpu, inertia = {}, {}, {}, {}
        for name, system, groups, processes in plan:
            variables = ONE_THREAD if processes > 1 else {n: str(cores) for n in ONE_THREAD}
            ran = in_process(spread, system, folder, groups, k, processes, environment=variables)
            inertia[name], cpu[name], wall = ran.value
            seconds[name], peak[name] = wall / len(groups), ran.peak_mib
            say(f"{name}: {seconds[name]:.2f} s a group, {cpu[name]:.2f} core-seconds")
    again = seconds.pop("ours_again")
    peak.pop("ours_again")
    seconds["ours"] = (seconds["ours"] + again) / 2
    gap = {
        name: [inertia[name][g] / inertia["sklearn"][g] - 1 for g in few if g in inertia[name]]
        for name in seconds
    }
    peers = [name for name in seconds if name not in ("ours", "sklearn_threads")]
    best = min(seconds["sklearn"], seconds["sklearn_threads"])
    return Measurement(
        size={"size": size, "groups": num_groups, "terms": num_terms, "clusters": k}
        | {"dimensions": 384, "peer_groups": len(few), "real_groups": len(TOPICS), "cores": cores},
        seconds=seconds,
        rate={name: 1 / value for name, value in seconds.items()},
        ratio={name: seconds[name] / seconds["ours"] for name in peers}
        | {"sklearn": best / seconds["ours"]},
        quality={
            "inertia_vs_sklearn": float(np.mean(gap["ours"])),
            "worst_group": max(gap["ours"]),
            "real_groups": [round(v, 4) for v in gap["ours"][: len(TOPICS)]],
            **{f"{n}_vs_sklearn": float(np.mean(gap[n])) for n in peers if n != "sklearn"},
            "core_seconds": {name: round(value, 2) for name, value in cpu.items()},
        },
        peak_mib=peak,
    )


def spread(
    system: Any, folder: str, groups: list[int], k: int, processes: int
) -> tuple[dict[int, float], float, float]:
    """Run a system over groups: inertia by group, core-seconds a group, wall seconds of all."""
    args = [(system, folder, group, k) for group in groups]
    if processes == 1:
        _warm(0)
        started = time.perf_counter()
        found = [_one(arg) for arg in args]
        wall = time.perf_counter() - started
    else:
        with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
            list(pool.map(_warm, range(4 * processes)))
            started = time.perf_counter()
            found = list(pool.map(_one, args))
            wall = time.perf_counter() - started
    values = {group: value for group, (value, _) in zip(groups, found, strict=True)}
    return values, sum(cpu for _, cpu in found) / len(found), wall


def _warm(_: int) -> None:
    """Import everything and call it once: neither is what is measured."""
    x = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    for system in (ours, scikit_learn, partial(faiss_start, start="RANDOM")):
        system(x, 4)
    time.sleep(0.1)  # so that each process gets a share


def _one(args: tuple[Any, str, int, int]) -> tuple[float, float]:
    """Inertia in float64 about the means of the clusters, and core-seconds."""
    system, folder, group, k = args
    x = np.load(Path(folder) / f"{group}.npy")
    started = time.process_time()
    owner = system(x, k)
    seconds = time.process_time() - started
    sums = np.zeros((k, x.shape[1]))
    np.add.at(sums, owner, x.astype(np.float64))
    means = sums / np.maximum(np.bincount(owner, minlength=k), 1)[:, None]
    return float(((x - means[owner]) ** 2).sum()), seconds


def ours(x: NDArray[np.float32], k: int) -> NDArray[np.integer]:
    """The kernel with the stage's defaults."""
    from pipeline.config.labels import ClusterTermsParams
    from pipeline.kernels.kmeans import cluster_terms

    p = ClusterTermsParams()
    ids = np.arange(len(x))
    found = cluster_terms(ids, x, k, p.max_iterations, p.num_starts, p.num_candidates, p.seed)
    assert found.num_clusters == k
    return found.cluster


def scikit_learn(x: NDArray[np.float32], k: int) -> NDArray[np.integer]:
    """KMeans with its k-means++, defaults else."""
    from sklearn.cluster import KMeans

    labels = KMeans(k, init="k-means++", n_init=1, random_state=0).fit(x).labels_
    return np.asarray(labels, np.int64)


def faiss_start(x: NDArray[np.float32], k: int, start: str) -> NDArray[np.integer]:
    """faiss with one of its own starts, 25 iterations as is its default."""
    import faiss

    method = getattr(faiss, f"ClusteringInitMethod_{start}")
    options = {"min_points_per_centroid": 1, "max_points_per_centroid": len(x), "seed": 1}
    kmeans = faiss.Kmeans(x.shape[1], k, init_method=method, **options)
    kmeans.train(x)
    return np.asarray(kmeans.index.search(x, 1)[1][:, 0])


def make_groups(folder: str, num_groups: int, num_terms: int) -> None:
    """Write ``<group>.npy``: the real groups, then planted ones."""
    real = real_groups(num_terms)
    near = [np.argpartition(-(x @ x.T), 9, axis=1)[:, :9] for x in real]
    for group in range(num_groups):
        source = real[group % len(real)]
        x = source if group < len(real) else planted_like(source, near[group % len(real)], group)
        np.save(Path(folder) / f"{group}.npy", x)


def real_groups(num_terms: int) -> list[NDArray[np.float32]]:
    """Words nearest to each topic among the most frequent, float32 (num_terms, 384)."""
    import wordfreq

    from pipeline.kernels.encode_texts import load_text_encoder

    cache = Path(tempfile.gettempdir()) / f"bench_kmeans_{2 * num_terms}.npy"
    if not cache.exists():
        words = [w for w in wordfreq.top_n_list("en", 80_000) if w.isalpha() and len(w) > 2]
        found = load_text_encoder("package:all_minilm_l6_v2").encode(
            [*TOPICS, *words[: 2 * num_terms]]
        )
        part = cache.with_suffix(f".{os.getpid()}.npy")
        np.save(part, found)
        part.rename(cache)
    vectors = np.load(cache)
    topics, x = vectors[: len(TOPICS)], vectors[len(TOPICS) :]
    return [x[np.sort(np.argsort(-(x @ topic))[:num_terms])] for topic in topics]


def planted_like(
    source: NDArray[np.float32], near: NDArray[np.int64], seed: int
) -> NDArray[np.float32]:
    """Another group like a real one: each vector turned a third of the way to a random neighbour.

    A rotation would leave the problem as it is, and draws from Gaussians have no such neighbours.
    """
    rng = np.random.default_rng(seed)
    other = source[near[np.arange(len(source)), rng.integers(0, 9, len(source))]]
    share = rng.uniform(0.1, 0.5, (len(source), 1))
    noise = rng.normal(size=source.shape) * (0.25 / np.sqrt(source.shape[1]))
    x = (1 - share) * source + share * other + noise
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
