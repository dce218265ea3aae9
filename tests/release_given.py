"""A small release without Spark: literal samples through the writer of shards and side files."""

import hashlib
import io
import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.dataset import WriteReleaseParams
from pipeline.files.fetch import FetchPolicy
from pipeline.files.storage import open_storage
from pipeline.kernels.samples import sample_key
from pipeline.stages.release_compare import compare_release, report_rows
from pipeline.stages.release_files import write_release_files
from pipeline.stages.shard_check import check_shard
from pipeline.stages.shard_files import PlannedSample, ShardTask
from pipeline.stages.stage import StageRecord, content_version
from schemas.dataset import (
    LABEL_MAP,
    RELEASE_STATISTICS,
    RESAMPLING_REPORT,
    SAMPLING_POLICY,
    SHARD_PLAN,
    SHARDS,
)
from schemas.images import VALIDATION_CERTIFICATE

LABELS = ("tree", "blue jay", "ärger")


def image_id(i):
    return f"dir/im.ä{i}"


IMAGES_FILE = "images.bin"
"""Holds the images while the shards are written."""


def content(i):
    return b"image %d " % i * (1 + i % 70)


def write_small_release(
    folder, num_shards=3, per_shard=4, image=content, image_format="jpeg", certified=True, **about
):
    """Every fourth image has two copies; returns the release's storage.

    ``image_format`` is one, or a function of the image's number; ``about`` goes to the parameters.
    """
    storage, samples, i = open_storage(str(folder)), [], 0
    while len(samples) < num_shards * per_shard:
        samples += [(i, copy) for copy in range(2 if i % 4 == 0 else 1)]
        i += 1
    samples = samples[: num_shards * per_shard]
    rows = [row(*sample, place, num_shards, image, image_format)
            for place, sample in enumerate(samples)]  # fmt: skip
    stored = io.BytesIO()
    for planned, (i, _) in zip(rows, samples, strict=True):
        planned["offset"] = stored.tell()
        stored.write(image(i))
    storage.write_bytes_atomic(IMAGES_FILE, stored.getvalue())
    rows.sort(key=lambda r: (r["shard_id"], r["position"]))
    task = ShardTask(storage, ".", FetchPolicy(threads=1))
    records = list(task.write([pa.RecordBatch.from_pylist(rows, schema())], LABELS))
    for record in records:
        record["name"] = record["name"].removeprefix("./")
    tables, params = side_tables(rows, records), WriteReleaseParams(**about)
    if not certified:
        tables[VALIDATION_CERTIFICATE.name] = None
    history = records_of(params, len(rows), certified)
    write_release_files(storage, ".", **tables, params=params, history=history)
    storage.remove("_done")
    storage.remove(IMAGES_FILE)
    return storage


def schema():
    text, number = pa.string(), pa.int64()
    types = {"label_ids": pa.list_(pa.int32()), "weight": pa.float64()}
    numbers = ("shard_id", "position", "copy_index", "num_bytes", "offset")
    return pa.schema(
        [(n, types.get(n, number if n in numbers else text)) for n in PlannedSample._fields]
    )


def row(i, copy, place, num_shards, image, image_format):
    data = image(i)
    return {
        "shard_id": place % num_shards,
        "position": place // num_shards,
        "key": sample_key(image_id(i), copy),
        "image_id": image_id(i),
        "copy_index": copy,
        "label_ids": [0, 1 + i % 2],
        "weight": 0.25 + i,
        "sha256": hashlib.sha256(data).hexdigest(),
        "format": image_format(i) if callable(image_format) else image_format,
        "num_bytes": len(data),
        "uri": None,
        "source": f"s{i % 2}",
        "licence": "CC0 | a" if i % 3 else None,
        "part": IMAGES_FILE,
        "offset": 0,
    }


