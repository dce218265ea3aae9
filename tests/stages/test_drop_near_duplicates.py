"""Reasons of dropped images and their order, with every optional table there and absent."""

import pytest
from given import run_stage
from near_duplicate_rows import print_row

from pipeline.config.images import DropNearDuplicatesParams
from pipeline.stages.drop_near_duplicates import STAGE
from schemas.images import DUPLICATE_GROUPS, IMAGE_FINGERPRINTS, VALIDATION_OVERLAPS
from schemas.ingested import BLOCKED_IMAGES

NAMES = ["a", "b1", "b2", "b3", "c1", "c2", "c3", "c4", "d1", "d2"]
NAMES += ["t1", "t2", "u", "v1", "v2", "v3", "x1", "x2"]
PRINTS = [print_row(i, f"s-{i[0]}" if i[0] in "tx" else f"s-{i}") for i in NAMES]


def group(image_id, kept, tier, distance, is_blocked=False):
    return dict(
        zip(
            DUPLICATE_GROUPS.column_names, (image_id, kept, tier, distance, is_blocked), strict=True
        )
    )


def overlap(image_id, tier, validation_id, distance):
    return dict(
        zip(
            VALIDATION_OVERLAPS.column_names, (image_id, tier, validation_id, distance), strict=True
        )
    )


GROUPS = [
    group("b1", "b1", "", 0.0, True),
    group("b2", "b1", "perceptual", 2.0, True),
    group("b3", "b1", "exact", 0.0, True),
    group("c1", "c1", "", 0.0),
    group("c2", "c1", "perceptual", 3.0),
    group("c3", "c1", "semantic", 0.25),
    group("c4", "c1", "verified", 0.125),
    group("d1", "d1", "", 0.0),
    group("d2", "d1", "linked", None),
    group("x1", "x1", "", 0.0),
    group("x2", "x1", "exact", 0.0),
]
OVERLAPS = [
    overlap("v1", "semantic", "w/9", 0.125),
    overlap("v1", "perceptual", "w/8", 4.0),
    overlap("v2", "exact", "w/7", 0.0),
    overlap("v2", "perceptual", "w/7", 0.0),
    overlap("v3", "semantic", "w/6", 0.0),
    # Blocked or a copy of one: those reasons come first.
    overlap("u", "exact", "w/1", 0.0),
    overlap("t2", "exact", "w/1", 0.0),
    overlap("b2", "exact", "w/1", 0.0),
]
BLOCKED = [
    {"kind": "image_id", "value": "b2"},
    {"kind": "image_id", "value": "t1"},
    {"kind": "sha256", "value": "s-u"},
    {"kind": "image_id", "value": "not there"},
]  # fmt: skip
FULL = {
    "b1": ("blocked_duplicate", None, None),
    "b2": ("blocked", None, None),
    "b3": ("blocked_duplicate", None, None),
    "c2": ("duplicate_perceptual", "c1", 3.0),
    "c3": ("duplicate_semantic", "c1", 0.25),
    "c4": ("duplicate_verified", "c1", 0.125),
    "d2": ("duplicate_linked", "d1", None),
    "t1": ("blocked", None, None),
    "t2": ("blocked_duplicate", None, None),
    "u": ("blocked", None, None),
    "v1": ("validation_perceptual", "w/8", 4.0),
    "v2": ("validation_exact", "w/7", 0.0),
    "v3": ("validation_semantic", "w/6", 0.0),
    "x2": ("duplicate_exact", "x1", 0.0),
}
ABSENT = {
    "b2": ("duplicate_perceptual", "b1", 2.0),
    "b3": ("duplicate_exact", "b1", 0.0),
    **{i: FULL[i] for i in ("c2", "c3", "c4", "d2", "x2")},
}


@pytest.mark.parametrize("is_full", [True, False])
def test_first_reason_counts_and_the_ledger_closes(spark, tmp_path, is_full):
    given = {IMAGE_FINGERPRINTS: PRINTS, DUPLICATE_GROUPS: GROUPS}
    if is_full:
        given |= {VALIDATION_OVERLAPS: OVERLAPS, BLOCKED_IMAGES: BLOCKED}
    params = DropNearDuplicatesParams(drop_blocked_duplicates=is_full)
    _, manifest, found = run_stage(
        spark, tmp_path, STAGE, given, num_buckets=2, drop_near_duplicates=params
    )
    expected = FULL if is_full else ABSENT
    assert {
        r["image_id"]: (r["reason"], r["other_id"], r["distance"]) for r in found["dropped_images"]
    } == expected
    kept = [r["image_id"] for r in found["unique_images"]]
    assert kept == [r["image_id"] for r in PRINTS if r["image_id"] not in expected]
    assert found["unique_images"][0] == {
        "image_id": "a", "sha256": "s-a", "format": "png", "num_bytes": 100,
    }  # fmt: skip
    line = manifest.ledger[0]
    assert (line.rows_in, line.rows_out) == (len(PRINTS), len(kept))
    assert sum(line.dropped.values()) == len(expected)
