"""Sampling and scoring of visual concreteness: bottom-k by an oracle, planted terms, no seams."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from given import run_stage

from pipeline.config.labels import SampleConcretenessParams, ScoreConcretenessParams
from pipeline.kernels.hashing import stream_seed
from pipeline.kernels.vectors import from_matrix
from pipeline.stages import score_concreteness as scoring
from pipeline.stages.sample_concreteness import STAGE as SAMPLE
from schemas.ingested import ANNOTATIONS, IMAGE_EMBEDDINGS, TERMS
from schemas.labels import CONCRETENESS_POOL, CONCRETENESS_POSITIVES, SELECTED_ANNOTATIONS

SCORE = scoring.STAGE
K, POOL, SEED = 5, 12, 3
POPULAR, RARE, AT_THRESHOLD, BELOW = 7, 1, 2, 3


def vector(*numbers):
    return np.array(numbers, "<f4").tobytes()


def nested(*pairs):
    return [{"term_id": t, "score": s} for t, s in pairs]


@pytest.fixture(scope="module")
def corpus():
    """400 images with embeddings of 430; a popular term, a rare one, two that score too low."""
    ids = [f"i{i:03d}" for i in range(430)]
    embeddings = {name: vector(i, -i) for i, name in enumerate(ids)}
    selected = {name: [(POPULAR, 0.9)] for name in ids[:400]}
    for name in ids[10:13]:
        selected[name] = [(RARE, 0.81), (POPULAR, 0.95)]
    for name in ids[50:90]:
        selected[name] = [(AT_THRESHOLD, 0.8), (BELOW, 0.2), (POPULAR, 0.99)]
    selected["no embedding"] = [(RARE, 0.99)]
    return ids, embeddings, selected


@pytest.fixture(scope="module")
def samples(spark, tmp_path_factory, corpus):
    """The stage's tables with 1 bucket and with 4."""
    _, embeddings, selected = corpus
    given = {
        SELECTED_ANNOTATIONS: [
            {"image_id": i, "annotations": nested(*found)} for i, found in selected.items()
        ],
        # Images from i200 on have no row of annotations; an unselected term counts in the pool.
        ANNOTATIONS: [
            {"image_id": i, "annotations": nested((0, 0.01), *found)}
            for i, found in selected.items()
            if i < "i200"
        ],
        IMAGE_EMBEDDINGS: [{"image_id": i, "embedding": v} for i, v in embeddings.items()],
    }
    params = SampleConcretenessParams(
        min_confidence=0.8, max_positives=K, pool_size=POOL, seed=SEED
    )
    return [
        run_stage(
            spark,
            tmp_path_factory.mktemp(f"sample{buckets}"),
            SAMPLE,
            given,
            buckets,
            sample_concreteness=params,
        )[2]
        for buckets in (1, 4)
    ]


def draw(stream, *parts):
    state = stream_seed(SEED, stream)
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part.to_bytes(4, "little")
        state = xxhash.xxh64_intdigest(raw, state)
    return state >> 11


def lowest(ids, k, *stream):
    return sorted(sorted(ids, key=lambda i: (draw(*stream, i), i))[:k])


def test_positives_are_the_lowest_by_hash_of_all_confident_images(samples, corpus):
    ids, embeddings, selected = corpus
    found = {}
    for row in samples[0]["concreteness_positives"]:
        found.setdefault(row["term_id"], []).append(row["image_id"])
        assert row["embedding"] == embeddings[row["image_id"]]
    # 400 images are far above the 29 that thinning lets through: it must keep the lowest.
    popular = [i for i, terms in selected.items() if POPULAR in dict(terms)]
    assert len(popular) == 400
    assert found == {
        POPULAR: lowest(popular, K, "concreteness.sample", POPULAR),
        RARE: ids[10:13],
    }


def test_pool_is_the_lowest_by_hash_with_all_terms_at_any_score(samples, corpus):
    ids, embeddings, selected = corpus
    pool = {row["image_id"]: row for row in samples[0]["concreteness_pool"]}
    assert sorted(pool) == lowest(ids, POOL, "concreteness.pool")
    assert any(i < "i200" for i in pool)
    assert any(i >= "i200" for i in pool)
    for name, row in pool.items():
        terms = [0, *(t for t, _ in selected[name])] if name < "i200" else []
        assert row["term_ids"] == terms
        assert row["embedding"] == embeddings[name]


def test_samples_do_not_depend_on_buckets(samples):
    assert samples[0] == samples[1]


