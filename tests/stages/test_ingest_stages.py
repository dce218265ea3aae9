"""Ingest of images, dictionary and annotations from real files: every reason, the ledger closed."""

import collections
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from given import run_stage

from pipeline.config.ingest import IngestParams
from pipeline.config.inputs import Inputs, Source
from pipeline.files.storage import open_storage
from pipeline.kernels.row_checks import content_hash
from pipeline.stages import ingest_annotations
from pipeline.stages.ingest_images import STAGE as IMAGES_STAGE
from pipeline.stages.ingest_terms import STAGE as TERMS_STAGE
from schemas.ingested import IMAGES, TERMS

NAN, INF = float("nan"), float("inf")


def why(rows):
    """Reject reason -> keys, sorted."""
    found = collections.defaultdict(list)
    for row in rows:
        found[row["reason"]].append(row["row_key"])
    return {reason: sorted(keys) for reason, keys in found.items()}


def closes(manifest):
    """Ledger lines by unit: (in, out, dropped by reason)."""
    return {line.unit: (line.rows_in, line.rows_out, line.dropped) for line in manifest.ledger}


def pairs(annotations):
    """Image -> (term_id, score) of its annotations."""
    return {r["image_id"]: [tuple(a.values()) for a in r["annotations"]] for r in annotations}


def image_rows():
    """Rows of images: the winner of "twice" stands second, title and tags may not be UTF-8."""
    title = "Ä title".encode()
    rows = [
        {"image_id": b"plain", "uri": "s3://b.jpg", "title": title, "tags": [b"x", None]},
        {"image_id": b"carried", "bytes": b"\xff\xd8", "tags": []},
        *({"image_id": b"twice", "uri": f"u{n}"} for n in range(3)),
        {"image_id": None, "uri": "u"},
        {"image_id": b" \t", "uri": "u"},
        {"image_id": b"nowhere", "uri": ""},
        {"image_id": b"bad title", "uri": "u", "title": b"\xff"},
        {"image_id": b"bad tag", "uri": "u", "tags": [b"fine", b"\xfe"]},
    ]
    kinds = {"image_id": pa.binary(), "uri": pa.string(), "bytes": pa.binary()}
    kinds |= {"title": pa.binary(), "tags": pa.list_(pa.binary())}
    return pa.Table.from_pylist(rows, pa.schema(list(kinds.items())))


def test_images_are_kept_or_set_aside_with_a_reason(spark, tmp_path):
    rows = image_rows()
    twice = [{"image_id": "twice", "uri": f"u{n}"} for n in range(3)]
    hashes = content_hash(pa.Table.from_pylist(twice, IMAGES.arrow_schema)).tolist()
    winner = f"u{hashes.index(min(hashes))}"
    results = []
    for buckets, given in ((1, rows), (4, rows.take(list(range(len(rows)))[::-1]))):
        path = tmp_path / f"images{buckets}"
        path.mkdir()
        pq.write_table(given, path / "part.parquet")
        inputs = Inputs(images=Source(path=str(path)))
        _, manifest, tables = run_stage(
            spark, tmp_path / f"root{buckets}", IMAGES_STAGE, {}, buckets, inputs=inputs
        )
        results.append(tables)
    assert results[0] == results[1]
    found = {row["image_id"]: row for row in tables["images"]}
    assert sorted(found) == ["carried", "plain", "twice"]
    assert (found["plain"]["title"], found["plain"]["tags"]) == ("Ä title", ["x"])
    assert found["plain"]["licence"] is None
    assert (found["carried"]["bytes"], found["carried"]["tags"]) == (b"\xff\xd8", [])
    assert found["twice"]["uri"] == winner
    assert why(tables["rejected_images"]) == {
        "bad_utf8": ["bad tag", "bad title"],
        "duplicate_key": ["twice", "twice"],
        "empty_key": ["", " \t"],
        "no_uri_or_bytes": ["nowhere"],
    }
    dropped = {"bad_utf8": 2, "duplicate_key": 2, "empty_key": 2, "no_uri_or_bytes": 1}
    assert closes(manifest) == {"images": (10, 3, dropped)}


