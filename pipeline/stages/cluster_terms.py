"""Clusters of visual terms inside each L1 interest (paper section 3.2.1; SPEC K2-K4).

Cost at 1.329 billion images: does not depend on them; 24 interests of some 9,000 terms and 1,400
clusters, one task an interest, minutes each; the text embeddings (340 MB) in every worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
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

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for interest in batch.column("l1_interest").to_pylist():
                tables = (visual_terms.read(), term_interests.read(), terms.read())
                members = Members(*tables, text_embeddings.read())
                yield from _cluster_interest(interest, members, params)

    # By range: a hash would give some tasks several interests.
    num_tasks = min(max(ctx.count(interests), 1), MAX_TASKS)
    spread = interests.repartitionByRange(num_tasks, "l1_interest")
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
    """Visual terms of every interest with their embeddings.

    Args:
        visual_terms: the table.
        term_interests: the table.
        terms: the table.
        text_embeddings: the table.

    Raises:
        ValueError: a visual term has no text embedding.
    """

    def __init__(
        self,
        visual_terms: pa.Table,
        term_interests: pa.Table,
        terms: pa.Table,
        text_embeddings: pa.Table,
    ) -> None:
        rows = term_interests.filter(
            pc.is_in(term_interests["term_id"], value_set=one_array(visual_terms["term_id"]))
        )
        self.interest = one_array(rows["l1_interest"])
        self.term_id = rows["term_id"].to_numpy()
        of_term = positions_of(rows["term_id"], terms["term_id"])
        self.text = one_array(terms["text"]).take(pa.array(of_term))
        at = positions_of(self.text, text_embeddings["text"])
        if (at < 0).any():
            num_missing = len(np.unique(self.term_id[at < 0]))
            raise ValueError(
                f"text_embeddings: {num_missing} visual terms have none, first "
                f"{self.text[int(np.argmax(at < 0))].as_py()!r}; expected one for each."
            )
        self._embeddings, self._at = one_array(text_embeddings["embedding"]), at
        counts = positions_of(rows["term_id"], visual_terms["term_id"])
        self.num_positives = visual_terms["num_positives"].to_numpy()[counts]

    def of(self, interest: str) -> NDArray[np.int64]:
        """Rows of an interest."""
        mask = pc.equal(self.interest, interest).to_numpy(zero_copy_only=False)
        return np.flatnonzero(mask)

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings of rows, float32 (n, d)."""
        return to_matrix(self._embeddings.take(pa.array(self._at[rows])))


def _num_clusters(interest: str, members: Members, params: ClusterTermsParams) -> int:
    """Clusters of an interest, from the sizes of all of them."""
    names = sorted(set(members.interest.to_pylist()))
    rows = [members.of(name) for name in names]
    if params.num_clusters is None:
        rows = [members.of(interest)]
        names = [interest]
    sizes = np.array([len(r) for r in rows])
    distinct = np.array([count_distinct(members.vectors(r)) for r in rows])
    per_cluster = None if params.num_clusters else params.terms_per_cluster
    shares = allocate_k(sizes, distinct, params.num_clusters, per_cluster)
    return int(shares[names.index(interest)])


def _cluster_interest(
    interest: str, members: Members, params: ClusterTermsParams
) -> Iterator[pa.RecordBatch]:
    rows = members.of(interest)
    if len(rows) == 0:
        return
    frequency = members.num_positives[rows].astype(np.int64)
    weights = np.maximum(frequency, 1).astype(np.float64) if params.weight_by_frequency else None
    ids = members.term_id[rows]
    found = cluster(
        ids,
        members.vectors(rows),
        _num_clusters(interest, members, params),
        params.max_iterations,
        params.num_starts,
        params.seed,
        weights,
    )
    order = np.argsort(ids, kind="stable")
    heads = describe_clusters(found, frequency[order], params.num_top_terms)
    text_of = dict(zip(ids.tolist(), members.text.take(pa.array(rows)).to_pylist(), strict=True))
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
    version=1,
    fn=cluster_terms,
    params=ClusterTermsParams,
    inputs=(INTERESTS,),
    broadcast=(VISUAL_TERMS, TERM_INTERESTS, TERMS, TEXT_EMBEDDINGS),
    outputs=(CLUSTERS, TERM_CLUSTERS),
    ledger=(LedgerRule("members", ("term_clusters",), ("clusters.num_terms",)),),
)
