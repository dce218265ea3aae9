"""Reading a release for training: ours beside webdataset's loader, and what the parts cost.

`ours` is the loader of a run, one of 64 ranks with a worker a core; `webdataset` is its WebDataset
and WebLoader with as large a shuffle buffer, as many processes and the same decoder and crop.
`decode_augment_ceiling` decodes and crops files in memory and does nothing else. Systems take
turns; medians of rounds. `cpu_` figures are the same ratios in processor seconds, which other users
of the machine disturb less. Beside them: seconds to plan any step at 1.329 billion images, with
each image once and with copies drawn, and what decoding at a fraction of the size gains and
changes.
"""

from __future__ import annotations

import tempfile
import time
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks import loader_systems as systems
from benchmarks.harness import Measurement, Size, in_process, medians, say
from benchmarks.loader_world import World, make_world
from pipeline.kernels.resampling import total_weight
from pipeline.train.crops import crop_uniforms
from pipeline.train.images import CropRule, crop_image
from pipeline.train.plan import EpochPlan, PlanShape
from pipeline.train.sampling import draw_shard, shard_counts
from pipeline.train.shard_index import ShardIndex

STEPS = {"full": 48, "small": 10}
ROUNDS = {"full": 7, "small": 1}
IMAGES, SHARDS, MANY_SHARDS, PER_SHARD = 1_329_000_000, 132_900, 1_300_000, 10_000
DEMAND = {"v100": 231, "a100": 1183, "h100": 3750}
"""Images a second of a device on ViT-B/16 at 224: the paper's Table 6; 40% of the peak for the
others, which nobody here measured."""
PEERS = ("webdataset", "decode_augment_ceiling")
MARGINS = (2.0, 1.0)
THREADS = {"OMP_NUM_THREADS": "1"}


def run(size: Size) -> Measurement:
    """Measure.

    Args:
        size: full is 48 steps of 128 photos a round, 7 rounds.
    """
    with tempfile.TemporaryDirectory(prefix="bench-loader-") as folder:
        say("making the photos")
        return _measured(size, make_world(folder, size))


def _measured(size: Size, world: World) -> Measurement:
    names = (
        "ours", "webdataset", "decode_augment_ceiling", "read_only", "decode_only", "augment_only",
    )  # fmt: skip
    rates: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    peak: dict[str, float] = {}
    for turn in range(ROUNDS[size]):
        for name in names if turn % 2 else reversed(names):
            ran = in_process(getattr(systems, name), world, STEPS[size], environment=THREADS)
            rates[name].append(ran.value.rate)
            cpu[name].append(ran.value.cpu_seconds)
            peak[name] = max(peak.get(name, 0.0), ran.peak_mib)
            cost = 1e6 * ran.value.cpu_seconds
            say(f"{name} {turn}: {ran.value.rate:.0f} images/s, {cost:.0f} us of a core an image")
    rate = {name: value / systems.CORES for name, value in medians(rates).items()}
    planning = in_process(plan_seconds).value
    margins = in_process(decode_margins, world, environment=THREADS).value
    return Measurement(
        size={
            "size": size,
            "images": STEPS[size] * systems.BATCH,
            "mean_bytes": float(np.mean([len(photo) for photo in world.photos])),
            "photos": world.source,
            "cores": systems.CORES,
            "rate": "images a second and core",
        },
        seconds=planning,
        rate=rate,
        ratio={
            # Of the rounds' own ratios: the machine's speed drifts between rounds.
            name: float(np.median(np.divide(rates["ours"], rates[name])))
            for name in PEERS
        },
        quality={
            **{f"cpu_microseconds_{n}": 1e6 * s for n, s in medians(cpu).items()},
            **{f"cpu_{n}": float(np.median(np.divide(cpu[n], cpu["ours"]))) for n in PEERS},
            **{f"cores_a_{name}": need / rate["ours"] for name, need in DEMAND.items()},
            **margins,
        },
        peak_mib=peak,
    )


def plan_seconds() -> dict[str, float]:
    """Seconds from the manifest's columns to the samples of a late step, at full size."""
    shape = PlanShape(8192, 64, 8, 4096, 1024, seed=0)
    found = {}
    for name, shards in (("plan_seconds", SHARDS), ("plan_seconds_1.3M_shards", MANY_SHARDS)):
        lengths = np.full(shards, IMAGES // shards, np.int64)
        found[name] = _median(lambda lengths=lengths: _late_step(lengths, shape))
    weights = np.floor(np.random.default_rng(0).random(SHARDS) * 2e4 * 2**20) / 2**20
    found["plan_seconds_policy"] = _median(lambda: _late_step(shard_counts(weights, 0, 1), shape))
    plan = EpochPlan(np.full(SHARDS, PER_SHARD, np.int64), shape, 1)
    started = time.perf_counter()
    for step in range(200):
        plan.samples(step * 7, step % 64)
    found["step_of_a_virtual_rank"] = (time.perf_counter() - started) / 200
    index, values = _index(PER_SHARD), np.random.default_rng(1).random(PER_SHARD) * 2
    assert total_weight(values) > 0
    found["draw_a_shard"] = _median(lambda: draw_shard(index, values, 0, 0, 1))
    return found


def _late_step(counts: Any, shape: PlanShape) -> None:
    plan = EpochPlan(counts, shape, 1)
    plan.samples(plan.num_steps - 1, 63)


def _median(work: Any, times: int = 7) -> float:
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def _index(n: int) -> ShardIndex:
    keys = pa.array([f"{i:032x}-000" for i in range(n)])
    zeros, none = np.zeros(n, np.int64), np.empty(0, np.int32)
    return ShardIndex(keys, keys, zeros, zeros, none, np.zeros(n + 1, np.int64), np.ones(n, "f4"))


def decode_margins(world: World) -> dict[str, float]:
    """Speed-up of decoding photos of 1600 x 1200 at a fraction, and decibels against full size."""
    torch.set_num_threads(1)
    count = len(world.large)
    keys = pa.array([str(i) for i in range(count)])
    draws = crop_uniforms(keys, np.zeros(count, np.int64), 0, 0).tolist()

    def all_at(margin: float | None) -> list[torch.Tensor]:
        rule = CropRule(224, 0.08, 4 / 3, 10**8, margin)
        return [crop_image(world.large[i], "jpg", rule, draws[i]) for i in range(count)]

    exact, plain = all_at(None), _median(lambda: all_at(None), 3)
    found = {}
    for margin in MARGINS:
        errors = [
            float((a.float() - b.float()).square().mean())
            for a, b in zip(exact, all_at(margin), strict=True)
        ]
        found[f"margin_{margin:g}_speedup"] = plain / _median(lambda m=margin: all_at(m), 3)
        found[f"margin_{margin:g}_decibel"] = 10 * np.log10(255**2 / max(np.mean(errors), 1e-9))
    return found
