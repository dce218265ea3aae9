"""What two roots of equal content have in common: the hashes of their releases and tables."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.files.storage import open_storage
from pipeline.runtime.catalog import open_catalog
from pipeline.runtime.world_check import release_folder
from schemas import ALL

PLACES = {"shard_assignments": {"part", "offset"}}
"""Columns by table that say in which file of another table something lies."""

PER_BATCH = "validation_nearest"
"""The one table that has a row a batch of its stage, so as many as buckets make batches."""


def release_hashes(root: Path) -> dict[str, str]:
    """sha256 of a release's manifest and of every file it names, each as the manifest says."""
    release = Path(release_folder(open_storage(str(root))).root)
    text = (release / "manifest.json").read_bytes()
    manifest = json.loads(text)
    told = {f["name"]: f["sha256"] for f in manifest["files"]}
    told |= {s["name"]: s["sha256"] for s in manifest["shards"]}
    told |= {s["index"]: s["index_sha256"] for s in manifest["shards"]}
    found = {n: hashlib.sha256((release / n).read_bytes()).hexdigest() for n in told}
    assert found == told
    return found | {"manifest.json": hashlib.sha256(text).hexdigest()}


def table_hashes(root: Path) -> dict[str, str]:
    """sha256 of the rows of every published table, by key.

    Rows are hashed as the Parquet file that they make, where every value has one form only: NaNs
    with their bits, nulls without what an Arrow buffer has below them.
    """
    catalog, found = open_catalog(str(root)), {}
    for name in sorted(catalog.tables):
        table = ALL[name]
        columns = [c for c in table.column_names if c not in PLACES.get(name, ())]
        rows = catalog.read(name, columns).sort_by([(k, "ascending") for k in table.key])
        if name == PER_BATCH:
            rows = _over_batches(rows)
        file = io.BytesIO()
        pq.write_table(rows, file, compression="none", row_group_size=max(rows.num_rows, 1))
        found[name] = hashlib.sha256(file.getbuffer()).hexdigest()
    return found


def differences(root: Path, other: Path) -> list[str]:
    """Files of the releases that differ in a byte, and tables that differ in a row, of two roots.

    What only one of them has differs.
    """
    found = [{**release_hashes(r), **table_hashes(r)} for r in (root, other)]
    names = sorted(found[0].keys() | found[1].keys())
    return [name for name in names if found[0].get(name) != found[1].get(name)]


def _over_batches(rows: pa.Table) -> pa.Table:
    """Pairs compared in each tier and the nearest of all, smallest ids where several are."""
    order = ["tier", "distance", "nearest_image_id", "validation_id"]
    known = rows.filter(pc.is_valid(rows["distance"])).sort_by([(k, "ascending") for k in order])
    nearest = known.group_by("tier", use_threads=False).aggregate(
        [(column, "first") for column in order[1:]]
    )
    pairs = rows.group_by("tier").aggregate([("num_pairs", "sum")])
    return pairs.join(nearest, "tier").sort_by("tier")
