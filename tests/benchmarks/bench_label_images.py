"""Label mapping of images through a dictionary and clusters: ours, DuckDB, Polars, Spark SQL.

All read the same Parquet files of aligned, bucketed tables and write image_id, cluster_ids and
label_terms; every row of every system is compared with ours. In full, two formulations or more of
each peer are tried on a part of the images and the fastest runs; Spark SQL runs on a part.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks import label_systems
from benchmarks.harness import Measurement, Ran, Size, in_process, medians, say
from benchmarks.label_world import NUM_CLUSTERS, NUM_INTERESTS, NUM_TERMS, World, make_world
from pipeline.kernels.hashing import hash_ints
from pipeline.kernels.nested import list_offsets, one_chunk
from pipeline.kernels.xxhash64 import digests

NUM_IMAGES = {"full": 10_000_000, "small": 40_000}
NUM_BUCKETS = {"full": 16, "small": 4}
SPARK_SQL_BUCKETS = {"full": 3, "small": 4}
TRIAL_BUCKETS = 2
"""On which a peer's formulations compete, in full."""
RUNS = {"full": 3, "small": 1}
FORMULATIONS: dict[str, tuple[tuple[str, int], ...]] = {
    "duckdb": (("duckdb_packed", 2), ("duckdb_packed", 1), ("duckdb_grouped", 2)),
    "polars": (("polars_sorted", 1), ("polars_grouped", 1)),
    "spark_sql": (("spark_sql_packed", 0), ("spark_sql_grouped", 0)),
}
"""Function of `label_systems` and files it takes at once, by peer."""
THREADS = {"POLARS_MAX_THREADS": "2", "OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "2"}


def run(size: Size) -> Measurement:
    """Measure and compare.

    Args:
        size: full is 10M images of some ten annotations.
    """
    with tempfile.TemporaryDirectory(prefix="bench-labels-") as folder:
        say("drawing the images")
        root = f"{folder}/world"
        world = make_world(root, NUM_IMAGES[size], NUM_BUCKETS[size], label_systems.CORES)
        return _measured(size, world, Path(folder))


def _measured(size: Size, world: World, folder: Path) -> Measurement:
    chosen = {
        peer: _fastest(peer, world, folder) if size == "full" else formulations[0]
        for peer, formulations in FORMULATIONS.items()
    }
    few = SPARK_SQL_BUCKETS[size]
    systems: dict[str, tuple[Callable[..., float], World, tuple[int, ...]]] = {
        "ours": (label_systems.ours, world, ()),
        "duckdb": _call(chosen["duckdb"], world),
        "polars": _call(chosen["polars"], world),
        "spark_sql": (getattr(label_systems, chosen["spark_sql"][0]), world, (few,)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    peak: dict[str, float] = {}
    differing: dict[str, int] = {}
    expected: list[NDArray[np.uint64]] = []
    for turn in range(RUNS[size]):
        for name, (function, given, args) in systems.items():
            if name == "spark_sql" and turn:
                continue
            out = folder / name
            shutil.rmtree(out, ignore_errors=True)
            ran = _run(function, given, out, args)
            seconds[name].append(ran.value)
            peak[name] = max(peak.get(name, 0.0), ran.peak_mib)
            say(f"{name} {turn}: {ran.value:.2f} s, {ran.peak_mib:.0f} MiB")
            if name == "ours" and turn == 0:
                expected = _ours(out, len(world.files("images")))
            if name != "ours" and turn == 0:
                mine = expected[:few] if name == "spark_sql" else expected
                differing[name] = num_differing(np.concatenate(mine), _peer(out))
                say(f"{name}: {differing[name]} rows differ")
    images = {name: world.tables["images"].num_rows for name in systems}
    images["spark_sql"] = sum(f.num_rows for f in world.tables["images"].files[:few])
    middle = medians(seconds)
    rate = {name: images[name] / middle[name] for name in systems}
    return Measurement(
        size={
            "size": size,
            "images": images["ours"],
            "annotations": world.num_annotations,
            "terms": NUM_TERMS,
            "clusters": NUM_CLUSTERS,
            "interests": NUM_INTERESTS,
            "spark_sql_images": images["spark_sql"],
            "cores": label_systems.CORES,
            "formulations": {peer: f"{name}/{n}" for peer, (name, n) in chosen.items()},
        },
        seconds=middle,
        rate=rate,
        ratio={name: rate["ours"] / rate[name] for name in systems if name != "ours"},
        quality={f"{name}_rows_differing": found for name, found in differing.items()}
        | {"rows_compared": images["ours"]},
        peak_mib=peak,
    )


def _call(
    formulation: tuple[str, int], world: World
) -> tuple[Callable[..., float], World, tuple[int, ...]]:
    name, files_at_once = formulation
    return getattr(label_systems, name), world, (files_at_once,)


def _run(function: Callable[..., float], world: World, out: Path, args: tuple[int, ...]) -> Ran:
    return in_process(function, world, str(out), *args, environment=THREADS)


def _fastest(peer: str, world: World, folder: Path) -> tuple[str, int]:
    """The formulation that is fastest on a part of the images."""
    part = world.first(TRIAL_BUCKETS)
    took: dict[tuple[str, int], float] = {}
    for name, files_at_once in FORMULATIONS[peer]:
        args = (TRIAL_BUCKETS if peer == "spark_sql" else min(files_at_once, TRIAL_BUCKETS),)
        out = folder / "trial"
        took[name, files_at_once] = _run(getattr(label_systems, name), part, out, args).value
        shutil.rmtree(out)
        say(f"{peer}: {name}/{files_at_once} takes {took[name, files_at_once]:.2f} s of a part")
    return min(took, key=lambda key: took[key])


def num_differing(ours: NDArray[np.uint64], theirs: NDArray[np.uint64]) -> int:
    """Rows of either that the other does not have, by their hashes, repeats counted."""
    ours, theirs = np.sort(ours), np.sort(theirs)
    if np.array_equal(ours, theirs):
        return 0
    values = np.unique(np.concatenate([ours, theirs]))
    of_ours, of_theirs = (
        np.bincount(np.searchsorted(values, found), minlength=len(values))
        for found in (ours, theirs)
    )
    return int(np.abs(of_ours - of_theirs).sum())


def _ours(out: Path, num_buckets: int) -> list[NDArray[np.uint64]]:
    """Hashes of our rows, labelled and not, by bucket."""
    names = ("image_labels", "unlabelled_images")
    return [
        np.concatenate(
            [h for name in names for h in _hashes(out / name / f"part-{bucket:05d}.parquet")]
        )
        for bucket in range(num_buckets)
    ]


def _peer(out: Path) -> NDArray[np.uint64]:
    return np.concatenate([h for path in sorted(out.glob("*.parquet")) for h in _hashes(path)])


def _hashes(path: Path) -> Iterator[NDArray[np.uint64]]:
    for batch in pq.ParquetFile(path).iter_batches(131_072):
        yield row_hashes(pa.Table.from_batches([batch]))


def row_hashes(rows: pa.Table) -> NDArray[np.uint64]:
    """A hash of each row's identifier, labels and terms, in their order.

    Args:
        rows: image_id, and cluster_ids and label_terms; where these two are absent or null the
            image has none.
    """
    with np.errstate(over="ignore"):
        total = digests(rows["image_id"], 0)
        if "cluster_ids" not in rows.column_names:
            return total
        clusters, terms = (one_chunk(rows[name]) for name in ("cluster_ids", "label_terms"))
        total = total + np.uint64(3) * _list_hash(clusters, _numbers(clusters.flatten()))
        inner = terms.flatten()
        of_labels = _list_hash(inner, _numbers(inner.flatten())) * np.uint64(5)
        return total + _list_hash(terms, of_labels)


def _numbers(values: pa.Array) -> NDArray[np.uint64]:
    return np.asarray(values.cast(pa.int64()).to_numpy(zero_copy_only=False)).astype(np.uint64)


def _list_hash(lists: Any, items: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Sum of hashes of (item, its place) over each list."""
    offsets = list_offsets(lists)
    place = np.arange(len(items)) - np.repeat(offsets[:-1], np.diff(offsets))
    mixed = items + place.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    sums = np.append(np.uint64(0), np.cumsum(hash_ints(mixed, 1, "rows"), dtype=np.uint64))
    return np.asarray(sums[offsets[1:]] - sums[offsets[:-1]], np.uint64)
