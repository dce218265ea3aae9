"""Runs the chain on a planted world and compares what comes out with what was planted (Z1)."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq

from pipeline.config.inputs import Inputs, Source
from pipeline.config.load import load_config
from pipeline.config.run import RunConfig
from pipeline.demo.planted_duplicate_scores import (
    blocked_scores,
    duplicate_scores,
    validation_scores,
)
from pipeline.demo.planted_scores import (
    Scores,
    concreteness_scores,
    read_truth,
    resampling_scores,
    restriction_scores,
    selection_scores,
)
from pipeline.demo.planted_world import PlantedWorld
from pipeline.files.storage import Storage
from pipeline.runtime.catalog import Catalog, open_catalog
from pipeline.runtime.manifest import TableManifest
from schemas import ALL


def world_config(
    world: PlantedWorld, root: str, overrides: list[str] | None = None, preset: str = "world"
) -> RunConfig:
    """Configuration of a run over a world's tables; the nested annotations stay out, as truth."""
    config = load_config(preset, overrides or [], root)
    names = sorted(set(world.tables) & set(Inputs.model_fields))
    given = {n: Source(path=str(world.tables[n])) for n in names if n != "annotations_nested"}
    return config.model_copy(update={"inputs": config.inputs.model_copy(update=given)})


@dataclass(frozen=True)
class ReleasedSample:
    """One sample of a release, as a reader without this project sees it.

    Attributes:
        shard: name of its shard.
        key: its key.
        suffix: of its image.
        sha256: hex digest of the image's bytes in the tar.
        text: its label names, one a line.
        meta: its JSON.
    """

    shard: str
    key: str
    suffix: str
    sha256: str
    text: str
    meta: Scores


def release_samples(release: Storage) -> Iterator[ReleasedSample]:
    """Every sample of a release by tarfile alone, in the order of the manifest.

    Args:
        release: folder with manifest.json.
    """
    for shard in release.read_json("manifest.json")["shards"]:
        with release.open_read(shard["name"]) as handle, tarfile.open(fileobj=handle) as tar:
            parts: dict[str, dict[str, bytes]] = {}
            for member in tar:
                key, _, suffix = member.name.partition(".")
                content = tar.extractfile(member)
                assert content is not None, f"{shard['name']}: {member.name} is no file"
                parts.setdefault(key, {})[suffix] = content.read()
        for key, files in parts.items():
            text, meta = files.pop("txt").decode(), json.loads(files.pop("json"))
            ((suffix, image),) = files.items()
            digest = hashlib.sha256(image).hexdigest()
            yield ReleasedSample(shard["name"], key, suffix, digest, text, meta)


def release_folder(root: Storage) -> Storage:
    """Folder of the current release of a root."""
    return root.child("release").child(str(root.read_json("release/CURRENT.json")["path"]))


def check_world(world: PlantedWorld, config: RunConfig) -> Scores:
    """Every figure of a finished run, JSON values by area; see the functions it calls."""
    catalog = open_catalog(config.root)
    truth = read_truth(world.read)
    samples = list(release_samples(release_folder(catalog.storage)))
    released = {s.meta["image_id"] for s in samples}
    num_labels = catalog.tables["label_map"].num_rows
    labels = [label for s in samples for label in s.meta["label_ids"]]
    realised = np.bincount(np.array(labels, np.int64), minlength=num_labels).astype(np.int64)
    threshold = config.select_annotations.min_confidence
    scores: Scores = {
        "num_images": world.num_images,
        "num_terms": world.num_terms,
        "seed": world.seed,
        "corrupt": corrupt_scores(catalog, world),
        "concreteness": concreteness_scores(catalog.read, truth),
        "restriction": restriction_scores(catalog.read, truth, threshold),
        "near_duplicates": duplicate_scores(catalog.read, truth),
        "validation": validation_scores(catalog.read, truth, released),
        "blocked": blocked_scores(catalog.read, truth, released),
        "resampling": resampling_scores(catalog.read, realised, config.resample_images.max_copies),
        "ledger": ledger_scores(catalog, world, released),
        "seconds": {name: m.seconds for name, m in catalog.stages.items()},
    }
    if "annotations_nested" in world.tables:
        said = world.read("annotations_nested")
        scores["selection"] = selection_scores(catalog.read, truth, said, threshold)
    return scores


