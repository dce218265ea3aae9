"""The life of a stage: read, run, read back, check, settle the ledger, publish. Learn it here.

Nothing is visible before the last step, which replaces one small pointer. A run that was killed
leaves an unnamed folder; the next one continues in it.
"""

from __future__ import annotations

import datetime
import logging
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import cache

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipeline.config.run import RunConfig
from pipeline.files.storage import Storage
from pipeline.runtime.batchwise import BatchwiseRun, run_batchwise
from pipeline.runtime.earlier import StagePast
from pipeline.runtime.frames import read_frame
from pipeline.runtime.history import stage_history
from pipeline.runtime.ledger import mismatches, settle
from pipeline.runtime.logs import event
from pipeline.runtime.manifest import (
    FileStats,
    LedgerLine,
    StageManifest,
    TableManifest,
    finish,
    folder_of,
    publish,
    read_version,
)
from pipeline.runtime.planning import SOURCE, PlannedStage
from pipeline.runtime.reader import PublishedTable, read_table
from pipeline.runtime.relational import SCRATCH, run_relational
from pipeline.runtime.sources import identity, num_rows, read_source, source_of
from pipeline.stages.stage import RelationalStage, SmallTable, StageRecord
from schemas import ALL
from schemas.contract import Table

logger = logging.getLogger(__name__)


