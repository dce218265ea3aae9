"""Interest classifiers of terms and of images on planted, separable embeddings."""

import numpy as np
import pyarrow as pa
import pytest
from given import run_stage

from pipeline.config.labels import ClassifyImagesParams, ClassifyTermsParams
from pipeline.kernels.interests import InterestModel
from pipeline.stages import (
    classify_images,
    classify_terms,
    train_image_classifier,
    train_term_classifier,
)
from pipeline.stages.interest_model import group_codes
from pipeline.stages.train_term_classifier import STAGE as TRAIN_TERMS
from schemas.ingested import (
    IMAGE_INTERACTIONS,
    IMAGE_INTEREST_SEEDS,
    INTEREST_SEEDS,
    INTERESTS,
    TERMS,
    TEXT_EMBEDDINGS,
)
from schemas.labels import IMAGE_INTEREST_MODEL, IMAGE_TEXT_EMBEDDINGS, TERM_INTEREST_MODEL

NAMES = ("animals", "food", "travel", "zoology")
"""The last has no seeds."""
WIDTH = 6
STRANGE = np.eye(WIDTH)[5] * 0.1
"""An embedding that is near no interest."""


def vector(x):
    return np.asarray(x, "<f4").tobytes()


def near(rng, *axes):
    x = np.eye(WIDTH)[list(axes)].sum(axis=0) + 0.05 * rng.normal(size=WIDTH)
    return vector(x / np.linalg.norm(x))


def seeds_and_texts():
    """20 seeds an interest, and terms 0..11 of known interests, 12 near none, 13 without vector."""
    rng = np.random.default_rng(4)
    seeds = {f"{name}{i}": (a,) for a, name in enumerate(NAMES[:3]) for i in range(20)}
    seeds |= {f"both{i}": (0, 1) for i in range(6)}
    terms = {t: (f"term {t}", (t % 3,)) for t in range(12)}
    texts = {text: near(rng, *axes) for text, axes in (*seeds.items(), *terms.values())}
    texts["term 12"] = vector(STRANGE)
    terms |= {12: ("term 12", ()), 13: ("term 13", ())}
    return seeds, terms, texts


def interest_rows():
    seeds, terms, texts = seeds_and_texts()
    return {
        INTERESTS: [{"l1_interest": name} for name in NAMES],
        INTEREST_SEEDS: [
            {"text": text, "l1_interests": [NAMES[a] for a in axes], "source_nodes": []}
            for text, axes in seeds.items()
        ]
        + [{"text": "no embedding", "l1_interests": ["food"], "source_nodes": []}],
        TEXT_EMBEDDINGS: [{"text": t, "embedding": v} for t, v in texts.items()],
        TERMS: [
            {"term_id": t, "text": text, "language": "en", "canonical_term_id": t}
            | {"is_sensitive": False}
            for t, (text, _) in terms.items()
        ],
    }


def pick(rows, *tables):
    return {table: rows[table] for table in tables}


@pytest.fixture(scope="module")
def term_model(spark, tmp_path_factory):
    given = pick(interest_rows(), INTEREST_SEEDS, INTERESTS, TEXT_EMBEDDINGS)
    return run_stage(spark, tmp_path_factory.mktemp("train"), TRAIN_TERMS, given)[2]


def classify(spark, root, model, **options):
    rows = pick(interest_rows(), TERMS, TEXT_EMBEDDINGS)
    rows[TERM_INTEREST_MODEL] = model["term_interest_model"]
    params = ClassifyTermsParams(**options)
    return run_stage(spark, root, classify_terms.STAGE, rows, classify_terms=params)


def test_report_tells_which_interests_can_be_learned(term_model):
    report = {r["l1_interest"]: r for r in term_model["term_interest_report"]}
    assert list(report) == sorted([*NAMES, "macro_average"])
    macro = report["macro_average"]
    assert (macro["status"], macro["num_seeds"], macro["num_groups"]) == ("macro_average", 72, 72)
    assert macro["f1"] == pytest.approx(np.mean([report[n]["f1"] for n in NAMES[:3]]))
    for name in NAMES[:3]:
        assert report[name]["status"] == "ok"
        assert report[name]["f1"] > 0.9
    assert [report[n]["num_seeds"] for n in NAMES] == [26, 26, 20, 0]
    assert report["zoology"]["status"] == "too_few_seeds"
    assert report["zoology"]["f1"] is None


