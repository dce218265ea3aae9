"""A tiny release in the format of jobs/write_release.py, and a recipe that trains on it."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipeline.config.train import TrainParams
from pipeline.kernels.resampling import total_weight

COLOURS = ((230, 40, 40), (40, 200, 60), (50, 70, 230), (240, 220, 40), (150, 60, 170))
FORMATS = (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def picture(labels: list[int], number: int, kind: str) -> bytes:
    """Stripes in the colours of the labels over grey noise."""
    rng = np.random.default_rng(number)
    height, width = 36 + number % 9, 40 + number % 7
    pixels = rng.integers(90, 130, (height, width, 3), dtype=np.uint8)
    for i, label in enumerate(labels):
        pixels[:, i :: len(labels) + 1] = COLOURS[label]
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, quality=90)
    return out.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Add a member with fixed header fields; returns the offset of its data."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(data), 0o644, 0
    offset = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(info, io.BytesIO(data))
    return offset


def write_shard(folder: Path, number: int, samples: list[dict], names: list[str]) -> dict:
    """Write one shard with its index; returns its line of the manifest."""
    name, index_name = f"shards/shard-{number:06d}.tar", f"shards/shard-{number:06d}.index.parquet"
    rows = {k: [] for k in ("key", "suffix", "offset", "size", "label_ids", "weight")}
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for s in samples:
            offset = add(tar, f"{s['key']}.{s['suffix']}", s["data"])
            text = "".join(f"{names[i]}\n" for i in s["labels"])
            add(tar, f"{s['key']}.txt", text.encode())
            add(tar, f"{s['key']}.json", json.dumps(s["json"]).encode())
            values = (s["key"], s["suffix"], offset, len(s["data"]), s["labels"], s["weight"])
            for column, value in zip(rows.values(), values, strict=True):
                column.append(value)
    types = (pa.string(), pa.string(), pa.int64(), pa.int64(), pa.list_(pa.int32()), pa.float32())
    columns = [pa.array(v, t) for v, t in zip(rows.values(), types, strict=True)]
    index = io.BytesIO()
    pq.write_table(pa.table(columns, names=list(rows)), index)
    for path, data in ((name, raw.getvalue()), (index_name, index.getvalue())):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return {
        "name": name,
        "num_samples": len(samples),
        "num_bytes": len(raw.getvalue()),
        "sha256": hashlib.sha256(raw.getvalue()).hexdigest(),
        "index": index_name,
        "index_sha256": hashlib.sha256(index.getvalue()).hexdigest(),
        "weight": total_weight(np.array([s["weight"] for s in samples], np.float32)),
    }


def write_release(
    root: Path,
    shard_sizes: tuple[int, ...] = (13, 7, 12),
    damaged: frozenset[int] = frozenset(),
    unlabelled: frozenset[int] = frozenset(),
    materialised: bool = True,
    weights: tuple[float, ...] = (1.0,),
) -> Path:
    """Write a release of coloured pictures; sample i has 1 + i % 3 labels.

    Args:
        root: gets CURRENT.json and the version folder.
        shard_sizes: samples in each shard.
        damaged: samples whose image bytes are garbage.
        unlabelled: samples without labels.
        materialised: as the manifest says.
        weights: sampling weights, repeated over the samples.
    """
    folder = root / "v1"
    names = [f"colour {i}" for i in range(len(COLOURS))]
    labels = [
        {"label_id": i, "cluster_id": 10 + i, "name": n, "l1_interest": "art"}
        for i, n in enumerate(names)
    ]
    label_map = json.dumps({"labels": labels}).encode()
    shards, number = [], 0
    for shard, size in enumerate(shard_sizes):
        samples = []
        for _ in range(size):
            suffix, kind = FORMATS[number % 3]
            ids = sorted({number % 5, (number // 5) % 5, (number // 7) % 5})[: 1 + number % 3]
            ids = [] if number in unlabelled else ids
            image_id = f"image-{number}"
            key = hashlib.sha256(image_id.encode()).hexdigest()[:32] + "-000"
            good = picture(ids, number, kind)
            samples.append(
                {
                    "key": key,
                    "suffix": suffix,
                    "data": good[: len(good) // 3] if number in damaged else good,
                    "labels": ids,
                    "weight": weights[number % len(weights)],
                    "json": {
                        "image_id": image_id,
                        "label_ids": ids,
                        "label_names": [names[i] for i in ids],
                        "sha256": hashlib.sha256(good).hexdigest(),
                        "copy_index": 0,
                        "source": "test",
                        "licence": "CC0-1.0",
                    },
                }
            )
            number += 1
        shards.append(write_shard(folder, shard, samples, names))
    manifest = {
        "format": 1,
        "num_samples": number,
        "num_images": number,
        "num_labels": len(names),
        "label_map_sha256": hashlib.sha256(label_map).hexdigest(),
        "sampling": {"policy": "inverse_sqrt", "materialised": materialised},
        "seed": 0,
        "shards": shards,
    }
    (folder / "label_map.json").write_bytes(label_map)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (root / "CURRENT.json").write_text(json.dumps({"version": "v1", "path": "v1"}))
    return root


@pytest.fixture(scope="session")
def release_root(tmp_path_factory) -> Path:
    """A sound release of 32 samples in 3 shards."""
    return write_release(tmp_path_factory.mktemp("release"))


@pytest.fixture
def make_release(tmp_path) -> Callable[..., Path]:
    """``write_release`` into a folder of the test."""
    return lambda name="release", **options: write_release(tmp_path / name, **options)


def tiny_values() -> dict:
    """A recipe for 32 samples: ViT of width 32, depth 2, 32 pixels; 4 steps an epoch."""
    return {
        "model": {
            "name": "vit_tiny_patch16_224",
            "image_size": 32,
            "patch_size": 8,
            "width": 32,
            "depth": 2,
            "heads": 2,
            "drop_path": 0.1,
        },
        "data": {"global_batch": 8, "virtual_ranks": 4, "lanes": 2, "window": 8, "chunk": 4},
        "optimizer": {"lr": 3e-3},
        "schedule": {"warmup_steps": 2, "length": "steps", "steps": 8},
        "run": {
            "device": "cpu",
            "workers": 0,
            "checkpoint_every": 3,
            "log_every": 2,
            "tensorboard": False,
        },
    }


def merged(base: dict, over: dict) -> dict:
    """Nested update."""
    out = dict(base)
    for key, value in over.items():
        out[key] = merged(base[key], value) if isinstance(value, dict) else value
    return out


@pytest.fixture(scope="session")
def children() -> multiprocessing.context.BaseContext:
    """Children of a process that has torch loaded and has never used it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.train.loop"])
    return context


@pytest.fixture(scope="session")
def recipe() -> dict:
    """The tiny recipe as plain values."""
    return tiny_values()


@pytest.fixture
def make_params() -> Callable[..., TrainParams]:
    """The tiny recipe with sections changed: ``make_params(data={"lanes": 1})``."""
    return lambda **over: TrainParams.model_validate(merged(tiny_values(), over))