CONCRETE, ABSTRACT, FEW, CROWDED = (0, 1, 2), (3, 4, 5), 6, 7
"""The last is carried by all but 30 of the pool's images."""


COUNTS = {"positives.dropped.too_few_negatives": 30, "terms.scored": 8}


@pytest.fixture(scope="module")
def planted():
    """Concrete terms are shifted along an axis of their own; abstract ones are the pool's."""
    rng = np.random.default_rng(11)
    pool = [
        {
            "image_id": f"p{i:03d}",
            "term_ids": [CROWDED] * (i >= 30),
            "embedding": vector(*rng.normal(size=8)),
        }
        for i in range(300)
    ]
    positives = []
    for term in (*CONCRETE, *ABSTRACT, FEW, CROWDED):
        for i in range(3 if term == FEW else 60):
            x = rng.normal(size=8)
            x[term] += 3.0 * (term in CONCRETE)
            positives.append(
                {"term_id": term, "image_id": f"t{term}-{i:02d}", "embedding": vector(*x)}
            )
    terms = [
        {"term_id": t, "text": f"t{t}", "language": "en", "canonical_term_id": t}
        | {"is_sensitive": False}
        for t in range(8)
    ]
    return {CONCRETENESS_POSITIVES: positives, CONCRETENESS_POOL: pool, TERMS: terms}


@pytest.fixture(scope="module")
def scores(spark, tmp_path_factory, planted):
    """Scores with 1, 2 and 8 buckets, and with slices that cut every term."""
    params = ScoreConcretenessParams(
        hidden=16, learning_rate=0.01, num_folds=3, min_positives=20, seed=SEED
    )
    cut = dataclasses.replace(SCORE, batch_rows=7)
    runs = ((SCORE, 1), (SCORE, 2), (SCORE, 8), (cut, 2))
    return [
        run_stage(
            spark,
            tmp_path_factory.mktemp("score"),
            stage,
            planted,
            buckets,
            score_concreteness=params,
        )
        for stage, buckets in runs
    ]


def test_planted_concrete_terms_score_above_abstract_ones(scores):
    _, manifest, tables = scores[0]
    rows = {row["term_id"]: row for row in tables["term_concreteness"]}
    assert sorted(rows) == [*CONCRETE, *ABSTRACT, FEW, CROWDED]
    assert min(rows[t]["concreteness"] for t in CONCRETE) > 0.8
    assert max(rows[t]["concreteness"] for t in ABSTRACT) < 0.68
    for term in (*CONCRETE, *ABSTRACT):
        row = rows[term]
        assert (row["status"], row["num_positives"], row["num_test"]) == ("ok", 60, 120)
        assert row["wilson_lower"] < row["concreteness"]
        assert row["seed"] == SEED
    few = rows[FEW]
    assert (few["status"], few["num_positives"], few["num_test"]) == ("too_few_positives", 3, 0)
    assert few["concreteness"] is few["standard_error"] is few["wilson_lower"] is None
    assert (rows[CROWDED]["num_positives"], rows[CROWDED]["num_test"]) == (30, 60)
    assert manifest.counts == COUNTS
    line = manifest.ledger[0]
    assert (line.rows_in, line.rows_out, line.dropped) == (423, 393, {"too_few_negatives": 30})


def test_scores_do_not_depend_on_buckets_nor_on_slices(scores):
    tables = [tables["term_concreteness"] for _, _, tables in scores]
    assert all(table == tables[0] for table in tables)
    assert [m.counts for _, m, _ in scores] == [COUNTS] * 4


def test_images_with_an_alias_of_the_term_are_no_negatives():
    terms = pa.table(
        {
            "term_id": pa.array([0, 2, 5], pa.int32()),
            "canonical_term_id": pa.array([0, 0, 5], pa.int32()),
        }
    )
    pool = pa.table(
        {
            "image_id": ["a", "b", "c"],
            "term_ids": pa.array([[2], [5], []], pa.list_(pa.int32())),
            "embedding": from_matrix(np.eye(3, dtype=np.float32)),
        }
    )
    state = scoring.prepare(pool, terms, ScoreConcretenessParams())
    assert [len(state.pool.rows_with(t)) for t in (0, 2, 5)] == [1, 1, 1]
    assert state.pool.rows_with(0).tolist() == state.pool.rows_with(2).tolist()
    assert state.pool.rows_with(0).tolist() != state.pool.rows_with(5).tolist()
