"""Variants of the labels in one root, side by side: the paper's Table 2 from configuration alone.

A variant is the run's configuration with some values changed. Stages whose version it shares with
the run, all that lies before the change, are taken as they are; the others run into version folders
of their own that no pointer names, so that readers of the root see the run and nothing else. A
variant that is there is not run again until `make gc` has taken it.

Source: paper Table 2; SPEC M2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from pipeline.config.load import with_overrides
from pipeline.config.run import RunConfig
from pipeline.files.storage import Storage, open_storage
from pipeline.runtime.catalog import Catalog
from pipeline.runtime.cli import run_chain
from pipeline.runtime.funnel import num_labels_in_use
from pipeline.runtime.manifest import StageManifest, read_version
from pipeline.runtime.planning import PlannedStage, plan_chain
from pipeline.runtime.scratch import scratch_folder
from pipeline.runtime.sources import source_versions
from pipeline.stages.chain import build_chain
from pipeline.stages.stage import Stage

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LAST = "label_images"
"""Stage that ends a variant."""
FILE = "report/variants.csv"
"""The table, below the root."""


@dataclasses.dataclass(frozen=True)
class VariantRow:
    """What one variant gives.

    Attributes:
        name: of the variant.
        num_terms: terms that may give a label: the dictionary.
        num_clusters: clusters of these terms.
        num_labels: clusters that some image has: the paper's label count.
        num_images: images with a label.
        num_given: labels over all images, repeats across images counted.
        stages: stage -> version, of the whole variant.
    """

    name: str
    num_terms: int
    num_clusters: int
    num_labels: int
    num_images: int
    num_given: int
    stages: Mapping[str, str]

    @property
    def per_image(self) -> float:
        """Labels of an image that has any."""
        return self.num_given / self.num_images if self.num_images else 0.0


Session = Callable[[], "AbstractContextManager[SparkSession]"]
"""Opens a Spark session."""


def compare_variants(config: RunConfig, force: bool = False) -> list[VariantRow]:
    """Bring the run up to its labels, run what the variants lack, write ``report/variants.csv``.

    Args:
        config: the run; its section ``compare_variants`` names the variants.
        force: run the run's own stages although they are current.
    """
    run_chain(config, force, until=LAST)
    storage = open_storage(config.root)
    chain = build_chain(config)
    chain = chain[: [stage.name for stage in chain].index(LAST) + 1]
    versions = source_versions(config.inputs, storage)
    rows = run_variants(config, storage, chain, versions, {}, lambda: session_of(config, storage))
    storage.write_bytes_atomic(FILE, to_csv(rows).encode())
    return rows


@contextmanager
def session_of(config: RunConfig, storage: Storage) -> Iterator[SparkSession]:
    """A Spark session with a scratch folder below the root."""
    from pipeline.runtime.session import open_session  # waits for Spark's import

    with scratch_folder(storage) as scratch:
        spark = open_session("compare_variants", config.runtime, scratch)
        try:
            yield spark
        finally:
            spark.stop()


def run_variants(
    config: RunConfig,
    storage: Storage,
    chain: Sequence[Stage],
    versions: Mapping[str, str],
    published: Mapping[str, StageManifest],
    session: Session,
) -> list[VariantRow]:
    """Run what the variants of a configuration lack, and count what each gives.

    Args:
        config: the run.
        storage: its root.
        chain: stages of a variant in running order; the last one makes the labels.
        versions: version of each table that the chain is given.
        published: manifests of these tables, sources aside.
        session: called only where a stage is to run.

    Returns:
        a row a variant, in the configuration's order.
    """
    variants = config.compare_variants.variants
    configs = [with_overrides(config, variant.overrides) for variant in variants]
    found = variant_stages(configs, storage, chain, versions, published, session)
    return [_row(v.name, storage, stages) for v, stages in zip(variants, found, strict=True)]


def variant_stages(
    configs: Sequence[RunConfig],
    storage: Storage,
    chain: Sequence[Stage],
    versions: Mapping[str, str],
    published: Mapping[str, StageManifest],
    session: Session,
    tell: Callable[[int, int], None] = lambda *_: None,
) -> list[dict[str, StageManifest]]:
    """Run what some configurations of one root lack; no pointer moves.

    Args:
        configs: of one root; stages of equal version run once.
        storage: the root.
        chain: stages of a variant in running order.
        versions: version of each table that the chain is given.
        published: manifests of these tables, sources aside.
        session: called only where a stage is to run.
        tell: progress, ``tell(stages done, stages)`` of all configurations.

    Returns:
        stage -> manifest, for each configuration.
    """
    plans = [(config, plan_chain(chain, config, storage, versions)) for config in configs]
    is_all_there = all(_found(p, storage, config) for config, plan in plans for p in plan)
    total = len(plans) * len(chain)
    with nullcontext() if is_all_there else session() as spark:
        found: list[dict[str, StageManifest]] = []
        for config, plan in plans:

            def told(number: int, before: int = len(found) * len(chain)) -> None:
                tell(before + number, total)

            found.append(_stages(spark, config, storage, plan, published, told))
    return found


def _found(planned: PlannedStage, storage: Storage, config: RunConfig) -> StageManifest | None:
    layout = config.runtime.num_buckets
    return planned.current or read_version(storage, planned.stage, planned.version, layout)


def _stages(
    spark: SparkSession | None,
    config: RunConfig,
    storage: Storage,
    plan: Sequence[PlannedStage],
    published: Mapping[str, StageManifest],
    tell: Callable[[int], None],
) -> dict[str, StageManifest]:
    """Stage -> manifest of one variant; runs what is not there."""
    tables, stages = dict(published), {}
    for number, planned in enumerate(plan, 1):
        manifest = _found(planned, storage, config)
        if manifest is None:
            from pipeline.runtime.lifecycle import Lifecycle  # waits for Spark's import

            assert spark is not None, f"{planned.stage.name}: gone since the plan was made"
            manifest = Lifecycle(spark, config, storage, tables, moves_pointers=False).run(planned)
        stages[planned.stage.name] = manifest
        tables |= dict.fromkeys(manifest.tables, manifest)
        tell(number)
    return stages


def _row(name: str, storage: Storage, stages: dict[str, StageManifest]) -> VariantRow:
    catalog = Catalog(storage, stages)
    labels = catalog.tables["image_labels"]
    return VariantRow(
        name=name,
        num_terms=catalog.tables["visual_terms"].num_rows,
        num_clusters=catalog.tables["clusters"].num_rows,
        num_labels=num_labels_in_use(catalog),
        num_images=labels.num_rows,
        num_given=labels.totals["cluster_ids"],
        stages={stage: manifest.version for stage, manifest in stages.items()},
    )


def to_csv(rows: Sequence[VariantRow]) -> str:
    """The table as CSV."""
    lines = ["variant,num_terms,num_clusters,num_labels,num_images,per_image"]
    lines += [
        f"{r.name},{r.num_terms},{r.num_clusters},{r.num_labels},{r.num_images},{r.per_image:.4f}"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def variant_lines(rows: Sequence[VariantRow]) -> list[str]:
    """The table as text, for a terminal."""
    cells: list[tuple[str, ...]] = [
        ("variant", "terms", "clusters", "labels", "images", "labels an image")
    ]
    for r in rows:
        numbers = (r.num_terms, r.num_clusters, r.num_labels, r.num_images)
        cells.append((r.name, *(f"{n:,}" for n in numbers), f"{r.per_image:.2f}"))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells
    ]
