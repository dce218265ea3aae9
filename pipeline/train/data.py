"""Batches from a release: a step at a time, in the plan's order, decoded after the shuffle."""

from __future__ import annotations

import logging
import signal
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from pipeline.config.train import DataParams, TrainParams
from pipeline.kernels.hashing import hash64, uniform
from pipeline.train.holdout import is_held_out
from pipeline.train.images import choose_crop, crop_resized, crop_uniforms, decode
from pipeline.train.plan import EpochPlan, PlanShape, Samples, draw_copies, expected_copies
from pipeline.train.release import CorruptSampleError, Release, ShardIndex

logger = logging.getLogger(__name__)


class Position(NamedTuple):
    """A place in the stream of steps; the next step to show."""

    epoch: int = 0
    step: int = 0


class Batch(NamedTuple):
    """Images that go through the model together.

    Attributes:
        images: uint8 (B, 3, S, S), black where not valid.
        label_values: int64 (P,), label ids of all images one after the other.
        label_offsets: int64 (B + 1,), image i has label_values[label_offsets[i]:...[i + 1]]; an
            image that is not valid has none, so no loss counts it.
        valid: bool (B,), whether the image could be read.
        keys: B sample keys.
        failures: what was wrong, one line per image that is not valid.
    """

    images: Tensor
    label_values: Tensor
    label_offsets: Tensor
    valid: Tensor
    keys: list[str]
    failures: list[str]


class StepBatch(NamedTuple):
    """One process's share of a step, in micro-batches; ``after`` is the position that follows."""

    position: Position
    after: Position
    micro: list[Batch]


