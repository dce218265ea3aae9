"""Groups worked by hand: order of keeping, drift, copies, opt-outs, validation images."""

import numpy as np
import pyarrow as pa
import pytest
from near_duplicate_rows import Context, collected, frame, packed, print_row, small

from pipeline.config.images import NearDuplicateParams, VerifyParams
from pipeline.kernels.pair_model import PIXEL_SIGNALS, PairModel
from pipeline.stages.group_near_duplicates import group_near_duplicates

FAR = 0xFFFF << 32
"""Bits that tell the cases apart: their hashes never match."""


def image(image_id, phash=0, *, sha256="", area=100, labels=0, vector=None, is_flat=False):
    case = FAR ^ (ord(image_id[0]) * 0x1234567890ABCDE % 2**64) & ~0xFFF
    row = print_row(image_id, sha256 or f"s-{image_id}", phash ^ case, is_flat, area, 1)
    return row | {"labels": labels, "vector": vector}


IMAGES = [
    # Order: area before labels, labels before digest.
    image("o1", area=100, labels=9),
    image("o2", area=200, labels=1, sha256="a"),
    image("o3", area=200, labels=2, sha256="d"),
    image("o4", area=200, labels=2, sha256="c"),
    # Not blocked before a larger area.
    image("p1", area=900),
    image("p2", area=10),
    # A chain whose ends differ by 6 bits, radius 4.
    image("a", 0b0, area=300),
    image("ab", 0b111),
    image("ac", 0b111111),
    # Copies of the kept image, of another one, and a neighbour by embedding only.
    image("e1", sha256="e", vector=[2, 0]),
    image("e2", sha256="e", labels=1, vector=[2, 0]),
    image("e3", 0b111111, area=50, vector=[0.95, np.sqrt(1 - 0.95**2)]),
    image("f1", area=500),
    image("f2", 0b11, sha256="f"),
    image("f3", 0b11, sha256="f"),
    # h matches its kept image g and the blocked i; g does not match i.
    image("g", 0b0, area=300),
    image("gh", 0b1111),
    image("gi", 0b11111111),
    # The blocked q2 has the bytes of q1, which would be kept.
    image("q1", area=900, sha256="q"),
    image("q2", area=900, sha256="q"),
    image("q3", 0b1),
    # Blocked by digest.
    image("r1", sha256="r"),
    image("r2", 0b1),
    # The centre of the star is removed by a validation set.
    image("v1", area=900),
    image("v2", 0b1),
    image("v3", 0b11),
    # Flat images match by embedding or not at all.
    image("w1", is_flat=True, area=300, vector=[0, 1]),
    image("w2", is_flat=True, vector=[0, 3]),
    image("w3", vector=[1, 1]),
]
EDGES = (
    "o1 o2|o1 o3|o1 o4|p1 p2|a ab|ab ac|e1 e2|e1 e3|f1 f2|f2 f3|g gh|gh gi|q1 q2|q1 q3|"
    "r1 r2|v1 v2|v1 v3|w1 w2|w2 w3"
)
BLOCKED = [("image_id", "p1"), ("image_id", "gi"), ("image_id", "q2"), ("sha256", "r")]
BY_HAND = """
o1 o4 perceptual 0 -|o2 o4 perceptual 0 -|o3 o4 perceptual 0 -|o4 o4 - 0 -
p1 p2 perceptual 0 blocked|p2 p2 - 0 blocked
a a - 0 -|ab a perceptual 3 -|ac ac - 0 -
e1 e2 exact 0 -|e2 e2 - 0 -|e3 e2 semantic 0.05 -
f1 f1 - 0 -|f2 f1 perceptual 2 -|f3 f1 perceptual 2 -
g g - 0 -|gh g perceptual 4 blocked|gi gi - 0 blocked
q1 q3 perceptual 1 blocked|q2 q3 perceptual 1 blocked|q3 q3 - 0 blocked
r1 r2 perceptual 1 blocked|r2 r2 - 0 blocked
v2 v2 - 0 -|v3 v2 perceptual 1 -
w1 w1 - 0 -|w2 w1 semantic 0 -|w3 w3 - 0 -
"""


