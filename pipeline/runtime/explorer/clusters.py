"""The cluster browser: every cluster with its members, neighbours and example images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.kernels.bottom_k import BottomK, shared_budget
from pipeline.kernels.hashing import hash_ints
from pipeline.kernels.nested import list_offsets, one_chunk
from pipeline.kernels.vectors import l2_normalise, to_matrix
from pipeline.report.blocks import Block, Column, Value, View, rounded
from pipeline.runtime.explorer.sampling import Reading

PER_PART = 200
"""Clusters of one data file."""
_BLOCK = 2048
"""Clusters whose cosines with all others are held at once."""
_COLUMNS = (
    Column("cluster", "link"),
    Column("interest", is_choice=True),
    Column("terms", "count"),
    Column("images", "count"),
    Column("after resampling", "count"),
    Column("concreteness", "real"),
    Column("members", "searched"),
)
_MEMBERS = (
    Column("term"),
    Column("concreteness", "real"),
    Column("distance to the centroid", "real"),
)


def clusters(reading: Reading) -> View | None:
    """All clusters, their details in parts of `PER_PART`.

    Cost: the term and cluster tables whole, ``text_embeddings`` once (336 MB for the paper's
    218,879 terms), cosines of all pairs of clusters (26k: some 10 s of two cores), and a sample of
    ``training_images``.
    """
    if not reading.has("clusters", "term_clusters", "terms"):
        return None
    table = reading.catalog.read("clusters").sort_by("cluster_id")
    members = _members(reading)
    labels, strips = _labels(reading, table), _examples(reading, table)
    neighbours = _neighbours(reading, table, members)
    details = [
        _detail(row, members[row["cluster_id"]], labels, strips, neighbours)
        for row in table.to_pylist()
    ]
    rows = [_row(i, one) for i, one in enumerate(details)]
    data = {
        "columns": [{"title": c.title, "kind": c.kind, "choice": c.is_choice} for c in _COLUMNS],
        "rows": rows,
        "order": [3, "desc"] if labels else [2, "desc"],
        "memberColumns": [{"title": c.title, "kind": c.kind, "choice": False} for c in _MEMBERS],
        "perPart": PER_PART,
    }
    parts = {
        f"clusters-{start // PER_PART}": {
            str(i): details[i] for i in range(start, min(start + PER_PART, len(details)))
        }
        for start in range(0, len(details), PER_PART)
    }
    text = (
        "Terms of one meaning inside an interest make a cluster; clusters that enough images carry "
        "are the labels. The search looks at names and at every member term. Example images come "
        f"from {reading.sampled('training_images')}."
        if reading.has("training_images")
        else ""
    )
    return View("clusters", "Clusters", text, [Block("clusters", "clusters", "", "", data)], parts)


@dataclass(frozen=True)
class _Members:
    """Terms of one cluster, nearest to the centroid first."""

    term_ids: list[int]
    rows: list[list[Value]]


def _members(reading: Reading) -> dict[int, _Members]:
    joined = reading.catalog.read("term_clusters").join(
        reading.catalog.read("terms", ["term_id", "text"]), "term_id", join_type="inner"
    )
    if reading.has("term_concreteness"):
        scores = reading.catalog.read("term_concreteness", ["term_id", "concreteness"])
        joined = joined.join(scores, "term_id", join_type="left outer")
    else:
        joined = joined.append_column("concreteness", pa.nulls(joined.num_rows, pa.float32()))
    joined = joined.sort_by([(k, "ascending") for k in ("cluster_id", "distance", "term_id")])
    found: dict[int, _Members] = {}
    for row in joined.to_pylist():
        mine = found.setdefault(row["cluster_id"], _Members([], []))
        mine.term_ids.append(row["term_id"])
        mine.rows.append([row["text"], rounded(row["concreteness"]), rounded(row["distance"])])
    return found


def _labels(reading: Reading, table: pa.Table) -> dict[int, dict[str, Value]]:
    """cluster_id -> its label with images before and after, or why it has none."""
    if not reading.has("label_map"):
        return {}
    after = {}
    if reading.has("resampling_report"):
        report = reading.catalog.read("resampling_report", ["label_id", "realised_after"])
        after = dict(zip(*(report[c].to_pylist() for c in report.column_names), strict=True))
    found: dict[int, dict[str, Value]] = {}
    for row in reading.catalog.read("label_map").to_pylist():
        label = row["label_id"]
        found[row["cluster_id"]] = {
            "label": label, "before": row["num_images"], "after": after.get(label), "reason": None,
        }  # fmt: skip
    if reading.has("dropped_labels"):
        for row in reading.catalog.read("dropped_labels").to_pylist():
            found[row["cluster_id"]] = {
                "label": None, "before": row["num_images"], "after": None, "reason": row["reason"],
            }  # fmt: skip
    return found


def _examples(reading: Reading, table: pa.Table) -> dict[int, list[Value]]:
    """Pictures of the clusters that are labels, within the budget."""
    if not reading.has("training_images", "label_map"):
        return {}
    label_map = reading.catalog.read("label_map", ["label_id", "cluster_id"]).sort_by("label_id")
    cluster_of = label_map["cluster_id"].to_numpy()
    lowest = BottomK(reading.params.num_examples, reading.seed, "explorer_clusters")
    for batch in reading.sample("training_images", ["image_id", "label_ids"]):
        lists = one_chunk(batch["label_ids"])
        labels = lists.flatten().to_numpy()
        rows = np.repeat(np.arange(len(lists)), np.diff(list_offsets(lists)))
        lowest.add(batch["image_id"], rows, cluster_of[labels].astype(np.int64))
    ids = table["cluster_id"].to_numpy().astype(np.int64)
    order = ids[np.argsort(hash_ints(ids, reading.seed, "explorer_clusters"), kind="stable")]
    members = shared_budget(lowest.members(), order.tolist(), reading.params.max_pictures)
    return reading.strips(dict(sorted(members.items())))


def _neighbours(
    reading: Reading, table: pa.Table, members: Mapping[int, _Members]
) -> list[list[list[Value]]]:
    """The nearest clusters of each, by the cosine of the mean embeddings of their terms."""
    num = min(reading.params.num_neighbours, table.num_rows - 1)
    if num < 1 or not reading.has("text_embeddings"):
        return [[] for _ in range(table.num_rows)]
    means = _means(reading, table.num_rows, members)
    names, interests = table["name"].to_pylist(), table["l1_interest"].to_pylist()
    found: list[list[list[Value]]] = []
    for start in range(0, len(means), _BLOCK):
        cosines = means[start : start + _BLOCK] @ means.T
        cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = -np.inf
        few = np.sort(np.argpartition(-cosines, num - 1, axis=1)[:, :num], axis=1)
        near = np.take_along_axis(cosines, few, axis=1)
        order = np.argsort(-near, axis=1, kind="stable")
        few, near = np.take_along_axis(few, order, 1), np.take_along_axis(near, order, 1)
        found += [
            [[i, names[i], interests[i], rounded(float(c))] for i, c in zip(ids, cs, strict=True)]
            for ids, cs in zip(few.tolist(), near.tolist(), strict=True)
        ]
    return found


def _means(reading: Reading, num: int, members: Mapping[int, _Members]) -> NDArray[np.float32]:
    """Unit mean of the embeddings of each cluster's terms, float32 (num, d)."""
    terms = reading.catalog.read("terms", ["term_id", "text"])
    stored = reading.catalog.read("text_embeddings")
    at = pc.index_in(terms["text"], value_set=stored["text"])
    place = dict(zip(terms["term_id"].to_pylist(), at.to_pylist(), strict=True))
    vectors = to_matrix(stored["embedding"])
    sums = np.zeros((num, vectors.shape[1]), np.float32)
    for cluster, mine in members.items():
        rows = [p for t in mine.term_ids if (p := place.get(t)) is not None]
        sums[cluster] = vectors[rows].sum(axis=0)
    return l2_normalise(sums)


def _detail(
    row: Mapping[str, Value],
    members: _Members,
    labels: Mapping[int, dict[str, Value]],
    strips: Mapping[int, list[Value]],
    neighbours: list[list[list[Value]]],
) -> dict[str, Value]:
    cluster = row["cluster_id"]
    unlabelled = {"label": None, "before": None, "after": None, "reason": "labels not frozen yet"}
    medoid = members.term_ids.index(row["medoid_term_id"])
    return {
        "name": row["name"],
        "interest": row["l1_interest"],
        "medoid": members.rows[medoid][0],
        "inertia": rounded(row["inertia"]),
        "members": members.rows,
        "neighbours": neighbours[cluster],
        "pictures": strips.get(cluster, []),
        **labels.get(cluster, unlabelled),
    }


def _row(cluster: int, one: Mapping[str, Value]) -> list[Value]:
    scores = [score for _, score, _ in one["members"] if score is not None]
    mean = rounded(sum(scores) / len(scores)) if scores else None
    link = [one["name"], f"#clusters/{cluster}"]
    words = " · ".join(member[0] for member in one["members"])
    return [link, one["interest"], len(one["members"]), one["before"], one["after"], mean, words]
