"""Dictionary, interests and block list: normalised, resolved, bad rows set aside (I1-I3, Y3)."""

import pyarrow as pa

from pipeline.kernels.ingest_interests import (
    NO_INTEREST,
    check_interactions,
    check_interest_seeds,
    check_interests,
)
from pipeline.kernels.ingest_terms import check_blocked, check_terms
from pipeline.kernels.row_checks import Checked

TAXONOMY = ["Food and drinks", "Vehicles", "Animals"]


def reasons(checked: Checked) -> list[tuple[str, str]]:
    return sorted((r["row_key"], r["reason"]) for r in checked.rejected.to_pylist())


def terms(*rows: tuple) -> pa.Table:
    names = ("term_id", "text", "language", "canonical_term_id", "is_sensitive")
    kinds = (pa.int64(), pa.binary(), pa.string(), pa.int64(), pa.bool_())
    columns = zip(*rows, strict=True) if rows else [()] * 5
    arrays = [pa.array(c, k) for c, k in zip(columns, kinds, strict=True)]
    arrays[1] = arrays[1].view(pa.string())
    return pa.table(arrays, names=list(names))


def test_terms_by_hand() -> None:
    got = check_terms(
        terms(
            (10, b" Golden  Retriever", "EN", 10, False),
            (5, b"retriever", None, 10, False),
            (6, b"retrievers", "en", 5, False),  # alias of an alias
            (7, b"cat", "en", 7, False),
            (9, b"CAT", "en", 9, False),  # the same term again
            (8, b"kitty", "en", 9, False),
            (11, b"chat", "fr", None, False),
            (20, "b\u0430dword".encode(), "en", 20, False),  # Cyrillic a
            (21, b"badword", "en", 21, True),
            (22, b"naughty", "en", 21, False),
            (23, b"nsfw cat", "en", 23, False),
            (-1, b"x", "en", -1, False),
            (2**27, b"y", "en", 7, False),
            (30, b"caf\xe9", "en", 30, False),
            (31, b"\xe2\x80\x8b ", "en", 31, False),
            (32, b"loose", "en", 999, False),
            (33, b"looser", "en", 32, False),
            (34, b"ring", "en", 35, False),
            (35, b"rong", "en", 34, False),
            (36, b"flagless", "en", 36, None),
            *((40 + i, b"twice %d" % i, "en", 40 + i, False) for i in range(4)),
            *((40 + i, b"twice %d" % i, "en", 40 + i, True) for i in range(4)),
        ),
        sensitive=["NSFW"],
    )
    rows = {r["term_id"]: r for r in got.valid.to_pylist()}
    canonical = {t: r["canonical_term_id"] for t, r in rows.items()}
    assert canonical == {
        5: 10, 6: 10, 7: 7, 8: 7, 9: 7, 10: 10, 11: 11, 20: 20, 21: 21, 22: 21, 23: 23,
        40: 40, 41: 41, 42: 42, 43: 43,
    }  # fmt: skip
    assert rows[10]["text"] == "golden retriever"
    assert {r["language"] for r in rows.values()} == {"en", "fr"}
    # 40 to 43 are flagged by one of their two rows: whichever stays, the flag holds
    assert [t for t, r in rows.items() if r["is_sensitive"]] == [20, 21, 22, 23, 40, 41, 42, 43]
    assert got.valid["term_id"].to_pylist() == sorted(rows)
    assert reasons(got) == [
        ("-1", "id_out_of_range"), ("134217728", "id_out_of_range"), ("30", "bad_utf8"),
        ("31", "empty_text"), ("32", "unknown_canonical_term"), ("33", "unknown_canonical_term"),
        ("34", "alias_cycle"), ("35", "alias_cycle"), ("36", "null_value"),
        *((str(40 + i), "duplicate_key") for i in range(4)),
    ]  # fmt: skip


def test_term_order_does_not_matter() -> None:
    table = terms(
        (3, b"b", "en", 9, False), (1, b"a", "en", 3, True), (9, b"c", "en", 9, False),
        (4, b"A", "en", 4, False), (4, b"d", "en", 4, False),
    )  # fmt: skip
    base = check_terms(table)
    for order in ([4, 3, 2, 1, 0], [2, 4, 0, 1, 3]):
        again = check_terms(table.take(pa.array(order)))
        assert again.valid.equals(base.valid)
        assert reasons(again) == reasons(base)
    assert check_terms(terms()).valid.num_rows == 0


