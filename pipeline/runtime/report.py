"""Reads published tables and writes the report: pictures, funnel, one page. No Spark.

Cost: small tables whole; of image tables only the rows that are drawn, and one pass over the
report columns of ``duplicate_groups`` and ``image_labels`` until enough examples are found.
"""

from __future__ import annotations

import io
import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from pipeline.config.run import RunConfig
from pipeline.files.storage import Storage
from pipeline.kernels.hashing import hash64
from pipeline.report import figures
from pipeline.report.funnel import COLUMNS, FunnelStep, funnel_rows, to_csv
from pipeline.report.page import Section, to_html
from pipeline.runtime.catalog import Catalog, open_catalog, rows_of

logger = logging.getLogger(__name__)

Picture = NDArray[np.uint8]
SIDE = 128
"""Side of the pictures on the sheets, pixels."""


def write_report(config: RunConfig) -> Storage:
    """Draw everything that the root has tables for.

    Args:
        config: the run; its root is read, ``<root>/report`` written.

    Returns:
        the report's folder.
    """
    catalog = open_catalog(config.root)
    folder = catalog.storage.child("report")
    sections = []
    for draw in (
        _funnel,
        _concreteness,
        _sweep,
        _extremes,
        _labels,
        _clusters,
        _contact_sheet,
        _near_duplicates,
        _validation,
        _resources,
    ):
        for section, figure in draw(catalog, config):
            if figure is not None:
                _save(folder, section.picture, figure)
            sections.append(section)
    folder.write_bytes_atomic("funnel.csv", to_csv(funnel_steps(catalog)).encode())
    folder.write_bytes_atomic("index.html", to_html("Dataset report", sections).encode())
    return folder


Drawn = list[tuple[Section, Figure | None]]


def funnel_steps(catalog: Catalog) -> list[FunnelStep]:
    """The funnel from the stages' counts; steps whose tables are missing are left out."""
    tables, steps = catalog.tables, []
    if "annotations" in tables:
        found = tables["annotations"]
        num = _used_terms(catalog, "annotations")
        given = found.totals["annotations"]
        steps.append(FunnelStep("annotations", num, "terms", found.num_rows, given))
    label_stage = catalog.stages.get("label_images")
    if label_stage is not None:
        counts = label_stage.counts
        visual = tables["visual_terms"].num_rows if "visual_terms" in tables else 0
        kinds = (
            ("selected", _used_terms(catalog, "selected_annotations"), "terms"),
            ("visual dictionary", visual, "terms"),
            ("clusters", tables["clusters"].num_rows, "clusters"),
            ("interest restriction", _used_clusters(catalog), "clusters"),
        )
        for (name, num, kind), key in zip(
            kinds, ("selected", "visual", "clustered", "restricted"), strict=True
        ):
            images, labels = counts[f"funnel.{key}.images"], counts[f"funnel.{key}.labels"]
            steps.append(FunnelStep(name, num, kind, images, labels))
    if "training_images" in tables:
        found, num = tables["training_images"], tables["label_map"].num_rows
        given = found.totals["label_ids"]
        steps.append(FunnelStep("near-duplicates out", num, "labels", found.num_rows, given))
    if "resampling_report" in tables and "samples" in tables:
        report = catalog.read("resampling_report")
        realised = pc.sum(report["realised_after"]).as_py() or 0
        num = pc.sum(pc.greater(report["realised_after"], 0)).as_py() or 0
        copies = tables["samples"].totals["copies"]
        steps.append(FunnelStep("resampled", num, "labels", copies, realised))
    return steps


def _used_terms(catalog: Catalog, table: str) -> int:
    seen: set[int] = set()
    for batch in catalog.batches(table, ["annotations"]):
        flat = pc.list_flatten(batch["annotations"]).combine_chunks()
        seen |= set(pc.unique(pc.struct_field(flat, "term_id")).to_pylist())
    return len(seen)


def _used_clusters(catalog: Catalog) -> int:
    seen: set[int] = set()
    for batch in catalog.batches("image_labels", ["cluster_ids"]):
        seen |= set(pc.unique(pc.list_flatten(batch["cluster_ids"])).to_pylist())
    return len(seen)


def _funnel(catalog: Catalog, config: RunConfig) -> Drawn:
    steps = funnel_steps(catalog)
    if not steps:
        return []
    text = "Images and classes that each step leaves; after resampling an image may count often."
    figure = figures.funnel(
        [s.name for s in steps], [s.num_images for s in steps], [s.per_image for s in steps]
    )
    section = Section("Funnel", text, "funnel.png", COLUMNS, funnel_rows(steps))
    return [(section, figure)]


def _concreteness(catalog: Catalog, config: RunConfig) -> Drawn:
    if not catalog.has("term_concreteness"):
        return []
    scores = catalog.read("term_concreteness")["concreteness"].to_numpy()
    boundary = config.select_visual_terms.boundary
    figure = figures.concreteness_histogram(scores.astype(np.float64), boundary)
    num = int(np.isfinite(scores.astype(np.float64)).sum())
    text = f"{num:,} terms were scored; those right of the boundary make the visual dictionary."
    return [(Section("Visual concreteness", text, "concreteness.png"), figure)]


