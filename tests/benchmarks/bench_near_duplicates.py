"""Near-duplicate search under Spark: ours, a Spark SQL self-join, faiss, imagededup's BK-tree.

Hashes are random with planted partners; a run has ours at four sizes (growth), at two radii, and
with one key shared by a tenth of them. Spark SQL runs at smaller sizes, on those keys that suit it,
and faiss answers a sample of queries: their times at the full size are extrapolated, by a power law
through two sizes and by the share of queries. The BK-tree is measured at the size it can do, where
it is faster than at ours. Vectors are clustered with planted partners; faiss's IVF takes the fewest
probes of equal recall.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks import near_duplicate_systems as systems
from benchmarks.harness import Measurement, Ran, Size, in_process, say
from benchmarks.near_duplicate_world import (
    brute_force,
    pair_codes,
    plant_hashes,
    plant_vectors,
    recall_of,
)
from pipeline.kernels.cells import num_cells_for

RADII = (3, 6)
GROWTH = {
    "full": (1_000_000, 3_000_000, 10_000_000, 30_000_000),
    "small": (5_000, 10_000, 20_000, 40_000),
}
"""Hashes; the third is the size of the comparison, the first two are Spark SQL's."""
BRUTE_FORCE = {"full": 100_000, "small": 3_000}
QUERIES = {"full": 20_000, "small": 500}
TREE = {"full": (40_000, 1_000), "small": (1_000, 50)}
"""Rows of the BK-tree and its queries."""
VECTORS = {"full": 1_000_000, "small": 4_000}
VECTOR_QUERIES = {"full": 2_000, "small": 100}
WIDTH, TAU, NUM_PROBES = 256, 0.95, 2
RECALL_SLACK = 0.002
"""Recall of a sample of queries may be so much lower than ours of all and count as equal."""
THREADS = {"OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "2"}
FAISS_THREADS = {"OMP_NUM_THREADS": "2"}


def run(size: Size) -> Measurement:
    """Measure and compare.

    Args:
        size: full is 10M hashes and 1M vectors.
    """
    with tempfile.TemporaryDirectory(prefix="bench-near-") as folder:
        here = Run(size, Path(folder))
        here.hashes()
        here.vectors()
        return here.measurement()


class Run:
    """One run: its folder and what it has measured so far."""

    def __init__(self, size: Size, folder: Path) -> None:
        self.size, self.folder = size, folder
        self.seconds: dict[str, float] = {}
        self.rate: dict[str, float] = {}
        self.ratio: dict[str, float] = {}
        self.quality: dict[str, Any] = {}
        self.peak: dict[str, float] = {}
        self.keys = "same"

    def hashes(self) -> None:
        """The perceptual tier and its peers."""
        sizes, recalls = GROWTH[self.size], []
        largest = sizes[2]
        sql = {}
        for count in sizes:
            table, planted = self._plant(count, RADII[0])
            found = self._ours(f"ours_{count}", table, RADII[0])
            recalls.append(recall_of(found, planted))
            if count == sizes[0]:  # those keys that a join takes less time with
                self.keys = min(
                    ("same", "long"), key=lambda keys: self._spark_sql(count, table, found, keys)
                )
            if count < largest:
                sql[count] = self._spark_sql(count, table, found, self.keys)
            if count == largest:
                self._peers(table, largest, sql)
            shutil.rmtree(table)
        ours = [self.seconds[f"ours_{count}"] for count in sizes]
        self.quality["growth_exponent"] = np.polyfit(np.log(sizes), np.log(ours), 1)[0]
        table, planted = self._plant(largest, RADII[0], hot=largest // 10)
        recalls.append(recall_of(self._ours("ours_hot_key", table, RADII[0]), planted))
        self.quality["hot_key_cost"] = self.seconds["ours_hot_key"] / ours[2]
        table, planted = self._plant(largest, RADII[1])
        recalls.append(recall_of(self._ours("ours_radius_6", table, RADII[1]), planted))
        self.quality["recall"] = min(recalls)
        for radius in RADII:
            self._brute_force(radius)

    def vectors(self) -> None:
        """The semantic tier and faiss's IVF."""
        count = VECTORS[self.size]
        table = str(self.folder / "vectors.parquet")
        planted = plant_vectors(table, count, WIDTH, TAU)
        scratch = str(self.folder / "semantic")
        ran = in_process(
            systems.ours_semantic, table, TAU, NUM_PROBES, scratch, environment=THREADS
        )
        seconds, found = ran.value
        recall = recall_of(found, planted)
        self._keep("ours_semantic", ran, seconds, count)
        self.quality["recall_semantic"] = recall
        rows = np.random.default_rng(2).choice(len(planted), VECTOR_QUERIES[self.size])
        ran = in_process(
            systems.faiss_ivf, table, TAU, num_cells_for(count, 1), planted[rows],
            recall - RECALL_SLACK, environment=FAISS_THREADS,
        )  # fmt: skip
        seconds, peer_recall, probes = ran.value
        self._keep("faiss_ivf", ran, seconds, count)
        self.quality |= {"recall_faiss_ivf": peer_recall, "probes_faiss_ivf": probes}
        self.ratio["faiss_ivf"] = seconds / self.seconds["ours_semantic"]

    def measurement(self) -> Measurement:
        """All of it."""
        what = {
            "size": self.size,
            "hashes": GROWTH[self.size][2],
            "growth_hashes": list(GROWTH[self.size]),
            "spark_sql_hashes": list(GROWTH[self.size][:2]),
            "spark_sql_keys": self.keys,
            "faiss_queries": QUERIES[self.size],
            "bktree_hashes": TREE[self.size][0],
            "vectors": VECTORS[self.size],
            "dimensions": WIDTH,
            "cosine": TAU,
            "cores": systems.CORES,
        }
        return Measurement(what, self.seconds, self.rate, self.ratio, self.quality, self.peak)

    def _peers(self, table: str, largest: int, sql: dict[int, float]) -> None:
        few, more = sql
        growth = math.log(sql[more] / sql[few]) / math.log(more / few)
        extrapolated = sql[more] * (largest / more) ** growth
        self.seconds["spark_sql_extrapolated"] = extrapolated
        self.quality["spark_sql_growth"] = growth
        mine = self.seconds[f"ours_{largest}"]
        self.ratio["spark_sql"] = extrapolated / mine
        ran = in_process(
            systems.faiss_multihash, table, RADII[0], QUERIES[self.size], environment=FAISS_THREADS
        )
        self._keep("faiss_multihash", ran, ran.value[0], largest)
        self.ratio["faiss_multihash"] = ran.value[0] / mine
        ran = in_process(
            systems.imagededup_bktree, table, RADII[0], *TREE[self.size], environment=THREADS
        )
        self.rate["imagededup_bktree"] = ran.value[0]
        self.peak["imagededup_bktree"] = ran.peak_mib
        self.ratio["imagededup_bktree"] = largest / mine / ran.value[0]
        say(f"imagededup_bktree: {ran.value[0]:.0f} hashes/s")

    def _plant(self, count: int, radius: int, hot: int = 0) -> tuple[str, NDArray[np.int64]]:
        table = str(self.folder / f"hashes_{count}_{radius}_{hot}.parquet")
        return table, plant_hashes(table, count, radius, hot)

    def _ours(self, name: str, table: str, radius: int) -> NDArray[np.int64]:
        scratch = self.folder / name
        ran = in_process(systems.ours, table, radius, str(scratch), environment=THREADS)
        shutil.rmtree(scratch)
        seconds, found = ran.value
        self._keep(name, ran, seconds, pads.dataset(table).count_rows())
        assert isinstance(found, np.ndarray)
        return found

    def _spark_sql(self, count: int, table: str, expected: NDArray[np.int64], keys: str) -> float:
        name = f"spark_sql_{keys}_keys_{count}"
        if name in self.seconds:
            return self.seconds[name]
        scratch = self.folder / name
        ran = in_process(
            systems.spark_sql, table, RADII[0], str(scratch), keys, environment=THREADS
        )
        shutil.rmtree(scratch)
        seconds, found = ran.value
        self._keep(name, ran, seconds, count)
        is_equal = np.array_equal(found, expected)
        self.quality["spark_sql_equal"] = self.quality.get("spark_sql_equal", True) and is_equal
        return float(seconds)

    def _brute_force(self, radius: int) -> None:
        table, _ = self._plant(BRUTE_FORCE[self.size], radius)
        found = self._ours(f"ours_brute_force_{radius}", table, radius)
        stored = pq.read_table(table, columns=["phash"])["phash"].to_numpy()
        expected = brute_force(np.asarray(stored).view(np.uint64), radius)
        is_equal = np.array_equal(pair_codes(found), pair_codes(expected))
        self.quality[f"equal_brute_force_{radius}"] = is_equal

    def _keep(self, name: str, ran: Ran, seconds: float, rows: int) -> None:
        self.seconds[name], self.rate[name] = seconds, rows / seconds
        self.peak[name] = ran.peak_mib
        if name.startswith("ours"):
            self.peak[f"{name}_task"] = ran.worker_mib
        say(f"{name}: {seconds:.2f} s, {ran.peak_mib:.0f} MiB, a task {ran.worker_mib:.0f}")
