"""Labelled pairs: their way into an evaluation, D3 against every threshold, what is refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted_release import tagged_folder

from pipeline.config.evaluate import EvaluateParams, PairSet
from pipeline.evaluate.pair_sets import pair_set
from pipeline.evaluate.pairs import LabelledPairs, pair_cosines
from pipeline.evaluate.queries import Embedded
from pipeline.evaluate.tasks import near_duplicate_note, near_duplicate_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tagged_folder(tmp_path_factory.mktemp("images"), 2, 3)


def write(path, rows, kind=None):
    columns = ("image_id_a", "image_id_b", "is_near_duplicate")
    table = pa.table(dict(zip(columns, zip(*rows, strict=True), strict=True)))
    pq.write_table(table if kind is None else table.cast(kind), path)
    return str(path)


def given(folder, pairs):
    return PairSet(name="copies", images=str(folder), pairs=pairs)


A, B, C, D = (f"texture_0{t}/00{i}.png" for t in (0, 1) for i in (0, 1))


def test_pairs_name_the_images_that_are_read(folder, tmp_path):
    path = write(tmp_path / "pairs.parquet", [(D, B, True), (A, D, False), (A, B, True)])
    images = pair_set(given(folder, path))
    assert images.ids == sorted([A, B, D])
    assert images.classes.tolist() == [-1] * 3
    assert images.read(2).data == (folder / D).read_bytes()
    a, b, d = range(3)
    assert images.pairs.first.tolist() == [a, a, d]
    assert images.pairs.second.tolist() == [b, d, b]
    assert images.pairs.is_positive.tolist() == [True, False, True]


def test_images_of_a_table_without_tags_and_of_a_flat_folder(folder, tmp_path):
    pairs = write(tmp_path / "pairs.parquet", [("a.png", "b.png", True), ("a.png", "c.png", False)])
    data = [(folder / name).read_bytes() for name in (A, B, C)]
    names = ["a.png", "b.png", "c.png"]
    pq.write_table(pa.table({"image_id": names, "bytes": data}), tmp_path / "images.parquet")
    flat = tmp_path / "flat"
    flat.mkdir()
    for name, content in zip(names, data, strict=True):
        (flat / name).write_bytes(content)
    for images in (tmp_path / "images.parquet", flat):
        found = pair_set(given(images, pairs))
        assert found.ids == names
        assert [found.read(i).data for i in range(3)] == data


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(A, B, True), (A, A, False)], "paired with itself"),
        ([(A, B, True), (B, A, False)], "1 pairs stand there twice"),
        ([(A, B, True), (A, "x.png", False)], r"1 ids are not among the images .*'x\.png'"),
        ([(A, B, True), (A, C, True)], "2 of 2 pairs are near-duplicates, expected some"),
        ([(A, B, False)], "0 of 1 pairs are near-duplicates"),
        ([(A, B, True), (A, C, None)], "is_near_duplicate: 1 nulls"),
    ],
)
def test_what_is_refused(folder, tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        pair_set(given(folder, write(tmp_path / "pairs.parquet", rows)))


def test_missing_column_and_wrong_type(folder, tmp_path):
    pq.write_table(pa.table({"image_id_a": [A], "image_id_b": [B]}), tmp_path / "two.parquet")
    with pytest.raises(ValueError, match="no column is_near_duplicate, expected image_id_a"):
        pair_set(given(folder, str(tmp_path / "two.parquet")))
    path = write(tmp_path / "text.parquet", [(A, B, "maybe")])
    with pytest.raises(ValueError, match=r"text\.parquet: .*Contract: schemas/evaluation\.py"):
        pair_set(given(folder, path))


def brute_recall(vectors, pairs, precision):
    """Every score as a threshold, in plain Python."""
    scores = []
    for a, b in zip(pairs.first, pairs.second, strict=True):
        x, y = (vectors[i].astype(float) for i in (a, b))
        scores.append(sum(x * y) / (sum(x * x) ** 0.5 * sum(y * y) ** 0.5))
    best = 0.0
    for threshold in scores:
        accepted = [p for s, p in zip(scores, pairs.is_positive, strict=True) if s >= threshold]
        if sum(accepted) / len(accepted) >= precision:
            best = max(best, sum(accepted) / sum(pairs.is_positive))
    return best


def embedded(num, pairs, **changed):
    """Vectors whose neighbours in the order of ids are alike, and vectors of chance."""
    rng = np.random.default_rng(4)
    centre = np.repeat(rng.normal(size=(num // 2, 16)), 2, axis=0)
    near = (centre + 0.9 * rng.normal(size=(num, 16))).astype(np.float32)
    far = rng.normal(size=(num, 16)).astype(np.float32)
    ids = [f"{i:03d}" for i in range(num)]
    classes = np.full(num, -1, np.int64)
    vectors = {"model": near, "random_weights": far}
    params = EvaluateParams.model_validate({"resamples": 50, **changed})
    return Embedded("copies", ids, classes, vectors, None, 1, params, pairs)


def some_pairs(num):
    rng = np.random.default_rng(5)
    first, second = np.triu_indices(num, 1)
    is_positive = (first // 2 == second // 2) & (rng.random(len(first)) < 0.95)
    chosen = is_positive | (rng.random(len(first)) < 0.2)
    return LabelledPairs(first[chosen], second[chosen], is_positive[chosen])


@pytest.mark.parametrize("precision", [0.95, 0.8])
def test_recall_of_each_system_against_every_threshold(precision):
    pairs = some_pairs(40)
    data = embedded(40, pairs, pair_precision=precision)
    rows = {row.system: row for row in near_duplicate_rows(data, pairs)}
    assert rows["model"].metric == f"R@P{100 * precision:g}"
    for system, vectors in data.vectors.items():
        expected = brute_recall(vectors, pairs, precision)
        assert rows[system].estimate.value == pytest.approx(expected, abs=1e-12)
    model, gain = rows["model"].estimate, rows["model - random_weights"].estimate
    assert 0.3 < model.value < 1
    assert model.low <= model.value <= model.high
    assert gain.value == pytest.approx(model.value - rows["random_weights"].estimate.value)
    assert model.num == len(np.unique(pairs.first))


def test_note_names_the_cosine_and_what_was_lost():
    pairs = LabelledPairs(np.array([0, 0]), np.array([1, 2]), np.array([True, False]))
    data = embedded(4, pairs)
    cosine = pair_cosines(data.vectors["model"], pairs)[0]
    note = near_duplicate_note(data, pairs, 3)
    assert "2 labelled pairs, 1 of them near-duplicates, 3 left out" in note
    assert f"cosine {cosine:.4f} reaches precision 0.95" in note
    swapped = pairs._replace(is_positive=np.array([False, True]))
    assert "no cosine reaches" in near_duplicate_note(data, swapped, 0)


def test_pairs_among_readable_images_keep_their_ends():
    ends = np.array([0, 1, 3, 2]), np.array([2, 3, 4, 3])  # of the first no end, of the last one
    pairs = LabelledPairs(*ends, np.array([True, False, True, True]))
    left = pairs.among(np.array([1, 3, 4]))
    assert left.first.tolist() == [0, 1]
    assert left.second.tolist() == [1, 2]
    assert left.is_positive.tolist() == [False, True]


def test_a_vector_of_zeros_has_cosine_zero():
    vectors = np.array([[0, 0], [3, 4], [6, 8]], np.float32)
    pairs = LabelledPairs(np.array([0, 1]), np.array([1, 2]), np.array([False, True]))
    assert pair_cosines(vectors, pairs).tolist() == pytest.approx([0.0, 1.0])
