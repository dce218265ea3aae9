"""Clusters of visual terms inside each L1 interest (paper section 3.2.1; SPEC K2-K4).

Cost at 1.329 billion images: does not depend on them; 24 interests of some 9,000 terms and 1,400
clusters, one task an interest, minutes each; the text embeddings (340 MB) in every worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.window import Window

from pipeline.config.labels import ClusterTermsParams
from pipeline.kernels.align import positions_of
from pipeline.kernels.cluster_names import describe_clusters
from pipeline.kernels.kmeans import allocate_k, count_distinct
from pipeline.kernels.kmeans import cluster_terms as cluster
from pipeline.kernels.row_checks import one_array
from pipeline.kernels.vectors import to_matrix
from pipeline.stages.stage import LedgerRule, RelationalStage, SmallTable, StageContext
from schemas.ingested import INTERESTS, TERMS, TEXT_EMBEDDINGS
from schemas.labels import CLUSTERS, TERM_CLUSTERS, TERM_INTERESTS, VISUAL_TERMS

MAX_TASKS = 1024
"""Tasks at most; one an interest while there are no more."""
_ROWS = (
    "l1_interest string, local int, term_id int, distance float, name string, "
    "num_terms int, top_terms array<string>, inertia double"
)
"""Rows of clusters (name given) and of their terms (name null), as one frame."""
_SIZES = "l1_interest string, num_terms bigint, num_distinct bigint"
"""Rows of what bounds the number of clusters of an interest."""


def cluster_terms(
    interests: DataFrame,
    visual_terms: SmallTable,
    term_interests: SmallTable,
    terms: SmallTable,
    text_embeddings: SmallTable,
    params: ClusterTermsParams,
    ctx: StageContext,
) -> Mapping[str, DataFrame]:
    """Cluster each interest by itself, then number the clusters by (interest, local number)."""

    tables = (visual_terms, term_interests, terms, text_embeddings)

    def count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for interest in batch.column("l1_interest").to_pylist():
                members = Members(interest, *(table.read() for table in tables))
                size = {"num_terms": len(members), "num_distinct": members.num_distinct}
                yield pa.RecordBatch.from_pylist([{"l1_interest": interest} | size])

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for row in batch.to_pylist():
                members = Members(row["l1_interest"], *(table.read() for table in tables))
                if len(members):
                    yield from _cluster(
                        members, _num_clusters(members, row["sizes"], params), params
                    )

    # By range: a hash would give some tasks several interests.
    num_tasks = min(max(ctx.count(interests), 1), MAX_TASKS)
    every = F.lit(None).cast(f"array<struct<{_SIZES}>>")
    if params.num_clusters is not None:  # a share of the budget depends on all interests
        spread = interests.repartitionByRange(num_tasks, "l1_interest")
        sizes = ctx.materialise(spread.mapInArrow(count, _SIZES))
        listed = sizes.agg(F.sort_array(F.collect_list(F.struct("*"))).alias("sizes"))
        interests, every = interests.crossJoin(F.broadcast(listed)), F.col("sizes")
    asked = interests.select("l1_interest", every.alias("sizes"))
    spread = asked.repartitionByRange(num_tasks, "l1_interest")
    rows = ctx.materialise(spread.mapInArrow(run, _ROWS))
    heads = rows.where(F.col("name").isNotNull())
    order = Window.orderBy("l1_interest", "local").rowsBetween(Window.unboundedPreceding, 0)
    number = (F.row_number().over(order) - 1).cast("int")
    numbered = ctx.materialise(heads.withColumn("cluster_id", number))
    ids = numbered.select("l1_interest", "local", "cluster_id")
    tails = rows.where(F.col("name").isNull())
    return {
        "clusters": numbered.withColumnRenamed("term_id", "medoid_term_id").select(
            *CLUSTERS.column_names
        ),
        "term_clusters": tails.join(F.broadcast(ids), ["l1_interest", "local"], "inner").select(
            *TERM_CLUSTERS.column_names
        ),
    }


class Members:
    """Visual terms of one interest with their embeddings.

    Args:
        interest: its name.
        visual_terms: the table.
        term_interests: the table.
        terms: the table.
        text_embeddings: the table.

    Raises:
        ValueError: a visual term has no text embedding.
    """

    def __init__(
        self,
        interest: str,
        visual_terms: pa.Table,
        term_interests: pa.Table,
        terms: pa.Table,
        text_embeddings: pa.Table,
    ) -> None:
        self.interest = interest
        mine = term_interests.filter(pc.equal(term_interests["l1_interest"], interest))
        rows = positions_of(mine["term_id"], visual_terms["term_id"])
        ids = one_array(mine["term_id"]).filter(pa.array(rows >= 0))
        self.term_id = ids.to_numpy()
        self.num_positives = visual_terms["num_positives"].to_numpy()[rows[rows >= 0]]
        self.text = one_array(terms["text"]).take(pa.array(positions_of(ids, terms["term_id"])))
        at = positions_of(self.text, text_embeddings["text"])
        if (at < 0).any():
            raise ValueError(
                f"text_embeddings: {(at < 0).sum()} visual terms have none, first "
                f"{self.text[int(np.argmax(at < 0))].as_py()!r} of interest {interest!r}; "
                "expected one for each."
            )
        self.vectors = to_matrix(text_embeddings["embedding"].take(pa.array(at)))
        """float32 (n, d)."""

    def __len__(self) -> int:
        return len(self.term_id)

    @property
    def num_distinct(self) -> int:
        """Distinct vectors: clusters at most."""
        return count_distinct(self.vectors)


def _num_clusters(
    members: Members, sizes: list[dict[str, Any]] | None, params: ClusterTermsParams
) -> int:
    """Clusters of an interest, from the sizes of all of them where a budget is shared."""
    if sizes is None:
        own = {"num_terms": len(members), "num_distinct": members.num_distinct}
        sizes = [own | {"l1_interest": members.interest}]
    shares = allocate_k(
        np.array([size["num_terms"] for size in sizes]),
        np.array([size["num_distinct"] for size in sizes]),
        params.num_clusters,
        None if params.num_clusters else params.terms_per_cluster,
    )
    return int(shares[[size["l1_interest"] for size in sizes].index(members.interest)])


def _cluster(members: Members, k: int, params: ClusterTermsParams) -> Iterator[pa.RecordBatch]:
    interest, ids = members.interest, members.term_id
    frequency = members.num_positives.astype(np.int64)
    weights = np.maximum(frequency, 1).astype(np.float64) if params.weight_by_frequency else None
    found = cluster(
        ids,
        members.vectors,
        k,
        params.max_iterations,
        params.num_starts,
        params.num_candidates,
        params.seed,
        weights,
    )
    order = np.argsort(ids, kind="stable")
    heads = describe_clusters(found, frequency[order], params.num_top_terms)
    text_of = dict(zip(ids.tolist(), members.text.to_pylist(), strict=True))
    medoids = heads["medoid_term_id"].to_pylist()
    tops = [[text_of[t] for t in top] for top in heads["top_term_ids"].to_pylist()]
    num = len(medoids)
    yield _batch(
        interest,
        heads["cluster"],
        heads["medoid_term_id"],
        pa.nulls(num, pa.float32()),
        pa.array([text_of[t] for t in medoids], pa.string()),
        heads["size"],
        pa.array(tops, pa.list_(pa.string())),
        heads["inertia"],
    )
    size = len(found.term_ids)
    yield _batch(
        interest,
        pa.array(found.cluster),
        pa.array(found.term_ids),
        pa.array(found.distance),
        pa.nulls(size, pa.string()),
        pa.nulls(size, pa.int32()),
        pa.nulls(size, pa.list_(pa.string())),
        pa.nulls(size, pa.float64()),
    )


def _batch(interest: str, *columns: pa.Array | pa.ChunkedArray) -> pa.RecordBatch:
    arrays = [one_array(column) for column in columns]
    names = [part.split()[0] for part in _ROWS.split(", ")]
    first = pa.array([interest] * len(arrays[0]), pa.string())
    return pa.RecordBatch.from_arrays([first, *arrays], names)


STAGE = RelationalStage(
    name="cluster_terms",
    version=2,
    fn=cluster_terms,
    params=ClusterTermsParams,
    inputs=(INTERESTS,),
    broadcast=(VISUAL_TERMS, TERM_INTERESTS, TERMS, TEXT_EMBEDDINGS),
    outputs=(CLUSTERS, TERM_CLUSTERS),
    ledger=(LedgerRule("members", ("term_clusters",), ("clusters.num_terms",)),),
)
