"""From selected annotations to labels."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.label_lookup import LabelLookup, interest_bits
from pipeline.kernels.labels import REASONS, label_images
from pipeline.kernels.nested import ANNOTATION_TYPE

ANIMALS, CARS, FASHION = 0, 1, 2
INTERESTS = ["animals", "cars", "fashion"]
# clusters: 0 cats (animals), 1 sports cars, 2 prints (fashion), 3 lonely (animals)
INTEREST_OF_CLUSTER = np.array([ANIMALS, CARS, FASHION, ANIMALS])
# terms: 3 jaguar in 0, 1, 2; 5 tiger in 0; 6 love in 2, abstract; 8 truck without a cluster
TERM = np.array([3, 5, 3, 6, 3])
CLUSTER = np.array([2, 0, 0, 2, 1])
VISUAL = np.array([8, 3, 5])
LOOKUP = LabelLookup.build(VISUAL, TERM, CLUSTER, INTEREST_OF_CLUSTER)


def column(lists):
    rows = [None if r is None else [{"term_id": t, "score": 1.0} for t in sorted(r)] for r in lists]
    return pa.array(rows, ANNOTATION_TYPE)


def bits(rows):
    return np.array([sum(1 << i for i in row) for row in rows], np.uint64)


def test_jaguar_by_hand():
    images = [[3, 5], [3], [3, 6], [6], [8], None, [], [5], [5, 3], [99]]
    seen = [
        [ANIMALS],
        [CARS, FASHION],
        [FASHION],
        [FASHION],
        [CARS],
        [CARS],
        [],
        [CARS],
        [],
        [CARS],
    ]
    got = label_images(column(images), bits(seen), LOOKUP, True, True)
    assert got.cluster_ids.to_pylist() == [[0], [1, 2], [2], [], [], [], [], [], [], []]
    assert got.label_terms.to_pylist() == [[[3, 5]], [[3], [3]], [[3]], [], [], [], [], [], [], []]
    names = [None if r < 0 else REASONS[r] for r in got.reason]
    assert names == [
        None, None, None, "not_in_visual_dictionary", "no_cluster", "no_annotations",
        "no_annotations", "interest_mismatch", "no_interest", "not_in_visual_dictionary",
    ]  # fmt: skip
    assert got.counts == {
        "annotations.selected": 11,
        "annotations.in_visual_dictionary": 8,
        "labels.clustered": 13,
        "labels.restricted": 4,
        "annotations.dropped.not_in_visual_dictionary": 3,
        "annotations.dropped.no_cluster": 1,
        "labels.dropped.no_interest": 3,
        "labels.dropped.interest_mismatch": 6,
        "images.selected": 8,
        "images.in_visual_dictionary": 6,
        "images.clustered": 5,
        "images.restricted": 3,
        "images.dropped.no_annotations": 2,
        "images.dropped.not_in_visual_dictionary": 2,
        "images.dropped.no_cluster": 1,
        "images.dropped.no_interest": 1,
        "images.dropped.interest_mismatch": 1,
    }


def test_the_three_variants_of_table_2():
    images, seen = [[3, 6], [6]], [[FASHION], [ANIMALS]]
    labels = [
        label_images(column(images), bits(seen), LOOKUP, d, r).cluster_ids.to_pylist()
        for d, r in ((False, False), (True, False), (True, True))
    ]
    assert labels == [[[0, 1, 2], [2]], [[0, 1, 2], []], [[2], []]]
    terms = label_images(column(images), bits(seen), LOOKUP, False, False).label_terms.to_pylist()
    assert terms == [[[3], [3], [3, 6]], [[6]]]


def oracle(images, seen, visual, clusters_of, interest, use_dictionary, restrict):
    out = []
    for terms, mine in zip(images, seen, strict=True):
        terms = sorted(terms or [])
        kept = [t for t in terms if not use_dictionary or t in visual]
        labels = {}
        for t in kept:
            for c in clusters_of.get(t, ()):
                labels.setdefault(c, []).append(t)
        final = {c: ts for c, ts in sorted(labels.items()) if not restrict or interest[c] in mine}
        reason = (
            None if final else "no_annotations" if not terms
            else "not_in_visual_dictionary" if not kept else "no_cluster" if not labels
            else "interest_mismatch" if mine else "no_interest"
        )  # fmt: skip
        out.append((list(final), list(final.values()), reason))
    return out


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_equals_the_slow_reading_on_any_slice(data):
    terms = st.integers(0, 12)
    images = data.draw(st.lists(st.none() | st.sets(terms, max_size=8), max_size=7))
    seen = [data.draw(st.sets(st.sampled_from([0, 1, 2, 63]))) for _ in images]
    interest = data.draw(st.lists(st.sampled_from([0, 1, 2, 63]), min_size=1, max_size=6))
    pairs = data.draw(st.sets(st.tuples(terms, st.integers(0, len(interest) - 1))))
    visual = data.draw(st.sets(terms))
    switches = data.draw(st.tuples(st.booleans(), st.booleans()))
    skip = data.draw(st.integers(0, 2))
    term_ids, clusters = (np.array([p[i] for p in pairs], int) for i in (0, 1))
    lookup = LabelLookup.build(
        np.array(sorted(visual), int), term_ids, clusters, np.array(interest)
    )
    got = label_images(column(images)[skip:], bits(seen[skip:]), lookup, *switches)
    clusters_of = {t: sorted(c for u, c in pairs if u == t) for t in range(13)}
    want = oracle(images[skip:], seen[skip:], visual, clusters_of, interest, *switches)
    assert got.cluster_ids.to_pylist() == [w[0] for w in want]
    assert got.label_terms.to_pylist() == [w[1] for w in want]
    assert [None if r < 0 else REASONS[r] for r in got.reason] == [w[2] for w in want]
    n = got.counts
    assert n["labels.restricted"] == sum(len(w[0]) for w in want)
    lost = sum(v for k, v in n.items() if k.startswith("labels.dropped."))
    assert n["labels.clustered"] == n["labels.restricted"] + lost
    unlabelled = sum(v for k, v in n.items() if k.startswith("images.dropped."))
    assert n["images.restricted"] + unlabelled == len(want)


def test_interest_names_become_bits():
    array = pa.array([["cars"], None, [], ["animals", "fashion"]], pa.list_(pa.string()))
    assert interest_bits(array, INTERESTS).tolist() == [2, 0, 0, 5]
    assert interest_bits(array[1:], INTERESTS).tolist() == [0, 0, 5]
    assert interest_bits(array, ["fashion"] + ["x"] * 61 + ["animals", "cars"])[3] == 1 + 2**62
    with pytest.raises(ValueError, match="found 'cars'"):
        interest_bits(array, ["animals"])
    with pytest.raises(ValueError, match="at most 64"):
        interest_bits(array, ["x"] * 65)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="repeated row"):
        LabelLookup.build(VISUAL, np.array([1, 1]), np.array([0, 0]), np.array([0]))
    with pytest.raises(ValueError, match=r"expected in \[0, 1\)"):
        LabelLookup.build(VISUAL, np.array([1]), np.array([1]), np.array([0]))
    with pytest.raises(ValueError, match="interest index 64"):
        LabelLookup.build(VISUAL, np.array([1]), np.array([0]), np.array([64]))
    with pytest.raises(ValueError, match="2 images, expected 1"):
        label_images(column([[3]]), bits([[], []]), LOOKUP, True, True)


def test_empty_inputs():
    empty = LabelLookup.build(*(np.zeros(0, int) for _ in range(4)))
    got = label_images(column([[3], []]), bits([[0], [0]]), empty, True, True)
    assert got.cluster_ids.to_pylist() == [[], []]
    assert [REASONS[r] for r in got.reason] == ["not_in_visual_dictionary", "no_annotations"]
    none = label_images(column([]), bits([]), LOOKUP, True, True)
    assert len(none.cluster_ids) == len(none.label_terms) == len(none.reason) == 0
