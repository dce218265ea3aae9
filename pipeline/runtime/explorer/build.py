"""Writes the explorer of a root: views from its tables, pictures of examples, one page. No Spark.

Cost: small tables whole; of image tables samples of ``report.explorer.max_rows`` rows, and the
funnel's two scans of term and cluster ids.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.config.run import RunConfig
from pipeline.files.storage import Storage
from pipeline.report.blocks import View
from pipeline.report.site import write_site
from pipeline.runtime.catalog import Catalog
from pipeline.runtime.explorer.ablations import ablations
from pipeline.runtime.explorer.clusters import clusters
from pipeline.runtime.explorer.duplicates import duplicates, validation
from pipeline.runtime.explorer.interests import interests
from pipeline.runtime.explorer.labels import labels
from pipeline.runtime.explorer.overview import overview
from pipeline.runtime.explorer.pictures import Shelf
from pipeline.runtime.explorer.rejected import rejected
from pipeline.runtime.explorer.run import run
from pipeline.runtime.explorer.sampling import Reading
from pipeline.runtime.explorer.terms import concreteness
from pipeline.runtime.explorer.training import training

_VIEWS: tuple[Callable[[Reading], View | None], ...] = (
    overview,
    concreteness,
    clusters,
    labels,
    interests,
    duplicates,
    validation,
    rejected,
    run,
    training,
    ablations,
)


def write_explorer(config: RunConfig, catalog: Catalog, folder: Storage) -> None:
    """Write ``index.html`` with its data; views whose tables are missing are left out.

    Args:
        config: the run.
        catalog: of its root.
        folder: where the explorer goes.
    """
    shelf = Shelf(catalog, config, folder)
    reading = Reading(catalog, config, shelf)
    views = [view for make in _VIEWS if (view := make(reading)) is not None]
    write_site(folder, "Dataset explorer", _about(catalog), views, shelf.packs)


def _about(catalog: Catalog) -> str:
    tables = catalog.tables
    if "written_shards" not in tables:
        return f"{len(tables)} tables; no release yet."
    totals = tables["written_shards"].totals
    labels = tables["label_map"].num_rows if "label_map" in tables else 0
    return (
        f"A release of {totals['num_samples']:,} samples with {labels:,} labels, version "
        f"{catalog.stages['write_release'].version}."
    )
