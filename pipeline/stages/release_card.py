"""The data card of a release: README.md with the header that the Hub and `datasets` read.

Source: Hugging Face dataset cards; SPEC-dataset W5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from pipeline.stages.release_about import ReleaseContents, counts_sentence, licences_of
from pipeline.stages.release_card_text import FILES, LIMITS, POLICIES, TIERS, opening
from schemas.sample import JSON_SUFFIX, SAMPLE_FIELDS, TEXT_SUFFIX

_SIZES = (
    "n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "n>1B",
)  # fmt: skip
_DTYPES = {
    "int": {"dtype": "int64"}, "string": {"dtype": "string"}, "array<int>": {"list": "int64"},
    "array<string>": {"list": "string"},
}  # fmt: skip
_LABELS_SHOWN = 10
_ENDS = ("ingest_images", "assign_shards")
"""Stages whose counts are shown although they drop nothing: the funnel's two ends."""


def data_card(release: ReleaseContents) -> str:
    """The page; equal releases give equal pages."""
    sections = (
        ("Funnel", _funnel(release)),
        ("Labels", _labels(release)),
        ("Sampling", _sampling(release)),
        ("Near-duplicates and validation sets", _near_duplicates(release)),
        ("Licences", _licences(release)),
        ("How to open it", opening(release.suffixes)),
        ("Files", [*FILES]),
        ("Known limits", [*LIMITS]),
        ("Citation", ["```bibtex", release.about["citation"].strip(), "```"]),
    )
    lines = [_header(release), f"# {release.about['title']}", "", *_introduction(release)]
    for title, body in sections:
        lines += ["", f"## {title}", "", *body]
    return "\n".join(lines) + "\n"


def _header(release: ReleaseContents) -> str:
    licence = release.about["licence"]
    header = {
        "pretty_name": release.about["title"],
        "license": "other",
        "license_name": _slug(licence) if licence else "as-stated-by-each-sample",
        "license_link": "LICENCES.md",
        "task_categories": ["image-classification"],
        "size_categories": [size_category(release.statistics["num_samples"])],
        "tags": ["webdataset", "weak-supervision"],
        "dataset_info": {"features": _features(release.suffixes)},
        "configs": [{"config_name": "default", "data_files": "shards/*.tar"}],
    }
    text = yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{text}---\n"


def size_category(num_samples: int) -> str:
    """Name of the size as the Hub has them, from ``n<1K`` to ``n>1B``."""
    digits = len(str(num_samples))
    return _SIZES[max(0, min(digits - 3, len(_SIZES) - 1))]


def _features(suffixes: Sequence[str]) -> list[dict[str, Any]]:
    """Columns as `datasets` has them.

    Without these it would guess them from five samples, and fail where those lack a licence that
    others have, or where there are images of several suffixes.
    """
    record = [{"name": c.name} | _DTYPES[c.type] for c in SAMPLE_FIELDS]
    text = {"dtype": "string"}
    return [
        *({"name": suffix, "dtype": "image"} for suffix in suffixes),
        {"name": TEXT_SUFFIX} | text,
        {"name": JSON_SUFFIX, "struct": record},
        *({"name": name} | text for name in ("__key__", "__url__")),
    ]


def _slug(text: str) -> str:
    kept = "".join(c if c.isascii() and (c.isalnum() or c == ".") else "-" for c in text.lower())
    return "-".join(part for part in kept.split("-") if part)


def _introduction(release: ReleaseContents) -> list[str]:
    about = release.about
    lines = [about["description"].strip(), ""] if about["description"].strip() else []
    lines += [counts_sentence(release), ""]
    facts = {
        "Version": about["release_version"],
        "Published": about["date_published"],
        "Creator": about["creator"],
        "Web page": about["url"],
        "SHA-256 of label_map.json": f"`{release.sha256['label_map.json']}`",
    }
    lines += [f"- {name}: {value}" for name, value in facts.items() if value]
    if release.parent:
        gone = release.removed
        lines.append(
            f"- Re-issued from the release whose manifest.json has SHA-256 `{release.parent}`. "
            f"Taken out since the first issue: {gone['num_samples']:,} samples of "
            f"{gone['num_images']:,} images. Funnel, sampling and certificate speak of the first."
        )
    return lines


def _funnel(release: ReleaseContents) -> list[str]:
    rows = [
        (
            f"`{step['stage']}`",
            step["unit"],
            f"{step['rows_in']:,}",
            f"{step['rows_out']:,}",
            ", ".join(f"{reason} {n:,}" for reason, n in sorted(step["dropped"].items()) if n),
        )
        for step in release.files["funnel.json"]["steps"]
        if step["unit"] in ("images", "samples")
        and (any(step["dropped"].values()) or step["stage"] in _ENDS)
    ]
    return [
        "Images in and out of each stage that drops some, with the reasons. Branches of the chain",
        "start from all images; all counts, of other units too, stand in funnel.json.",
        "",
        *_table(("stage", "unit", "in", "out", "dropped"), rows, right=(2, 3)),
    ]