def test_planted_terms_get_their_interests_and_the_rest_a_reason(spark, tmp_path, term_model):
    _, manifest, tables = classify(spark, tmp_path, term_model, fallback_best=False)
    found = [(r["term_id"], r["l1_interest"]) for r in tables["term_interests"]]
    assert found == [(t, NAMES[t % 3]) for t in range(12)]
    assert all(0.5 < r["probability"] <= 1 for r in tables["term_interests"])
    assert tables["uncategorised_terms"] == [
        {"term_id": 12, "reason": "below_thresholds"},
        {"term_id": 13, "reason": "no_embedding"},
    ]
    line = manifest.ledger[0]
    assert (line.rows_in, line.rows_out) == (14, 12)
    assert line.dropped == {"below_thresholds": 1, "no_embedding": 1}


def test_fallback_gives_the_best_interest_if_it_is_likely_enough(spark, tmp_path, term_model):
    _, _, tables = classify(spark, tmp_path / "any", term_model, min_fallback_probability=0)
    extra = [r for r in tables["term_interests"] if r["term_id"] == 12]
    assert len(extra) == 1
    assert [r["term_id"] for r in tables["uncategorised_terms"]] == [13]
    least = extra[0]["probability"] + 0.01
    _, _, tables = classify(spark, tmp_path / "some", term_model, min_fallback_probability=least)
    assert [r["term_id"] for r in tables["uncategorised_terms"]] == [12, 13]


def test_a_vector_of_zeros_is_no_embedding(term_model):
    rows = interest_rows()
    texts = [r | {"embedding": bytes(4 * WIDTH)} if r["text"] == "term 3" else r
             for r in rows[TEXT_EMBEDDINGS]]  # fmt: skip
    terms, embeddings, model = (
        pa.Table.from_pylist(given, schema=table.arrow_schema)
        for table, given in (
            (TERMS, rows[TERMS]),
            (TEXT_EMBEDDINGS, texts),
            (TERM_INTEREST_MODEL, term_model["term_interest_model"]),
        )
    )
    params = ClassifyTermsParams()
    state = classify_terms.prepare(model, embeddings, params)
    result = classify_terms.classify_batch(terms, state, params)
    assert result.tables["uncategorised_terms"].to_pylist() == [
        {"term_id": t, "reason": "no_embedding"} for t in (3, 13)
    ]


def test_seeds_above_the_limit_are_drawn_whatever_their_order():
    rows = interest_rows()
    seeds, names, texts = (
        pa.Table.from_pylist(rows[t], schema=t.arrow_schema)
        for t in (INTEREST_SEEDS, INTERESTS, TEXT_EMBEDDINGS)
    )
    params = ClassifyTermsParams(max_seeds=40)
    models = [
        train_term_classifier.fit_seeds(given, names, texts, params)
        for given in (seeds, seeds.take(pa.array(range(seeds.num_rows)[::-1])))
    ]
    assert models[0].equals(models[1])
    report = InterestModel.from_json(models[0]["model"][0].as_py()).report.to_pylist()
    assert 30 < report[-1]["num_seeds"] < 50


def test_forms_of_a_word_are_one_group():
    codes = group_codes(["cat", "cats", "big cats", "berry", "berries", "glass", "bus"]).tolist()
    assert codes[0] == codes[1] != codes[2]
    assert codes[3] == codes[4]
    assert len(set(codes)) == 5


def test_texts_of_one_node_are_one_group():
    texts = ["cat", "dog", "cats", "van", "bus", "tree"]
    nodes = [["pets"], ["wild"], ["wild"], ["road"], ["road", "rail"], []]
    codes = group_codes(texts, nodes).tolist()
    assert codes[0] == codes[1] == codes[2]  # the node of the plural links them
    assert codes[3] == codes[4]
    assert len(set(codes)) == 3


def images():
    """a, b, c.. of one interest each by text; "mute" has no text, "clicks" only interactions."""
    rng = np.random.default_rng(6)
    truth = {f"i{i:02d}": i % 3 for i in range(60)}
    rows = {name: near(rng, axis) for name, axis in truth.items()}
    rows |= {"mute": vector(np.zeros(WIDTH)), "clicks": vector(np.zeros(WIDTH))}
    return truth, [{"image_id": i, "embedding": v} for i, v in rows.items()]