def test_interests_by_hand() -> None:
    table = pa.table(
        {
            "image_id": ["b", "a", "a", "a", "", "c", "d"],
            "l1_interest": ["Vehicles", " vehicles", "Animals", "Animals", "Animals", "?", None],
        }
    )
    got = check_interests(table, "image_id", TAXONOMY)
    assert got.valid.to_pylist() == [
        {"image_id": "a", "l1_interests": ["Animals", "Vehicles"]},
        {"image_id": "b", "l1_interests": ["Vehicles"]},
    ]
    assert reasons(got) == [
        ("/Animals", "empty_key"), ("a/Animals", "merged"), ("c/?", "unknown_interest"),
        ("d/", "null_value"),
    ]  # fmt: skip
    by_text = check_interests(table.rename_columns(["text", "l1_interest"]), "text", TAXONOMY)
    assert by_text.valid["text"].to_pylist() == ["a", "b"]
    ids = pa.table({"term_id": pa.array([4, None], pa.int32()), "l1_interest": ["Animals"] * 2})
    by_id = check_interests(ids, "term_id", TAXONOMY)
    assert by_id.valid.to_pylist() == [{"term_id": 4, "l1_interests": ["Animals"]}]


def test_interest_seeds_by_hand() -> None:
    rows = [
        ("Cat", "Animals", "pets"),
        ("cat ", "Vehicles", " wild "),
        ("cat", "animals", "pets"),
        ("cat", "boats", None),
        ("walk", "none", "verbs"),
        ("van", "Vehicles", None),
        ("tram", "?", "rail"),
    ]
    columns = zip(*rows, strict=True)
    table = pa.table(dict(zip(("text", "l1_interest", "source_node"), columns, strict=True)))
    got = check_interest_seeds(table, TAXONOMY)
    assert got.valid.to_pylist() == [
        {"text": "cat", "l1_interests": ["Animals", "Vehicles"], "source_nodes": ["pets", "wild"]},
        {"text": "van", "l1_interests": ["Vehicles"], "source_nodes": []},
        {"text": "walk", "l1_interests": [NO_INTEREST], "source_nodes": ["verbs"]},
    ]
    assert reasons(got) == [
        ("cat/animals", "merged"), ("cat/boats", "unknown_interest"),
        ("tram/?", "unknown_interest"),
    ]  # fmt: skip
    turned = check_interest_seeds(table.take(pa.array([6, 4, 2, 0, 1, 3, 5])), TAXONOMY)
    assert turned.valid.equals(got.valid)
    bare = table.set_column(2, "source_node", pa.nulls(7, pa.string()))
    nodes = check_interest_seeds(bare, TAXONOMY).valid["source_nodes"].to_pylist()
    assert nodes == [[], [], []]


def test_interactions_add_up() -> None:
    table = pa.table(
        {
            "image_id": ["a", "a", "a", "b", "b"],
            "l1_interest": ["Vehicles", "Animals", "vehicles", "Animals", "Boats"],
            "count": [1, 5, 2, -1, 3],
        }
    )
    got = check_interactions(table, TAXONOMY)
    assert got.valid.to_pylist() == [
        {
            "image_id": "a",
            "interactions": [
                {"l1_interest": "Animals", "count": 5},
                {"l1_interest": "Vehicles", "count": 3},
            ],
        }
    ]
    assert reasons(got) == [
        ("a/vehicles", "merged"), ("b/Animals", "negative_count"), ("b/Boats", "unknown_interest"),
    ]  # fmt: skip


def test_block_list_by_hand() -> None:
    digest = "AB" * 32
    table = pa.table(
        {
            "image_id": ["x", None, "y", "", None, "x"],
            "sha256": pa.array([None, digest, digest.lower(), None, "123", None], pa.string()),
        }
    )
    got = check_blocked(table)
    assert got.valid.to_pylist() == [
        {"kind": "image_id", "value": "x"},
        {"kind": "image_id", "value": "y"},
        {"kind": "sha256", "value": digest.lower()},
    ]
    assert reasons(got) == [("/", "empty_key"), ("/123", "bad_sha256")]
    no_hashes = pa.table({"image_id": ["x"], "sha256": pa.nulls(1)})
    assert check_blocked(no_hashes).valid.num_rows == 1