def _labels(release: ReleaseContents) -> list[str]:
    labels = sorted(
        release.statistics["labels"], key=lambda row: (-row["num_samples"], row["label_id"])
    )
    decades: dict[int, int] = {}
    for row in labels:
        digits = len(str(row["num_samples"])) if row["num_samples"] else 0
        decades[digits] = decades.get(digits, 0) + 1
    spread = [
        (f"{10 ** (n - 1):,} to {10**n - 1:,}" if n else "0", f"{decades[n]:,}")
        for n in sorted(decades, reverse=True)
    ]
    per_image = [
        (f"{row['value']:,}", f"{row['num_images']:,}", f"{row['num_samples']:,}")
        for row in release.statistics["labels_per_image"]
    ]
    few = len(labels) <= 2 * _LABELS_SHOWN
    shown = labels if few else labels[:_LABELS_SHOWN] + labels[-_LABELS_SHOWN:]
    names = (
        "All labels" if few else f"The {_LABELS_SHOWN} most and the {_LABELS_SHOWN} least frequent"
    )
    counts = [
        (_cell(row["name"]), f"{row['num_images_before_resampling']:,}", f"{row['num_samples']:,}")
        for row in shown
    ]
    return [
        "Labels are names of clusters of keywords; label_map.json numbers them.",
        "",
        *_table(("samples of a label", "labels"), spread, right=(0, 1)),
        "",
        *_table(("labels of an image", "images", "samples"), per_image, right=(0, 1, 2)),
        "",
        f"{names}, by samples:",
        "",
        *_table(("label", "images before resampling", "samples"), counts, right=(1, 2)),
    ]


def _sampling(release: ReleaseContents) -> list[str]:
    policy = release.files["config.json"]["resample_images"]
    given = {
        "threshold t": policy["threshold"] and f"{policy['threshold']:.6g}",
        "cap": policy["cap"],
        "most copies of an image": policy["max_copies"],
        "seed": policy["seed"],
    }
    copies = (
        "Repeats are in the shards, so every loader sees the resampled set."
        if policy["materialised"]
        else "Each image is there once; its weight in the shard's index says how often to show it."
    )
    return [
        f"Policy `{policy['policy']}`: {POLICIES[policy['policy']]}",
        f"{', '.join(f'{name} {value}' for name, value in given.items() if value is not None)}. "
        f"{copies}",
    ]


def _near_duplicates(release: ReleaseContents) -> list[str]:
    stages = {stage["stage"]: stage["params"] for stage in release.files["config.json"]["stages"]}
    params = stages.get("group_near_duplicates")
    lines = []
    if params is not None:
        tiers = [TIERS[tier].format(**params) for tier in TIERS if params[tier]]
        lines += [f"One image of each group of near-duplicates is kept: {'; '.join(tiers)}.", ""]
    certificate = release.files.get("certificate.json")
    if certificate is None:
        return [*lines, "No validation sets were given, so no overlap with any was looked for."]
    rows = [
        (
            tier["tier"],
            f"{tier['num_images']:,}",
            f"{tier['num_validation_images']:,}",
            f"{tier['num_pairs_checked']:,.0f}",
            f"{tier['num_removed']:,}",
            f"{tier['limit']:.6g}",
            "none" if tier["nearest_remaining"] is None else f"{tier['nearest_remaining']:.6g}",
        )
        for tier in certificate["tiers"]
    ]
    heads = ("tier", "images", "validation images", "pairs", "removed", "limit", "nearest left")
    return [
        *lines,
        "Every image was compared with every validation image, and those within the limit were",
        "removed; the nearest one that is left is farther than the limit. Distances: 0 for equal",
        "bytes, bits of a 64-bit perceptual hash, 1 - cosine of embeddings.",
        "",
        *_table(heads, rows, right=(1, 2, 3, 4, 5, 6)),
    ]


def _licences(release: ReleaseContents) -> list[str]:
    return [
        "As the input tables state them; nobody checked. Each sample's JSON member has its own,",
        "LICENCES.md has the counts.",
        "",
        *(f"- {' '.join(licence.split())}" for licence in licences_of(release)),
    ]


def _table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()
) -> list[str]:
    rule = ["---:" if place in right else "---" for place in range(len(heads))]
    return [f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows)]


def _cell(value: str) -> str:
    return " ".join(value.split()).replace("|", "\\|")