def corrupt_scores(catalog: Catalog, world: PlantedWorld) -> Scores:
    """Rows set aside against rows planted, as (table, key, reason).

    Rows about images that only the corrupt part has are planted too; nothing else may be there.
    """
    planted = Counter(
        (r["table"], r["row_key"], r["reason"])
        for r in world.read("truth/corrupt_rows").to_pylist()
    )
    found: Counter[tuple[str, str, str]] = Counter()
    for name in catalog.tables:
        if name.startswith("rejected_") and "row_key" in ALL[name].column_names:
            table = name.removeprefix("rejected_")
            rows = catalog.read(name, ["row_key", "reason"]).to_pylist()
            found.update((table, r["row_key"], r["reason"]) for r in rows)
    return {
        "num_planted": planted.total(),
        "missing": [list(key) for key in (planted - found).elements()],
        "unexpected": [list(key) for key in (found - planted).elements()],
        "num_reasons": len({key[2] for key in planted}),
    }


def ledger_scores(catalog: Catalog, world: PlantedWorld, released: set[str]) -> Scores:
    """Every stage's lines, the files behind them, and the one fate of every input image.

    Returns:
        ``open``: stages with a line that does not close; ``miscounted``: tables whose files hold
        another number of rows than the manifest says; ``fates``: images by what became of them;
        ``num_without_fate`` and ``num_with_several``.
    """
    lines = {name: m.ledger for name, m in catalog.stages.items() if m.ledger}
    unclosed = [
        name
        for name, ledger in lines.items()
        if any(line.rows_in != line.rows_out + sum(line.dropped.values()) for line in ledger)
    ]
    miscounted = [n for n, t in catalog.tables.items() if _rows_of(catalog, t) != t.num_rows]
    fates = _fates(catalog, released)
    num_in = pq.read_metadata(world.tables["images"]).num_rows
    set_aside = catalog.tables["rejected_images"].num_rows
    images = catalog.read("images", ["image_id"])["image_id"].to_pylist()
    times = Counter(image for group in fates.values() for image in group)
    return {
        "num_stages": len(catalog.stages),
        "num_with_ledger": len(lines),
        "num_lines": sum(map(len, lines.values())),
        "open": unclosed,
        "miscounted": miscounted,
        "num_input_rows": num_in,
        "num_unaccounted": num_in - set_aside - len(images),
        "num_without_fate": len(set(images) - set(times)),
        "num_with_several": sum(n > 1 for n in times.values()),
        "num_invented": len(set(times) - set(images)),
        "fates": {"set_aside": set_aside, **{name: len(group) for name, group in fates.items()}},
    }


def _fates(catalog: Catalog, released: set[str]) -> dict[str, set[str]]:
    """Images by their fate; the sets are disjoint where the chain is right."""

    def ids(table: str, column: str = "image_id") -> set[str]:
        return set(catalog.read(table, [column])[column].to_pylist())

    unique = ids("unique_images")
    rare = catalog.read("excluded_images").to_pylist()
    too_rare = {r["image_id"] for r in rare if r["reason"] == "labels_too_rare"}
    return {
        "undecodable": ids("rejected_fingerprints", "row_key"),
        "dropped": ids("dropped_images"),
        "unlabelled": ids("unlabelled_images") & unique,
        "labels_too_rare": too_rare,
        "resampled_out": ids("resampled_out"),
        "released": released,
    }


def _rows_of(catalog: Catalog, table: TableManifest) -> int:
    count = 0
    for name in catalog.storage.list(table.path):
        if name.endswith(".parquet"):
            with catalog.storage.open_read(f"{table.path}/{name}") as handle:
                count += pq.ParquetFile(handle).metadata.num_rows
    return count
