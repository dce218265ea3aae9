"""Loaders beside each other, and the parts of ours; each function is for a process of its own.

Every one is measured in its steady state, over CORES processes. All decode and crop by the same
function, ``pipeline.train.images.crop_image``.
"""

from __future__ import annotations

import itertools
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import psutil
import pyarrow as pa
import torch

from benchmarks.loader_world import World
from pipeline.config.train import TrainParams
from pipeline.train.batch import Position
from pipeline.train.crops import CROP_ATTEMPTS, choose_crop, crop_uniforms
from pipeline.train.data import ShardDataset, build_loader
from pipeline.train.images import CropRule, crop_image, crop_resized, decode
from pipeline.train.release import open_release

CORES = 2
BATCH = 128
"""Images a step: the share of one of 64 ranks in the paper's batch of 8,192."""
WARM_STEPS = 24
"""Before the clock starts: a forked process copies pages of its parent, touches its own, once."""
WDS_BUFFER = 4096
"""Samples in webdataset's shuffle buffer, as many as a window of ours."""


class Speed(NamedTuple):
    """What a system did.

    Attributes:
        rate: images a wall second, all processes together.
        cpu_seconds: processor seconds an image, of all processes; on a machine that others use too
            it says more than the rate.
    """

    rate: float
    cpu_seconds: float


def params_of() -> TrainParams:
    """One rank of the paper's run with a worker a core."""
    return TrainParams.model_validate(
        {
            "data": {"global_batch": BATCH, "virtual_ranks": 1, "lanes": 8},
            "run": {"workers": CORES, "device": "cpu"},
        }
    )


def ours(world: World, steps: int) -> Speed:
    """The loader as in a run."""
    _fork_from_now()
    dataset = ShardDataset(open_release(world.uri), params_of(), 0, 1, Position())
    images = (step.micro[0].images for step in build_loader(dataset))
    return _rate(images, steps)


def webdataset(world: World, steps: int) -> Speed:
    """webdataset's loader: shards and samples shuffled, the JSON member parsed for its labels."""
    import webdataset as wds

    _fork_from_now()
    release, rule = open_release(world.uri), CropRule.of(params_of().data, 224)

    def sample(found: dict[str, Any]) -> tuple[torch.Tensor, list[int], str]:
        uniforms = [[random.random() for _ in range(4)] for _ in range(CROP_ATTEMPTS)]
        labels = wds.autodecode.basichandlers("json", found["json"])["label_ids"]
        return crop_image(found["jpg"], "jpg", rule, uniforms), labels, found["__key__"]

    def collate(samples: list[Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[str]]:
        images, labels, keys = zip(*samples, strict=True)
        counts = torch.tensor([len(x) for x in labels])
        return (
            torch.stack(images),
            torch.tensor(list(itertools.chain.from_iterable(labels))),
            counts,
            list(keys),
        )

    shards = [release.storage.path(shard.name) for shard in release.shards]
    dataset = (
        wds.WebDataset(shards, shardshuffle=len(shards), seed=0)
        .repeat()
        .shuffle(WDS_BUFFER, initial=WDS_BUFFER // 4)
        .map(sample)
        .batched(BATCH, collation_fn=collate)
    )
    loader = wds.WebLoader(dataset, batch_size=None, num_workers=CORES, prefetch_factor=2)
    return _rate((batch[0] for batch in loader), steps)


def _fork_from_now() -> None:
    """As in a run: the harness's processes spawn, and a loader that is iterated starts its own."""
    multiprocessing.set_start_method("fork", force=True)


def _rate(batches: Iterator[torch.Tensor], steps: int) -> Speed:
    """Between two steps in the steady state."""
    for _ in itertools.islice(batches, WARM_STEPS):
        pass
    cpu, started, images = _tree_seconds(), time.perf_counter(), 0
    for batch in itertools.islice(batches, steps):
        images += len(batch)
    seconds = time.perf_counter() - started
    return Speed(images / seconds, (_tree_seconds() - cpu) / images)


def _tree_seconds() -> float:
    """Processor seconds of this process and its children so far."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return float(sum(t.user + t.system for t in times))


def decode_augment_ceiling(world: World, steps: int) -> Speed:
    """Decode and crop of files in memory, nothing else."""
    return _in_all_cores(_crop_all, world, steps)


def decode_only(world: World, steps: int) -> Speed:
    """Decoding of files in memory."""
    return _in_all_cores(_decode_all, world, steps)


def augment_only(world: World, steps: int) -> Speed:
    """Choosing and scaling crops of decoded pictures."""
    return _in_all_cores(_augment_all, world, steps)


def read_only(world: World, steps: int) -> Speed:
    """Reading of files in the plan's order: plan, index, tar header, bytes."""
    return _in_all_cores(_read_all, world, steps)


def _in_all_cores(work: Callable[[World, int], Speed], world: World, steps: int) -> Speed:
    with multiprocessing.get_context("spawn").Pool(CORES) as pool:
        found = pool.starmap(work, [(world, steps // CORES)] * CORES, chunksize=1)
    return Speed(sum(f.rate for f in found), sum(f.cpu_seconds for f in found) / CORES)


def _timed(work: Callable[[int], object], images: int) -> Speed:
    for i in range(BATCH):
        work(i)
    cpu, started = time.process_time(), time.perf_counter()
    for i in range(images):
        work(i)
    seconds = time.perf_counter() - started
    return Speed(images / seconds, (time.process_time() - cpu) / images)


def _draws(count: int) -> Any:
    torch.set_num_threads(1)
    keys = pa.array([f"{i:032x}-000" for i in range(count)])
    return crop_uniforms(keys, np.zeros(count, np.int64), 0, 0).tolist()


def _crop_all(world: World, steps: int) -> Speed:
    rule, photos, draws = CropRule.of(params_of().data, 224), world.photos, _draws(4096)

    def work(i: int) -> object:
        return crop_image(photos[i % len(photos)], "jpg", rule, draws[i % 4096])

    return _timed(work, steps * BATCH)


def _decode_all(world: World, steps: int) -> Speed:
    photos = world.photos
    return _timed(lambda i: decode(photos[i % len(photos)], "jpg", 10**8), steps * BATCH)


def _augment_all(world: World, steps: int) -> Speed:
    draws = _draws(4096)
    pictures = [decode(photo, "jpg", 10**8) for photo in world.photos[:100]]

    def work(i: int) -> object:
        pixels = pictures[i % len(pictures)]
        height, width = pixels.shape[:2]
        box = choose_crop(height, width, draws[i % 4096], 0.08, 4 / 3)
        return crop_resized(pixels, box, 224)

    return _timed(work, steps * BATCH)


def _read_all(world: World, steps: int) -> Speed:
    release = open_release(world.uri)
    dataset = ShardDataset(release, params_of(), 0, 1, Position())
    indexes = [release.read_index(shard) for shard in range(len(release.shards))]
    members = [index.members(np.arange(len(index.offsets))) for index in indexes]
    plan = dataset.plan(0)
    at = itertools.chain.from_iterable(
        zip(*(column.tolist() for column in dataset.places(plan, step)), strict=True)
        for step in itertools.cycle(range(plan.num_steps))
    )

    def work(_: int) -> object:
        shard, row = next(at)
        return release.read_image(shard, members[shard][row])

    return _timed(work, steps * BATCH)
