"""Labels of images on rows worked by hand, and what bad input gives."""

import pytest
from label_rows import annotations, table

from pipeline.config.labels import LabelImagesParams
from pipeline.stages import label_images

CLUSTERS = table("clusters", (0, "animals", "jaguar"), (1, "vehicles", "car"))


def label_state(clusters=CLUSTERS, interests=("animals", "vehicles")):
    return label_images.prepare(
        table("visual_terms", (0,), (4,), (5,)),
        table("term_clusters", (0, 0, 0.1), (0, 1, 0.1), (4, 1, 0.2)),
        clusters,
        table("interests", *((name,) for name in interests)),
        LabelImagesParams(),
    )


def test_interest_without_clusters_and_term_without_one():
    state = label_state(interests=("animals", "vehicles", "weather"))
    result = label_images.label_batch(
        table("images", ("a",), ("b",), ("c",)),
        annotations(a=[(0, 0.9)], b=[(5, 0.9)], c=[(4, 0.9), (5, 0.9)]),
        table("image_interests", ("a", ["weather"]), ("b", ["animals"]), ("c", ["vehicles"])),
        state,
        LabelImagesParams(),
    )
    rows = result.tables["image_labels"].to_pylist()
    assert rows == [{"image_id": "c", "cluster_ids": [1], "label_terms": [[4]]}]
    lost = {r["image_id"]: r["reason"] for r in result.tables["unlabelled_images"].to_pylist()}
    assert lost == {"a": "interest_mismatch", "b": "no_cluster"}
    assert result.counts["annotations.dropped.no_cluster"] == 2
    assert result.counts["labels.dropped.interest_mismatch"] == 2


def test_small_tables_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"found 'vehicles', expected one of the taxonomy's 1"):
        label_state(interests=("animals",))
    gap = table("clusters", (0, "animals", "jaguar"), (2, "vehicles", "car"))
    with pytest.raises(ValueError, match="found 2 as number 1, expected 0, 1, 2"):
        label_state(gap)
    rows = (table("images", ("a",)), annotations(a=[(0, 0.9)]))
    strange = table("image_interests", ("a", ["animals", "sky"]))
    with pytest.raises(ValueError, match="l1_interests: found 'sky'"):
        label_images.label_batch(*rows, strange, label_state(), LabelImagesParams())


def test_no_small_rows_and_no_images_give_none():
    none = label_images.prepare(
        table("visual_terms"), table("term_clusters"), table("clusters"), table("interests"),
        LabelImagesParams(),
    )  # fmt: skip
    rows = (table("images", ("a",)), annotations(a=[(0, 0.9)]), table("image_interests"))
    result = label_images.label_batch(*rows, none, LabelImagesParams())
    assert result.tables["image_labels"].num_rows == 0
    assert result.tables["unlabelled_images"]["reason"].to_pylist() == ["not_in_visual_dictionary"]
    no_images = (table("images"), table("selected_annotations"), table("image_interests"))
    result = label_images.label_batch(*no_images, label_state(), LabelImagesParams())
    assert [t.num_rows for t in result.tables.values()] == [0, 0]


def labelled(restrict=True):
    images = table("images", ("a",), ("b",), ("c",), ("d",), ("e",), ("f",))
    chosen = annotations(
        a=[(0, 0.9), (4, 0.8)], b=[(0, 0.9)], c=[(7, 0.9)], d=[(0, 0.9)], f=[], z=[(0, 0.9)]
    )
    interests = table(
        "image_interests",
        ("a", ["vehicles"]),
        ("b", ["animals", "vehicles"]),
        ("c", ["animals"]),
        ("d", []),
    )
    params = LabelImagesParams(restrict_to_interests=restrict)
    state = label_images.prepare(
        table("visual_terms", (0,), (4,)),
        table("term_clusters", (0, 0, 0.1), (0, 1, 0.1), (4, 1, 0.2)),
        table("clusters", (0, "animals", "jaguar"), (1, "vehicles", "car")),
        table("interests", ("animals",), ("vehicles",)),
        params,
    )
    return label_images.label_batch(images, chosen, interests, state, params)


def test_restriction_resolves_the_jaguar():
    result = labelled()
    labels = {r["image_id"]: r for r in result.tables["image_labels"].to_pylist()}
    assert {i: r["cluster_ids"] for i, r in labels.items()} == {"a": [1], "b": [0, 1]}
    assert labels["a"]["label_terms"] == [[0, 4]]
    lost = {r["image_id"]: r["reason"] for r in result.tables["unlabelled_images"].to_pylist()}
    assert lost == {
        "c": "not_in_visual_dictionary",
        "d": "no_interest",
        "e": "no_annotations",
        "f": "no_annotations",
    }
    assert result.counts["annotated_images.dropped.unknown_image"] == 1


def test_without_restriction_every_cluster_stays():
    rows = labelled(restrict=False).tables["image_labels"].to_pylist()
    assert {r["image_id"]: r["cluster_ids"] for r in rows} == {
        "a": [0, 1],
        "b": [0, 1],
        "d": [0, 1],
    }