def test_a_wrong_schema_lists_every_breach_before_any_work(spark, tmp_path):
    path = tmp_path / "images.parquet"
    columns = {"uri": pa.array([1]), "tags": pa.array(["a"]), "title": pa.array([["t"]])}
    pq.write_table(pa.table(columns), path)
    inputs = Inputs(images=Source(path=str(path)))
    with pytest.raises(ValueError, match="4 breaches") as error:
        run_stage(spark, tmp_path / "root", IMAGES_STAGE, {}, inputs=inputs)
    for breach in (
        "image_id is missing, expected string",
        "uri is bigint, expected string",
        "tags is string, expected array<string>",
        "title is array<string>, expected string",
    ):
        assert breach in str(error.value)
    assert not open_storage(str(tmp_path / "root")).exists("ingest_images")


def dictionary():
    """(term_id, text, language, canonical, sensitive); JSON numbers, so ids may be anything."""
    return [
        (0, " Jaguar ", "EN", 0, False),
        (1, "jaguars", "en", 0, False),
        (2, "big\u00a0cats", "en", 1, False),  # an alias of an alias
        (3, "katze", "de", None, False),
        (4, "ru\u200bde", "en", 4, False),  # on the list, with a zero-width space inside
        (5, "car", "en", 5, True),
        (6, "auto", "en", 5, False),  # alias of a sensitive term
        (7, "jaguar", "en", 7, False),  # the text of 0
        (None, "x", "en", 0, False),
        (-1, "x", "en", -1, False),
        (2**27, "x", "en", 2**27, False),
        (8, " \u200b", "en", 8, False),
        (9, "loose", "en", 77, False),
        (10, "round", "en", 11, False),
        (11, "trip", "en", 10, False),
        (12, "unmarked", "en", 12, None),
        (13, "doubled", "en", 13, False),
        (13, "doubled too", "en", 13, False),
    ]


def test_dictionary_from_json(spark, tmp_path):
    names = ("term_id", "text", "language", "canonical_term_id", "is_sensitive")
    path = tmp_path / "terms.json"
    path.write_text("\n".join(json.dumps(dict(zip(names, r, strict=True))) for r in dictionary()))
    (tmp_path / "list.txt").write_text("\nRude\n")
    _, manifest, tables = run_stage(
        spark,
        tmp_path / "root",
        TERMS_STAGE,
        {},
        inputs=Inputs(terms=Source(path=str(path), format="json")),
        ingest=IngestParams(sensitive_list=str(tmp_path / "list.txt")),
    )
    rows = [tuple(row.values()) for row in tables["terms"]]
    assert rows[:-1] == [
        (0, "jaguar", "en", 0, False),
        (1, "jaguars", "en", 0, False),
        (2, "big cats", "en", 0, False),
        (3, "katze", "de", 3, False),
        (4, "rude", "en", 4, True),
        (5, "car", "en", 5, True),
        (6, "auto", "en", 5, True),
        (7, "jaguar", "en", 0, False),
    ]
    assert rows[-1][0] == 13
    reasons = {
        "empty_key": [""],
        "id_out_of_range": ["-1", str(2**27)],
        "empty_text": ["8"],
        "unknown_canonical_term": ["9"],
        "alias_cycle": ["10", "11"],
        "null_value": ["12"],
        "duplicate_key": ["13"],
    }
    assert why(tables["rejected_terms"]) == reasons
    dropped = {reason: len(keys) for reason, keys in reasons.items()}
    assert closes(manifest) == {"terms": (18, 9, dropped)}


TERM_ROWS = [
    {"term_id": t, "text": text, "language": language, "canonical_term_id": t}
    | {"is_sensitive": False}
    for t, text, language in ((3, "cat", "en"), (5, "chat", "fr"), (9, "dog", "en"))
]
LONG = """\
id;keyword;term;percent
b;dog;;50
a; CAT ;en;90
a;cat;EN;80
a;chat;fr;25
a;chat;en;25
a;dog;en;nan
a;;en;10
c;dog;en;101
c;dog;en;-1
c;dog;en;many
c;dog;en;Infinity
;dog;en;10
"""


