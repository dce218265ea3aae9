"""Reads published tables and writes the report: the explorer, pictures, funnel. No Spark.

Cost: small tables whole; of image tables only the rows that are drawn, and one pass over the
report columns of ``duplicate_groups`` and ``image_labels`` until enough examples are found.
"""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

from pipeline.config.run import RunConfig
from pipeline.files.storage import Storage
from pipeline.report import figures
from pipeline.report.funnel import COLUMNS, funnel_rows, to_csv
from pipeline.report.page import Section, to_html
from pipeline.runtime.catalog import Catalog, open_catalog
from pipeline.runtime.explorer.build import write_explorer
from pipeline.runtime.funnel import funnel_steps
from pipeline.runtime.sheets import borderline_pairs, contact_sheet, near_duplicates

logger = logging.getLogger(__name__)


def write_report(config: RunConfig) -> Storage:
    """Write the explorer and draw every picture that the root has tables for.

    ``index.html`` is the explorer, ``pictures.html`` a page of still pictures without scripts.

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
        contact_sheet,
        near_duplicates,
        borderline_pairs,
        _validation,
        _resources,
    ):
        for section, figure in draw(catalog, config):
            if figure is not None:
                _save(folder, section.picture, figure)
            sections.append(section)
    folder.write_bytes_atomic("funnel.csv", to_csv(funnel_steps(catalog)).encode())
    folder.write_bytes_atomic("pictures.html", to_html("Dataset report", sections).encode())
    write_explorer(config, catalog, folder)
    return folder


Drawn = list[tuple[Section, Figure | None]]


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
        table["boundary"].to_numpy(),
        shares,
        config.select_visual_terms.boundary,
        table["metric"].to_numpy(),
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
    text = (
        "Images a label, each series by its own rank, and every label's realised number against "
        "the expected one. Resampling lifts the tail and lowers the head."
    )
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


def _save(folder: Storage, name: str, figure: Figure) -> None:
    folder.write_bytes_atomic(name, figures.to_png(figure))
