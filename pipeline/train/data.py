"""Batches from a release: a step at a time, in the plan's order, decoded after the shuffle."""

from __future__ import annotations

import dataclasses
import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torch.utils.data.dataloader import _BaseDataLoaderIter

from pipeline.config.train import RunParams, TrainParams
from pipeline.files.fetch import FetchPolicy
from pipeline.files.file_cache import FileCache
from pipeline.files.storage import open_storage
from pipeline.train.assemble import Assembler, own_memory
from pipeline.train.batch import Position, StepBatch
from pipeline.train.batch_memory import BatchMemory, Shape, Writer
from pipeline.train.plan import EpochPlan, Places, PlanShape, check_length
from pipeline.train.release import Release
from pipeline.train.sampling import expected_images, shard_counts, shard_weights


class ShardDataset(IterableDataset[StepBatch]):
    """An endless stream of steps from a position on, for one process.

    Worker w of W yields every W-th step from the w-th on, which is the order a DataLoader asks
    them in; what a step shows depends on neither.
    """

    def __init__(
        self,
        release: Release,
        params: TrainParams,
        rank: int,
        world: int,
        start: Position,
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        """Check the sizes and keep them.

        Args:
            release: where the samples are.
            params: of the run.
            rank: of this process.
            world: number of processes.
            start: first step to yield.
            weights: what ``shard_weights`` says; None asks it, without help of other processes.

        Raises:
            ValueError: sizes that do not divide, an epoch without a step in every lane, a sampling
                that the release does not allow, or a cache without room.
        """
        data = params.data
        check_sizes(params, world)
        self.release = for_run(release, params.run)
        self.params, self.start = params, start
        share = data.virtual_ranks // world
        self.virtual_ranks = range(rank * share, (rank + 1) * share)
        self.shape = PlanShape(
            data.global_batch, data.virtual_ranks, data.lanes, data.window, data.chunk, params.seed
        )
        self.micro_batch = params.run.micro_batch or data.global_batch // world
        self.micro_batches = data.global_batch // world // self.micro_batch
        self._weights = shard_weights(release, data) if weights is None else weights
        check_length(self._least_samples, self.shape)
        self.memory: BatchMemory | None = None
        self._writer: Writer | None = None
        self._assembler: Assembler | None = None

    @property
    def images_per_epoch(self) -> int:
        """Images an epoch shows (on average, when copies are drawn)."""
        if self._weights is None:
            return self.release.num_samples
        return expected_images(self._weights)

    @property
    def _least_samples(self) -> int:
        """Samples of the shortest epoch there can be."""
        if self._weights is None:
            return self.release.num_samples
        return int(np.floor(self._weights).sum())

    def plan(self, epoch: int) -> EpochPlan:
        """The order of an epoch."""
        counts = self.release.lengths
        if self._weights is not None:
            counts = shard_counts(self._weights, self.params.seed, epoch)
        return EpochPlan(counts, self.shape, epoch)

    def __iter__(self) -> Iterator[StepBatch]:
        """Yield this worker's steps, for ever."""
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        if info:
            # A forked process cannot use its parent's connections.
            storage = open_storage(self.release.storage.uri)
            self.release = dataclasses.replace(self.release, storage=storage)
            if self.memory is not None:
                self._writer = Writer(self.memory, worker)
        for plan, step in self.steps(worker, workers):
            batch = self.load(plan, step)
            yield batch if self._writer is None else self._writer.to_send(batch)

    def steps(self, worker: int, workers: int) -> Iterator[tuple[EpochPlan, int]]:
        """The steps that one of this process's workers loads, with their epochs' plans."""
        plan, step, number = self.plan(self.start.epoch), self.start.step, 0
        while True:
            if step >= plan.num_steps:
                plan, step = self.plan(plan.epoch + 1), 0
            if number % workers == worker:
                yield plan, step
            number, step = number + 1, step + 1

    def places(self, plan: EpochPlan, step: int) -> Places:
        """This process's share of one step."""
        parts = [plan.samples(step, r) for r in self.virtual_ranks]
        return Places(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def load(self, plan: EpochPlan, step: int) -> StepBatch:
        """Read, decode and crop this process's share of one step.

        Raises:
            StorageError: the storage does not answer.
        """
        if self._assembler is None:
            self._assembler = Assembler(self.release, self.params, self._weights, self._images)
        places = self.places(plan, step)
        micro = [
            self._assembler.batch(
                Places(*(c[i : i + self.micro_batch] for c in places)), plan.epoch
            )
            for i in range(0, len(places.shard), self.micro_batch)
        ]
        last = step + 1 == plan.num_steps
        after = Position(plan.epoch + 1, 0) if last else Position(plan.epoch, step + 1)
        return StepBatch(Position(plan.epoch, step), after, micro)

    def _images(self, count: int, size: int) -> Tensor:
        images = None if self._writer is None else self._writer.empty(count, size)
        return own_memory(count, size) if images is None else images


def for_run(release: Release, run: RunParams) -> Release:
    """The release with the run's time-outs, retries and shard cache.

    Raises:
        ValueError: time-outs that do not fit, or a cache without room for a shard a loader process.
    """
    policy = FetchPolicy(run.read_seconds, run.read_retries, run.read_threads)
    if not release.storage.is_local and 4 * policy.longest_seconds > run.timeout_seconds:
        raise ValueError(
            f"run.timeout_seconds = {run.timeout_seconds:g}, expected at least 4 x "
            f"{policy.longest_seconds:g} s, which a read takes at most by run.read_seconds and "
            "run.read_retries: the loader must fail before a collective does."
        )
    if run.shard_cache is None:
        return dataclasses.replace(release, fetch=policy)
    readers = max(run.workers, 1) * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    largest = int(release.shards.sizes.max(initial=0))
    if run.shard_cache_bytes < readers * largest:
        raise ValueError(
            f"run.shard_cache_bytes = {run.shard_cache_bytes}, expected at least {readers} loader "
            f"processes of this machine x {largest} bytes of the largest shard."
        )
    cache = FileCache(Path(run.shard_cache).expanduser(), run.shard_cache_bytes, policy)
    return dataclasses.replace(release, fetch=policy, cache=cache)


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

    It never draws from the global torch generator, which belongs to the model. A loader process
    that is stuck is given up in half the time in which a collective is: so it is this that fails,
    and every process hears of it (``Feed``).
    """
    run = dataset.params.run
    parallel = run.workers > 0
    return _Loader(
        dataset,
        batch_size=None,
        num_workers=run.workers,
        prefetch_factor=run.prefetch if parallel else None,
        timeout=run.timeout_seconds / 2 if parallel else 0,
        worker_init_fn=_start_process,
        pin_memory=run.device != "cpu" and torch.cuda.is_available(),
        generator=torch.Generator(),
    )


class _Loader(DataLoader[StepBatch]):
    """Gives the processes of each iterator memory of their own, as long as the iterator lives."""

    def __iter__(self) -> _BaseDataLoaderIter:
        dataset = cast(ShardDataset, self.dataset)
        run, size = dataset.params.run, dataset.params.model.image_size
        # In a process of its own: what it has ahead, what the trainer holds, what it gets next.
        places = dataset.micro_batches * (run.prefetch + 2)
        dataset.memory = BatchMemory.for_loader(
            Shape(dataset.micro_batch, size), run.workers, places
        )
        steps = super().__iter__()
        # torch's iterator has no field for it. The memory must live as long as it does, and the
        # dataset must forget it: a second iterator's processes may not write where the first's do.
        steps.batch_memory, dataset.memory = dataset.memory, None  # type: ignore[attr-defined]
        return steps


def _start_process(_worker: int) -> None:
    """Of a loader process.

    A stop signal sent to the whole group must leave the loader alive for the last step. What was
    there before the fork is not looked at by the garbage collector, which would copy its pages.
    """
    gc.freeze()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
