"""Sheets of pictures: labels with their images, near-duplicate groups."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from pipeline.config.run import RunConfig
from pipeline.kernels.hashing import hash64
from pipeline.report import figures
from pipeline.report.page import Section
from pipeline.runtime.catalog import Catalog, rows_of

Picture = NDArray[np.uint8]
SIDE = 128
"""Side of the pictures on the sheets, pixels."""


def contact_sheet(catalog: Catalog, config: RunConfig) -> list[tuple[Section, Figure | None]]:
    """Some labels, from frequent to rare, each with some of its images, drawn by hash."""
    if not (catalog.has("training_images") and catalog.has("label_map")):
        return []
    labels = catalog.read("label_map").sort_by([("num_images", "descending")])
    num, seed = config.report.num_labels, config.report.seed
    places = np.unique(np.linspace(0, labels.num_rows - 1, num).astype(int))
    chosen = labels.take(places)
    wanted = set(chosen["label_id"].to_pylist())
    examples: dict[int, list[str]] = {label: [] for label in wanted}
    for batch in catalog.batches("training_images"):
        order = np.argsort(hash64(batch["image_id"], seed, "contact_sheet"))
        for row in order:
            for label in batch["label_ids"][int(row)].as_py():
                if label in wanted and len(examples[label]) < 8:
                    examples[label].append(batch["image_id"][int(row)].as_py())
        if all(len(found) == 8 for found in examples.values()):
            break
    pictures = _pictures(catalog, [i for found in examples.values() for i in found])
    rows = [
        (
            f"{row['name']}\n{row['l1_interest']}\n{row['num_images']:,} images",
            [(pictures.get(i), "") for i in examples[row["label_id"]]],
        )
        for row in chosen.to_pylist()
    ]
    text = "Labels from the most frequent to the rarest, with some of their images."
    figure = figures.image_grid(rows, "Labels and their images")
    return [(Section("Contact sheet", text, "contact_sheet.png"), figure)]


def near_duplicates(catalog: Catalog, config: RunConfig) -> list[tuple[Section, Figure | None]]:
    """Some near-duplicate groups of every tier: the kept image and those that match it."""
    if not catalog.has("duplicate_groups"):
        return []
    groups = catalog.read("duplicate_groups")
    dropped = groups.filter(pc.not_equal(groups["image_id"], groups["kept_image_id"]))
    if dropped.num_rows == 0:
        return []
    kept = sorted(set(dropped["kept_image_id"].to_pylist()))
    chosen = _spread(kept, dropped, config.report.num_groups, config.report.seed)
    members = {k: dropped.filter(pc.equal(dropped["kept_image_id"], k)).slice(0, 7) for k in chosen}
    ids = [*chosen, *(i for m in members.values() for i in m["image_id"].to_pylist())]
    pictures = _pictures(catalog, ids)
    rows = []
    for kept_id, group in members.items():
        cells = [(pictures.get(kept_id), "kept")]
        cells += [
            (pictures.get(r["image_id"]), _closeness(r["tier"], r["distance"]))
            for r in group.to_pylist()
        ]
        rows.append((_short(kept_id), cells))
    text = (
        f"{len(kept):,} groups, {dropped.num_rows:,} images dropped. Each row shows the kept image "
        "and near-duplicates of it, with the tier that found them: bits of the perceptual hash "
        "that differ, or the cosine of the embeddings."
    )
    figure = figures.image_grid(rows, "Near-duplicate groups")
    return [(Section("Near-duplicates", text, "near_duplicates.png"), figure)]


def _spread(kept: list[str], dropped: pa.Table, num: int, seed: int) -> list[str]:
    """Some groups of every tier, drawn by hash."""
    chosen: list[str] = []
    tiers = sorted(set(dropped["tier"].to_pylist()))
    for tier in tiers:
        of_tier = sorted(
            set(dropped.filter(pc.equal(dropped["tier"], tier))["kept_image_id"].to_pylist())
        )
        order = np.argsort(hash64(of_tier, seed, "report_groups"))
        chosen += [of_tier[int(i)] for i in order[: -(-num // len(tiers))]]
    return list(dict.fromkeys(chosen))[:num] or kept[:num]


def _pictures(catalog: Catalog, ids: list[str]) -> dict[str, Picture]:
    """Thumbnails by image_id, for those whose bytes are in ``images``."""
    if not ids:
        return {}
    rows = rows_of(catalog, "images", ids, ["image_id", "bytes"])
    found = {}
    for row in rows.to_pylist():
        if row["bytes"] is not None:
            found[row["image_id"]] = _thumbnail(row["bytes"])
    return found


def _thumbnail(data: bytes) -> Picture:
    with Image.open(io.BytesIO(data), formats=["JPEG", "PNG", "WEBP"]) as image:
        small = image.convert("RGBA")
        small.thumbnail((SIDE, SIDE))
        sheet = Image.new("RGB", (SIDE, SIDE), "white")
        place = ((SIDE - small.width) // 2, (SIDE - small.height) // 2)
        sheet.paste(small, place, small)
        return np.asarray(sheet)


def _closeness(tier: str, distance: float) -> str:
    """What a distance means: bits that differ, or a cosine."""
    if tier == "perceptual":
        return f"perceptual: {distance:.0f} bits"
    return f"semantic: {1 - distance:.3f}" if tier == "semantic" else tier


def _short(text: str, length: int = 28) -> str:
    return text if len(text) <= length else "…" + text[-length + 1 :]
