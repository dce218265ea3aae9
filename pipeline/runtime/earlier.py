"""What a root still holds of a stage's earlier run, handed to the stage so that it can spare work.

The version of what a stage makes is a hash of its inputs and parameters; an earlier run does not
enter it. So a stage may take rows over only where it would have made the same ones, and the runtime
hands an earlier run over only where code, parameters and layout are the same and every file that it
read and wrote is still there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from pipeline.files.storage import Storage
from pipeline.runtime.frames import read_frame
from pipeline.runtime.history import manifest_of
from pipeline.runtime.logs import event
from pipeline.runtime.manifest import (
    MANIFEST,
    StageManifest,
    TableManifest,
    home_of,
    read_current,
    read_version,
)
from pipeline.runtime.planning import SOURCE, PlannedStage
from pipeline.runtime.reader import bucket_path, read_table
from pipeline.runtime.row_changes import row_changes
from pipeline.runtime.scans import Parts
from pipeline.stages.stage import ArrowMap
from schemas import ALL

logger = logging.getLogger(__name__)

Tables = Mapping[str, TableManifest]


class StagePast:
    """Earlier runs of one stage on one root; see ``StageContext``."""

    def __init__(
        self,
        spark: SparkSession,
        storage: Storage,
        planned: PlannedStage,
        layout: int,
        inputs: Mapping[str, TableManifest | None],
        published: Mapping[str, StageManifest],
    ) -> None:
        """Args:
        spark: session.
        storage: root.
        planned: the stage as it is run now.
        layout: number of buckets of this run.
        inputs: of this run.
        published: table -> manifest of the stage that published it.
        """
        self._spark, self._storage = spark, storage
        self._planned, self._layout = planned, layout
        self._inputs = {name: table for name, table in inputs.items() if table is not None}
        self._published = published

    def earlier(self, free: Sequence[str]) -> PublishedRun | None:
        """The run that the pointer names, where rows may be taken over from it."""
        name = self._planned.stage.name
        found = self._find(set(free))
        if isinstance(found, str):
            event(logger, "from_scratch", stage=name, reason=found)
            return None
        event(logger, "earlier_run", stage=name, version=found.version)
        return found

    def output_of(self, version: str, table: str) -> DataFrame:
        """An output of a finished version of the stage, in this layout.

        Raises:
            ValueError: it is not there; names those that are.
        """
        stage = self._planned.stage
        manifest = read_version(self._storage, stage, version, self._layout)
        if manifest is None:
            end = f"-{self._layout:05d}"
            home = home_of(stage)
            there = [
                folder.removesuffix(end)
                for folder in self._storage.list(home)
                if folder.endswith(end) and self._storage.exists(f"{home}/{folder}/{MANIFEST}")
            ]
            raise ValueError(
                f"{stage.name}: version {version!r} is not below {self._storage.uri}/{home}, found "
                f"{', '.join(there) or 'none'} with {self._layout} buckets. Was it collected?"
            )
        return read_frame(self._spark, self._storage, ALL[table], manifest.tables[table])

    def _find(self, free: set[str]) -> PublishedRun | str:
        """The earlier run, or why there is none."""
        stage = self._planned.stage
        manifest = read_current(self._storage, home_of(stage))
        if manifest is None or manifest.stage != stage.name:
            return "the stage was never published here"
        if manifest.layout != self._layout:
            return f"the earlier run has {manifest.layout} buckets, this one {self._layout}"
        if manifest.version == self._planned.version:
            return "the published version is the one that is made"
        if manifest.code_version != stage.version:
            return f"the earlier run is of code version {manifest.code_version}"
        params = self._planned.params.model_dump(mode="json")
        names = sorted(params.keys() | manifest.params.keys())
        other = [n for n in names if n not in free and params.get(n) != manifest.params.get(n)]
        if other:
            return f"other parameters: {', '.join(other)}"
        inputs: dict[str, TableManifest] = {}
        for name in sorted(self._planned.inputs):
            if name.startswith(SOURCE):
                continue
            table = self._table_then(name, manifest.inputs.get(name))
            if isinstance(table, str):
                return table
            inputs[name] = table
        lost = [name for name, table in manifest.tables.items() if not self._is_whole(table)]
        if lost:
            return f"files of {lost[0]} of the earlier run are gone"
        return PublishedRun(
            self._spark, self._storage, manifest.version, self._inputs, inputs, manifest.tables
        )

    def _table_then(self, name: str, version: str | None) -> TableManifest | str:
        if version is None:
            return f"the earlier run had no {name}"
        made = manifest_of(self._storage, self._published.get(name), name, version)
        table = None if made is None else made.tables.get(name)
        if table is None or not self._is_whole(table):
            return f"{name} of version {version}, which the earlier run read, was collected"
        if table.num_buckets != self._inputs[name].num_buckets:
            return f"{name} had {table.num_buckets} buckets"
        return table

    def _is_whole(self, table: TableManifest) -> bool:
        return {file.name for file in table.files} <= set(self._storage.list(table.path))


@dataclass(frozen=True)
class PublishedRun:
    """A run whose inputs and outputs are still there; see ``EarlierRun``.

    Attributes:
        spark: session.
        storage: root.
        version: of its outputs.
        now: inputs of the run that asks.
        then: its own inputs.
        outputs: what it published.
    """

    spark: SparkSession
    storage: Storage
    version: str
    now: Tables
    then: Tables
    outputs: Tables

    def input(self, table: str) -> DataFrame:
        """An input of that run."""
        return read_frame(self.spark, self.storage, ALL[table], self.then[table])

    def output(self, table: str) -> DataFrame:
        """An output of that run."""
        return read_frame(self.spark, self.storage, ALL[table], self.outputs[table])

    def has_same(self, table: str) -> bool:
        """Whether a small input has the same rows now."""
        now, then = self.now[table], self.then[table]
        if now.path == then.path:
            return True
        one, two = (read_table(self.storage, found, ALL[table]) for found in (now, then))
        return bool(one.equals(two))

    def changes(
        self, table: str, columns: Sequence[str], fn: ArrowMap, ddl: str, among: str | None = None
    ) -> DataFrame:
        """Rows of an input now and then, bucket by bucket; a task holds some batches of each."""
        parts = Parts(self.storage, tuple(columns))
        pairs = [(self.now[table], self.now[among] if among else None),
                 (self.then[table], self.then[among] if among else None)]  # fmt: skip
        buckets = sorted({file.bucket for rows, _ in pairs for file in rows.files})
        places = [
            [(bucket_path(rows, b), others and bucket_path(others, b)) for rows, others in pairs]
            for b in buckets
        ]
        is_filtered = among is not None

        def read(name: str | None, others: str | None) -> Iterator[pa.RecordBatch]:
            keys = parts.keys(others) if is_filtered else None
            return iter(()) if name is None else parts.rows(name, keys)

        def compare(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                for number in batch.column("id").to_pylist():
                    now, then = (read(*files) for files in places[number])
                    yield from fn(row_changes(now, then))

        count = len(places)
        return self.spark.range(0, count, 1, max(1, count)).mapInArrow(compare, ddl)
