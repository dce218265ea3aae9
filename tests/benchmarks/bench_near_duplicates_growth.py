"""Near-duplicate hashes from 1M to 100M: how time, memory, shuffle and spill of ours grow.

The perceptual tier alone, at the radius of the paper's preset, over random hashes of which one in
twenty has a planted partner. The number of block-key tables grows with the hashes; it stands beside
the figures. bench_near_duplicates has the peers.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from benchmarks import near_duplicate_systems as systems
from benchmarks.growth import exponents
from benchmarks.harness import Measurement, Size, in_process, say
from benchmarks.near_duplicate_world import plant_hashes, recall_of
from pipeline.kernels.block_keys import plan_tables

IS_LONG = True
RADIUS = 4
SIZES = {"full": (1_000_000, 10_000_000, 100_000_000), "small": (5_000, 20_000)}
THREADS = {"OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "2"}
COSTS = (
    "shuffle_bytes",
    "spilled_bytes",
    "spilled_memory_bytes",
    "cpu_seconds",
    "output_bytes",
)


def run(size: Size) -> Measurement:
    """Measure.

    Args:
        size: full is 100M hashes at most.
    """
    seconds: dict[str, float] = {}
    peak: dict[str, float] = {}
    costs: dict[str, dict[str, float]] = {name: {} for name in COSTS}
    recall: dict[str, float] = {}
    num_pairs: dict[str, int] = {}
    for count in SIZES[size]:
        with tempfile.TemporaryDirectory(prefix="bench-near-growth-") as folder:
            say(f"planting {count} hashes")
            table, scratch = f"{folder}/hashes", f"{folder}/scratch"
            planted = plant_hashes(table, count, RADIUS)
            given = (table, RADIUS, scratch)
            ran = in_process(systems.ours_with_costs, *given, environment=THREADS)
            shutil.rmtree(Path(scratch))
        key = f"find_near_duplicates_{count}"
        seconds[key], found, added = ran.value
        peak[key], peak[f"{key}_task"] = ran.peak_mib, ran.worker_mib
        for name in COSTS:
            costs[name][str(count)] = added[name]
        recall[str(count)], num_pairs[str(count)] = recall_of(found, planted), len(found)
        say(f"{count}: {seconds[key]:.2f} s, {ran.peak_mib:.0f} MiB, {added}, {recall}")
    return Measurement(
        size={"size": size, "hashes": list(SIZES[size]), "radius": RADIUS, "cores": systems.CORES},
        seconds=seconds,
        rate={f"find_near_duplicates_{n}": n / seconds[f"find_near_duplicates_{n}"]
              for n in SIZES[size]},
        quality={
            "exponents": {
                "find_near_duplicates": exponents(
                    {n: seconds[f"find_near_duplicates_{n}"] for n in SIZES[size]}
                )
            },
            "tables": {str(n): plan_tables(n, RADIUS).num_tables for n in SIZES[size]},
            "pairs": num_pairs,
            "recall": recall,
            **{name: {"find_near_duplicates": values} for name, values in costs.items()},
        },
        peak_mib=peak,
    )  # fmt: skip
