"""Damage is masked and counted; an outage is retried, then stops every process with its reason."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import re
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from object_store import BUCKET, object_store
from ports import free_port

from pipeline.files.storage import open_storage
from pipeline.train import loop
from pipeline.train.batch import Position
from pipeline.train.data import ShardDataset, build_loader
from pipeline.train.distributed import World
from pipeline.train.feed import Feed, LoaderError
from pipeline.train.release import open_release

RUN = {"read_seconds": 12.0, "read_retries": 2, "read_threads": 4}
"""Time-outs that a busy machine keeps."""
STALLED = {"read_seconds": 1.0, "read_retries": 1, "read_threads": 4}
NUMBERS = itertools.count()
SHARD = "shards/shard-000001.tar"
INDEX = "shards/shard-000001.index.parquet"


def one_epoch(root, params):
    dataset = ShardDataset(open_release(str(root)), params, 0, 1, Position())
    plan = dataset.plan(0)
    return [m for step in range(plan.num_steps) for m in dataset.load(plan, step).micro]


def remove(folder):
    (folder / SHARD).unlink()


def truncate(folder):
    raw = (folder / SHARD).read_bytes()
    (folder / SHARD).write_bytes(raw[: len(raw) // 2])


def swap(folder):
    other = folder / "shards/shard-000000.tar"
    ours, theirs = (folder / SHARD).read_bytes(), other.read_bytes()
    (folder / SHARD).write_bytes(theirs)
    other.write_bytes(ours)


def corrupt(folder):
    raw = np.frombuffer((folder / SHARD).read_bytes(), np.uint8).copy()
    raw[700:] ^= 0x55
    (folder / SHARD).write_bytes(raw.tobytes())


def remove_index(folder):
    (folder / INDEX).unlink()


def corrupt_index(folder):
    (folder / INDEX).write_bytes((folder / INDEX).read_bytes()[:-1] + b"x")


@pytest.mark.parametrize(
    ("damage", "bad", "message"),
    [
        (remove, [7], "no such file"),
        (truncate, range(1, 8), "bytes at offset|tar member ''"),
        (swap, [20], "tar member"),
        (corrupt, [7], "tar member|not decodable"),
        (remove_index, [7], "no such file"),
        (corrupt_index, [7], "index.parquet: sha256"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_a_damaged_shard_is_masked_with_exact_denominators(
    make_release, make_params, damage, bad, message
):
    """A shard of 7 of 32: the others come through, the counts add up, batches stay full."""
    root = make_release()
    good = {k for m in one_epoch(root, make_params()) for k in m.keys}
    damage(root / "v1")
    micro = one_epoch(root, make_params())
    assert [len(m.keys) for m in micro] == [8, 8, 8, 8]
    failures = [f for m in micro for f in m.failures]
    assert len(failures) == sum(int((~m.valid).sum()) for m in micro)
    assert len(failures) in bad
    pattern = re.compile(message)
    assert all(pattern.search(f) for f in failures), failures
    for m in micro:
        assert (m.label_offsets.diff()[~m.valid] == 0).all()
        assert (m.images[~m.valid] == 0).all()
    seen = [k for m in micro for k, v in zip(m.keys, m.valid.tolist(), strict=True) if v]
    assert len(set(seen)) == len(seen) == 32 - len(failures)
    assert set(seen) <= good


def test_a_shard_without_one_good_sample_and_the_rate_that_stops(
    make_release, make_params, tmp_path
):
    """Seven bad of 32 pass below the limit; above it the run ends and names the reason."""
    root = make_release(damaged=frozenset(range(13, 20)))
    data = {"corrupt_window": 4, "max_corrupt_rate": 0.25}
    assert loop.pretrain(make_params(data=data), str(root), str(tmp_path / "a")).finished
    data["max_corrupt_rate"] = 0.2
    with pytest.raises(ValueError, match=r"images of the last .* could not be read"):
        loop.pretrain(make_params(data=data), str(root), str(tmp_path / "b"))


# --- an object store -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store():
    with pytest.MonkeyPatch.context() as patch, object_store(patch) as running:
        yield running


@pytest.fixture
def bucket(store, release_root):
    """The small release on S3, where no reader of an earlier test asks for anything."""
    target = open_storage(f"s3://{BUCKET}/release-{next(NUMBERS)}")
    store.calm()
    for path in sorted(release_root.rglob("*")):
        if path.is_file():
            target.write_bytes_atomic(str(path.relative_to(release_root)), path.read_bytes())
    store.calm()
    yield target.uri
    store.calm()


def tar_requests(store, bucket):
    folder = bucket.removeprefix("s3:/")
    tars = [
        n for (_, path), n in store.requests.items() if path.endswith(".tar") and folder in path
    ]
    return sum(tars)


def same(ours, theirs):
    return all(
        a.keys == b.keys and torch.equal(a.images, b.images)
        for a, b in zip(ours, theirs, strict=True)
    )


def test_reading_over_a_failing_network_gives_the_same_batches(
    store, bucket, release_root, make_params
):
    """Errors, resets and cut bodies at the first try of every second request."""
    params = make_params(run=RUN)
    expected = one_epoch(release_root, params)
    kinds = itertools.cycle(["error", None, "reset", None, "cut", None])
    store.fault = lambda method, path, n: next(kinds) if method == "GET" and n < 4 else None
    assert same(one_epoch(bucket, params), expected)
    assert sum(store.met.values()) >= 3


def test_loader_processes_connect_anew_after_a_fork(store, bucket, release_root, make_params):
    params = make_params(run=RUN | {"workers": 2})
    dataset = ShardDataset(open_release(bucket), params, 0, 1, Position())
    batches = itertools.islice(iter(build_loader(dataset)), 4)
    assert same([b.micro[0] for b in batches], one_epoch(release_root, params))


def test_a_stalled_store_is_given_up(store, bucket, make_params):
    """No answer ever: two tries of a second each, then an error that names the file."""
    params = make_params(run=STALLED)
    dataset = ShardDataset(open_release(bucket), params, 0, 1, Position())
    store.seconds = 4.0
    store.fault = lambda method, path, n: "stall" if path.endswith(".tar") else None
    started = time.perf_counter()
    with pytest.raises(LoaderError, match=r"rank 0: StorageError: .*no answer within 1 s"):
        Feed(dataset, World(0, 1, torch.device("cpu"))).next()
    assert time.perf_counter() - started < 25
    assert store.met["stall"] >= 2


def test_a_shard_that_is_gone_or_short_on_the_store_is_damage(store, bucket, make_params):
    version = open_storage(f"{bucket}/v1")
    raw = version.read_bytes(SHARD)
    version.write_bytes_atomic(SHARD, raw[:600])
    short = one_epoch(bucket, make_params(run=RUN | {"read_retries": 0}))
    assert sum(len(m.failures) for m in short) == 7
    version.remove(SHARD)
    gone = one_epoch(bucket, make_params(run=RUN | {"read_retries": 0}))
    failures = [f for m in gone for f in m.failures]
    assert len(failures) == 7
    assert all("no such file" in f for f in failures)


def test_whole_shards_are_cached_checked_and_read_once(
    store, bucket, release_root, make_params, tmp_path
):
    run = RUN | {"shard_cache": str(tmp_path / "cache"), "shard_cache_bytes": 10**6}
    expected = one_epoch(release_root, make_params())
    assert same(one_epoch(bucket, make_params(run=run)), expected)
    gets = tar_requests(store, bucket)
    assert 3 <= gets <= 9  # a read a shard, which a busy machine may try again; not one a sample
    assert same(one_epoch(bucket, make_params(run=run)), expected)
    assert tar_requests(store, bucket) == gets
    version = open_storage(f"{bucket}/v1")
    raw = bytearray(version.read_bytes(SHARD))
    raw[-1] ^= 1  # no sample's byte: only the hash tells
    version.write_bytes_atomic(SHARD, bytes(raw))
    run["shard_cache"] = str(tmp_path / "other")
    failures = [f for m in one_epoch(bucket, make_params(run=run)) for f in m.failures]
    assert len(failures) == 7
    assert all("sha256" in f for f in failures)


def test_times_and_room_that_cannot_work_are_refused_at_the_start(bucket, make_params):
    release = open_release(bucket)
    with pytest.raises(ValueError, match=r"run\.timeout_seconds = 5, expected at least 4 x"):
        ShardDataset(release, make_params(run={"timeout_seconds": 5}), 0, 1, Position())
    run = {"shard_cache": "x", "shard_cache_bytes": 1000, "workers": 2}
    with pytest.raises(ValueError, match="at least 2 loader processes"):
        ShardDataset(release, make_params(run=run), 0, 1, Position())


# --- several processes ---------------------------------------------------------------------------


def _feed_of(rank, port, root, values, folder):
    """Rank 1 alone meets a broken disk in its second step."""
    from pipeline.config.train import TrainParams
    from pipeline.files.storage import Storage

    address = f"tcp://127.0.0.1:{port}"
    wait = timedelta(seconds=30)
    dist.init_process_group("gloo", address, rank=rank, world_size=2, timeout=wait)
    params = TrainParams.model_validate(values)
    dataset = ShardDataset(open_release(root), params, rank, 2, Position())
    feed, told = Feed(dataset, World(rank, 2, torch.device("cpu"))), []
    if rank == 1:
        plain, reads = Storage.read_range, itertools.count()

        def broken(self, *arguments):
            if next(reads) >= 4:
                raise OSError(5, "Input/output error", arguments[0])
            return plain(self, *arguments)

        Storage.read_range = broken
    started = time.perf_counter()
    try:
        while True:
            told.append(feed.next().position.step)
    except LoaderError as error:
        told.append(str(error))
    seconds = time.perf_counter() - started
    Path(folder, f"{rank}.json").write_text(json.dumps([told, seconds]))
    dist.destroy_process_group()


def test_one_process_that_cannot_read_stops_all_at_the_same_step(
    release_root, recipe, tmp_path, monkeypatch
):
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("fork")  # torch need not be imported again
    arguments = (free_port(), str(release_root), recipe, str(tmp_path))
    ranks = [context.Process(target=_feed_of, args=(rank, *arguments)) for rank in (0, 1)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(90)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    (first, first_seconds), (second, second_seconds) = found
    assert first == second
    assert first[0] == 0
    assert "1 of 2 processes could not load the next step: rank 1: OSError" in first[-1]
    assert "Input/output error" in first[-1]
    assert max(first_seconds, second_seconds) < 20  # the collective's own limit is 30
