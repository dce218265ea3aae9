"""Images of loader processes: places are used again, and never while anything looks at them."""

from __future__ import annotations

import gc
import itertools
import pickle
from typing import ClassVar

import pytest
import torch

from pipeline.train import data
from pipeline.train.batch import Batch, Position, StepBatch
from pipeline.train.batch_memory import BatchMemory, Shape, Writer
from pipeline.train.data import ShardDataset, build_loader
from pipeline.train.release import open_release


class Recorded(BatchMemory):
    """Remembers what was made."""

    made: ClassVar[list[BatchMemory]]

    def __init__(self, *arguments: int, **named: int) -> None:
        super().__init__(*arguments, **named)
        self.made.append(self)


@pytest.fixture
def memory():
    return BatchMemory(Shape(2, 4), processes=2, places=2)


def filled(writer: Writer, value: int) -> StepBatch:
    images = writer.empty(2, 4)
    assert images is not None
    images[:] = value
    empty = torch.empty(0, dtype=torch.int64)
    batch = Batch(
        images, empty, torch.zeros(3, dtype=torch.int64), torch.ones(2) > 0, ["a", "b"], []
    )
    return StepBatch(Position(), Position(0, 1), [batch])


def received(writer: Writer, step: StepBatch) -> Batch:
    """What the trainer's process has of it; the loader process forgets its own."""
    return pickle.loads(pickle.dumps(writer.to_send(step))).micro[0]


def test_a_place_is_free_when_the_last_view_is_gone(memory):
    writer = Writer(memory, 1)
    first = received(writer, filled(writer, 7))
    assert first.images.shape == (2, 3, 4, 4)
    assert first.images.is_contiguous(memory_format=torch.channels_last)
    assert (first.images == 7).all()
    view = first.images[1:, 0]
    del first
    second = received(writer, filled(writer, 8))
    assert writer.empty(2, 4) is None  # of two places one is looked at, one has just come
    assert (view == 7).all()
    assert (second.images == 8).all()
    del view
    gc.collect()
    third = received(writer, filled(writer, 9))
    assert (third.images == 9).all()
    assert (second.images == 8).all()


def test_processes_have_places_of_their_own(memory):
    steps = [
        (w, filled(w, 10 * p + n)) for p in (0, 1) for w in [Writer(memory, p)] for n in (1, 2)
    ]
    values = [int(received(w, step).images.unique()) for w, step in steps]
    assert values == [1, 2, 11, 12]


def test_small_tensors_and_other_images_go_by_value(memory):
    writer = Writer(memory, 0)
    step = filled(writer, 1)
    (batch,) = step.micro
    apart = batch._replace(images=torch.zeros((1, 3, 4, 4), dtype=torch.uint8))
    for sent in (batch, apart):
        got = received(writer, step._replace(micro=[sent]))
        for mine, theirs in zip(got[:4], sent[:4], strict=True):
            assert mine.dtype == theirs.dtype
            assert torch.equal(mine, theirs)
        assert got[4:] == sent[4:]


def test_batches_that_are_kept_stay_as_they_were(release_root, make_params, monkeypatch):
    """More steps are held than there are places; the rest come the usual way."""
    made = []
    monkeypatch.setattr(data, "BatchMemory", Recorded)
    monkeypatch.setattr(Recorded, "made", made, raising=False)
    release = open_release(str(release_root))
    params = make_params(run={"workers": 2, "micro_batch": 4})
    expected = itertools.islice(iter(ShardDataset(release, params, 0, 1, Position())), 24)
    got = list(
        itertools.islice(iter(build_loader(ShardDataset(release, params, 0, 1, Position()))), 24)
    )
    for mine, theirs in zip(got, expected, strict=True):
        for a, b in zip(mine.micro, theirs.micro, strict=True):
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.label_values, b.label_values)
            assert a.keys == b.keys
    (memory,) = made
    in_place = sum(memory.place_of(m.images) is not None for b in got for m in b.micro)
    assert in_place == 2 * 2 * (params.run.prefetch + 2)


def test_processes_that_are_not_forked_have_none(monkeypatch):
    assert BatchMemory.for_loader(Shape(2, 4), 0, 2) is None
    assert BatchMemory.for_loader(Shape(2, 4), 2, 2) is not None
    monkeypatch.setattr("multiprocessing.get_start_method", lambda: "forkserver")
    assert BatchMemory.for_loader(Shape(2, 4), 2, 2) is None