def by_hand(text):
    found = {}
    for line in text.strip().replace("\n", "|").split("|"):
        image_id, kept, tier, distance, blocked = line.split()
        distance = None if distance == "null" else pytest.approx(float(distance), abs=1e-6)
        found[image_id] = (kept, tier.strip("-"), distance, blocked == "blocked")
    return found


def grouped(spark, partitions, with_validation, **options):
    order = np.random.default_rng(partitions).permutation(len(IMAGES)).tolist()
    rows = [IMAGES[i] for i in order]
    pairs = [
        dict(zip(("image_id_a", "image_id_b"), e.split(), strict=True)) for e in EDGES.split("|")
    ]
    pairs = [pair | {"tier": "any", "distance": 0.0} for pair in pairs]
    vectors = [r | {"embedding": packed(r["vector"])} for r in rows if r["vector"] is not None]
    labels = [r | {"cluster_ids": list(range(r["labels"]))} for r in rows if r["labels"]]
    blocked = [dict(zip(("kind", "value"), entry, strict=True)) for entry in BLOCKED]
    removed = [
        {"image_id": "v1", "tier": t, "validation_id": "x", "distance": 0.0}
        for t in ("perceptual", "semantic")
    ]
    groups = group_near_duplicates(
        frame(spark, "near_duplicate_pairs", pairs, partitions),
        frame(spark, "image_fingerprints", rows, partitions),
        frame(spark, "image_embeddings", vectors, partitions),
        frame(spark, "image_labels", labels),
        frame(spark, "blocked_images", blocked),
        frame(spark, "validation_overlaps", removed) if with_validation else None,
        None,
        NearDuplicateParams(
            max_hamming=4, min_cosine=0.94, verify=VerifyParams(enabled=False), **options
        ),
        Context(),
    )["duplicate_groups"]
    columns = ("image_id", "kept_image_id", "tier", "distance", "is_blocked")
    found = [tuple(row) for row in groups.select(*columns).collect()]
    assert len({row[0] for row in found}) == len(found)
    return {row[0]: row[1:] for row in found}


def test_groups_by_hand(spark):
    assert grouped(spark, 4, with_validation=True) == by_hand(BY_HAND)


def test_thumbnails_are_fetched_of_pictures_that_are_compared(spark):
    """The others have thumbnails that no kernel would take."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (64, 64), np.uint8).tobytes()
    rows = [
        print_row("a1", "a", thumbnail=picture),
        print_row("a2", "b", width=9, thumbnail=picture),
        print_row("c1", "c"),  # copies of one file: one picture, compared with none
        print_row("c2", "c"),
        print_row("d", "d"),  # in no pair
    ]
    pairs = [{"image_id_a": a, "image_id_b": b} for a, b in (("a1", "a2"), ("c1", "c2"))]
    none = [frame(spark, name, []) for name in ("image_embeddings", "image_labels")]
    params = NearDuplicateParams(verify=VerifyParams(min_probability=0.5))
    found = group_near_duplicates(
        frame(spark, "near_duplicate_pairs", [p | {"tier": "any", "distance": 0.0} for p in pairs]),
        frame(spark, "image_fingerprints", rows, 2),
        *none, None, None, sure_model(), params, Context(),
    )["duplicate_groups"]  # fmt: skip
    kept = collected(found, "image_id", "kept_image_id", "tier")
    assert kept == [
        ("a1", "a1", ""),
        ("a2", "a1", "verified"),
        ("c1", "c1", ""),
        ("c2", "c1", "exact"),
    ]


def sure_model():
    """A model that takes every related pair, as a small table."""
    zeros = np.zeros(len(PIXEL_SIGNALS))
    none = np.zeros((len(PIXEL_SIGNALS), 0))
    model = PairModel(zeros, zeros + 1, none, np.zeros(0), zeros, 9.0, signals=PIXEL_SIGNALS)
    return small(pa.table({"encoder": [""], "model": [model.to_json()]}))


def test_without_verification_neighbours_are_enough_and_tiers_that_are_off_are_not_named(spark):
    found = grouped(spark, 1, with_validation=False, verify_against_kept=False, exact=False)
    expected = by_hand(BY_HAND) | by_hand(
        "ac a linked null -|e1 e2 perceptual 0 -|g g - 0 blocked|gi g linked null blocked|"
        "v1 v1 - 0 -|v2 v1 perceptual 1 -|v3 v1 perceptual 2 -|w3 w1 linked null -"
    )
    assert found == expected
