"""What the restriction takes is what labelling without it gives and labelling with it does not."""

import numpy as np
import pyarrow as pa

from pipeline.kernels.label_lookup import LabelLookup
from pipeline.kernels.labels import label_images
from pipeline.kernels.lost_labels import given_labels

KIND = pa.list_(pa.struct([("term_id", pa.int32()), ("score", pa.float32())]))


def annotated(images):
    return pa.array([[{"term_id": t, "score": 0.5} for t in terms] for terms in images], KIND)


def test_jaguar_by_hand():
    # Term 0, jaguar, is cluster 0 of animals and cluster 1 of cars; term 1 is cluster 1 alone.
    lookup = LabelLookup.build(
        np.array([0, 1]), np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([0, 1])
    )
    found = given_labels(annotated([[0], [0, 1], []]), np.array([1, 2, 0], np.uint64), lookup)
    rows = list(zip(*(part.tolist() for part in found), strict=True))
    assert rows == [
        (0, 0, 0, False),
        (0, 1, 0, True),
        (1, 0, 0, True),
        (1, 1, 0, False),
        (1, 1, 1, False),
    ]


def test_kept_ones_are_what_labelling_keeps():
    rng = np.random.default_rng(1)
    pairs = np.unique(rng.integers(0, [20, 8], (40, 2)), axis=0)
    lookup = LabelLookup.build(np.arange(15), pairs[:, 0], pairs[:, 1], rng.integers(0, 4, 8))
    images = annotated([sorted(set(rng.integers(0, 20, 5).tolist())) for _ in range(50)])
    bits = rng.integers(0, 16, 50).astype(np.uint64)
    found = given_labels(images, bits, lookup)
    kept = {(r, c) for r, c, _, lost in zip(*found, strict=True) if not lost}
    labelled = label_images(images, bits, lookup, True, True).cluster_ids.to_pylist()
    assert kept == {(row, c) for row, labels in enumerate(labelled) for c in labels}
