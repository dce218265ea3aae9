"""Clusters of planted terms: numbers, names, budget, and equality however the work is cut."""

import numpy as np
import pyarrow as pa
import pytest
from given import run_stage

from pipeline.config.labels import ClusterTermsParams
from pipeline.stages import cluster_terms
from schemas.ingested import INTERESTS, TERMS, TEXT_EMBEDDINGS
from schemas.labels import TERM_INTERESTS, VISUAL_TERMS

STAGE = cluster_terms.STAGE
GROUPS = {"animals": (0, 1), "food": (2, 3, 4)}
"""Interest -> directions around which its terms stand."""
PER_GROUP = 4
SHARED, INVISIBLE = 0, 100
"""A term of two interests; a term that is not visual."""


def planted():
    """Terms close to one of 5 axes; term 0 is an animal and food, "unused" has no visual term."""
    rng = np.random.default_rng(2)
    terms, vectors, interests = {}, {}, []
    for name, axes in GROUPS.items():
        for axis in axes:
            for _ in range(PER_GROUP):
                term = len(terms)
                x = np.eye(6)[axis] + 0.05 * rng.normal(size=6)
                terms[term], vectors[term] = f"{name} {axis} {term}", x / np.linalg.norm(x)
                interests.append((term, name))
    terms[INVISIBLE], vectors[INVISIBLE] = "abstract", np.eye(6)[5]
    interests += [(SHARED, "food"), (INVISIBLE, "unused")]
    return terms, vectors, interests


def given(without=None):
    terms, vectors, interests = planted()
    return {
        INTERESTS: [{"l1_interest": name} for name in ("animals", "food", "unused")],
        VISUAL_TERMS: [
            {"term_id": t, "concreteness": 0.9, "num_positives": 10 + t}
            for t in terms
            if t != INVISIBLE
        ],
        TERM_INTERESTS: [
            {"term_id": t, "l1_interest": name, "probability": 1.0} for t, name in interests
        ],
        TERMS: [
            {"term_id": t, "text": text, "language": "en", "canonical_term_id": t}
            | {"is_sensitive": False}
            for t, text in terms.items()
        ],
        TEXT_EMBEDDINGS: [
            {"text": terms[t], "embedding": x.astype("<f4").tobytes()}
            for t, x in vectors.items()
            if terms[t] != without
        ],
    }


def run(spark, root, num_buckets=1, rows=None, **options):
    params = ClusterTermsParams(num_starts=3, num_top_terms=3, **options)
    return run_stage(spark, root, STAGE, rows or given(), num_buckets, cluster_terms=params)[2]


@pytest.fixture(scope="module")
def tables(spark, tmp_path_factory):
    return run(spark, tmp_path_factory.mktemp("clusters"), terms_per_cluster=PER_GROUP)


def test_planted_groups_are_numbered_by_interest_and_smallest_term(tables):
    rows = tables["clusters"]
    assert [r["cluster_id"] for r in rows] == [0, 1, 2, 3, 4]
    assert [r["l1_interest"] for r in rows] == ["animals"] * 2 + ["food"] * 3
    members = {r["cluster_id"]: [] for r in rows}
    for row in tables["term_clusters"]:
        members[row["cluster_id"]].append(row["term_id"])
    smallest = [min(members[c]) for c in range(5)]
    assert smallest[:2] == [0, 4]
    # The shared term stands with one of the food groups, as their smallest: the first of them.
    assert smallest[2] == SHARED
    assert smallest[3:] == sorted(smallest[3:])
    found = [set(members[c]) - {SHARED} for c in range(5)]
    assert found[:2] == [{1, 2, 3}, {4, 5, 6, 7}]
    assert sorted(map(sorted, found[2:])) == [[8, 9, 10, 11], [12, 13, 14, 15], [16, 17, 18, 19]]


def test_every_visual_term_has_one_cluster_an_interest(tables):
    of = {r["cluster_id"]: r["l1_interest"] for r in tables["clusters"]}
    pairs = sorted((r["term_id"], of[r["cluster_id"]]) for r in tables["term_clusters"])
    assert pairs == sorted(p for p in planted()[2] if p[0] != INVISIBLE)
    sizes = [sum(r["cluster_id"] == c for r in tables["term_clusters"]) for c in of]
    assert sizes == [r["num_terms"] for r in tables["clusters"]]


def test_clusters_are_named_and_measured(tables):
    terms, vectors, _ = planted()
    for row in tables["clusters"]:
        mine = [r for r in tables["term_clusters"] if r["cluster_id"] == row["cluster_id"]]
        distance = {r["term_id"]: r["distance"] for r in mine}
        matrix = np.array([vectors[t] for t in distance])
        by_hand = np.linalg.norm(matrix - matrix.mean(axis=0), axis=1)
        np.testing.assert_allclose(list(distance.values()), by_hand, rtol=1e-5)
        nearest = sorted(distance, key=lambda t: (distance[t], t))
        assert row["medoid_term_id"] == nearest[0]
        assert row["name"] == terms[nearest[0]]
        assert row["top_terms"] == [terms[t] for t in nearest[:3]]
        assert row["inertia"] == pytest.approx((by_hand**2).sum(), rel=1e-5)


def test_a_budget_is_shared_and_tasks_do_not_matter(spark, tmp_path, tables, monkeypatch):
    monkeypatch.setattr(cluster_terms, "MAX_TASKS", 1)
    found = run(spark, tmp_path, num_buckets=4, num_clusters=5)
    assert found == tables


def test_a_missing_embedding_is_named(spark, tmp_path):
    rows = given(without="food 3 14")
    with pytest.raises(Exception, match=r"1 visual terms have none, first 'food 3 14'"):
        run(spark, tmp_path, rows=rows)


def test_weights_follow_frequency():
    tables = given()
    tables[VISUAL_TERMS][3]["num_positives"] = 10_000
    read = {
        table.name: pa.Table.from_pylist(rows, table.arrow_schema) for table, rows in tables.items()
    }
    members = cluster_terms.Members(
        "animals",
        read["visual_terms"],
        read["term_interests"],
        read["terms"],
        read["text_embeddings"],
    )
    for is_weighted in (False, True):
        params = ClusterTermsParams(terms_per_cluster=8, weight_by_frequency=is_weighted)
        heads, tails = cluster_terms._cluster(members, 1, params)
        distance = dict(
            zip(tails["term_id"].to_pylist(), tails["distance"].to_pylist(), strict=True)
        )
        assert heads.num_rows == 1
        # The centroid moves to the frequent term.
        assert (distance[3] < 0.01) == is_weighted