@pytest.mark.parametrize("buckets", [1, 4])
def test_long_annotations_from_csv_with_other_column_names(spark, tmp_path, buckets):
    path = tmp_path / "long.csv"
    path.write_text(LONG)
    # The file has a column "term" too: expressions mean the file's columns, not renamed ones.
    columns = {"image_id": "id", "term": "keyword", "language": "term"}
    columns["score"] = "try_cast(percent AS double) / 100"
    source = Source(path=str(path), format="csv", columns=columns)
    source = source.model_copy(update={"options": {"header": "true", "sep": ";"}})
    _, manifest, tables = run_stage(
        spark,
        tmp_path / "root",
        ingest_annotations.LONG,
        {TERMS: TERM_ROWS},
        buckets,
        inputs=Inputs(annotations_long=source),
    )
    found = pairs(tables["annotations"])
    # "c" has nothing but bad rows, so no row of its own.
    assert found == {
        "a": [(3, pytest.approx(0.9)), (5, pytest.approx(0.25))],
        "b": [(9, pytest.approx(0.5))],
    }
    reasons = {
        "duplicate_annotation": ["a/cat"],
        "unknown_term": ["a/chat"],
        "score_not_finite": ["a/dog", "c/dog"],
        "empty_text": ["a/"],
        "score_out_of_range": ["c/dog", "c/dog"],
        "null_value": ["c/dog"],
        "empty_key": ["/dog"],
    }
    assert why(tables["rejected_annotations"]) == reasons
    dropped = {reason: len(keys) for reason, keys in reasons.items()}
    assert closes(manifest) == {"annotations": (12, 3, dropped)}


def nested_rows():
    """Items as (term, score); the struct has its fields in another order, and one more."""
    rows = [
        ("a", [(9, 0.5), (3, 0.25), (3, 0.75), (4, 0.9), (None, 0.5), (3, NAN), None]),
        ("b", []),
        ("c", [(9, 1.5), (9, INF), (2**40, 0.5)]),
        ("nothing", None),
        (None, [(3, 0.5), (9, 0.5)]),
        ("twice", [(3, 0.5)]),
        ("twice", [(3, 0.5), (9, 0.5)]),
    ]
    item = pa.struct([("score", pa.float64()), ("model", pa.string()), ("term_id", pa.int64())])
    lists = [
        None
        if items is None
        else [i and {"score": i[1], "model": "m", "term_id": i[0]} for i in items]
        for _, items in rows
    ]
    ids = pa.array([name for name, _ in rows])
    return pa.table({"image_id": ids, "annotations": pa.array(lists, pa.list_(item))})


def test_nested_annotations_item_by_item(spark, tmp_path):
    path = tmp_path / "nested.parquet"
    pq.write_table(nested_rows(), path)
    inputs = Inputs(annotations_nested=Source(path=str(path)))
    _, manifest, tables = run_stage(
        spark,
        tmp_path / "root",
        ingest_annotations.NESTED,
        {TERMS: TERM_ROWS},
        inputs=inputs,
    )
    found = pairs(tables["annotations"])
    twice = found.pop("twice")
    assert found == {"a": [(3, 0.75), (9, 0.5)], "b": [], "c": []}
    assert twice in ([(3, 0.5)], [(3, 0.5), (9, 0.5)])
    assert why(tables["rejected_annotated_images"]) == {
        "null_value": ["nothing"],
        "empty_key": [""],
        "duplicate_key": ["twice"],
    }
    lost = ["/3", "/9", "twice/3"] + (["twice/9"] if len(twice) == 1 else [])
    reasons = {
        "duplicate_annotation": ["a/3"],
        "unknown_term": ["a/4"],
        "null_value": ["a/", "a/", "c/"],
        "score_not_finite": ["a/3", "c/9"],
        "score_out_of_range": ["c/9"],
        "bad_image_row": lost,
    }
    assert why(tables["rejected_annotations"]) == reasons
    lines = closes(manifest)
    kept = 2 + len(twice)
    assert lines["annotations"] == (15, kept, {r: len(k) for r, k in reasons.items()})
    assert lines["images"] == (7, 4, {"null_value": 1, "empty_key": 1, "duplicate_key": 1})
