"""Literal tables as published ones, and one stage run over them through the real lifecycle."""

import hashlib

import pyarrow as pa

from pipeline.config.run import RunConfig
from pipeline.config.runtime import RuntimeParams
from pipeline.files.storage import open_storage
from pipeline.runtime.checks import buckets
from pipeline.runtime.lifecycle import Lifecycle
from pipeline.runtime.manifest import StageManifest, TableManifest
from pipeline.runtime.planning import plan_stage
from pipeline.runtime.reader import read_table
from pipeline.runtime.sources import source_versions
from pipeline.runtime.writer import write_part


def publish_rows(storage, table, rows, num_buckets):
    """Write rows (dicts) as a published table; its version is a hash of the rows."""
    num_buckets = num_buckets if table.layout == "bucketed" else 1
    data = pa.Table.from_pylist(rows, table.arrow_schema)
    data = data.sort_by([(k, "ascending") for k in table.key])
    version = hashlib.sha256(repr(data.to_pylist()).encode()).hexdigest()[:12]
    folder = f"given/{table.name}-{version}-{num_buckets}"
    files = []
    for bucket in range(num_buckets):
        mine = data
        if num_buckets > 1:
            is_mine = buckets(data[table.key[0]], num_buckets) == bucket
            mine = data.filter(pa.array(is_mine, pa.bool_()))
        files.append(write_part(storage, folder, table, bucket, num_buckets, mine))
    assert [b for f in files for b in f.breaches] == []
    totals = {c: sum(f.totals.get(c, 0) for f in files) for c in table.column_names}
    manifest = TableManifest(
        name=table.name,
        path=folder,
        num_buckets=num_buckets,
        num_rows=data.num_rows,
        totals=totals,
        reasons={},
        files=files,
    )
    return StageManifest(
        stage="given",
        version=version,
        layout=num_buckets,
        params={},
        inputs={},
        tables={table.name: manifest},
        counts={},
        ledger=[],
        seconds=0,
        finished="",
        commit="",
    )


def run_stage(spark, root, stage, given, num_buckets=2, **sections):
    """Run one stage over given rows.

    Args:
        spark: the session.
        root: folder.
        stage: the stage.
        given: contract -> rows as dicts.
        num_buckets: of everything.
        sections: sections of the configuration; `inputs` are its sources.

    Returns:
        storage, manifest, and table -> rows as dicts, by key.
    """
    config = RunConfig(root=str(root), runtime=RuntimeParams(num_buckets=num_buckets), **sections)
    storage = open_storage(config.root)
    published = {t.name: publish_rows(storage, t, r, num_buckets) for t, r in given.items()}
    versions = {name: manifest.version for name, manifest in published.items()}
    if any(t.name.startswith("source_") for t in stage.reads):
        versions |= source_versions(config.inputs, storage)
    planned = plan_stage(stage, config, storage, versions)
    manifest = Lifecycle(spark, config, storage, published).run(planned)
    tables = {
        t.name: read_table(storage, manifest.tables[t.name], t)
        .sort_by([(k, "ascending") for k in t.key])
        .to_pylist()
        for t in stage.outputs
    }
    return storage, manifest, tables
