"""A release whose pictures show their labels, made in seconds: what training tests learn from.

A picture is grey noise of 4 x 4 cells; each of its labels fills one cell, at a place of chance,
with the label's own texture. Labels occur as 1 / rank, so the last ones are rare. Half the images
have one label, a third two, a sixth three.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.kernels.resampling import image_weights, make_rule, rarest_counts
from pipeline.kernels.samples import Sample, sample_key, sample_members
from pipeline.kernels.tar import member_header

CELL, CELLS = 8, 4
SIDE = CELL * CELLS


@dataclass(frozen=True)
class PlantedRelease:
    """What to plant.

    Attributes:
        num_images: in the release.
        num_labels: labels, the first the most frequent.
        seed: of pictures and labels.
        permuted: labels are dealt to the images by chance: nothing can be learned.
        num_shards: files.
    """

    num_images: int = 1200
    num_labels: int = 16
    seed: int = 0
    permuted: bool = False
    num_shards: int = 4


def texture(label: int) -> np.ndarray:
    """The label's own cell, uint8 (8, 8, 3)."""
    return np.random.default_rng((77, label)).integers(0, 256, (CELL, CELL, 3), dtype=np.uint8)


def picture(labels: np.ndarray, rng: np.random.Generator) -> bytes:
    """A PNG of 32 x 32 pixels."""
    pixels = rng.integers(100, 156, (SIDE, SIDE, 3), dtype=np.uint8)
    for label, place in zip(labels, rng.permutation(CELLS**2)[: len(labels)], strict=True):
        top, left = CELL * (place // CELLS), CELL * (place % CELLS)
        pixels[top : top + CELL, left : left + CELL] = texture(int(label))
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()


def draw_labels(rng: np.random.Generator, num_labels: int) -> np.ndarray:
    """One to three labels, ascending."""
    share = 1 / np.arange(1, num_labels + 1)
    count = rng.choice([1, 2, 3], p=[1 / 2, 1 / 3, 1 / 6])
    return np.sort(rng.choice(num_labels, count, replace=False, p=share / share.sum()))


def plant(root: Path, planted: PlantedRelease = PlantedRelease()) -> Path:
    """Write the release, not materialised, policy inverse_sqrt; returns ``root``."""
    rng = np.random.default_rng((5, planted.seed))
    labels = [draw_labels(rng, planted.num_labels) for _ in range(planted.num_images)]
    pictures = [picture(own, rng) for own in labels]
    if planted.permuted:
        labels = [labels[i] for i in rng.permutation(len(labels))]
    weights = _weights(labels, planted.num_labels)
    names = [f"texture {i}" for i in range(planted.num_labels)]
    folder = root / "v1"
    (folder / "shards").mkdir(parents=True)
    of_shard = np.array_split(np.arange(planted.num_images), planted.num_shards)
    shards = [
        _write_shard(folder, s, [(i, labels[i], pictures[i], weights[i]) for i in rows], names)
        for s, rows in enumerate(of_shard)
    ]
    entries = [
        {"label_id": i, "cluster_id": i, "name": n, "l1_interest": f"interest {i % 4}"}
        for i, n in enumerate(names)
    ]
    label_map = json.dumps({"labels": entries}).encode()
    manifest = {
        "format": 1,
        "num_samples": planted.num_images,
        "num_images": planted.num_images,
        "num_labels": planted.num_labels,
        "label_map_sha256": hashlib.sha256(label_map).hexdigest(),
        "sampling": {"policy": "inverse_sqrt", "materialised": False},
        "seed": planted.seed,
        "shards": shards,
    }
    (folder / "label_map.json").write_bytes(label_map)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (root / "CURRENT.json").write_text(json.dumps({"version": "v1", "path": "v1"}))
    return root


def _weights(labels: list[np.ndarray], num_labels: int) -> np.ndarray:
    values = np.concatenate(labels)
    offsets = np.concatenate([[0], np.cumsum([len(x) for x in labels])]).astype(np.int64)
    counts = np.bincount(values, minlength=num_labels)
    rarest = rarest_counts(offsets, values, counts)
    ones = np.ones(len(rarest), np.int64)
    rule = make_rule("inverse_sqrt", counts, rarest, ones, None, None, None, 20)
    return image_weights(rule, offsets, values)


def _write_shard(folder: Path, number: int, rows: list[tuple], names: list[str]) -> dict:
    name = f"shards/shard-{number:06d}"
    tar = bytearray()
    columns: dict[str, list] = {
        k: [] for k in ("key", "suffix", "offset", "size", "label_ids", "weight")
    }
    for i, own, data, weight in rows:
        key = sample_key(f"planted-{i}", 0)
        ids = [int(x) for x in own]
        sha256 = hashlib.sha256(data).hexdigest()
        sample = Sample(key, "png", f"planted-{i}", 0, ids, sha256, "planted", "CC0-1.0")
        given = (key, "png", len(tar) + 512, len(data), ids, weight)
        for column, value in zip(columns.values(), given, strict=True):
            column.append(value)
        for member, content in sample_members(sample, data, names):
            tar += member_header(member, len(content)) + bytes(content)
            tar += bytes(-len(tar) % 512)
    tar += bytes(1024)
    types = (pa.string(), pa.string(), pa.int64(), pa.int64(), pa.list_(pa.int32()), pa.float32())
    arrays = [pa.array(v, t) for v, t in zip(columns.values(), types, strict=True)]
    index = io.BytesIO()
    pq.write_table(pa.table(arrays, names=list(columns)), index)
    (folder / f"{name}.tar").write_bytes(bytes(tar))
    (folder / f"{name}.index.parquet").write_bytes(index.getvalue())
    return {
        "name": f"{name}.tar",
        "num_samples": len(rows),
        "num_bytes": len(tar),
        "sha256": hashlib.sha256(bytes(tar)).hexdigest(),
        "index": f"{name}.index.parquet",
        "index_sha256": hashlib.sha256(index.getvalue()).hexdigest(),
    }


def tagged_folder(root: Path, num_classes: int, per_class: int, others: int = 0) -> Path:
    """A folder for each of the labels from ``others`` on; two labels below it stand beside each.

    The classes are rarer in a planted release than what stands beside them.
    """
    rng = np.random.default_rng(6)
    for label in range(others, others + num_classes):
        folder = root / f"texture_{label:02d}"
        folder.mkdir(parents=True)
        for i in range(per_class):
            shown = np.append(rng.permutation(others)[:2], label)
            (folder / f"{i:03d}.png").write_bytes(picture(shown, rng))
    return root


def recipe(steps: int, seed: int = 0, sampling: str = "natural", holdout: float = 0.2) -> dict:
    """A small vision transformer that learns the textures in a few hundred steps."""
    return {
        "seed": seed,
        "model": {
            "name": "vit_tiny_patch16_224",
            "image_size": SIDE,
            "patch_size": CELL,
            "width": 64,
            "depth": 2,
            "heads": 2,
        },
        "data": {
            "global_batch": 64,
            "virtual_ranks": 2,
            "lanes": 1,
            "window": 512,
            "chunk": 16,
            "sampling": sampling,
            "holdout_share": holdout,
            "crop_min_area": 1.0,
            "crop_max_aspect": 1.0,
            "eval_crop": 1.0,
        },
        "optimizer": {"lr": 2e-3},
        "schedule": {"warmup_steps": steps // 10, "length": "steps", "steps": steps - steps // 10},
        "run": {
            "device": "cpu",
            "workers": 0,
            "threads": 1,
            "log_every": 10,
            "checkpoint_every": steps,
            "tensorboard": False,
        },
    }
