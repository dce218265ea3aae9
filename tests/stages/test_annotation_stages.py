"""Thresholds from judged annotations, and annotations read from text, through the lifecycle."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from given import run_stage

from pipeline.config.ingest import PredictAnnotationsParams
from pipeline.config.inputs import Inputs, Source
from pipeline.config.labels import CalibrateThresholdParams, SelectAnnotationsParams
from pipeline.kernels.align import positions_of, take_or_null
from pipeline.kernels.annotate import score_candidates
from pipeline.kernels.binomial import wilson_lower
from pipeline.kernels.lexicon import match_terms
from pipeline.stages import predict_annotations as predict
from pipeline.stages.calibrate_threshold import STAGE as CALIBRATE
from pipeline.stages.count_term_documents import STAGE as COUNT
from pipeline.stages.fit_annotator import STAGE as FIT
from pipeline.stages.fit_annotator import agreement_of
from pipeline.stages.select_annotations import STAGE as SELECT
from schemas.ingested import (
    ANNOTATIONS,
    ANNOTATOR_MODEL,
    IMAGES,
    TERM_DOCUMENTS,
    TERMS,
    TEXT_EMBEDDINGS,
)
from schemas.labels import ANNOTATION_THRESHOLDS, IMAGE_TEXT_EMBEDDINGS

PREDICT = predict.STAGE

WORDS = ("cat", "big cat", "dog", "car", "red", "tree", "sky", "lamp")


def term_rows(texts):
    return [
        {"term_id": t, "text": text, "language": "en", "canonical_term_id": t}
        | {"is_sensitive": False}
        for t, text in enumerate(texts)
    ]


def judged(path):
    """Term 0 is right above 0.5; term 1 is never right; term 2 was judged 3 times, all right.

    Six rows more that cannot be used.
    """
    rows = [(0, i / 200, i >= 100) for i in range(200)]
    rows += [(1, i / 80, False) for i in range(40)] + [(2, s, True) for s in (0.6, 0.7, 0.75)]
    rows += [(0, float("nan"), True), (0, None, True), (0, 0.9, None)]
    rows += [(0, float("inf"), False), (0, 1.5, False), (0, -0.5, True)]
    term, score, is_correct = zip(*rows, strict=True)
    table = {
        "image_id": [f"i{n}" for n in range(len(rows))],
        "term_id": pa.array(term, pa.int64()),
        "score": pa.array(score, pa.float64()),
        "is_correct": pa.array(is_correct, pa.bool_()),
    }
    pq.write_table(pa.table(table), path)
    return Inputs(labelled_annotations=Source(path=str(path))), rows[:243]


def oracle(rows, target=0.9):
    """(threshold, kept, precision, bound) of each score; the lowest whose bound reaches."""
    curve = []
    for least in sorted({np.float32(s) for _, s, _ in rows}):
        kept = [c for _, s, c in rows if np.float32(s) >= least]
        bound = wilson_lower(np.array([sum(kept)]), np.array([len(kept)]), 0.95)[0]
        curve.append((float(least), len(kept), sum(kept) / len(kept), float(bound)))
    reached = [c[0] for c in curve if c[3] >= target]
    return curve, (min(reached) if reached else None)


def calibrate(spark, root, inputs, **options):
    terms = {TERMS: term_rows(["a", "b", "c", "d"])}
    params = CalibrateThresholdParams(**options)
    return run_stage(spark, root, CALIBRATE, terms, inputs=inputs, calibrate_threshold=params)[2]


def test_threshold_is_the_oracle_s_and_select_annotations_uses_it(spark, tmp_path):
    inputs, usable = judged(tmp_path / "judged.parquet")
    curve, chosen = oracle(usable)
    assert 0.4 < chosen < 0.6
    tables = calibrate(spark, tmp_path / "one", inputs)
    found = [tuple(row.values()) for row in tables["threshold_curve"]]
    np.testing.assert_allclose(found, curve, rtol=1e-6)
    assert tables["annotation_thresholds"] == [
        {"term_id": t, "min_confidence": chosen} for t in range(4)
    ]

    own = oracle([r for r in usable if r[0] == 0])[1]
    tables = calibrate(spark, tmp_path / "own", inputs, per_term=True, min_sample=30)
    thresholds = {r["term_id"]: r["min_confidence"] for r in tables["annotation_thresholds"]}
    assert own != chosen
    never = np.nextafter(np.float32(1), np.float32(2))
    assert thresholds == {0: own, 1: never, 2: chosen, 3: chosen}

    scores = {0: [own - 0.01, own], 1: [1.0, 1.0], 2: [chosen, chosen - 0.01], 3: [0.2, 0.9]}
    annotations = [
        {
            "image_id": f"i{n}",
            "annotations": [{"term_id": t, "score": s[n]} for t, s in scores.items()],
        }
        for n in range(2)
    ]
    given = {ANNOTATIONS: annotations, TERMS: term_rows(["a", "b", "c", "d"])}
    given[ANNOTATION_THRESHOLDS] = tables["annotation_thresholds"]
    params = SelectAnnotationsParams(min_confidence=0.0)
    _, manifest, selected = run_stage(
        spark, tmp_path / "select", SELECT, given, select_annotations=params
    )
    kept = [[a["term_id"] for a in r["annotations"]] for r in selected["selected_annotations"]]
    assert kept == [[2], [0, 3]]
    assert manifest.counts["annotations.dropped.low_score"] == 5


@pytest.mark.parametrize("sample", ["whole", "empty"])
def test_a_target_out_of_reach_says_what_can_be_done(spark, tmp_path, sample):
    path = tmp_path / "judged.parquet"
    inputs, _ = judged(path)
    if sample == "empty":
        pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(Exception, match=r"no threshold reaches 0\.99") as error:
        calibrate(spark, tmp_path / "root", inputs, target_precision=0.99)
    assert f"on {243 if sample == 'whole' else 0} judged annotations" in str(error.value)
    assert "Lower the target or judge more" in str(error.value)


def corpus():
    """Images whose fields mostly name the same term; the first four are counted by hand."""
    rng = np.random.default_rng(8)
    rows = [
        ("A Cat and a cat", None, ["cats", "sky "]),
        ("big cat", "the dog", None),
        (None, None, []),
        ("catalogue", "no term here", ["lamp"]),
    ]
    for _ in range(160):
        main, other, stray = rng.permutation(len(WORDS))[:3]
        tags = [WORDS[main]] * (rng.random() < 0.8) + [WORDS[other]]
        title = f"my {WORDS[main]}" if rng.random() < 0.7 else f"my {WORDS[stray]}"
        rows.append((title, f"here a {WORDS[main]} near some {WORDS[stray]} again", tags))
    images = [
        {"image_id": f"i{n:03d}", "title": title, "description": text, "tags": tags}
        for n, (title, text, tags) in enumerate(rows)
    ]
    by_hand = {"cat": 2, "big cat": 1, "dog": 1, "lamp": 1, "sky": 1}
    return images, by_hand


def vectors(images):
    rng = np.random.default_rng(9)
    unit = [x / np.linalg.norm(x) for x in rng.normal(size=(len(WORDS), 8))]
    texts = [
        {"text": w, "embedding": x.astype("<f4").tobytes()}
        for w, x in zip(WORDS, unit, strict=True)
    ]
    rows = []
    for image in images[:-5]:  # the last five have no text embedding
        text = " ".join(filter(None, [image["title"], image["description"]]))
        named = [u for w, u in zip(WORDS, unit, strict=True) if w in text]
        x = np.sum(named or [np.zeros(8)], axis=0)
        x = x / (np.linalg.norm(x) or 1)
        rows.append({"image_id": image["image_id"], "embedding": x.astype("<f4").tobytes()})
    return texts, rows


def test_terms_of_texts_are_counted_by_hand(spark, tmp_path):
    images, by_hand = corpus()
    given = {IMAGES: images[:4], TERMS: term_rows(WORDS)}
    _, _, tables = run_stage(spark, tmp_path, COUNT, given, num_buckets=3)
    found = {WORDS[r["term_id"]]: r["num_images"] for r in tables["term_documents"]}
    assert found == by_hand


@pytest.fixture(scope="module")
def predicted(spark, tmp_path_factory):
    """Tables, annotations and manifest of count, fit and predict with 1 bucket and with 4."""
    images, _ = corpus()
    texts, of_images = vectors(images)
    given = {TERMS: term_rows(WORDS), TEXT_EMBEDDINGS: texts}
    params = PredictAnnotationsParams(min_score=0.3, num_training_images=150, seed=1)
    results = []
    for buckets in (1, 4):
        root = tmp_path_factory.mktemp("predict")
        tables = {IMAGES: images, IMAGE_TEXT_EMBEDDINGS: of_images} | given
        for stage, output in ((COUNT, TERM_DOCUMENTS), (FIT, ANNOTATOR_MODEL), (PREDICT, None)):
            rows = {t: tables[t] for t in stage.reads}
            _, manifest, made = run_stage(
                spark, root, stage, rows, buckets, predict_annotations=params
            )
            if output is not None:
                tables[output] = made[output.name]
        results.append((tables, made["annotations"], manifest))
    return results


def whole_corpus(tables):
    """Confidence of all candidates in the texts of all images, in their order."""
    read = {t: pa.Table.from_pylist(rows, t.arrow_schema) for t, rows in tables.items()}
    state = predict.prepare(
        read[TERMS], read[ANNOTATOR_MODEL], read[TEXT_EMBEDDINGS], PredictAnnotationsParams()
    )
    found = match_terms(read[IMAGES], state.lexicon)
    texts = read[IMAGE_TEXT_EMBEDDINGS]
    at = positions_of(read[IMAGES]["image_id"], texts["image_id"])
    agreement = agreement_of(found, take_or_null(texts["embedding"], at), state.vectors)
    return score_candidates(state.model, found, state.lexicon.num_words_of, agreement)


def test_confidence_is_fitted_and_the_candidates_add_up(predicted):
    tables, annotations, manifest = predicted[0]
    model = {(r["name"], r["index"]): r["value"] for r in tables[ANNOTATOR_MODEL]}
    assert model["is_calibrated", 0] == 1
    assert model["num_images", 0] == 164
    counted = {r["term_id"]: r["num_images"] for r in tables[TERM_DOCUMENTS]}
    assert counted == {t: v for (n, t), v in model.items() if n == "document_frequency"}
    assert [r["image_id"] for r in annotations] == [r["image_id"] for r in tables[IMAGES]]
    kept = [a for r in annotations for a in r["annotations"]]
    assert all(0 <= a["score"] <= 1 for a in kept)
    # The kernels over the whole corpus at once give the same, to the bit.
    scores = whole_corpus(tables)
    assert len(set(scores.tolist())) > 10
    assert [a["score"] for a in kept] == scores[scores >= np.float32(0.3)].tolist()
    assert annotations[2]["annotations"] == []
    lines = {line.unit: line for line in manifest.ledger}
    assert (lines["images"].rows_in, lines["images"].rows_out) == (164, 164)
    found, out = lines["candidates"].rows_in, lines["candidates"].rows_out
    assert out == len(kept)
    assert lines["candidates"].dropped == {"low_score": found - out}
    assert found > out


def test_annotations_do_not_depend_on_buckets(predicted):
    (one, annotations, _), (four, others, _) = predicted
    assert one == four
    assert annotations == others


def test_an_empty_bucket_gives_no_rows(spark, tmp_path, predicted):
    tables = predicted[0][0]
    rows = {t: tables[t] for t in PREDICT.reads}
    rows[IMAGES], rows[IMAGE_TEXT_EMBEDDINGS] = tables[IMAGES][:3], []
    params = PredictAnnotationsParams(min_score=0)
    _, manifest, made = run_stage(spark, tmp_path, PREDICT, rows, 7, predict_annotations=params)
    found = {r["image_id"]: [a["term_id"] for a in r["annotations"]] for r in made["annotations"]}
    assert found == {"i000": [0, 6], "i001": [0, 1, 2], "i002": []}
    assert manifest.counts == {"candidates.found": 5, "candidates.dropped.low_score": 0}