def records_of(params, num_samples, certified=True):
    """History of two stages: the names of the chain, made-up counts."""
    line = {"unit": "images", "rows_in": 20, "rows_out": 16}
    line["dropped"] = {"duplicate_exact": 3, "blocked": 1}
    sources = {"source_images": "0123456789abcdef"}
    first = record("drop_near_duplicates", {"drop_blocked_duplicates": True}, sources, line)
    inputs = {"images": first.version}
    if certified:
        inputs["validation_certificate"] = first.version
    line = {"unit": "samples", "rows_in": num_samples, "rows_out": num_samples, "dropped": {}}
    return [first, record("write_release", params.model_dump(mode="json"), inputs, line)]


def record(stage, params, inputs, line):
    version = content_version(stage, 1, params, inputs)
    return StageRecord(stage, version, 1, params, inputs, [line])


def side_tables(rows, records):
    statistics = {}
    for line in (line for record in records for line in record["statistics"]):
        sums = statistics.setdefault((line["kind"], line["value"]), dict.fromkeys(line, 0))
        for name in ("num_images", "num_samples", "num_bytes"):
            sums[name] += line[name]
    counts = [sum(label in r["label_ids"] for r in rows) for label in range(len(LABELS))]
    tables = {
        SHARDS: [{n: record[n] for n in SHARDS.column_names} for record in records],
        RELEASE_STATISTICS: [s | {"kind": k, "value": v} for (k, v), s in statistics.items()],
        LABEL_MAP: [
            {"label_id": c, "cluster_id": 7 + c, "name": n, "l1_interest": "art", "num_images": 1}
            for c, n in enumerate(LABELS)
        ],
        RESAMPLING_REPORT: [
            {"label_id": c, "num_before": n, "expected_after": n + 0.5, "realised_after": n}
            for c, n in enumerate(counts)
        ],
        SAMPLING_POLICY: [
            {"policy": "inverse_sqrt", "materialised": True, "threshold": 0.1, "cap": None,
             "max_copies": 20, "seed": 3, "num_images": len(rows)}
        ],
        SHARD_PLAN: [
            {"seed": 9, "samples_per_shard": 4, "num_shards": len(records),
             "num_samples": len(rows)}
        ],
        VALIDATION_CERTIFICATE: [
            {"tier": "exact", "num_images": 16, "num_validation_images": 2,
             "num_pairs_checked": 32.0, "num_removed": 0, "limit": 0.0, "nearest_remaining": None}
        ],
    }  # fmt: skip
    return {t.name: pa.Table.from_pylist(r, t.arrow_schema) for t, r in tables.items()}


def sign(storage, shards=(), files=()):
    """Make the manifest agree with what is there now, so that only contents give damage away."""
    manifest = storage.read_json("manifest.json")
    for line in manifest["shards"]:
        if line["name"] in shards or line["index"] in shards:
            raw, index = (storage.read_bytes(line[part]) for part in ("name", "index"))
            line |= {"sha256": digest(raw), "num_bytes": len(raw), "index_sha256": digest(index)}
    for line in manifest["files"]:
        if line["name"] in files:
            line["sha256"] = digest(storage.read_bytes(line["name"]))
            if line["name"] == "label_map.json":
                manifest["label_map_sha256"] = line["sha256"]
    storage.write_bytes_atomic("manifest.json", json.dumps(manifest, indent=1).encode())


def digest(raw):
    return hashlib.sha256(raw).hexdigest()


def verify_here(storage):
    """What `verify_release` finds, without Spark."""

    def shard_rows(lines, names):
        return [row for line in lines for row in report_rows(check_shard(storage, line, names))]

    def repeated_keys(lines):
        tables = [pq.read_table(io.BytesIO(storage.read_bytes(line["index"]))) for line in lines]
        counts = Counter(key for table in tables for key in table["key"].to_pylist())
        return [(key, number) for key, number in counts.items() if number > 1]

    return compare_release(storage, shard_rows, repeated_keys)
