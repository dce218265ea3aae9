"""Selection, dictionary, sweep and label freezing on rows worked by hand."""

import numpy as np
import pyarrow as pa
import pytest
from label_rows import annotations, table

from pipeline.config.dataset import FreezeLabelsParams
from pipeline.config.labels import (
    SelectAnnotationsParams,
    SelectVisualTermsParams,
    SweepConcretenessParams,
)
from pipeline.stages import select_annotations
from pipeline.stages.freeze_labels import freeze_labels
from pipeline.stages.select_visual_terms import select_visual_terms
from pipeline.stages.sweep_concreteness import count_kept, sweep_concreteness
from schemas import ALL


class Small:
    def __init__(self, rows):
        self._rows = rows

    def read(self):
        return self._rows


class Context:
    """Keeps frames as they are: literal rows are small."""

    def materialise(self, df):
        return df.localCheckpoint()

    def count(self, df):
        return df.count()


TERMS = table(
    "terms",
    (0, "jaguar", "en", 0, False),
    (1, "jaguars", "en", 0, False),
    (2, "katze", "de", 2, False),
    (3, "rude", "en", 3, True),
    (4, "car", "en", 4, False),
)


def selected(params=None, thresholds=None):
    params = params or SelectAnnotationsParams(min_confidence=0.5)
    rows = annotations(a=[(0, 0.4), (1, 0.9), (2, 0.9), (3, 0.9)], b=[(4, 0.45), (1, 0.5)], c=[])
    state = select_annotations.prepare(TERMS, thresholds, params)
    result = select_annotations.select_batch(rows, state, params)
    pairs = {
        r["image_id"]: [(x["term_id"], pytest.approx(x["score"])) for x in r["annotations"]]
        for r in result.tables["selected_annotations"].to_pylist()
    }
    return pairs, {k.rsplit(".", 1)[1]: n for k, n in result.counts.items() if n}


def test_select_by_hand():
    pairs, dropped = selected()
    assert pairs == {"a": [(0, 0.9)], "b": [(0, 0.5)], "c": []}
    assert dropped == {"alias_merged": 1, "language": 1, "sensitive": 1, "low_score": 1}


def test_dropping_aliases_is_the_literal_reading():
    pairs, dropped = selected(SelectAnnotationsParams(min_confidence=0.4, aliases="drop"))
    assert pairs == {"a": [(0, 0.4)], "b": [(4, 0.45)], "c": []}
    assert dropped["alias"] == 2


def test_calibrated_threshold_replaces_the_configured_one():
    pairs, _ = selected(thresholds=table("annotation_thresholds", (4, 0.3), (0, 0.95)))
    assert pairs == {"a": [], "b": [(4, 0.45)], "c": []}


def frame(spark, name, rows):
    contract = ALL[name]
    given = [tuple(r.values()) for r in rows.to_pylist()]
    return spark.createDataFrame(given, contract.ddl)


CONCRETENESS = table(
    "term_concreteness",
    (0, 0.9, 100, 40, 0.05, 0.8, "ok", 0),
    (2, None, 3, 0, None, None, "too_few_positives", 0),
    (4, 0.6, 100, 40, 0.05, 0.45, "ok", 0),
)


@pytest.mark.parametrize(
    ("options", "kept", "lost"),
    [
        (
            {"boundary": 0.65},
            [0],
            {1: "alias", 2: "too_few_positives", 3: "sensitive", 4: "below_boundary"},
        ),
        ({"boundary": 0.85, "use_lower_bound": True}, [], {0: "below_boundary"}),
        ({"boundary": 0.6, "keep_unscored": True}, [0, 2, 4], {1: "alias", 3: "sensitive"}),
        ({"restrict": False}, [0, 2, 4], {1: "alias", 3: "sensitive"}),
    ],
)
def test_visual_dictionary(spark, options, kept, lost):
    frames = select_visual_terms(
        frame(spark, "terms", TERMS),
        frame(spark, "term_concreteness", CONCRETENESS),
        SelectVisualTermsParams(**options),
        Context(),
    )
    assert sorted(r.term_id for r in frames["visual_terms"].collect()) == kept
    found = {r.term_id: r.reason for r in frames["dropped_terms"].collect()}
    assert {t: found.get(t) for t in lost} == lost


