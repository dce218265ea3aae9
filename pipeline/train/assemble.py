"""Batches from samples of a plan: open shards, read, decode and crop, mask what is damaged."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from pipeline.config.train import TrainParams
from pipeline.files.fetch import Content, fetch_in_order
from pipeline.kernels.hashing import hash64, uniform
from pipeline.kernels.resampling import total_weight
from pipeline.train.batch import Batch
from pipeline.train.crops import Uniforms, crop_uniforms, flips
from pipeline.train.images import CropRule, PlannedCrop, cut_crop, plan_crop
from pipeline.train.plan import Places
from pipeline.train.release import CorruptSampleError, Release
from pipeline.train.sampling import Appearances, draw_shard, sample_weights
from pipeline.train.shard_index import Member, ShardIndex

TOGETHER = 64
"""Images that are read before the first of them is decoded. After each decoding the processor's
caches hold pixels and no code: reading, and planning a crop, then take four times as long."""
Item = TypeVar("Item")
ImageMemory = Callable[[int, int], Tensor]
"""From count and size to uint8 (count, 3, size, size), channels last, with anything in it."""


class OpenShard(NamedTuple):
    """A shard whose index has been read.

    Attributes:
        members: of the shard.
        epoch: that ``appearances`` were drawn for.
        appearances: None where every sample appears once, in its row's place.
    """

    members: ShardIndex
    epoch: int
    appearances: Appearances | None

    def samples(self, places: NDArray[np.integer]) -> tuple[NDArray[np.integer], list[int]]:
        """Rows and copy numbers of the samples at some places of the epoch."""
        if self.appearances is None:
            return places, [0] * len(places)
        return self.appearances.row[places], self.appearances.copy[places].tolist()


class _Wanted(NamedTuple):
    """One image of a batch.

    Attributes:
        shard: it is in.
        key: of the sample; the shard and the place where the shard cannot be opened.
        copy: number of its appearance in the epoch.
        labels: of the sample.
        member: where its bytes are; None where the shard cannot be opened.
        failure: what is wrong with the shard.
    """

    shard: int
    key: str
    copy: int
    labels: NDArray[np.int32]
    member: Member | None
    failure: str = ""


class Assembler:
    """Makes batches of a release; belongs to one process.

    Memory: the indexes of ``run.index_cache`` shards, one batch, ``TOGETHER`` encoded images, and
    two more a reading thread where the storage is an object store.
    """

    def __init__(
        self,
        release: Release,
        params: TrainParams,
        weights: NDArray[np.float64] | None,
        memory: ImageMemory,
    ) -> None:
        """Nothing is read yet.

        Args:
            release: where the samples are.
            params: of the run.
            weights: that the epochs are planned by, see ``shard_weights``.
            memory: for the images of a batch.
        """
        self._weights, self._memory = weights, memory
        self._release, self._params = release, params
        self._rule = CropRule.of(params.data, params.model.image_size)
        self._open: OrderedDict[int, OpenShard | CorruptSampleError] = OrderedDict()

    def batch(self, places: Places, epoch: int) -> Batch:
        """Read, decode and crop the samples at n places of an epoch.

        Raises:
            StorageError: the storage does not answer.
        """
        wanted = self._wanted(places, epoch)
        keys = pa.array([w.key for w in wanted], pa.string())
        copies = np.array([w.copy for w in wanted], np.int64)
        uniforms = crop_uniforms(keys, copies, self._params.seed, epoch).tolist()
        mirrored = self._mirrored(keys, copies, epoch)
        images = self._memory(len(wanted), self._rule.size)
        valid, failures = np.zeros(len(wanted), np.bool_), []
        read = zip(wanted, uniforms, self._contents(wanted), strict=True)
        found = (self._planned(*one) for one in read)
        for i, planned in enumerate(_together(found, TOGETHER)):
            try:
                if isinstance(planned, Exception):
                    raise planned
                crop = cut_crop(*planned, self._rule, uniforms[i], images[i])
                if mirrored[i]:
                    images[i] = crop.flip(-1)
                valid[i] = True
            except CorruptSampleError as error:
                images[i] = 0
                name = self._release.shards.name(wanted[i].shard)
                failures.append(f"{name} {wanted[i].key}: {error}")
        labels = [
            self._labels(w, epoch) if v else _NONE for w, v in zip(wanted, valid, strict=True)
        ]
        offsets = np.concatenate([[0], np.cumsum([len(x) for x in labels])]).astype(np.int64)
        values = np.concatenate([_NONE, *labels]).astype(np.int64)
        return Batch(
            images,
            torch.from_numpy(values),
            torch.from_numpy(offsets),
            torch.from_numpy(valid),
            [w.key for w in wanted],
            failures,
        )

    def _mirrored(self, keys: pa.Array, copies: NDArray[np.int64], epoch: int) -> NDArray[np.bool_]:
        if not self._params.data.horizontal_flip:
            return np.zeros(len(keys), np.bool_)
        return flips(keys, copies, self._params.seed, epoch)

    def _wanted(self, places: Places, epoch: int) -> list[_Wanted]:
        """The images at the places, in their order; those of a shard are looked up together."""
        found: dict[int, _Wanted] = {}
        for shard in np.unique(places.shard).tolist():
            at = np.flatnonzero(places.shard == shard)
            of_shard = self._of_shard(shard, places.place[at], epoch)
            found |= zip(at.tolist(), of_shard, strict=True)
        return [found[i] for i in range(len(places.shard))]

    def _of_shard(self, shard: int, places: NDArray[np.integer], epoch: int) -> Iterator[_Wanted]:
        opened = self._shard(shard, epoch)
        if isinstance(opened, CorruptSampleError):
            name = self._release.shards.name(shard)
            for place in places.tolist():
                yield _Wanted(shard, f"{name}#{place}", 0, _NONE, None, str(opened))
            return
        rows, copies = opened.samples(places)
        members = opened.members.members(rows)
        for row, copy, member in zip(rows.tolist(), copies, members, strict=True):
            yield _Wanted(shard, member.key, copy, opened.members.labels(row), member)

    def _planned(
        self, wanted: _Wanted, uniforms: Uniforms, content: Content | Exception
    ) -> tuple[bytes, PlannedCrop | None] | Exception:
        """The file and its crop."""
        if isinstance(content, Exception):
            return content
        assert wanted.member is not None
        data = bytes(content)
        try:
            return data, plan_crop(data, wanted.member.suffix, self._rule, uniforms)
        except CorruptSampleError as error:
            return error

    def _contents(self, wanted: list[_Wanted]) -> Iterator[Content | Exception]:
        """Image bytes in order; from an object store many are read at once."""

        def read(w: _Wanted) -> bytes:
            if w.member is None:
                raise CorruptSampleError(w.failure)
            return self._release.read_image(w.shard, w.member)

        if not self._release.storage.is_local:
            fetched = fetch_in_order(wanted, lambda _: None, read, self._release.fetch.threads)
            yield from (content for _, content in fetched)
            return
        for w in wanted:
            try:
                yield read(w)
            except CorruptSampleError as error:
                yield error

    def _labels(self, wanted: _Wanted, epoch: int) -> NDArray[np.int32]:
        """The labels the loss sees: all, or one drawn anew each epoch."""
        labels = wanted.labels
        if self._params.loss != "single_label_softmax" or len(labels) < 2:
            return labels
        stream = f"label/{epoch}/{wanted.copy}"
        u = float(uniform(hash64([wanted.key], self._params.seed, stream))[0])
        chosen = int(u * len(labels))
        return labels[chosen : chosen + 1]

    def _shard(self, shard: int, epoch: int) -> OpenShard | CorruptSampleError:
        found = self._open.pop(shard, None)
        if found is None or (isinstance(found, OpenShard) and found.epoch != epoch):
            found = self._opened(shard, epoch, found)
        self._open[shard] = found  # the last used stands last
        if len(self._open) > self._params.run.index_cache:
            self._open.popitem(last=False)
        return found

    def _opened(
        self, shard: int, epoch: int, before: OpenShard | None
    ) -> OpenShard | CorruptSampleError:
        try:
            index = before.members if before else self._release.read_index(shard)
        except CorruptSampleError as error:
            return error
        weights = sample_weights(index, self._params.data)
        if weights is None:
            return OpenShard(index, epoch, None)
        assert self._weights is not None
        if total_weight(weights) != self._weights[shard]:
            raise ValueError(
                f"{self._release.storage.uri}/{self._release.shards[shard].index}: weights sum to "
                f"{total_weight(weights)}, expected {self._weights[shard]} as in manifest.json."
            )
        return OpenShard(index, epoch, draw_shard(index, weights, shard, self._params.seed, epoch))


def _together(items: Iterator[Item], count: int) -> Iterator[Item]:
    """The items, of which ``count`` are made before the first of them is handed on."""
    while some := list(islice(items, count)):
        yield from some


def own_memory(count: int, size: int) -> Tensor:
    """Memory for images, uint8 (count, 3, size, size), channels last.

    A loader process puts them where the trainer can see them: torch would copy them there.
    """
    shape = (count, size, size, 3)
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8).permute(0, 3, 1, 2)
    images = torch.empty(0, dtype=torch.uint8)
    # torch's own default_collate asks for shared memory by the same call.
    share: Callable[..., torch.UntypedStorage] = images.untyped_storage()._new_shared
    images.set_(share(math.prod(shape), device="cpu"))
    return images.view(shape).permute(0, 3, 1, 2)


_NONE = np.empty(0, np.int32)
