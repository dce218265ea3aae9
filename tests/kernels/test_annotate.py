"""Confidence of candidate terms without hand labels (I5)."""

import math

import numpy as np
import pyarrow as pa
import pytest

from pipeline.kernels.annotate import (
    FEATURES,
    AnnotatorModel,
    field_features,
    prior_annotator,
    score_candidates,
    to_nested,
)
from pipeline.kernels.annotate_fit import fit_annotator, sample_rows
from pipeline.kernels.hashing import hash64
from pipeline.kernels.lexicon import (
    Candidates,
    Lexicon,
    build_lexicon,
    document_frequency,
    match_terms,
)
from pipeline.kernels.text_agreement import text_agreement

NUM_TERMS = 60
LEXICON = build_lexicon(np.arange(NUM_TERMS), [f"term{i}" for i in range(NUM_TERMS)])


def corpus(num_images: int, seed: int = 0) -> tuple[pa.Table, list[str], np.ndarray]:
    """Images of 4 true terms each: titles name true ones, descriptions also say wrong ones.

    Returns:
        The texts, image ids, and bool (num_images, NUM_TERMS): whether a term is true.
    """
    rng = np.random.default_rng(seed)
    truth = np.zeros((num_images, NUM_TERMS), bool)
    titles, descriptions, tags = [], [], []
    for i in range(num_images):
        true = rng.choice(NUM_TERMS, 4, replace=False)
        truth[i, true] = True
        titles.append("a view of " + " ".join(f"term{t}" for t in true[rng.random(4) < 0.5]))
        noise = rng.choice(NUM_TERMS, 4, replace=False)
        said = [*true[rng.random(4) < 0.5], *noise]
        descriptions.append(" and ".join(f"term{t}" for t in said))
        tags.append([f"term{t}" for t in true[rng.random(4) < 0.6]] + ["my photo"])
    table = pa.table({"title": titles, "description": descriptions, "tags": tags})
    return table, [f"image{i}" for i in range(num_images)], truth


def fit(table: pa.Table, ids: list[str], lexicon: Lexicon = LEXICON) -> AnnotatorModel:
    found = match_terms(table, lexicon)
    counts = document_frequency(found, NUM_TERMS)
    return fit_annotator(found, hash64(ids, 0, "t"), lexicon.num_words_of, counts, table.num_rows)


def test_confidence_ranks_right_above_wrong_and_knows_where_it_stands() -> None:
    table, ids, truth = corpus(3000)
    model = fit(table, ids)
    assert model.is_calibrated
    assert model.metrics["brier"] < model.metrics["brier_base_rate"]
    assert model.metrics["calibration_error"] < 0.03
    found = match_terms(table, LEXICON)
    score = score_candidates(model, found, LEXICON.num_words_of)
    right = truth[found.row, found.term_id]
    assert score[right].mean() - score[~right].mean() > 0.3
    only_description, in_two = found.found == 2, np.bitwise_count(found.found) >= 2
    assert score[in_two].min() > np.median(score[only_description])
    assert score[only_description].mean() < 0.4  # it is right in a tenth of the cases
    assert right[score > 0.9].mean() > 0.9
    assert 0 <= score.min() <= score.max() <= 1


def test_the_model_is_that_of_the_set_of_images_in_any_order() -> None:
    table, ids, _ = corpus(800, seed=1)
    shuffled = np.random.default_rng(5).permutation(800)
    again = fit(table.take(pa.array(shuffled)), [ids[i] for i in shuffled])
    assert again.to_table().equals(fit(table, ids).to_table())
    mixed = [ids[i] for i in shuffled]
    picked = [mixed[i] for i in sample_rows(mixed, 50, seed=3)]
    assert picked == [ids[i] for i in sample_rows(ids, 50, seed=3)]
    assert picked != [ids[i] for i in sample_rows(ids, 50, seed=4)]


