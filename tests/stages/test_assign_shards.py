"""The deal of samples to shards, against a whole other computation in plain Python."""

from collections import Counter, defaultdict

import pytest
from given import run_stage

from pipeline.config.dataset import AssignShardsParams
from pipeline.kernels.hashing import hash64
from pipeline.kernels.samples import sample_key
from pipeline.stages.assign_shards import STAGE
from schemas.dataset import SAMPLES
from schemas.images import UNIQUE_IMAGES
from schemas.ingested import IMAGES

COPIES = [1, 3, 1, 2, 7, 1, 12, 1, 1, 2]
ROWS = [
    {
        "image_id": f"ímage.{i:03d}",
        "label_ids": [i % 5, 5],
        "weight": i / 7,
        "copies": COPIES[i % len(COPIES)],
    }
    for i in range(120)
]
UNIQUE = [
    {
        "image_id": row["image_id"],
        "sha256": f"{i:064x}",
        "format": ("jpeg", "png", "webp")[i % 3],
        "num_bytes": i + 1,
    }
    for i, row in enumerate(ROWS)
]


IMAGES_GIVEN = [
    dict.fromkeys(IMAGES.column_names)
    | {"image_id": row["image_id"], "source": f"s{i % 3}", "licence": "CC0" if i % 2 else None}
    | ({"uri": f"/{i}"} if i % 4 == 0 else {"bytes": bytes([i]) * (i + 1), "num_bytes": i + 1})
    for i, row in enumerate(ROWS)
]


def signed(ids, seed, stream):
    return hash64(ids, seed, stream).view("int64").tolist()


def oracle(samples_per_shard, seed):
    """The whole assignment, one list at a time."""
    ids = [row["image_id"] for row in ROWS]
    deck = sorted(zip(signed(ids, seed, "shard_deal"), ids, ROWS, UNIQUE, strict=True))
    copies = [(r, u, copy) for _, _, r, u in deck for copy in range(r["copies"])]
    num_shards = -(-len(copies) // samples_per_shard)
    shards = defaultdict(list)
    for place, (row, unique, copy) in enumerate(copies):
        key = sample_key(row["image_id"], copy)
        (order,) = signed([key], seed, "shard_order")
        shards[place % num_shards].append((order, key, copy, row, unique))
    return [
        {"shard_id": shard, "position": position, "key": key, "copy_index": copy}
        | {k: row[k] for k in ("image_id", "label_ids", "weight")}
        | {k: unique[k] for k in ("sha256", "format", "num_bytes")}
        for shard in range(num_shards)
        for position, (_, key, copy, row, unique) in enumerate(sorted(shards[shard]))
    ]


def assign(spark, root, num_buckets=2, **params):
    given = {SAMPLES: ROWS, UNIQUE_IMAGES: UNIQUE, IMAGES: IMAGES_GIVEN}
    section = AssignShardsParams(**params)
    storage, _, got = run_stage(spark, root, STAGE, given, num_buckets, assign_shards=section)
    return storage, got


def test_assignment_equals_the_oracle_for_any_layout(spark, tmp_path):
    wanted = oracle(20, seed=5)
    for num_buckets in (1, 5):
        root = tmp_path / str(num_buckets)
        storage, got = assign(spark, root, num_buckets, samples_per_shard=20, seed=5)
        rows = [{name: row[name] for name in wanted[0]} for row in got["shard_assignments"]]
        assert rows == wanted
        assert got["shard_plan"] == [
            {"seed": 5, "samples_per_shard": 20, "num_shards": 19, "num_samples": 372}
        ]
        check_places(storage, got["shard_assignments"])
    check_properties(got["shard_assignments"], 19)
    assert [row["key"] for row in wanted] != [row["key"] for row in oracle(20, seed=6)]


def check_places(storage, rows):
    """Every image is where its sample says."""
    known = {row["image_id"]: row for row in IMAGES_GIVEN}
    for row in rows:
        image = known[row["image_id"]]
        same = ("uri", "source", "licence")
        assert [row[name] for name in same] == [image[name] for name in same]
        if image["bytes"] is None:
            assert row["part"] is row["offset"] is None
        else:
            found = storage.read_range(row["part"], row["offset"], image["num_bytes"])
            assert found == image["bytes"]


def check_properties(rows, num_shards):
    sizes = Counter(row["shard_id"] for row in rows)
    assert len(sizes) == num_shards
    assert max(sizes.values()) - min(sizes.values()) <= 1
    assert len({row["key"] for row in rows}) == len(rows) == sum(row["copies"] for row in ROWS)
    shards_of = defaultdict(list)
    for row in rows:
        shards_of[row["image_id"]].append(row["shard_id"])
    assert all(len(set(shards)) == len(shards) for shards in shards_of.values())


def test_image_without_bytes_is_a_named_breach(spark, tmp_path):
    given = {SAMPLES: ROWS, UNIQUE_IMAGES: UNIQUE[:-1], IMAGES: IMAGES_GIVEN}
    with pytest.raises(ValueError, match=r"shard_assignments\.sha256: 2 nulls, expected none"):
        run_stage(spark, tmp_path, STAGE, given)
