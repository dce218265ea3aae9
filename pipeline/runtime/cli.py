"""Command lines of the jobs: one stage, or the whole chain in one session."""

from __future__ import annotations

import argparse
import difflib
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
from pipeline.runtime.scratch import scratch_folder
from pipeline.runtime.sources import source_versions
from pipeline.stages.chain import build_chain
from pipeline.stages.stage import Stage


def parse(doc: str | None, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options that every job has: ``--preset``, ``--root``, ``--set``, ``--force``."""
    return _parser(doc).parse_args(argv)


def _parser(doc: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--preset", default="tiny", help=f"{', '.join(preset_names())}, or a file")
    parser.add_argument("--root", help="folder or URI of the run, in place of the preset's")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", dest="overrides"
    )
    parser.add_argument("--force", action="store_true", help="run although the output is current")
    return parser


def run_job(stage: Stage) -> None:
    """Command line of one stage, over the tables that are published; exits the process."""
    options = parse(f"{stage.name}: {_arrows(stage)}")
    setup_logging()
    sys.exit(exit_code_of(lambda: _run_one(stage, options)))


def run_pipeline() -> None:
    """Command line of the whole chain in one Spark session; exits the process."""
    parser = _parser("Run every stage that is not current, in order.")
    some = parser.add_mutually_exclusive_group()
    some.add_argument("--until", metavar="STAGE", help="stop after this stage")
    some.add_argument(
        "--only", action="append", metavar="STAGE", help="this stage alone, over what is published"
    )
    options = parser.parse_args()
    setup_logging("WARNING" if sys.stderr.isatty() else "INFO")
    sys.exit(exit_code_of(lambda: _run_some(load_options(options), options)))


def _run_some(config: RunConfig, options: argparse.Namespace) -> None:
    run_chain(config, options.force, options.until, options.only or ())


def run_chain(
    config: RunConfig, force: bool = False, until: str | None = None, only: Sequence[str] = ()
) -> None:
    """Bring the stages of a configuration up to date; opens no session when all are current.

    Args:
        config: the run.
        force: run stages although they are current.
        until: name of the stage to stop after; None for the whole chain.
        only: names of the stages to run, over the tables that others have published; empty for
            all.

    Raises:
        UserError: a stage is not part of this configuration.
        ValueError: an input is neither given, published nor made by an earlier stage.
    """
    storage = open_storage(config.root)
    chain = build_chain(config)
    names = [stage.name for stage in chain]
    for name in (*only, *([until] if until else ())):
        _check_name(name, names)
    versions = source_versions(config.inputs, storage)
    if only:
        published = published_tables(storage, chain)
        versions |= {name: manifest.version for name, manifest in published.items()}
        chain = [stage for stage in chain if stage.name in only]
    if until:
        chain = chain[: names.index(until) + 1]
    _run(plan_chain(chain, config, storage, versions), config, storage, force)


def _check_name(name: str, names: Sequence[str]) -> None:
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UserError(
            f"{name} is not part of this configuration: there is no such stage, its inputs are not "
            f"given, or another stage makes its tables.{hint} Stages: {', '.join(names)}."
        )


def _run_one(stage: Stage, options: argparse.Namespace) -> None:
    config = load_options(options)
    storage = open_storage(config.root)
    chain = build_chain(config)
    own = {s.name: s for s in chain}
    _check_name(stage.name, list(own))
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

    name = planned[0].stage.name if len(planned) == 1 else "run_pipeline"
    with scratch_folder(storage) as scratch:
        spark = open_session(name, config.runtime, scratch)
        try:
            published = published_tables(storage, build_chain(config))
            lifecycle = Lifecycle(spark, config, storage, published)
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
