"""Counting, resampling and its report, over the same corpus with one and with three buckets."""

import math
import random
from collections import Counter

import numpy as np
import pytest
from given import run_stage
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.dataset import ResampleImagesParams
from pipeline.kernels.hashing import hash64, uniform
from pipeline.kernels.rarest import rarest_labels
from pipeline.stages import count_labels, report_resampling, resample_images
from schemas.dataset import (
    LABEL_FREQUENCIES,
    LABEL_MAP,
    RESAMPLED_OUT,
    SAMPLES,
    TRAINING_IMAGES,
)


def corpus():
    """300 images over 12 labels of Zipf frequencies, one to three labels each."""
    draw = random.Random(7)
    labels = range(12)
    rows = []
    for i in range(300):
        k = draw.choice([1, 1, 2, 3])
        chosen = {draw.choices(labels, [1 / (c + 1) ** 2 for c in labels])[0] for _ in range(k)}
        rows.append({"image_id": f"ü{i:03d}", "label_ids": sorted(chosen)})
    rows += [{"image_id": f"r{c}", "label_ids": [c]} for c in labels]
    return rows


IMAGES = corpus()
COUNTS = Counter(c for row in IMAGES for c in row["label_ids"])
MAP = [
    {"label_id": c, "cluster_id": c, "name": f"n{c}", "l1_interest": "art", "num_images": COUNTS[c]}
    for c in range(12)
]


def rarest(labels):
    return min(labels, key=lambda c: (COUNTS[c], c))


def run_all(spark, root, params, num_buckets):
    sections = {"resample_images": params}
    _, _, counted = run_stage(
        spark, root, count_labels.STAGE, {TRAINING_IMAGES: IMAGES, LABEL_MAP: MAP}, num_buckets
    )
    frequencies = counted["label_frequencies"]
    given_tables = {TRAINING_IMAGES: IMAGES, LABEL_FREQUENCIES: frequencies}
    _, _, drawn = run_stage(
        spark, root, resample_images.STAGE, given_tables, num_buckets, **sections
    )
    given_tables = {
        SAMPLES: drawn["samples"],
        RESAMPLED_OUT: drawn["resampled_out"],
        LABEL_FREQUENCIES: frequencies,
    }
    _, _, reported = run_stage(
        spark, root, report_resampling.STAGE, given_tables, num_buckets, **sections
    )
    return counted | drawn | reported


def check_counts(got):
    rarest_of = Counter(rarest(row["label_ids"]) for row in IMAGES)
    assert got["label_frequencies"] == [
        {
            "label_id": c,
            "num_images": COUNTS[c],
            "frequency": COUNTS[c] / len(IMAGES),
            "num_images_rarest": rarest_of[c],
        }
        for c in range(12)
    ]


def test_resampling_equals_plain_python_and_needs_no_layout(spark, tmp_path):
    params = ResampleImagesParams(seed=3)
    got = run_all(spark, tmp_path / "a", params, 1)
    assert got == run_all(spark, tmp_path / "b", params, 3)
    check_counts(got)
    n = len(IMAGES)
    (policy,) = got["sampling_policy"]
    t = policy["threshold"]
    drawn = uniform(hash64([r["image_id"] for r in IMAGES], 3, "resample_images"))
    expected, realised, total = Counter(), Counter(), 0.0
    by_id = {r["image_id"]: r for r in got["samples"]}
    out = {r["image_id"]: r for r in got["resampled_out"]}
    for row, u in zip(IMAGES, drawn, strict=True):
        w = min(20, max(math.sqrt(t / (COUNTS[c] / n)) for c in row["label_ids"]))
        copies = math.floor(w) + (u < w - math.floor(w))
        found = by_id[row["image_id"]] if copies else out[row["image_id"]]
        assert found["weight"] == pytest.approx(w)
        assert found["label_ids"] == row["label_ids"]
        assert found.get("copies", 0) == copies
        total += w
        for c in row["label_ids"]:
            expected[c] += w
            realised[c] += copies
    assert total == pytest.approx(n)
    assert len(by_id) + len(out) == n
    assert out
    assert max(r["copies"] for r in got["samples"]) > 1
    for row in got["resampling_report"]:
        c = row["label_id"]
        assert (row["num_before"], row["realised_after"]) == (COUNTS[c], realised[c])
        assert row["expected_after"] == pytest.approx(expected[c], abs=1e-4)
    assert policy == {
        "policy": "inverse_sqrt",
        "materialised": True,
        "threshold": t,
        "cap": None,
        "max_copies": 20,
        "seed": 3,
        "num_images": n,
    }


def test_without_materialised_copies_each_image_stands_once_with_its_weight():
    frequencies = LABEL_FREQUENCIES.arrow_schema.empty_table().from_pylist(
        [
            {"label_id": 0, "num_images": 3, "frequency": 0.75, "num_images_rarest": 3},
            {"label_id": 1, "num_images": 1, "frequency": 0.25, "num_images_rarest": 1},
        ],
        LABEL_FREQUENCIES.arrow_schema,
    )
    params = ResampleImagesParams(policy="uniform", materialised=False)
    images = TRAINING_IMAGES.empty().from_pylist(
        [{"image_id": i, "label_ids": [int(i == "d")]} for i in "abcd"],
        TRAINING_IMAGES.arrow_schema,
    )
    rule = resample_images.prepare(frequencies, params)
    result = resample_images.kernel(images, state=rule, params=params)
    assert result.tables["samples"]["copies"].to_pylist() == [1, 1, 1, 1]
    weights = result.tables["samples"]["weight"].to_pylist()
    assert weights == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2])
    assert result.tables["resampled_out"].num_rows == 0


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 5), max_size=4, unique=True), max_size=10),
    st.lists(st.integers(0, 3), min_size=6, max_size=6),
)
def test_rarest_label_is_the_least_by_count_then_id(images, counts):
    offsets = np.cumsum([0, *map(len, images)])
    flat = np.array([c for labels in images for c in labels], np.int64)
    expected = [min(i, key=lambda c: (counts[c], c)) if i else -1 for i in images]
    assert rarest_labels(offsets, flat, np.array(counts)).tolist() == expected
