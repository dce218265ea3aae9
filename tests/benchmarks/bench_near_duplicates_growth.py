"""Near-duplicate hashes from 1M to 100M: how time, memory, shuffle and spill of ours grow.

The perceptual tier alone, at the radius of the paper's preset, over random hashes of which one in
twenty has a planted partner. The number of block-key tables grows with the hashes; it stands beside
the figures. Sizes are measured one by one and may be kept (`kept`). CPU seconds are of all
processes; they say more than those of the clock where others use the machine.
bench_near_duplicates has the peers.
"""

from __future__ import annotations

import tempfile
from typing import Any

from benchmarks import near_duplicate_systems as systems
from benchmarks.growth import Figure, measurement
from benchmarks.harness import Measurement, Size, in_process, say
from benchmarks.kept import Kept, sizes
from benchmarks.near_duplicate_world import plant_hashes, recall_of
from pipeline.kernels.block_keys import plan_tables

IS_LONG = True
STAGE = "find_near_duplicates"
RADIUS = 4
SIZES = {"full": (1_000_000, 10_000_000, 100_000_000), "small": (5_000, 20_000)}
THREADS = {"OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "2"}


def run(size: Size) -> Measurement:
    """Measure.

    Args:
        size: full is 100M hashes at most.
    """
    kept, rows = Kept(), sizes(SIZES[size])
    for count in rows:
        if kept.lacks([f"{STAGE}_{count}"]):
            kept.add(f"{STAGE}_{count}", measured(count))
    names = {count: f"{STAGE}_{count}" for count in rows}
    found = [Figure(STAGE, n, kept.figures[name]) for n, name in names.items() if name in kept]
    what = {
        "size": size,
        "hashes": list(rows),
        "radius": RADIUS,
        "cores": systems.CORES,
    }
    more = {
        name: {str(f.rows): f.values[name] for f in found} for name in ("tables", "pairs", "recall")
    }
    return measurement(what, found, more)


def measured(count: int) -> dict[str, Any]:
    """Figures of one size."""
    with tempfile.TemporaryDirectory(prefix="bench-near-growth-") as folder:
        say(f"planting {count} hashes")
        table, scratch = f"{folder}/hashes", f"{folder}/scratch"
        planted = plant_hashes(table, count, RADIUS)
        given = (table, RADIUS, scratch)
        ran = in_process(systems.ours_with_costs, *given, environment=THREADS)
    seconds, found, costs = ran.value
    figures = {
        "seconds": seconds,
        "peak_mib": ran.peak_mib,
        "task_mib": ran.worker_mib,
        **costs,
        "rows_in": count,
        "tables": plan_tables(count, RADIUS).num_tables,
        "pairs": len(found),
        "recall": recall_of(found, planted),
    }
    say(f"{count}: {figures}")
    return figures