def test_scores_do_not_depend_on_the_batch() -> None:
    table, ids, _ = corpus(400, seed=2)
    model = fit(table, ids)
    whole = score_candidates(model, match_terms(table, LEXICON), LEXICON.num_words_of)
    parts = [
        score_candidates(model, match_terms(table.slice(a, 57), LEXICON), LEXICON.num_words_of)
        for a in range(0, 400, 57)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_model_survives_its_table() -> None:
    table, ids, _ = corpus(600)
    for model in (fit(table, ids), prior_annotator(np.array([3, 0, 5]), 10)):
        rows = model.to_table()
        back = AnnotatorModel.from_table(rows.take(pa.array(range(rows.num_rows - 1, -1, -1))))
        assert back.to_table().equals(rows)
        assert back.is_calibrated == model.is_calibrated
        np.testing.assert_array_equal(back.document_frequency, model.document_frequency)
    with pytest.raises(ValueError, match="knot_x"):
        AnnotatorModel.from_table(rows.filter(pa.compute.field("name") != "knot_x"))


def test_captions_alone_get_the_prior_model() -> None:
    table, ids, _ = corpus(300)
    captions = table.set_column(0, "title", pa.nulls(300, pa.string())).set_column(
        2, "tags", pa.nulls(300, pa.list_(pa.string()))
    )
    model = fit(captions, ids)
    assert not model.is_calibrated
    found = match_terms(captions, LEXICON)
    assert score_candidates(model, found, LEXICON.num_words_of).size == len(found.row) > 0


def test_pasted_fields_confirm_nothing() -> None:
    table, ids, _ = corpus(600)
    titles = table["title"]
    pasted = pa.table({"title": titles, "description": titles, "tags": [[]] * 600})
    assert fit(pasted, ids).metrics["num_examples"] < 0.1 * 2 * 600


def test_features_by_hand() -> None:
    lexicon = build_lexicon(np.array([0, 3]), ["cat", "black cat"])
    table = pa.table({"title": ["my black cat"], "description": ["x"], "tags": [["Cat", "dog"]]})
    found = match_terms(table, lexicon)
    model = prior_annotator(np.array([9, 0, 0, 1]), 19)
    title = field_features(model, found, np.array([0, 1]), 0, lexicon.num_words_of, None)
    np.testing.assert_allclose(
        title,
        [
            [0, 0, 0, 1, 1, math.log(20 / 10), 0.3, math.log(4), 0, 0, 0],
            [0, 0, 0, 0, 2, math.log(20 / 2), 0.3, math.log(4), 0, 0, 0],
        ],
    )
    tags = field_features(model, found, np.array([0]), 2, lexicon.num_words_of, np.array([0.7]))
    np.testing.assert_allclose(tags[0], [0, 1, 1, 0, 1, math.log(2), 0.7, math.log(3), 0, 0, 0])
    assert len(FEATURES) == 11


def test_agreement_is_used_where_it_is_known() -> None:
    one = np.zeros(2, np.int64)
    mask = np.full(2, 1, np.uint8)
    found = Candidates(
        row=one, term_id=np.array([0, 1], np.int32), found=mask, exact=mask, free=mask,
        field_words=np.array([[3, 0, 0]], np.int32), field_copies=np.zeros((1, 3), np.uint8),
    )  # fmt: skip
    model = prior_annotator(np.zeros(2, np.int64), 10)
    terms = np.array([[1, 0], [0, 0]], np.float32)
    agreement = text_agreement(found, terms, np.array([[0.6, 0.8]], np.float32))
    np.testing.assert_allclose(agreement, [0.6, np.nan], atol=1e-6)
    known, unknown = score_candidates(model, found, np.ones(2, np.int8), agreement)
    assert known > unknown


def test_nested_lists_by_hand() -> None:
    nested = to_nested(np.array([0, 0, 2]), np.array([1, 5, 1]), np.array([0.5, 0.25, 1.0]), 4)
    assert nested.to_pylist() == [
        [{"term_id": 1, "score": 0.5}, {"term_id": 5, "score": 0.25}],
        [],
        [{"term_id": 1, "score": 1.0}],
        [],
    ]
    assert nested.type == pa.list_(pa.struct([("term_id", pa.int32()), ("score", pa.float32())]))