def test_sweep_counts_against_a_slow_count(spark):
    rng = np.random.default_rng(5)
    scores = rng.random(20).astype(np.float32)
    scores[::4] = np.nan
    images = {
        f"i{i}": [(int(t), 0.9) for t in np.flatnonzero(rng.random(22) < 0.2)] for i in range(40)
    }
    boundaries = np.array([0.0, 0.25, 0.5, 0.75, 1.0], np.float32)
    rows = annotations(**images)
    kept, num_images = count_kept(rows["annotations"], scores, boundaries)
    known = [[scores[t] for t, _ in found if t < 20] for found in images.values()]
    assert kept.tolist() == [sum(s >= b for found in known for s in found) for b in boundaries]
    assert num_images.tolist() == [
        sum(any(s >= b for s in found) for found in known) for b in boundaries
    ]
    concreteness = pa.table({"term_id": np.arange(20, dtype=np.int32), "concreteness": scores})
    params = SweepConcretenessParams(boundaries=tuple(boundaries.tolist()))
    images_frame = frame(spark, "annotations", rows).repartition(3)

    def sweep(evaluations):
        frames = sweep_concreteness(
            images_frame, evaluations, Small(concreteness), params, Context()
        )
        return sorted(map(tuple, frames["concreteness_sweep"].collect()))

    judged = spark.createDataFrame(
        [(0.25, 0.7), (0.75, 0.9), (0.75, 0.8), (0.5, None)], "boundary float, metric double"
    )
    found = sweep(None)
    assert [f[4] for f in found] == [None] * 5
    assert [f[:4] for f in sweep(judged)] == [f[:4] for f in found]
    assert [f[4] for f in sweep(judged)] == [None, 0.7, None, 0.9, None]
    with pytest.raises(ValueError, match="2 rows are not on the grid"):
        sweep(spark.createDataFrame([(0.3, 1.0), (None, 1.0)], "boundary float, metric double"))
    assert [f[2] for f in found] == kept.tolist()
    assert [f[3] for f in found] == num_images.tolist()
    assert [f[1] for f in found] == [int((scores >= b).sum()) for b in boundaries]


@pytest.mark.parametrize("num_partitions", [1, 5])
def test_freeze_labels_numbers_what_remains(spark, num_partitions):
    labels = table(
        "image_labels",
        ("a", [0, 2], [[0], [1]]),
        ("b", [2], [[1]]),
        ("c", [0], [[0]]),
        ("d", [3], [[2]]),
    )
    unique = table(
        "unique_images", ("a", "x", "jpeg", 1), ("b", "y", "png", 1), ("d", "z", "png", 1)
    )
    clusters = table(
        "clusters",
        *[(c, "animals", f"name{c}", c, 1, [f"name{c}"], 0.0) for c in range(4)],
    )
    frames = freeze_labels(
        frame(spark, "image_labels", labels).repartition(num_partitions),
        frame(spark, "unique_images", unique).repartition(num_partitions),
        frame(spark, "clusters", clusters).repartition(num_partitions),
        FreezeLabelsParams(min_images_per_label=1),
        Context(),
    )
    found = {name: sorted(map(tuple, df.collect())) for name, df in frames.items()}
    assert found["label_map"] == [
        (0, 0, "name0", "animals", 1),
        (1, 2, "name2", "animals", 2),
        (2, 3, "name3", "animals", 1),
    ]
    assert found["dropped_labels"] == [(1, "too_few_images", 0)]
    assert found["training_images"] == [("a", [0, 1]), ("b", [1]), ("d", [2])]
    assert found["excluded_images"] == [("c", "not_unique")]


def test_freeze_labels_drops_rare_labels(spark):
    labels = table("image_labels", ("a", [0, 2], [[0], [1]]), ("b", [2], [[1]]), ("d", [3], [[2]]))
    unique = table(
        "unique_images", ("a", "x", "jpeg", 1), ("b", "y", "png", 1), ("d", "z", "png", 1)
    )
    clusters = table(
        "clusters",
        *[(c, "animals", f"name{c}", c, 1, [f"name{c}"], 0.0) for c in range(4)],
    )
    frames = freeze_labels(
        frame(spark, "image_labels", labels),
        frame(spark, "unique_images", unique),
        frame(spark, "clusters", clusters),
        FreezeLabelsParams(min_images_per_label=2),
        Context(),
    )
    assert sorted(map(tuple, frames["training_images"].collect())) == [("a", [0]), ("b", [0])]
    assert [tuple(r) for r in frames["excluded_images"].collect()] == [("d", "labels_too_rare")]
    assert [r.cluster_id for r in frames["label_map"].collect()] == [2]
