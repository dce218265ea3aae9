"""Memory for images that loader processes fill and the trainer's process hands back.

A batch of images that is made in shared memory of its own costs a sixth of the time of decoding
them: every page is new, and the kernel clears it. So the process that trains maps some places
before it forks its loader processes; each of them fills its own places, sends only a place's
number, and takes a place again once nothing in the other process looks at it. Where no place is
free a batch is made the usual way: nobody waits and nothing is overwritten.
"""

from __future__ import annotations

import itertools
import mmap
import multiprocessing
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.train.batch import Batch, StepBatch


class Shape(NamedTuple):
    """Of the images of a micro-batch; uint8, colours last in memory."""

    images: int
    size: int

    @property
    def num_bytes(self) -> int:
        """Of all of them."""
        return self.images * self.size * self.size * 3


class BatchMemory:
    """Places for micro-batches, ``places`` of them a loader process.

    Mapped memory is used as it is touched: images x size x size x 3 bytes a place.
    """

    def __init__(self, shape: Shape, processes: int, places: int) -> None:
        """Map it; to be called before the processes are forked."""
        self.shape = shape
        self._places = places
        self._bytes = np.frombuffer(mmap.mmap(-1, processes * places * shape.num_bytes), np.uint8)
        self._is_taken = np.frombuffer(mmap.mmap(-1, processes * places), np.uint8)
        self.number = next(_NUMBERS)
        _KNOWN[self.number] = self

    @classmethod
    def for_loader(cls, shape: Shape, processes: int, places: int) -> Self | None:
        """None where processes are not forked, so that they could not see the memory."""
        is_forked = multiprocessing.get_start_method() == "fork"
        return cls(shape, processes, places) if processes and is_forked else None

    def take(self, process: int) -> int | None:
        """A free place of a process; None if there is none."""
        first = process * self._places
        free = np.flatnonzero(self._is_taken[first : first + self._places] == 0)
        if not len(free):
            return None
        place = first + int(free[0])
        self._is_taken[place] = 1
        return place

    def images(self, place: int) -> NDArray[np.uint8]:
        """What stands at a place, (count, size, size, 3)."""
        at = place * self.shape.num_bytes
        count, size = self.shape
        return self._bytes[at : at + self.shape.num_bytes].reshape(count, size, size, 3)

    def place_of(self, images: Tensor) -> int | None:
        """The place where a tensor begins; None if it lies elsewhere."""
        offset = images.data_ptr() - self._bytes.ctypes.data
        return offset // self.shape.num_bytes if 0 <= offset < len(self._bytes) else None

    def free(self, place: int) -> None:
        """Let the loader process have a place again."""
        self._is_taken[place] = 0


class Writer:
    """What a loader process makes its batches in."""

    def __init__(self, memory: BatchMemory, process: int) -> None:
        self._memory, self._process = memory, process

    def empty(self, count: int, size: int) -> Tensor | None:
        """uint8 (count, 3, size, size), channels last, with anything in it; None: no place."""
        place = self._memory.take(self._process) if (count, size) == self._memory.shape else None
        if place is None:
            return None
        return torch.from_numpy(self._memory.images(place)).permute(0, 3, 1, 2)

    def to_send(self, step: StepBatch) -> StepBatch:
        """The step as it goes through the queue; unpickled it is the same again.

        Every tensor would go as a file descriptor over a socket of its own, so small ones go by
        value, and images in a place by its number.
        """
        return step._replace(micro=[self._light(m) for m in step.micro])

    def _light(self, batch: Batch) -> Batch:
        small = ("label_values", "label_offsets", "valid")
        light: dict[str, Any] = {name: _ByValue(getattr(batch, name)) for name in small}
        place = self._memory.place_of(batch.images)
        if place is not None:
            light["images"] = _InPlace(self._memory.number, place)
        return batch._replace(**light)


class _ByValue:
    """A small tensor on its way from a loader process."""

    def __init__(self, tensor: Tensor) -> None:
        self._array = tensor.numpy()

    def __reduce__(self) -> tuple[Callable[..., Tensor], tuple[NDArray[Any]]]:
        return torch.from_numpy, (self._array,)


class _InPlace:
    """Images on their way from a loader process."""

    def __init__(self, memory: int, place: int) -> None:
        self._at = memory, place

    def __reduce__(self) -> tuple[Callable[[int, int], Tensor], tuple[int, int]]:
        return _received, self._at


def _received(memory: int, place: int) -> Tensor:
    """The images at a place, which is free again when no view of this tensor is left."""
    known = _KNOWN[memory]
    images = known.images(place)  # an array of its own: the tensor's memory lives as long as it
    weakref.finalize(images, known.free, place).atexit = False
    return torch.from_numpy(images).permute(0, 3, 1, 2)


_NUMBERS = itertools.count()
_KNOWN: weakref.WeakValueDictionary[int, BatchMemory] = weakref.WeakValueDictionary()
"""Of this process and those it forked."""