def interactions():
    """Of every second image and of "clicks"; an unknown interest counts for nothing."""
    truth, _ = images()
    rows = {name: NAMES[axis] for name, axis in list(truth.items())[::2]} | {"clicks": "travel"}
    return [
        {
            "image_id": i,
            "interactions": [
                {"l1_interest": name, "count": 50},
                {"l1_interest": "old interest", "count": 9},
            ],
        }
        for i, name in rows.items()
    ]


def labelled():
    """The first 48 images, and one that the corpus does not have."""
    truth, _ = images()
    rows = list(truth.items())[:48]
    seeds = [{"image_id": i, "l1_interests": [NAMES[axis]]} for i, axis in rows]
    return [*seeds, {"image_id": "gone", "l1_interests": ["food"]}]


EXTRAS = {
    "term seeds": {},
    "image seeds": {IMAGE_INTEREST_SEEDS: labelled()},
    "both": {IMAGE_INTEREST_SEEDS: labelled(), IMAGE_INTERACTIONS: interactions()},
}


@pytest.mark.parametrize("extra", EXTRAS)
def test_planted_images_get_their_interests(spark, tmp_path, extra):
    truth, embeddings = images()
    rows = pick(interest_rows(), INTERESTS, INTEREST_SEEDS, TEXT_EMBEDDINGS)
    rows |= {IMAGE_TEXT_EMBEDDINGS: embeddings} | EXTRAS[extra]
    train = train_image_classifier.STAGE
    spark.conf.set("spark.sql.adaptive.enabled", "true")  # as in a real run
    try:
        _, _, trained = run_stage(spark, tmp_path / "train", train, rows)
    finally:
        spark.conf.set("spark.sql.adaptive.enabled", "false")
    report = {r["l1_interest"]: r for r in trained["image_interest_report"]}
    seeds = 26 if extra == "term seeds" else 16
    assert report["food"]["num_seeds"] == seeds
    assert report["food"]["status"] == "ok"
    given = pick(rows, *[t for t in rows if t in (IMAGE_TEXT_EMBEDDINGS, IMAGE_INTERACTIONS)])
    given[IMAGE_INTEREST_MODEL] = trained["image_interest_model"]
    params = ClassifyImagesParams(fallback_best=extra == "both")
    runs = [
        run_stage(
            spark,
            tmp_path / f"{buckets}",
            classify_images.STAGE,
            given,
            buckets,
            classify_images=params,
        )
        for buckets in ((1, 4) if extra == "both" else (2,))
    ]
    for _, manifest, tables in runs:
        found = {r["image_id"]: r["l1_interests"] for r in tables["image_interests"]}
        assert {i: found[i] for i in truth} == {i: [NAMES[axis]] for i, axis in truth.items()}
        assert found["mute"] == []
        assert found["clicks"] == (["travel"] if extra == "both" else [])
        silent = 1 if extra == "both" else 2
        assert manifest.counts == {"images.without_text": silent, "images.uncategorised": 0}
        assert (manifest.ledger[0].rows_in, manifest.ledger[0].rows_out) == (62, 62)
    assert runs[0][2] == runs[-1][2]


def test_a_bucket_without_images_gives_no_rows():
    empty = IMAGE_TEXT_EMBEDDINGS.empty()
    result = classify_images.classify_batch(empty, None, None, ClassifyImagesParams())
    assert result.tables["image_interests"].num_rows == 0
    assert sum(result.counts.values()) == 0


def test_seeds_without_embeddings_are_an_error(spark, tmp_path):
    rows = pick(interest_rows(), INTERESTS, TEXT_EMBEDDINGS)
    seed = {"text": "unheard of", "l1_interests": ["food"], "source_nodes": []}
    rows[INTEREST_SEEDS] = [seed]
    with pytest.raises(Exception, match="no seed text has an embedding"):
        run_stage(spark, tmp_path / "terms", TRAIN_TERMS, rows)
    rows[IMAGE_TEXT_EMBEDDINGS] = images()[1]
    with pytest.raises(Exception, match="no seed text has an embedding"):
        run_stage(spark, tmp_path / "images", train_image_classifier.STAGE, rows)
