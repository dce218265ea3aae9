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
    data, version = _data_of(table, rows)
    num_buckets = num_buckets if table.layout == "bucketed" else 1
    folder = f"given/{table.name}-{version}-{num_buckets}"
    return _publish(storage, table, data, version, num_buckets, num_buckets, folder)


def publish_version(storage, table, rows, layout):
    """As ``publish_rows``, into a version folder of its own, where later runs find it."""
    data, version = _data_of(table, rows)
    return publish_table(storage, table, data, layout, version)


def publish_table(storage, table, data, layout, version):
    """As ``publish_version``, of Arrow rows sorted by key under a version of the caller's."""
    num_buckets = layout if table.layout == "bucketed" else 1
    home = f"given_{table.name}/{version}-{layout:05d}"
    folder = f"{home}/{table.name}"
    manifest = _publish(storage, table, data, version, layout, num_buckets, folder)
    storage.write_bytes_atomic(f"{home}/stage.json", manifest.model_dump_json().encode())
    return manifest


def _data_of(table, rows):
    data = pa.Table.from_pylist(rows, table.arrow_schema)
    data = data.sort_by([(k, "ascending") for k in table.key])
    return data, hashlib.sha256(repr(data.to_pylist()).encode()).hexdigest()[:12]


def _publish(storage, table, data, version, layout, num_buckets, folder):
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
        stage=folder.partition("/")[0],
        version=version,
        layout=layout,
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
