"""Each bad row set aside with its reason, everything else kept (I1, I2)."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.ingest import (
    TermIndex,
    check_annotations_long,
    check_annotations_nested,
    check_embeddings,
    check_images,
    embedding_lengths,
    most_common_length,
)
from pipeline.kernels.row_checks import Checked, content_hash, one_array
from pipeline.kernels.vectors import to_matrix
from schemas.ingested import IMAGES

BAD_BYTES = b"caf\xe9"


def reasons(checked: Checked) -> list[tuple[str, str]]:
    rows = checked.rejected.to_pylist()
    return sorted((r["row_key"], r["reason"]) for r in rows)


def text(*values: bytes | None) -> pa.Array:
    """A string column as an engine hands it over: bytes that nobody looked at."""
    return pa.array(values, pa.binary()).view(pa.string())


def images(**columns: pa.Array | list) -> pa.Table:
    return pa.table(columns)


def test_images_by_hand() -> None:
    table = images(
        image_id=text(b"a", b"", None, b"b", b"b", BAD_BYTES, b"c", b"d", b" \t", b"e"),
        uri=["u", "u", "u", "u2", "u1", "u", None, "u", "u", ""],
        title=text(b"A", None, None, None, None, None, None, BAD_BYTES, None, None),
        tags=pa.array([["x"], None, None, [], None, None, None, None, None, None],
                      pa.list_(pa.string())),
    )  # fmt: skip
    got = check_images(table)
    assert got.valid.schema.equals(IMAGES.arrow_schema)
    assert got.valid["image_id"].to_pylist()[0] == "a"
    assert sorted(got.valid["image_id"].to_pylist()) == ["a", "b"]
    assert reasons(got) == [
        ("", "empty_key"), ("", "empty_key"), (" \t", "empty_key"),
        ("b", "duplicate_key"), ("c", "no_uri_or_bytes"), ("caf\\xe9", "bad_utf8"),
        ("d", "bad_utf8"), ("e", "no_uri_or_bytes"),
    ]  # fmt: skip


def test_the_duplicate_that_stays_does_not_depend_on_the_order() -> None:
    table = images(image_id=["a", "b", "a", "a"], uri=["1", "2", "3", "1"])
    kept = {tuple(r.items()) for r in check_images(table).valid.select([0, 1]).to_pylist()}
    for order in ([3, 2, 1, 0], [2, 0, 3, 1]):
        again = check_images(table.take(pa.array(order)))
        assert {tuple(r.items()) for r in again.valid.select([0, 1]).to_pylist()} == kept
        assert again.rejected.num_rows == 2


def test_tags_that_are_not_utf8() -> None:
    flat = text(b"ok", BAD_BYTES, b"fine")
    tags = pa.ListArray.from_arrays(pa.array([0, 1, 3, 3], pa.int32()), flat)
    got = check_images(images(image_id=["a", "b", "c"], uri=["u"] * 3, tags=tags))
    assert got.valid["image_id"].to_pylist() == ["a", "c"]
    assert reasons(got) == [("b", "bad_utf8")]


def test_content_hash_sees_values_and_nothing_else() -> None:
    table = pa.table({"a": ["x", "y"], "b": pa.array([[1.0, 2.0], None], pa.list_(pa.float32()))})
    other = pa.table({"b": table["b"], "a": table["a"].cast(pa.large_string())})
    assert content_hash(table).tolist() == content_hash(other).tolist()
    assert content_hash(table.slice(1)).tolist() == content_hash(table).tolist()[1:]
    swapped = pa.table({"a": ["ab", "a"], "b": ["c", "bc"]})
    assert len(set(content_hash(swapped).tolist())) == 2


def nested(rows: list) -> pa.Array:
    kind = pa.list_(pa.struct([("term_id", pa.int32()), ("score", pa.float32())]))
    return pa.array(
        [None if r is None else [{"term_id": t, "score": s} for t, s in r] for r in rows], kind
    )


KNOWN = np.array([True, True, False, True])


def test_nested_annotations_by_hand() -> None:
    table = pa.table(
        {
            "image_id": text(b"a", b"b", b"c", b"c", b"", b"d"),
            "annotations": nested(
                [
                    [(3, 0.5), (0, 0.25), (3, 0.75)],
                    [(2, 0.5), (9, 0.5), (-1, 0.5), (1, np.nan), (0, np.inf), (3, 1.5), (0, 1.0)],
                    [(0, 0.5)],
                    [(1, 0.5)],
                    [(1, 0.5)],
                    None,
                ]
            ),
        }
    )
    got = check_annotations_nested(table, KNOWN)
    rows = dict(zip(*(got.valid[c].to_pylist() for c in ("image_id", "annotations")), strict=True))
    assert rows["a"] == [{"term_id": 0, "score": 0.25}, {"term_id": 3, "score": 0.75}]
    assert rows["b"] == [{"term_id": 0, "score": 1.0}]
    assert set(rows) == {"a", "b", "c"}
    bad_rows = sorted((r["row_key"], r["reason"]) for r in got.rejected_rows.to_pylist())
    assert bad_rows == [("", "empty_key"), ("c", "duplicate_key"), ("d", "null_value")]
    of_c = rows["c"][0]["term_id"]
    assert reasons(got) == [
        ("/1", "bad_image_row"), ("a/3", "duplicate_annotation"), ("b/-1", "unknown_term"),
        ("b/0", "score_not_finite"), ("b/1", "score_not_finite"), ("b/2", "unknown_term"),
        ("b/3", "score_out_of_range"), ("b/9", "unknown_term"), (f"c/{1 - of_c}", "bad_image_row"),
    ]  # fmt: skip
    items_in = sum(map(len, filter(None, table["annotations"].to_pylist())))
    assert items_in == sum(map(len, rows.values())) + got.rejected.num_rows


TERMS = pa.table(
    {
        "term_id": pa.array([0, 1, 3, 4], pa.int32()),
        "text": ["cat", "dog", "chat", "cat"],
        "language": ["en", "en", "fr", "en"],
    }
)


def test_long_annotations_by_hand() -> None:
    table = pa.table(
        {
            "image_id": text(b"b", b"a", b"a", b"a", b"b", b"c", b"", b"a", b"d", b"a"),
            "term": text(
                b"DOG", b"Cat ", b"cat", b"\xef\xbd\x84og", b"chat", b"wolf", b"cat", b" ",
                BAD_BYTES, b"chat",
            ),
            "language": ["en", None, "EN", "en", "en", "en", "en", "en", "en", "fr"],
            "score": pa.array([0.5, 0.25, 0.75, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], pa.float32()),
        }
    )  # fmt: skip
    got = check_annotations_long(table, TermIndex(TERMS, "en"))
    assert got.valid.to_pylist() == [
        {
            "image_id": "a",
            "annotations": [
                {"term_id": 0, "score": 0.75},
                {"term_id": 1, "score": 1.0},
                {"term_id": 3, "score": 0.5},
            ],
        },
        {"image_id": "b", "annotations": [{"term_id": 1, "score": 0.5}]},
    ]
    assert reasons(got) == [
        ("/cat", "empty_key"), ("a/ ", "empty_text"), ("a/Cat ", "duplicate_annotation"),
        ("b/chat", "unknown_term"), ("c/wolf", "unknown_term"), ("d/caf\\xe9", "bad_utf8"),
    ]  # fmt: skip


SCORES = st.sampled_from([0.0, 0.25, 1.0, -0.5, 2.0, float("nan"), float("inf")])
LONG = st.lists(st.tuples(st.sampled_from(["a", "b", ""]), st.sampled_from(["cat", "dog", "elk"]),
                          SCORES), max_size=12)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(LONG, st.randoms())
def test_no_annotation_is_lost_and_order_does_not_matter(
    rows: list[tuple[str, str, float]], random: object
) -> None:
    def run(given_rows: list[tuple[str, str, float]]) -> Checked:
        ids, terms, scores = zip(*given_rows, strict=True) if given_rows else ((), (), ())
        table = pa.table(
            [pa.array(ids, pa.string()), pa.array(terms, pa.string()), pa.array(scores)],
            names=["image_id", "term", "score"],
        )
        return check_annotations_long(table, TermIndex(TERMS, "en"))

    got = run(rows)
    kept = sum(len(a) for a in got.valid["annotations"].to_pylist())
    assert kept + got.rejected.num_rows == len(rows)
    best = {}
    for image, term, score in rows:
        if image and term != "elk" and 0 <= score <= 1:
            best[image, term] = max(score, best.get((image, term), 0.0))
    stored = {
        (r["image_id"], TERMS["text"][a["term_id"]].as_py()): a["score"]
        for r in got.valid.to_pylist()
        for a in r["annotations"]
    }
    assert stored == best
    assert kept == len(best)
    shuffled = list(rows)
    random.shuffle(shuffled)
    again = run(shuffled)
    assert again.valid.equals(got.valid)
    assert Counter(reasons(again)) == Counter(reasons(got))


@pytest.mark.parametrize("kind", ["list", "large_list", "binary", "large_binary"])
def test_embeddings_by_hand(kind: str) -> None:
    rows = [[1.0, 2.0], [0.0, 0.0], [1.0], None, [1.0, np.nan], [np.inf, 0.0], [], [3.0, 4.0]]
    if kind.endswith("list"):
        make = pa.list_ if kind == "list" else pa.large_list
        column = pa.array(rows, make(pa.float32()))
    else:
        data = [None if r is None else np.array(r, "<f4").tobytes() for r in rows]
        column = pa.array(data, pa.binary() if kind == "binary" else pa.large_binary())
    table = pa.table({"image_id": [*"abcdefg", ""], "embedding": column})
    assert most_common_length(embedding_lengths(table["embedding"])) == 2
    got = check_embeddings(table, 2)
    assert got.valid["image_id"].to_pylist() == ["a"]
    assert got.valid.schema.field("embedding").type == pa.binary(8)
    np.testing.assert_array_equal(to_matrix(got.valid["embedding"]), [[1, 2]])
    assert reasons(got) == [
        ("", "empty_key"), ("b", "embedding_zero"), ("c", "wrong_embedding_length"),
        ("d", "wrong_embedding_length"),
        ("e", "embedding_not_finite"), ("f", "embedding_not_finite"),
        ("g", "wrong_embedding_length"),
    ]  # fmt: skip


def test_numbers_inside_a_list_may_be_null() -> None:
    column = pa.array([[1.0, None], [1.0, 2.0]], pa.list_(pa.float64()))
    got = check_embeddings(pa.table({"term_id": [4, 5], "embedding": column}), 2, key="term_id")
    assert got.valid["term_id"].to_pylist() == [5]
    assert reasons(got) == [("4", "embedding_not_finite")]


def test_empty_tables_pass() -> None:
    assert one_array(pa.chunked_array([], pa.string())).type == pa.string()
    empty = pa.table({"image_id": pa.array([], pa.string()), "uri": pa.array([], pa.string())})
    assert check_images(empty).valid.num_rows == 0
    no_items = pa.table({"image_id": pa.array([], pa.string()), "annotations": nested([])})
    assert check_annotations_nested(no_items, KNOWN).valid.num_rows == 0
    long = pa.table({c: pa.array([], pa.string()) for c in ("image_id", "term")})
    long = long.append_column("score", pa.array([], pa.float32()))
    assert check_annotations_long(long, TermIndex(TERMS, "en")).valid.num_rows == 0
    vectors = pa.table({"image_id": pa.array([], pa.string()),
                        "embedding": pa.array([], pa.list_(pa.float32()))})  # fmt: skip
    assert check_embeddings(vectors, 3).valid.schema.field("embedding").type == pa.binary(12)
