"""Which samples each step of an epoch shows, as a pure function of (seed, epoch).

The epoch's shuffled sequence is cut into R x G equal ranges: R virtual ranks, G lanes. Step t takes
the next global_batch / R samples from lane t mod G of every virtual rank. Hardware does not occur:
a process is given some of the virtual ranks, so world size, workers and restarts never change what
a step shows, and the samples of any step are found without replaying the steps before it.

The plan knows how often each shard's samples appear in the epoch, never the samples themselves:
it speaks of the i-th appearance in a shard (``pipeline.train.sampling`` says which sample that is).
So it needs one number a shard, whatever the sampling.

Cost at 1.329 billion samples in 132,900 shards, chunk 1024: 1.3 million chunks are sorted by hash
once an epoch in each loader process and kept in 21 MB; a step is then found without replay. The
seconds are measured by `make bench BENCH=loader` (plan_seconds).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.hashing import hash_ints

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PlanShape:
    """What the plan of an epoch depends on besides the shards and the epoch.

    Attributes:
        global_batch: samples a step.
        virtual_ranks: R, divides global_batch.
        lanes: G.
        window: samples shuffled among each other.
        chunk: neighbouring appearances of a shard that stay together.
        seed: of the order.
    """

    global_batch: int
    virtual_ranks: int
    lanes: int
    window: int
    chunk: int
    seed: int

    @property
    def share(self) -> int:
        """Samples a virtual rank gives to a step."""
        return self.global_batch // self.virtual_ranks

    @property
    def unit(self) -> int:
        """Samples of one step in every lane: what an epoch's length is rounded down to."""
        return self.global_batch * self.lanes


class Places(NamedTuple):
    """Appearances by place: two int64 arrays of shape (n,).

    ``place`` counts the appearances of the shard's samples in the epoch; where each sample appears
    once it is the sample's row.
    """

    shard: Ints
    place: Ints


class EpochPlan:
    """The order of one epoch.

    Attributes:
        shape: as given.
        epoch: as given.
        num_samples: samples in the epoch's sequence, repeats counted.
        num_steps: steps of the epoch, a multiple of G. The num_samples - num_steps x global_batch
            samples at the end of the sequence, fewer than G x global_batch, are not shown; which
            ones these are changes with the epoch.
    """

    def __init__(self, counts: Ints, shape: PlanShape, epoch: int) -> None:
        """Plan an epoch.

        Args:
            counts: int64 (num_shards,), appearances in each shard in this epoch.
            shape: batch and range sizes.
            epoch: 0, 1, ...

        Raises:
            ValueError: the release is too small for one step in every lane.
        """
        self.shape = shape
        self.epoch = epoch
        shard, first, size = _chunks(counts, shape.chunk)
        order = _permutation(len(shard), shape.seed, f"chunks/{epoch}")
        self._shard, self._first = shard[order], first[order]
        self._ends = np.cumsum(size[order])
        self.num_samples = int(self._ends[-1]) if len(self._ends) else 0
        rounds = self.num_samples // shape.unit
        check_length(self.num_samples, shape)
        self.num_steps = rounds * shape.lanes
        self._range_size = rounds * shape.share

    def samples(self, step: int, virtual_rank: int) -> Places:
        """Samples one virtual rank gives to one step, in order.

        Args:
            step: 0 <= step < num_steps, counted in the epoch.
            virtual_rank: 0 <= virtual_rank < R.

        Returns:
            global_batch / R samples.
        """
        return self.locate(self.positions(step, virtual_rank))

    def positions(self, step: int, virtual_rank: int) -> Ints:
        """Where in the epoch's sequence the samples of ``samples(step, virtual_rank)`` stand."""
        shape = self.shape
        if not (0 <= step < self.num_steps and 0 <= virtual_rank < shape.virtual_ranks):
            raise IndexError(f"step {step} of {self.num_steps}, virtual rank {virtual_rank}")
        range_id = virtual_rank * shape.lanes + step % shape.lanes
        begin = (step // shape.lanes) * shape.share
        return range_id * self._range_size + self._shuffle(range_id, begin, begin + shape.share)

    def locate(self, positions: Ints) -> Places:
        """Shard and place at positions of the epoch's sequence."""
        chunk = np.searchsorted(self._ends, positions, side="right")
        start = np.where(chunk > 0, self._ends[chunk - 1], 0)
        shard, first = self._shard[chunk], self._first[chunk]
        return Places(shard.astype(np.int64), first + (positions - start))

    def _shuffle(self, range_id: int, begin: int, end: int) -> Ints:
        """Positions [begin, end) of a range after the windows are permuted."""
        parts = []
        for window in range(begin // self.shape.window, (end - 1) // self.shape.window + 1):
            low = window * self.shape.window
            size = min(self.shape.window, self._range_size - low)
            stream = f"window/{self.epoch}/{range_id}/{window}"
            order = low + _permutation(size, self.shape.seed, stream)
            parts.append(order[max(begin - low, 0) : end - low])
        return np.concatenate(parts)


def check_length(num_samples: int, shape: PlanShape) -> None:
    """Refuse an epoch that has not one step in every lane.

    Raises:
        ValueError: as said.
    """
    if num_samples < shape.unit:
        raise ValueError(
            f"{num_samples} samples an epoch, expected at least global_batch x lanes = "
            f"{shape.global_batch} x {shape.lanes}. Lower data.global_batch or data.lanes."
        )


def _chunks(counts: Ints, chunk: int) -> tuple[NDArray[np.int32], NDArray[np.int32], Ints]:
    """Shard, first place and size of every chunk, each of shape (num_chunks,)."""
    pieces = -(-counts // chunk)
    shard = np.repeat(np.arange(len(counts), dtype=np.int32), pieces)
    first = np.arange(len(shard), dtype=np.int64)
    first -= np.repeat(np.cumsum(pieces) - pieces, pieces)
    first *= chunk
    return shard, first.astype(np.int32), np.minimum(chunk, counts[shard] - first)


def _permutation(n: int, seed: int, stream: str) -> Ints:
    """Order by hash: the same in every numpy version, unlike a Generator's stream.

    The hash is one to one, so there are no ties for a sort to break in its own way.
    """
    return np.argsort(hash_ints(np.arange(n), seed, stream))
