"""The two kinds of stage, as values.

A stage is a function of its tables and its parameters, nothing else. *Relational* stages join and
shuffle DataFrames; *batchwise* stages are a narrow pass of a kernel over the aligned files of their
input tables. Reading, writing, checking and publishing belong to :mod:`pipeline.runtime`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pyarrow as pa

from pipeline.config.base import Params
from pipeline.files.storage import Storage
from pipeline.stages.earlier import EarlierRun
from schemas.contract import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


ArrowMap = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]
"""What ``mapInArrow`` takes."""


class StoredColumn(NamedTuple):
    """A column whose values can be read alone, and the column of their sizes in bytes."""

    name: str
    sizes: str


class StageContext(Protocol):
    """What a relational stage may ask of the runtime."""

    def earlier(self, free: Sequence[str] = ()) -> EarlierRun | None:
        """The run that the root shows, where its rows may be taken over; else None, and the log
        says why.

        Args:
            free: parameters that may differ, because the stage looks at what they act on.
        """
        ...

    def output_of(self, version: str, table: str) -> DataFrame:
        """An output of this stage in a finished version, which is known by its content.

        Raises:
            ValueError: there is no such version.
        """
        ...

    def materialise(self, df: DataFrame) -> DataFrame:
        """Write and re-read, cutting the lineage; for stages that iterate."""
        ...

    def count(self, df: DataFrame) -> int:
        """Rows of an input or materialised frame; to end a loop or to size a plan, nothing else."""
        ...

    def scan(
        self,
        df: DataFrame,
        columns: Sequence[str],
        fn: ArrowMap,
        ddl: str,
        places: StoredColumn | None = None,
        among: DataFrame | None = None,
    ) -> DataFrame:
        """``df.select(columns).mapInArrow(fn, ddl)``, without the rows' way through the JVM.

        Where ``df`` is an input table, one task a file reads it by pyarrow: three times as fast,
        and in the order of the file.

        Args:
            df: an input table, as the stage was given it, for the fast way.
            columns: that ``fn`` sees.
            fn: from batches to batches, called once a file.
            ddl: of its result.
            places: a stored column whose values ``fn`` gets the places of, not the values: columns
                ``part``, a file below the root, null where the value is, and ``offset`` in it.
                ``df`` must then be an input table.
            among: an input table of the same key and layout; rows whose key it does not have are
                left out. The key is the first of ``columns``.
        """
        ...

    @property
    def storage(self) -> Storage:
        """The root, for stages whose tasks write files of their own."""
        ...

    @property
    def folder(self) -> str:
        """Folder of this version below the root, for such files."""
        ...


class SmallTable(Protocol):
    """A small input table, to be read whole by the tasks that need it; picklable."""

    def read(self) -> pa.Table:
        """All rows, by key; kept in memory for the next call in the same process."""
        ...


@dataclass(frozen=True)
class StageRecord:
    """A stage on the way to a table: what its version is a hash of, and what it counted.

    Nothing of the machine, the time, the layout or the place of an input is in it.

    Attributes:
        stage: name.
        version: content identity, see ``content_version``.
        code_version: version of the stage's code; 0 where an old root does not tell.
        params: resolved parameters, JSON values.
        inputs: input table -> version; for ``source_*`` the identity of the content.
        ledger: unit, rows_in, rows_out and dropped (by reason) of each conservation law.
    """

    stage: str
    version: str
    code_version: int
    params: Mapping[str, Any]
    inputs: Mapping[str, str]
    ledger: Sequence[Mapping[str, Any]] = ()


def content_version(
    name: str, code_version: int, params: Mapping[str, Any], inputs: Mapping[str, str]
) -> str:
    """Content identity of a stage's output: 12 hex digits, a hash of what decides it."""
    text = json.dumps([name, code_version, params, sorted(inputs.items())], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class LedgerRule:
    """Conservation law of one stage: rows in = rows out + dropped, by reason.

    A *measure* is ``table`` (its rows), ``table.column`` (the summed list lengths of a column, or
    the sum of an integer column) or ``#name`` (a count of the kernel).

    Attributes:
        unit: what is counted, e.g. ``images``.
        rows_in: measures whose sum goes in.
        rows_out: measures whose sum comes out.
        dropped: output tables with a ``reason`` column, one row a dropped unit.
        dropped_counts: prefix of batchwise counts, one unit each, e.g. ``annotations.dropped.``.
    """

    unit: str
    rows_in: tuple[str, ...]
    rows_out: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    dropped_counts: str = ""


@dataclass(frozen=True)
class BatchResult:
    """What a batchwise kernel returns for one batch.

    Attributes:
        tables: rows of each output table, sorted by its key.
        counts: named counts, summed over batches.
    """

    tables: Mapping[str, pa.Table]
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RelationalStage:
    """A stage of joins and aggregates.

    Attributes:
        name: verb_object, also the folder of its output.
        version: goes up when the output of equal inputs changes.
        fn: ``fn(**tables, params=..., ctx=...)`` from DataFrames to DataFrames; builds a plan.
        params: its parameter model.
        inputs: tables read; the arguments of ``fn`` carry their names.
        outputs: tables written.
        broadcast: small inputs that ``fn`` gets as a ``SmallTable`` instead of a DataFrame.
        optional: inputs that may be absent; ``fn`` gets None.
        section: section of the configuration, if not the stage's name.
        folder: folder below the root, if not the stage's name.
        finalise: ``finalise(storage, folder, **small tables, params=..., history=...)``, called on
            the driver when all outputs are checked and just before they are published; writes side
            files. The history is a ``StageRecord`` of every stage before it, then its own.
        finalise_reads: small tables, inputs or outputs, that it gets as Arrow tables.
        ledger: conservation laws, checked before publishing.
    """

    name: str
    version: int
    fn: Callable[..., Mapping[str, DataFrame]]
    params: type[Params]
    inputs: tuple[Table, ...]
    outputs: tuple[Table, ...]
    broadcast: tuple[Table, ...] = ()
    optional: tuple[Table, ...] = ()
    section: str = ""
    folder: str = ""
    finalise: Callable[..., None] | None = None
    finalise_reads: tuple[Table, ...] = ()
    ledger: tuple[LedgerRule, ...] = ()

    @property
    def reads(self) -> tuple[Table, ...]:
        """Every table this stage reads."""
        return self.inputs + self.broadcast


@dataclass(frozen=True, kw_only=True)
class BatchwiseStage:
    """A narrow pass over aligned files: no shuffle, rows never enter the JVM.

    Attributes:
        name: verb_object, also the folder of its output.
        version: goes up when the output of equal inputs changes.
        kernel: ``kernel(**tables, state=..., params=...)`` for one batch.
        params: its parameter model.
        aligned: tables of one layout; the first is streamed in slices of ``batch_rows``, of the
            others the kernel gets the rows whose key lies in the slice's key range.
        outputs: tables written, of the same layout.
        broadcast: small tables read whole by every worker.
        prepare: ``prepare(**broadcast tables, params=...)`` -> state, once a worker process.
        columns: columns to read of an aligned table, all if it is not named.
        optional: aligned or broadcast tables that may be absent; the kernel gets None.
        section: section of the configuration, if not the stage's name.
        folder: folder below the root, if not the stage's name.
        batch_rows: rows of the first table a kernel call sees.
        whole_keys: cut slices only where the first key column changes, so that a call sees all rows
            of a key; for tables with several rows a key.
        keep_slices: keep the result of each slice until its bucket is done, so that a killed run
            repeats no slice; for kernels that take seconds a call and return little.
        ledger: conservation laws, checked before publishing.
    """

    name: str
    version: int
    kernel: Callable[..., BatchResult]
    params: type[Params]
    aligned: tuple[Table, ...]
    outputs: tuple[Table, ...]
    broadcast: tuple[Table, ...] = ()
    prepare: Callable[..., Any] | None = None
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    optional: tuple[Table, ...] = ()
    section: str = ""
    folder: str = ""
    batch_rows: int = 65_536
    whole_keys: bool = False
    keep_slices: bool = False
    ledger: tuple[LedgerRule, ...] = ()

    @property
    def reads(self) -> tuple[Table, ...]:
        """Every table this stage reads."""
        return self.aligned + self.broadcast


Stage = RelationalStage | BatchwiseStage