class ShardDataset(IterableDataset[StepBatch]):
    """An endless stream of steps from a position on, for one process.

    Worker w of W yields every W-th step from the w-th on, which is the order a DataLoader asks
    them in; what a step shows depends on neither.
    """

    def __init__(
        self, release: Release, params: TrainParams, rank: int, world: int, start: Position
    ) -> None:
        """Check the sizes and keep them.

        Args:
            release: where the samples are.
            params: of the run.
            rank: of this process.
            world: number of processes.
            start: first step to yield.

        Raises:
            ValueError: sizes that do not divide, or a sampling the release does not allow.
        """
        data = params.data
        check_sizes(params, world)
        check_sampling(release, params)
        self.release, self.params, self.start = release, params, start
        share = data.virtual_ranks // world
        self.virtual_ranks = range(rank * share, (rank + 1) * share)
        self.shape = PlanShape(
            data.global_batch, data.virtual_ranks, data.lanes, data.window, data.chunk, params.seed
        )
        self.micro_batch = params.run.micro_batch or data.global_batch // world
        is_drawn = data.sampling == "policy" or data.holdout_share > 0
        self._weights = release_weights(release, data) if is_drawn else None
        self._indexes: OrderedDict[int, ShardIndex] = OrderedDict()

    @property
    def images_per_epoch(self) -> int:
        """Images an epoch shows (on average, when copies are drawn)."""
        if self._weights is None:
            return self.release.num_samples
        return expected_copies(self._weights.weights)

    def plan(self, epoch: int) -> EpochPlan:
        """The order of an epoch."""
        copies = None
        if self._weights is not None:
            draws = uniform(hash64(self._weights.keys, self.params.seed, f"copies/{epoch}"))
            copies = draw_copies(self._weights.weights, draws)
        return EpochPlan(self.release.lengths, self.shape, epoch, copies)

    def __iter__(self) -> Iterator[StepBatch]:
        """Yield this worker's steps, for ever."""
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        plan, step, number = self.plan(self.start.epoch), self.start.step, 0
        while True:
            if step >= plan.num_steps:
                plan, step = self.plan(plan.epoch + 1), 0
            if number % workers == worker:
                yield self.load(plan, step)
            number, step = number + 1, step + 1

    def load(self, plan: EpochPlan, step: int) -> StepBatch:
        """Read, decode and crop this process's share of one step."""
        parts = [plan.samples(step, r) for r in self.virtual_ranks]
        samples = Samples(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        micro = [
            self._batch(Samples(*(c[i : i + self.micro_batch] for c in samples)), plan.epoch)
            for i in range(0, len(samples.row), self.micro_batch)
        ]
        last = step + 1 == plan.num_steps
        after = Position(plan.epoch + 1, 0) if last else Position(plan.epoch, step + 1)
        return StepBatch(Position(plan.epoch, step), after, micro)

    def _batch(self, samples: Samples, epoch: int) -> Batch:
        size = self.params.model.image_size
        images = torch.zeros((len(samples.row), 3, size, size), dtype=torch.uint8)
        valid = torch.zeros(len(samples.row), dtype=torch.bool)
        labels: list[NDArray[np.int32]] = []
        keys, failures = [], []
        for i, (shard, row, copy) in enumerate(zip(*map(np.ndarray.tolist, samples), strict=True)):
            index = self._index(shard)
            key = str(index.keys[row])
            keys.append(key)
            try:
                images[i] = self._image(shard, index, row, (epoch, key, copy))
            except CorruptSampleError as error:
                failures.append(f"{self.release.shards[shard].name} {key}: {error}")
                labels.append(np.empty(0, np.int32))
                continue
            valid[i] = True
            labels.append(self._labels(index.labels(row), (epoch, key, copy)))
        offsets = np.concatenate([[0], np.cumsum([len(x) for x in labels])]).astype(np.int64)
        values = np.concatenate([np.empty(0, np.int32), *labels]).astype(np.int64)
        return Batch(
            images, torch.from_numpy(values), torch.from_numpy(offsets), valid, keys, failures
        )

    def _image(self, shard: int, index: ShardIndex, row: int, draw: tuple[int, str, int]) -> Tensor:
        data = self.params.data
        raw = self.release.read_image(shard, index, row)
        pixels = decode(raw, str(index.suffixes[row]), data.max_pixels)
        uniforms = crop_uniforms(self.params.seed, *draw)
        height, width = pixels.shape[:2]
        box = choose_crop(height, width, uniforms, data.crop_min_area, data.crop_max_aspect)
        return crop_resized(pixels, box, self.params.model.image_size)

    def _labels(self, labels: NDArray[np.int32], draw: tuple[int, str, int]) -> NDArray[np.int32]:
        """The labels the loss sees: all, or one drawn anew each epoch."""
        if self.params.loss != "single_label_softmax" or len(labels) < 2:
            return labels
        epoch, key, copy = draw
        u = float(uniform(hash64([key], self.params.seed, f"label/{epoch}/{copy}"))[0])
        chosen = int(u * len(labels))
        return labels[chosen : chosen + 1]

    def _index(self, shard: int) -> ShardIndex:
        if shard in self._indexes:
            self._indexes.move_to_end(shard)
            return self._indexes[shard]
        index = self.release.read_index(shard)
        self._indexes[shard] = index
        if len(self._indexes) > self.params.run.index_cache:
            self._indexes.popitem(last=False)
        return index


class Weights(NamedTuple):
    """Key and weight of every sample of a release, in its order."""

    keys: list[str]
    weights: NDArray[np.float32]


def release_weights(release: Release, data: DataParams) -> Weights:
    """Weights of a whole release: the policy's or 1, and 0 for what is held out for evaluation.

    Every index is read once at start-up and the keys stay in memory, about 100 bytes a sample.
    """
    indexes = [release.read_index(i) for i in range(len(release.shards))]
    keys = [key for index in indexes for key in index.keys.to_pylist()]
    weights = np.concatenate([index.weights for index in indexes])
    if data.sampling == "natural":
        weights = np.ones_like(weights)
    weights[is_held_out(keys, data.holdout_share)] = 0
    return Weights(keys, weights)


def check_sampling(release: Release, params: TrainParams) -> None:
    """Refuse to resample a release that holds its repeats already.

    Source: SPEC A15.
    """
    if release.materialised and params.data.sampling != "natural":
        raise ValueError(
            f"data.sampling = {params.data.sampling!r}, but {release.storage.uri} holds the copies "
            f"of its policy {release.policy!r} already: expected 'natural'."
        )


def check_sizes(params: TrainParams, world: int) -> None:
    """Check that processes, workers and micro-batches divide the fixed sizes.

    Raises:
        ValueError: naming all that do not.
    """
    data, run = params.data, params.run
    problems = []
    if data.virtual_ranks % world:
        problems.append(
            f"{world} processes do not divide data.virtual_ranks = {data.virtual_ranks}"
        )
    if run.workers and data.lanes % run.workers:
        problems.append(f"run.workers = {run.workers} does not divide data.lanes = {data.lanes}")
    share = data.global_batch // world
    if run.micro_batch and share % run.micro_batch:
        problems.append(
            f"micro_batch x accumulation x processes = global_batch has no solution for "
            f"{run.micro_batch} x ? x {world} = {data.global_batch}"
        )
    if problems:
        raise ValueError("; ".join(problems) + ".")


def build_loader(dataset: ShardDataset) -> DataLoader[StepBatch]:
    """A loader that delivers one step after the other.

    It never draws from the global torch generator, which belongs to the model.
    """
    run = dataset.params.run
    parallel = run.workers > 0
    return DataLoader(
        dataset,
        batch_size=None,
        num_workers=run.workers,
        prefetch_factor=run.prefetch if parallel else None,
        timeout=run.timeout_seconds if parallel else 0,
        worker_init_fn=_ignore_stop_signals,
        pin_memory=run.device != "cpu" and torch.cuda.is_available(),
        generator=torch.Generator(),
    )


def _ignore_stop_signals(_worker: int) -> None:
    """A stop signal sent to the whole group must leave the loader alive for the last step."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
