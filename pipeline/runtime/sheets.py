"""Sheets of pictures: labels with their images, near-duplicate groups, borderline pairs."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from pipeline.config.run import RunConfig
from pipeline.kernels.bottom_k import BottomK
from pipeline.kernels.hashing import hash64
from pipeline.kernels.nested import flatten_annotations
from pipeline.kernels.pair_model import PairModel
from pipeline.report import figures
from pipeline.report.page import Section
from pipeline.runtime.catalog import Catalog, rows_of
from pipeline.stages.verify_near_duplicates import rule_of

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


def term_sheet(
    catalog: Catalog, config: RunConfig, captions: dict[int, str], title: str, num: int = 6
) -> Figure | None:
    """Images that carry each of some terms, a row a term.

    Args:
        catalog: of a root.
        config: of the run.
        captions: term_id -> text beside its row, in the order of the rows.
        title: of the sheet.
        num: images a term.

    Returns:
        the sheet; None without ``selected_annotations`` and ``images``, or without terms.

    Cost: a sample of ``selected_annotations``, see `Catalog.sample`.
    """
    tables = ("selected_annotations", "images")
    if not (captions and all(catalog.has(name) for name in tables)):
        return None
    lowest, wanted = BottomK(num, config.report.seed, "term_sheet"), np.array(sorted(captions))
    columns = ["image_id", "annotations"]
    for batch in catalog.sample(tables[0], columns, config.report.explorer.max_rows):
        flat = flatten_annotations(batch["annotations"])
        is_wanted = np.isin(flat.term_ids, wanted)
        lowest.add(batch["image_id"], flat.rows[is_wanted], flat.term_ids[is_wanted])
    examples = lowest.members()
    pictures = _pictures(catalog, [i for ids in examples.values() for i in ids])
    rows = [
        (caption, [(pictures.get(i), "") for i in examples.get(term, [])])
        for term, caption in captions.items()
    ]
    return figures.image_grid(rows, title)


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
        "that differ, the cosine of the embeddings, or the probability that a model gives."
    )
    figure = figures.image_grid(rows, "Near-duplicate groups")
    return [(Section("Near-duplicates", text, "near_duplicates.png"), figure)]


def least_probability(catalog: Catalog, config: RunConfig) -> float:
    """Probability from which a pair of near-duplicates is taken."""
    if config.near_duplicates.verify.min_precision is None:
        return config.near_duplicates.verify.min_probability
    model = PairModel.from_json(catalog.read("pair_models")["model"][0].as_py())
    return rule_of(model, config.near_duplicates).min_probability


def borderline_pairs(catalog: Catalog, config: RunConfig) -> list[tuple[Section, Figure | None]]:
    """Pairs next to the least probability, from both sides, and how many there are in all."""
    tables = ("near_duplicate_pairs", "rejected_pairs")
    if not all(catalog.has(name) for name in tables):
        return []
    limit = least_probability(catalog, config)
    found = [nearest_pairs(catalog, name, limit, config.report.num_groups) for name in tables]
    counts = [int(histogram.sum()) for _, histogram in found]
    if not any(counts):
        return []
    named = [pair for pairs, _ in found for pair in pairs]
    pictures = _pictures(catalog, sorted({i for _, a, b in named for i in (a, b)}))
    rows = []
    for title, (pairs, _) in zip(("taken", "rejected"), found, strict=True):
        for start in range(0, len(pairs), 4):
            cells = []
            for chance, a, b in pairs[start : start + 4]:
                cells += [(pictures.get(a), f"{chance:.3f}"), (pictures.get(b), "")]
            rows.append((title if start == 0 else "", cells))
    shares = found[0][1] + found[1][1]
    bars = ", ".join(f"{k / 10:.1f}-{(k + 1) / 10:.1f}: {int(n):,}" for k, n in enumerate(shares))
    text = (
        f"A model looked at {sum(counts):,} candidates and took {counts[0]:,}. Candidates by "
        f"probability: {bars}. Shown are those next to {limit:g}, two pictures a pair: first "
        "the ones taken, then the ones rejected."
    )
    figure = figures.image_grid(rows, "Borderline pairs")
    return [(Section("Verified pairs", text, "borderline_pairs.png"), figure)]


def nearest_pairs(
    catalog: Catalog, name: str, limit: float, num: int
) -> tuple[list[tuple[float, str, str]], NDArray[np.int64]]:
    """Verified pairs nearest to a probability, and the number of them in ten bins; one scan."""
    best: list[tuple[float, str, str]] = []
    histogram = np.zeros(10, np.int64)
    columns = ["image_id_a", "image_id_b", "probability"]
    for batch in catalog.batches(name):
        rows = batch.select(columns).drop_null()
        chance = rows["probability"].to_numpy()
        histogram += np.histogram(chance, 10, (0.0, 1.0))[0]
        nearest = rows.take(np.argsort(np.abs(chance - limit), kind="stable")[: 2 * num])
        best += [(r["probability"], r["image_id_a"], r["image_id_b"]) for r in nearest.to_pylist()]
        best = sorted(set(best), key=lambda pair: (abs(pair[0] - limit), pair))[:num]
    return best, histogram


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
    return f"{tier}: {1 - distance:.3f}" if tier in ("semantic", "verified") else tier


def _short(text: str, length: int = 28) -> str:
    return text if len(text) <= length else "…" + text[-length + 1 :]
