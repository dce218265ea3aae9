"""Command lines of the jobs: one stage, or the whole chain in one session."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence

from pipeline.config.load import load_config, preset_names
from pipeline.config.run import RunConfig
from pipeline.files.storage import Storage, open_storage
from pipeline.runtime.errors import UserError
from pipeline.runtime.explain import exit_code_of
from pipeline.runtime.logs import setup_logging
from pipeline.runtime.manifest import home_of, read_current
from pipeline.runtime.planning import (
    PlannedStage,
    plan_chain,
    plan_stage,
    published_tables,
)
from pipeline.runtime.progress import Progress
from pipeline.runtime.sources import source_versions
from pipeline.stages.chain import build_chain
from pipeline.stages.stage import Stage


def parse(doc: str | None, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options that every job has: ``--preset``, ``--root``, ``--set``, ``--force``."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--preset", default="tiny", help=f"{', '.join(preset_names())}, or a file")
    parser.add_argument("--root", help="folder or URI of the run, in place of the preset's")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", dest="overrides"
    )
    parser.add_argument("--force", action="store_true", help="run although the output is current")
    return parser.parse_args(argv)


def run_job(stage: Stage) -> None:
    """Command line of one stage, over the tables that are published; exits the process."""
    options = parse(f"{stage.name}: {_arrows(stage)}")
    setup_logging()
    sys.exit(exit_code_of(lambda: _run_one(stage, options)))


def run_pipeline() -> None:
    """Command line of the whole chain in one Spark session; exits the process."""
    options = parse("Run every stage that is not current, in order.")
    setup_logging("WARNING" if sys.stderr.isatty() else "INFO")
    sys.exit(exit_code_of(lambda: run_chain(load_options(options), options.force)))


def run_chain(config: RunConfig, force: bool = False) -> None:
    """Bring every stage of a configuration up to date; opens no session when all are current."""
    storage = open_storage(config.root)
    versions = source_versions(config.inputs, storage)
    planned = plan_chain(build_chain(config), config, storage, versions)
    _run(planned, config, storage, force)


def _run_one(stage: Stage, options: argparse.Namespace) -> None:
    config = load_options(options)
    storage = open_storage(config.root)
    chain = build_chain(config)
    own = {s.name: s for s in chain}
    if stage.name not in own:
        raise UserError(
            f"{stage.name} is not part of this configuration: its inputs are not given, or another "
            f"stage makes its tables. Stages: {', '.join(s.name for s in chain)}."
        )
    stage = own[stage.name]  # the form that this configuration's inputs need
    published = published_tables(storage, chain)
    versions = source_versions(config.inputs, storage)
    versions |= {name: manifest.version for name, manifest in published.items()}
    planned = plan_stage(stage, config, storage, versions)
    _run([planned], config, storage, options.force)


def _run(planned: Sequence[PlannedStage], config: RunConfig, storage: Storage, force: bool) -> None:
    with Progress([p.stage.name for p in planned], _seconds_before(planned, storage)) as progress:
        if all(p.current for p in planned) and not force:
            for p in planned:
                progress.finish(p.stage.name, "current")
            return
        _run_in_session(planned, config, storage, force, progress)


def _run_in_session(
    planned: Sequence[PlannedStage],
    config: RunConfig,
    storage: Storage,
    force: bool,
    progress: Progress,
) -> None:
    # Here and not above: a chain that is current must not wait for Spark's import.
    from pipeline.runtime.lifecycle import Lifecycle
    from pipeline.runtime.session import open_session, watch_tasks

    scratch = storage.path("_scratch") if storage.is_local else None
    name = planned[0].stage.name if len(planned) == 1 else "run_pipeline"
    spark = open_session(name, config.runtime, scratch)
    try:
        lifecycle = Lifecycle(
            spark, config, storage, published_tables(storage, build_chain(config))
        )
        for p in planned:
            if p.current and not force:
                progress.finish(p.stage.name, "current")
                continue
            progress.start(p.stage.name)
            with watch_tasks(spark, functools.partial(progress.update, p.stage.name)):
                manifest = lifecycle.run(p)
            rows = (f"{n} {t.num_rows:,}" for n, t in manifest.tables.items())
            progress.finish(p.stage.name, note=", ".join(rows))
    finally:
        spark.stop()
        if scratch is not None:
            storage.remove("_scratch")


def _seconds_before(planned: Sequence[PlannedStage], storage: Storage) -> dict[str, float]:
    """Seconds that each stage took when it was last published."""
    found = {p.stage.name: read_current(storage, home_of(p.stage)) for p in planned}
    return {name: manifest.seconds for name, manifest in found.items() if manifest is not None}


def load_options(options: argparse.Namespace) -> RunConfig:
    """Configuration that the options of `parse` describe."""
    return load_config(options.preset, options.overrides, options.root)


def _arrows(stage: Stage) -> str:
    inputs = ", ".join(t.name for t in stage.reads)
    return f"{inputs} -> {', '.join(t.name for t in stage.outputs)}"
