"""Searches of near-duplicates beside each other: ours under Spark, Spark SQL, faiss, a BK-tree.

Every function is for a process of its own and returns wall seconds with what it found. Sessions of
Spark are started and have run one small job, Python workers included, before the clock starts.
Pairs are rows (low, high) of positions, int64 (n, 2).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from numpy.typing import NDArray

CORES = 2
SHUFFLE_PARTITIONS = 16


def ours(table: str, radius: int, scratch: str) -> tuple[float, NDArray[np.int64]]:
    """The perceptual tier of `find_near_duplicates`, pairs written as Parquet.

    Args:
        table: folder of Parquet files of image_id, phash, is_flat, as a bucketed table has them.
        radius: bits.
        scratch: folder for what the stage materialises and for the result.
    """
    seconds, found, _ = ours_with_costs(table, radius, scratch)
    return seconds, found


def ours_with_costs(
    table: str, radius: int, scratch: str
) -> tuple[float, NDArray[np.int64], dict[str, float]]:
    """As `ours`, with what the search shuffled and spilled (bytes), its CPU seconds, and the bytes
    of the pairs."""
    from benchmarks.spark_costs import costs_of
    from pipeline.config.images import NearDuplicateParams
    from pipeline.stages.hash_pairs import perceptual_pairs

    spark = _session(scratch)
    fingerprints = spark.read.parquet(f"file://{table}")
    ctx = _context(spark, table, scratch, fingerprints)
    before, started = costs_of(spark), time.perf_counter()
    pairs = perceptual_pairs(fingerprints, NearDuplicateParams(max_hamming=radius), ctx)
    pairs.select("image_id_a", "image_id_b", "distance").write.parquet(f"file://{scratch}/pairs")
    seconds = time.perf_counter() - started
    costs: dict[str, float] = costs_of(spark).since(before)._asdict()
    spark.stop()
    parts = Path(scratch, "pairs").glob("*.parquet")
    costs["output_bytes"] = sum(part.stat().st_size for part in parts)
    return seconds, _written_pairs(scratch), costs


def spark_sql(table: str, radius: int, scratch: str, keys: str) -> tuple[float, NDArray[np.int64]]:
    """A self-join on keys: the agreeing bits of each of a plan's tables.

    Args:
        table: as for `ours`.
        radius: bits.
        scratch: folder.
        keys: ``same`` as ours, or ``long``: two of radius + 2 blocks of all bits agree, which gives
            more tables and hardly a candidate by chance.
    """
    from pipeline.kernels.block_keys import Part, TablePlan, plan_tables

    count = pads.dataset(table).count_rows()
    plan = plan_tables(count, radius)
    if keys == "long":
        plan = TablePlan(radius, 64, (Part(64, radius + 2, radius),), count)
    masks = ", ".join(f"{mask}L" for mask in plan.masks.view(np.int64).tolist())
    spark = _session(scratch)
    started = time.perf_counter()
    spark.read.parquet(f"file://{table}").createOrReplaceTempView("hashes")
    spark.sql(
        f"""select image_id, phash, t, phash & mask as key
        from hashes lateral view posexplode(array({masks})) as t, mask"""
    ).createOrReplaceTempView("keyed")
    found = spark.sql(
        f"""select distinct a.image_id as image_id_a, b.image_id as image_id_b,
            bit_count(a.phash ^ b.phash) as distance
        from keyed a join keyed b on a.t = b.t and a.key = b.key and a.image_id < b.image_id
        where bit_count(a.phash ^ b.phash) <= {radius}"""
    )
    found.write.parquet(f"file://{scratch}/pairs")
    seconds = time.perf_counter() - started
    spark.stop()
    return seconds, _written_pairs(scratch)


def faiss_multihash(table: str, radius: int, num_queries: int) -> tuple[float, float]:
    """Seconds for all rows (the index, and a sample of queries scaled up) and mean answers a query.

    radius + 1 hash tables: one agrees for every pair within the radius.
    """
    import faiss

    faiss.omp_set_num_threads(CORES)
    codes = _hashes(table).view(np.uint8).reshape(-1, 8)
    index = faiss.IndexBinaryMultiHash(64, radius + 1, 64 // (radius + 1))
    started = time.perf_counter()
    index.add(codes)
    built = time.perf_counter() - started
    rows = np.random.default_rng(1).choice(len(codes), min(num_queries, len(codes)), replace=False)
    started = time.perf_counter()
    limits, _, _ = index.range_search(codes[rows], radius + 1)  # distances below, not up to
    asked = time.perf_counter() - started
    return built + asked * len(codes) / len(rows), float(limits[-1]) / len(rows)


def imagededup_bktree(
    table: str, radius: int, num_rows: int, num_queries: int
) -> tuple[float, int]:
    """Queries a second of imagededup's tree over the first rows, its building counted in, and the
    neighbours that they found."""
    from imagededup.handlers.search.bktree import BKTree

    hashes = [f"{value:016x}" for value in _hashes(table)[:num_rows].tolist()]
    started = time.perf_counter()
    tree = BKTree(
        {str(row): value for row, value in enumerate(hashes)},
        lambda one, two: (int(one, 16) ^ int(two, 16)).bit_count(),
    )
    built = time.perf_counter() - started
    started = time.perf_counter()
    found = sum(len(tree.search(query=value, tol=radius)) - 1 for value in hashes[:num_queries])
    asked = time.perf_counter() - started
    return len(hashes) / (built + asked * len(hashes) / num_queries), found


def ours_semantic(
    table: str, tau: float, num_probes: int, scratch: str
) -> tuple[float, NDArray[np.int64]]:
    """The semantic tier: cells trained on a sample, then `semantic_pairs`, written as Parquet."""
    from pipeline.config.images import NearDuplicateParams
    from pipeline.kernels.cell_training import train_centroids
    from pipeline.kernels.cells import num_cells_for
    from pipeline.kernels.vectors import from_matrix, to_matrix
    from pipeline.stages.near_pairs import semantic_pairs

    class Cells:  # tasks cannot import this file
        def __init__(self, rows: pa.Table) -> None:
            self._rows = rows

        def read(self) -> pa.Table:
            return self._rows

    params = NearDuplicateParams(min_cosine=tau, num_probes=num_probes)
    spark = _session(scratch)
    started = time.perf_counter()
    x = to_matrix(pq.read_table(table, columns=["embedding"])["embedding"])
    num_cells = num_cells_for(len(x), num_probes)
    size = min(len(x), num_cells * params.samples_per_cell)
    sample = x[np.random.default_rng(0).choice(len(x), size, replace=False)]
    centroids = train_centroids(sample, num_cells, seed=0)
    del x, sample
    cells = Cells(pa.table({"centroid": from_matrix(centroids)}))
    embeddings = spark.read.parquet(f"file://{table}")
    ctx = _context(spark, table, scratch, embeddings)
    pairs = semantic_pairs(embeddings, cells, params, ctx, tau)
    pairs.select("image_id_a", "image_id_b", "distance").write.parquet(f"file://{scratch}/pairs")
    seconds = time.perf_counter() - started
    spark.stop()
    return seconds, _written_pairs(scratch)


def faiss_ivf(
    table: str, tau: float, num_cells: int, planted: NDArray[np.int64], least_recall: float
) -> tuple[float, float, int]:
    """Seconds for all rows, recall and probes: the fewest probes with at least that recall.

    Args:
        table: Parquet file of embeddings, unit rows.
        tau: least cosine.
        num_cells: of the index.
        planted: int64 (n, 2), pairs whose first rows are the queries.
        least_recall: of the planted pairs.
    """
    import faiss

    from pipeline.kernels.vectors import to_matrix

    faiss.omp_set_num_threads(CORES)
    x = to_matrix(pq.read_table(table, columns=["embedding"])["embedding"])
    started = time.perf_counter()
    index = faiss.index_factory(x.shape[1], f"IVF{num_cells},Flat", faiss.METRIC_INNER_PRODUCT)
    sample = np.random.default_rng(0).choice(len(x), min(len(x), 64 * num_cells), replace=False)
    index.train(x[sample])
    index.add(x)
    built = time.perf_counter() - started
    probes, asked, recall = 1, 0.0, 0.0
    while probes <= num_cells:
        index.nprobe = probes
        started = time.perf_counter()
        limits, _, found = index.range_search(x[planted[:, 0]], tau)
        asked = time.perf_counter() - started
        is_partner = found == np.repeat(planted[:, 1], np.diff(limits.astype(np.int64)))
        recall = float(is_partner.sum() / len(planted))
        if recall >= least_recall:
            break
        probes *= 2
    return built + asked * len(x) / len(planted), recall, probes


def _context(spark: Any, table: str, scratch: str, frame: Any) -> Any:
    from pipeline.files.storage import open_storage
    from pipeline.runtime.relational import RelationalContext
    from pipeline.runtime.scans import InputFiles

    root = open_storage(str(Path(table).parent))
    names = [f"{Path(table).name}/{file.name}" for file in sorted(Path(table).iterdir())]
    # A stage knows the rows of its inputs from their manifests.
    given = InputFiles(frame, names, pads.dataset(table).count_rows())
    return RelationalContext(spark, root, Path(scratch).name, [given])


def _session(scratch: str) -> Any:
    from pipeline.config.runtime import RuntimeParams
    from pipeline.runtime.session import open_session

    Path(scratch).mkdir(parents=True, exist_ok=True)
    settings = RuntimeParams(cores=CORES, driver_memory="6g", shuffle_partitions=SHUFFLE_PARTITIONS)
    spark = open_session("near_duplicates", settings, f"{scratch}/spark")

    def same(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        # Workers have these imports behind them when the clock starts.
        import pipeline.stages.hash_pairs
        import pipeline.stages.near_pairs  # noqa: F401

        yield from batches

    few = spark.range(1000, numPartitions=CORES).mapInArrow(same, "id bigint")
    few.groupBy("id").count().write.parquet(f"file://{scratch}/warm")
    return spark


def _hashes(table: str) -> NDArray[np.uint64]:
    return np.asarray(pq.read_table(table, columns=["phash"])["phash"].to_numpy()).view(np.uint64)


def _written_pairs(scratch: str) -> NDArray[np.int64]:
    """Pairs as positions, ascending."""
    rows = pq.read_table(f"{scratch}/pairs")
    columns = [pc.cast(rows[name], pa.int64()) for name in ("image_id_a", "image_id_b")]
    found = np.stack([column.to_numpy() for column in columns], axis=1)
    return found[np.lexsort((found[:, 1], found[:, 0]))]
