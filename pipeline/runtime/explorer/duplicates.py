"""Near-duplicate groups side by side, pairs next to the limit, and validation removals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pipeline.report import charts
from pipeline.report.blocks import Block, Column, Value, View, chart, gallery, group, picture, table
from pipeline.runtime.explorer.sampling import Reading, lowest_by_hash
from pipeline.runtime.sheets import least_probability, nearest_pairs

_BITS = "bits of the perceptual hash that differ"


def duplicates(reading: Reading) -> View | None:
    """Groups with what was kept and dropped and why.

    Cost: a sample of ``duplicate_groups``, one scan of the probabilities of verified pairs.
    """
    if not reading.has("duplicate_groups"):
        return None
    blocks = [*_reasons(reading), *_groups(reading), *_borderline(reading)]
    text = (
        "One image of each group of near-duplicates is kept: not blocked, then the larger, then "
        "the one with more labels."
    )
    return View("duplicates", "Near-duplicates", text, blocks)


def _reasons(reading: Reading) -> Iterator[Block]:
    if not reading.has("dropped_images"):
        return
    reasons = dict(sorted(reading.catalog.tables["dropped_images"].reasons.items()))
    if not reasons:
        return
    option = charts.bars(list(reasons), {"images": list(reasons.values())}, "images")
    text = "Images dropped before labelling, by reason."
    yield chart("reasons", "Dropped images", text, option, 60 + 30 * len(reasons))


def _groups(reading: Reading) -> Iterator[Block]:
    """Groups of every tier, those lowest by hash of the kept image."""
    columns = ["image_id", "kept_image_id", "tier", "distance", "is_blocked"]
    by_kept: dict[str, list[dict[str, Value]]] = {}
    for batch in reading.sample("duplicate_groups", columns):
        for row in batch.to_pylist():
            if row["image_id"] != row["kept_image_id"]:
                by_kept.setdefault(row["kept_image_id"], []).append(row)
    tiers = sorted({row["tier"] for rows in by_kept.values() for row in rows})
    chosen: dict[str, list[dict[str, Value]]] = {}
    for tier in tiers:
        mine = ((k, rows) for k, rows in by_kept.items() if any(r["tier"] == tier for r in rows))
        share = -(-reading.params.num_groups // len(tiers))
        chosen |= dict(lowest_by_hash(mine, share, reading.seed, "explorer_groups"))
    size = reading.params.group_size
    ids = [i for k, rows in chosen.items() for i in (k, *(r["image_id"] for r in rows[:size]))]
    files = reading.shelf.load("images", ids)
    groups = []
    for kept, rows in chosen.items():
        shown = [
            picture(
                kept,
                files.get(kept),
                _blocked(rows),
                "dropped" if rows[0]["is_blocked"] else "kept",
            )
        ]
        for row in rows[:size]:
            image_id = row["image_id"]
            shown.append(
                picture(
                    image_id,
                    files.get(image_id),
                    closeness(row["tier"], row["distance"]),
                    "dropped",
                )
            )
        more = f", {len(rows) - size} of them not shown" if len(rows) > size else ""
        groups.append(group(kept, f"{len(rows)} dropped{more}", shown))
    text = (
        "Each group with the tier that found the dropped image: equal bytes, " + _BITS + ", the "
        "cosine of the embeddings, or the probability that a model gives. From "
        + reading.sampled("duplicate_groups")
        + "."
    )
    yield gallery("groups", "Groups side by side", text, groups)


def _blocked(rows: list[dict[str, Value]]) -> str:
    return "blocked, with its group" if rows[0]["is_blocked"] else ""


def closeness(tier: str, distance: float | None) -> str:
    """What a distance means, in words."""
    if distance is None:
        return tier
    if tier == "perceptual":
        return f"perceptual, {distance:.0f} bits"
    return f"{tier}, {1 - distance:.3f}" if tier in ("semantic", "verified") else tier


def _borderline(reading: Reading) -> Iterator[Block]:
    if not reading.has("near_duplicate_pairs", "rejected_pairs"):
        return
    limit, num = least_probability(reading.catalog, reading.config), reading.params.num_groups // 2
    for name, title, mark in (
        ("near_duplicate_pairs", "Pairs just taken", "taken"),
        ("rejected_pairs", "Pairs just rejected", "rejected"),
    ):
        pairs, histogram = nearest_pairs(reading.catalog, name, limit, num)
        if not pairs:
            continue
        files = reading.shelf.load("images", [i for _, a, b in pairs for i in (a, b)])
        groups = [
            group(
                f"{mark} at {chance:.3f}",
                f"{a} and {b}",
                [picture(i, files.get(i)) for i in (a, b)],
            )
            for chance, a, b in pairs
        ]
        text = (
            f"{int(histogram.sum()):,} candidates were {mark}; these are next to the least "
            f"probability of {limit:g}."
        )
        yield gallery(name.replace("_", "-"), title, text, groups)


def validation(reading: Reading) -> View | None:
    """The certificate, and removed images beside the validation images they match.

    Cost: a sample of ``validation_overlaps`` (removed images only).
    """
    if not reading.has("validation_certificate"):
        return None
    columns = [
        Column("tier"),
        Column("images", "count"),
        Column("validation images", "count"),
        Column("pairs compared", "count"),
        Column("removed", "count"),
        Column("limit", "real"),
        Column("nearest that remains", "real"),
    ]
    fields = ("tier", "num_images", "num_validation_images", "num_pairs_checked", "num_removed",
              "limit", "nearest_remaining")  # fmt: skip
    rows = [
        [row[f] for f in fields]
        for row in reading.catalog.read("validation_certificate").to_pylist()
    ]
    text = f"Distances: 0 for equal bytes, {_BITS}, 1 - cosine."
    blocks = [table("certificate", "Certificate", text, columns, rows), *_removals(reading)]
    text = "No image of the release is near an image of a validation set; these were removed."
    return View("validation", "Validation", text, blocks)


def _removals(reading: Reading) -> Iterator[Block]:
    if not reading.has("validation_overlaps"):
        return
    columns = ["image_id", "tier", "validation_id", "distance"]
    found: dict[tuple[str, str], list[str]] = {}
    for batch in reading.sample("validation_overlaps", columns):
        for row in batch.to_pylist():
            key = (row["image_id"], row["validation_id"])
            found.setdefault(key, []).append(closeness(row["tier"], row["distance"]))
    named: Iterable[tuple[str, Value]] = (
        (f"{a}\t{b}", (a, b, how)) for (a, b), how in found.items()
    )
    chosen = [
        value
        for _, value in lowest_by_hash(
            named, reading.params.num_groups, reading.seed, "explorer_validation"
        )
    ]
    files = reading.shelf.load("images", [a for a, _, _ in chosen])
    theirs = reading.shelf.load("validation_images", [b for _, b, _ in chosen])
    groups = [
        group(b, ", ".join(how), [
            picture(b, theirs.get(b), "validation image"), picture(a, files.get(a), "", "dropped"),
        ])
        for a, b, how in chosen
    ]  # fmt: skip
    text = f"{len(found):,} pairs within the limit in {reading.sampled('validation_overlaps')}."
    yield gallery("removals", "Removed images beside the validation image", text, groups)