def _sweep(catalog: Catalog, config: RunConfig) -> Drawn:
    if not catalog.has("concreteness_sweep"):
        return []
    table = catalog.read("concreteness_sweep")
    shares = {}
    for name in ("num_terms", "num_annotations", "num_images"):
        values = table[name].to_numpy().astype(np.float64)
        shares[name.removeprefix("num_")] = values / max(values.max(initial=1.0), 1.0)
    figure = figures.sweep(
        table["boundary"].to_numpy(), shares, config.select_visual_terms.boundary
    )
    text = "Share of terms, annotations and images that each decision boundary would keep."
    return [(Section("Choice of the boundary", text, "concreteness_sweep.png"), figure)]


def ranked_terms(catalog: Catalog) -> pa.Table:
    """Scored terms with their text, most concrete first, ties by term_id."""
    scores = catalog.read("term_concreteness")
    scores = scores.filter(pc.is_valid(scores["concreteness"]))
    terms = catalog.read("terms", ["term_id", "text"])
    joined = scores.join(terms, "term_id", join_type="inner")
    return joined.sort_by([("concreteness", "descending"), ("term_id", "ascending")])


def _extremes(catalog: Catalog, config: RunConfig) -> Drawn:
    if not (catalog.has("term_concreteness") and catalog.has("terms")):
        return []
    ranked = ranked_terms(catalog)
    if ranked.num_rows == 0:
        return []
    figure = figures.extreme_terms(
        ranked["text"].to_pylist(),
        ranked["concreteness"].to_numpy(),
        ranked["standard_error"].to_numpy(),
        config.report.num_terms,
    )
    text = (
        "Concreteness says whether a term can be told from the picture by this embedding, not "
        "whether people call it concrete. Bars carry the standard error of the accuracy."
    )
    return [(Section("Most and least concrete terms", text, "concrete_terms.png"), figure)]


def _labels(catalog: Catalog, config: RunConfig) -> Drawn:
    if not catalog.has("resampling_report"):
        return []
    table = catalog.read("resampling_report")
    figure = figures.label_distribution(
        table["num_before"].to_numpy(),
        table["expected_after"].to_numpy(),
        table["realised_after"].to_numpy(),
        config.resample_images.policy,
    )
    text = "Images a label, by rank. Resampling lifts the tail and lowers the head."
    return [(Section("Label distribution", text, "label_distribution.png"), figure)]


def _clusters(catalog: Catalog, config: RunConfig) -> Drawn:
    if not catalog.has("clusters"):
        return []
    clusters = catalog.read("clusters")
    rows = []
    for interest in sorted(set(clusters["l1_interest"].to_pylist())):
        part = clusters.filter(pc.equal(clusters["l1_interest"], interest))
        largest = part.sort_by([("num_terms", "descending"), ("cluster_id", "ascending")])
        names = ", ".join(largest["name"].to_pylist()[:6])
        rows.append(
            (interest, f"{part.num_rows:,}", f"{pc.sum(part['num_terms']).as_py():,}", names)
        )
    text = "Clusters of terms inside each interest, with the names of the largest."
    header = ("interest", "clusters", "terms", "largest")
    return [(Section("Clusters", text, header=header, rows=rows), None)]


def _contact_sheet(catalog: Catalog, config: RunConfig) -> Drawn:
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


def _near_duplicates(catalog: Catalog, config: RunConfig) -> Drawn:
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
            (pictures.get(r["image_id"]), f"{r['tier']} {r['distance']:.3g}")
            for r in group.to_pylist()
        ]
        rows.append((_short(kept_id), cells))
    text = (
        f"{len(kept):,} groups, {dropped.num_rows:,} images dropped. Each row shows the kept image "
        "and near-duplicates of it, with the tier that found them and their distance."
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


def _validation(catalog: Catalog, config: RunConfig) -> Drawn:
    if not catalog.has("validation_certificate"):
        return []
    header = ("tier", "images", "validation images", "removed", "limit", "nearest remaining")
    rows = [
        (
            r["tier"],
            f"{r['num_images']:,}",
            f"{r['num_validation_images']:,}",
            f"{r['num_removed']:,}",
            f"{r['limit']:.4g}",
            "-" if r["nearest_remaining"] is None else f"{r['nearest_remaining']:.4g}",
        )
        for r in catalog.read("validation_certificate").to_pylist()
    ]
    text = "Images removed because a validation image is near, and the nearest one that remains."
    return [(Section("Validation overlap", text, header=header, rows=rows), None)]


def _resources(catalog: Catalog, config: RunConfig) -> Drawn:
    header = ("stage", "seconds", "rows out", "dropped")
    rows = [
        (
            name,
            f"{m.seconds:.1f}",
            ", ".join(f"{t}: {x.num_rows:,}" for t, x in m.tables.items()),
            ", ".join(f"{r} {n:,}" for line in m.ledger for r, n in line.dropped.items()),
        )
        for name, m in sorted(catalog.stages.items(), key=lambda item: item[1].finished)
    ]
    text = "Every stage with its time, its rows and what it dropped, by reason."
    return [(Section("Ledger", text, header=header, rows=rows), None)]


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
        image.thumbnail((SIDE, SIDE))
        sheet = Image.new("RGB", (SIDE, SIDE), "white")
        place = ((SIDE - image.width) // 2, (SIDE - image.height) // 2)
        sheet.paste(image.convert("RGB"), place)
        return np.asarray(sheet)


def _short(text: str, length: int = 28) -> str:
    return text if len(text) <= length else "…" + text[-length + 1 :]


def _save(folder: Storage, name: str, figure: Figure) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    folder.write_bytes_atomic(name, buffer.getvalue())