class Lifecycle:
    """Runs planned stages of one configuration in one Spark session."""

    def __init__(
        self,
        spark: SparkSession,
        config: RunConfig,
        storage: Storage,
        published: Mapping[str, StageManifest],
        moves_pointers: bool = True,
    ) -> None:
        """Args:
        spark: the session.
        config: the run.
        storage: its root.
        published: table -> manifest of the stage that published it; grows as stages are run.
        moves_pointers: False leaves finished versions unnamed, so that readers of the root see
            what they saw; for variants.
        """
        self._publish = publish if moves_pointers else finish
        self._spark, self._config, self._storage = spark, config, storage
        self._published = dict(published)

    def run(self, planned: PlannedStage) -> StageManifest:
        """Run one stage and publish it.

        Two processes may run the same stage at once: they write the same bytes, file by file, and
        the first to end clears its folder of what is not finished. The other one, should it stumble
        over that, takes the version as it is.

        Raises:
            ValueError: the output breaks its contract or the ledger does not close; every breach is
                named, nothing is published.
        """
        before = self._finished(planned)
        try:
            manifest = self._run(planned)
        except Exception as error:
            found = self._finished(planned)
            if found is None or found == before:
                raise
            event(logger, "finished_elsewhere", stage=found.stage, error=type(error).__name__)
            manifest = found
        self._publish(self._storage, planned.stage, manifest)
        self._published |= dict.fromkeys(manifest.tables, manifest)
        self._tidy(planned)
        _log(manifest)
        return manifest

    def _finished(self, planned: PlannedStage) -> StageManifest | None:
        num_buckets = self._config.runtime.num_buckets
        return read_version(self._storage, planned.stage, planned.version, num_buckets)

    def _tidy(self, planned: PlannedStage) -> None:
        """Remove what killed processes left in the version's folder."""
        folder = folder_of(planned.stage, planned.version, self._config.runtime.num_buckets)
        self._storage.remove(f"{folder}/{SCRATCH}")
        self._storage.sweep(folder)

    def _run(self, planned: PlannedStage) -> StageManifest:
        stage, started = planned.stage, time.monotonic()
        self._spark.sparkContext.setJobDescription(stage.name)
        folder = folder_of(stage, planned.version, self._config.runtime.num_buckets)
        inputs = self._inputs(planned)
        files, counts = self._execute(planned, folder, inputs)
        tables = {t.name: self._collect(t, folder, files[t.name]) for t in stage.outputs}
        breaches = [b for stats in files.values() for f in stats for b in f.breaches]
        ledger = settle(stage.ledger, inputs, tables, counts, self._source_rows)
        breaches += mismatches(stage.name, ledger)
        if breaches:
            raise ValueError(
                f"{stage.name}: {len(breaches)} breaches, nothing published: " + "; ".join(breaches)
            )
        self._finalise(planned, folder, inputs, tables, ledger)
        self._check_sources(planned)
        return StageManifest(
            stage=stage.name,
            version=planned.version,
            layout=self._config.runtime.num_buckets,
            code_version=stage.version,
            params=planned.params.model_dump(mode="json"),
            inputs=dict(planned.inputs),
            tables=tables,
            counts=dict(sorted(counts.items())),
            ledger=ledger,
            seconds=round(time.monotonic() - started, 3),
            finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            commit=git_commit(),
        )

    def _check_sources(self, planned: PlannedStage) -> None:
        """Refuse what was made of files that are not those of the plan.

        Tables of the root need no such check: a version is a folder that nobody writes again.

        Raises:
            ValueError: a user's input was replaced since.
        """
        for table in planned.stage.reads:
            if not table.name.startswith(SOURCE) or table.name not in planned.inputs:
                continue
            source = source_of(self._config.inputs, table)
            assert source is not None
            found, expected = identity(source, self._storage), planned.inputs[table.name]
            if found != expected:
                raise ValueError(
                    f"{planned.stage.name}: the files of {source.path} changed while they were "
                    f"read (identity {found}, expected {expected}): nothing published. Run again "
                    "when they are complete."
                )

    def _inputs(self, planned: PlannedStage) -> dict[str, TableManifest | None]:
        return {
            t.name: self._published[t.name].tables[t.name] if t.name in planned.inputs else None
            for t in planned.stage.reads
            if not t.name.startswith(SOURCE)
        }

    def _execute(
        self, planned: PlannedStage, folder: str, inputs: Mapping[str, TableManifest | None]
    ) -> tuple[dict[str, list[FileStats]], dict[str, int]]:
        stage, num_buckets = planned.stage, self._config.runtime.num_buckets
        if isinstance(stage, RelationalStage):
            given: dict[str, DataFrame | SmallTable | None] = {}
            given |= {t.name: self._frame(t, planned, inputs) for t in stage.inputs}
            given |= {t.name: self._small(t, inputs) for t in stage.broadcast}
            past = StagePast(
                self._spark, self._storage, planned, num_buckets, inputs, self._published
            )
            args = (planned.params, self._storage, folder, given, inputs, num_buckets, past)
            return run_relational(self._spark, stage, *args), {}
        if all(t.layout == "single" for t in stage.aligned):
            num_buckets = 1
        run = BatchwiseRun(stage, planned.params, self._storage, folder, inputs, num_buckets)
        return run_batchwise(self._spark, run)

    def _finalise(
        self,
        planned: PlannedStage,
        folder: str,
        inputs: Mapping[str, TableManifest | None],
        outputs: Mapping[str, TableManifest],
        ledger: Sequence[LedgerLine],
    ) -> None:
        stage = planned.stage
        if not isinstance(stage, RelationalStage) or stage.finalise is None:
            return
        tables = {}
        for table in stage.finalise_reads:
            found = outputs.get(table.name) or inputs.get(table.name)
            tables[table.name] = None if found is None else read_table(self._storage, found, table)
        mine = StageRecord(
            stage=stage.name,
            version=planned.version,
            code_version=stage.version,
            params=planned.params.model_dump(mode="json"),
            inputs=dict(planned.inputs),
            ledger=[line.model_dump() for line in ledger],
        )
        before = stage_history(self._storage, planned.inputs, self._published)
        stage.finalise(
            self._storage, folder, **tables, params=planned.params, history=[*before, mine]
        )

    def _frame(
        self, table: Table, planned: PlannedStage, inputs: Mapping[str, TableManifest | None]
    ) -> DataFrame | None:
        if table.name not in planned.inputs:
            return None
        if table.name.startswith(SOURCE):
            source = source_of(self._config.inputs, table)
            assert source is not None
            return read_source(self._spark, source, table, self._storage)
        manifest = inputs[table.name]
        assert manifest is not None
        return read_frame(self._spark, self._storage, table, manifest)

    def _small(self, table: Table, inputs: Mapping[str, TableManifest | None]) -> SmallTable | None:
        manifest = inputs[table.name]
        return None if manifest is None else PublishedTable(self._storage, manifest, table)

    def _source_rows(self, measure: str) -> int:
        name, _, column = measure.partition(".")
        source = source_of(self._config.inputs, ALL[name])
        if source is None:
            return 0
        known = None if column else num_rows(source, self._storage)
        if known is not None:
            return known
        rows = read_source(self._spark, source, ALL[name], self._storage)
        if not column:
            return rows.count()
        # A null list has no items; size() of null is null in ANSI mode, which sum skips.
        total = rows.agg(F.sum(F.size(F.col(column)))).collect()[0][0]
        return int(total or 0)

    def _collect(self, table: Table, folder: str, files: Sequence[FileStats]) -> TableManifest:
        totals: dict[str, int] = {}
        reasons: dict[str, int] = {}
        for stats in files:
            for column, amount in stats.totals.items():
                totals[column] = totals.get(column, 0) + amount
            for reason, amount in stats.reasons.items():
                reasons[reason] = reasons.get(reason, 0) + amount
        return TableManifest(
            name=table.name,
            path=f"{folder}/{table.name}",
            num_buckets=self._config.runtime.num_buckets if table.layout == "bucketed" else 1,
            num_rows=sum(f.num_rows for f in files),
            totals=totals,
            reasons=dict(sorted(reasons.items())),
            files=sorted(files, key=lambda f: f.bucket),
        )


def _log(manifest: StageManifest) -> None:
    rows = {name: table.num_rows for name, table in manifest.tables.items()}
    dropped = {
        f"{line.unit}.{reason}": amount
        for line in manifest.ledger
        for reason, amount in line.dropped.items()
    }
    event(
        logger,
        "published",
        stage=manifest.stage,
        version=manifest.version,
        seconds=manifest.seconds,
        **rows,
        **dropped,
    )


@cache
def git_commit() -> str:
    """Commit of the code that runs: $GIT_COMMIT, else the checkout's, else ``unknown``."""
    if given := os.environ.get("GIT_COMMIT"):
        return given
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
            cwd=os.path.dirname(__file__),
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()
