"""Ingest of vectors, evaluation images, opt-outs and interests: every reason, the ledger closed."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from given import run_stage

from pipeline.config.inputs import Inputs, Source
from pipeline.kernels.row_checks import content_hash
from pipeline.stages import ingest_interests
from pipeline.stages.ingest_blocked_images import STAGE as BLOCKED
from pipeline.stages.ingest_embeddings import IMAGES_STAGE, TERMS_STAGE
from pipeline.stages.ingest_validation_images import STAGE as VALIDATION
from schemas.ingested import INTERESTS, TERMS

NAN, INF = float("nan"), float("inf")


def why(rows):
    """Reject reason -> keys, sorted."""
    found = {}
    for row in sorted(rows, key=lambda r: r["row_key"]):
        found.setdefault(row["reason"], []).append(row["row_key"])
    return found


def check_ledger(manifest, rows_in, rows_out, reasons):
    """The only line of the ledger, with as many rows a reason as there are keys."""
    (line,) = manifest.ledger
    found = (line.rows_in, line.rows_out, line.dropped)
    assert found == (rows_in, rows_out, {r: len(keys) for r, keys in reasons.items()})


def write(path, rows, **types):
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(list(types.items()))), path)
    return Source(path=str(path))


def floats(*values):
    return np.array(values, "<f4").tobytes()


KINDS = {
    "float": pa.list_(pa.float32()),
    "double": pa.list_(pa.float64()),
    "binary": pa.binary(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_of_each_type(spark, tmp_path, kind):
    vectors = [
        ("a", [1.0, 0.5]),
        ("zero", [0.0, 0.0]),
        ("twice", [1.0, 2.0]),
        ("twice", [3.0, 4.0]),
        ("long", [1.0, 2.0, 3.0]),
        ("short", [1.0]),
        ("nan", [1.0, NAN]),
        ("inf", [-INF, 1.0]),
        ("none", None),
        (None, [1.0, 2.0]),
        ("empty", []),
    ]
    rows = [{"image_id": i, "embedding": v} for i, v in vectors]
    if kind == "binary":
        for row in rows:
            row["embedding"] = None if row["embedding"] is None else floats(*row["embedding"])
        rows.append({"image_id": "odd", "embedding": b"\0" * 9})
    else:
        rows.append({"image_id": "odd", "embedding": [None, 1.0]})
    source = write(tmp_path / "x.parquet", rows, image_id=pa.string(), embedding=KINDS[kind])
    _, manifest, tables = run_stage(
        spark, tmp_path / "root", IMAGES_STAGE, {}, 3, inputs=Inputs(image_embeddings=source)
    )
    pair = pa.table({"image_id": ["twice"] * 2, "embedding": [r["embedding"] for r in rows[2:4]]})
    hashes = content_hash(pair).tolist()
    winner = floats(*vectors[2 + hashes.index(min(hashes))][1])
    assert {r["image_id"]: r["embedding"] for r in tables["image_embeddings"]} == {
        "a": floats(1, 0.5),
        "twice": winner,
    }
    reasons = {
        "empty_key": [""],
        "wrong_embedding_length": ["empty", "long", "none", "short"],
        "embedding_not_finite": ["inf", "nan"],
        "embedding_zero": ["zero"],
        "duplicate_key": ["twice"],
    }
    odd = "wrong_embedding_length" if kind == "binary" else "embedding_not_finite"
    reasons[odd] = sorted([*reasons[odd], "odd"])
    assert why(tables["rejected_image_embeddings"]) == reasons
    check_ledger(manifest, 12, 2, reasons)


def test_a_table_without_a_single_vector_gives_none(spark, tmp_path):
    rows = [{"image_id": "a", "embedding": []}, {"image_id": "b", "embedding": None}]
    types = {"image_id": pa.string(), "embedding": KINDS["float"]}
    source = write(tmp_path / "x.parquet", rows, **types)
    _, manifest, tables = run_stage(
        spark, tmp_path / "root", IMAGES_STAGE, {}, inputs=Inputs(image_embeddings=source)
    )
    assert tables["image_embeddings"] == []
    check_ledger(manifest, 2, 0, {"wrong_embedding_length": ["a", "b"]})


def test_term_embeddings_by_text(spark, tmp_path):
    texts = {0: "cat", 1: "dog", 2: "cat", 3: "sky"}
    terms = [
        {"term_id": t, "text": text, "language": "en", "canonical_term_id": t}
        | {"is_sensitive": False}
        for t, text in texts.items()
    ]
    vectors = [(2, [9.0, 9.0]), (0, [3.0, 4.0]), (1, [0.0, 0.0]), (3, [NAN, 0.0])]
    vectors += [(77, [1.0, 1.0]), (None, [1.0, 1.0]), (3, [1.0])]
    rows = [{"term_id": t, "embedding": v} for t, v in vectors]
    types = {"term_id": pa.int64(), "embedding": KINDS["double"]}
    source = write(tmp_path / "x.parquet", rows, **types)
    inputs = Inputs(term_embeddings=source)
    _, manifest, tables = run_stage(
        spark, tmp_path / "root", TERMS_STAGE, {TERMS: terms}, inputs=inputs
    )
    assert [tuple(r.values()) for r in tables["text_embeddings"]] == [
        ("cat", floats(0.6, 0.8)),
    ]
    reasons = {
        "null_value": [""],
        "merged": ["2"],
        "embedding_not_finite": ["3"],
        "embedding_zero": ["1"],
        "wrong_embedding_length": ["3"],
        "unknown_term": ["77"],
    }
    assert why(tables["rejected_text_embeddings"]) == reasons
    check_ledger(manifest, 7, 1, reasons)


@pytest.mark.parametrize("with_embeddings", [True, False])
def test_validation_images(spark, tmp_path, with_embeddings):
    base = [
        ("val", "a", "u", [1.0, 2.0]),
        ("val", "b", "u", None),
        ("test", "a", "u", [3.0, 4.0]),
        ("test", "twice", "u", [5.0, 6.0]),
        ("test", "twice", "u", [5.0, 6.0]),
        ("test", "nowhere", None, [5.0, 6.0]),
        ("test", None, "u", [5.0, 6.0]),
        ("test", "", "u", [5.0, 6.0]),
        (None, "c", "u", [5.0, 6.0]),
        (" ", "c", "u", [5.0, 6.0]),
        ("val", "long", "u", [1.0, 2.0, 3.0]),
        ("val", "nan", "u", [1.0, NAN]),
    ]
    names = ("dataset", "image_id", "uri", "embedding")
    rows = [dict(zip(names, row, strict=True)) for row in base]
    types = {"dataset": pa.string(), "image_id": pa.string(), "uri": pa.string()}
    if with_embeddings:
        types["embedding"] = KINDS["double"]
    else:
        rows = rows[:-2]
        for row in rows:
            del row["embedding"]
    source = write(tmp_path / "x.parquet", rows, **types)
    _, manifest, tables = run_stage(
        spark, tmp_path / "root", VALIDATION, {}, 3, inputs=Inputs(validation_images=source)
    )
    found = {r["validation_id"]: r for r in tables["validation_images"]}
    assert sorted(found) == ["test/a", "test/twice", "val/a", "val/b"]
    assert all(f"{r['dataset']}/{r['image_id']}" == name for name, r in found.items())
    vectors = {name: r["embedding"] for name, r in found.items()}
    wanted = {"val/a": (1, 2), "val/b": None, "test/a": (3, 4), "test/twice": (5, 6)}
    assert vectors == {
        name: floats(*v) if v and with_embeddings else None for name, v in wanted.items()
    }
    reasons = {
        "empty_key": [" /c", "/c", "test/", "test/"],
        "no_uri_or_bytes": ["test/nowhere"],
        "duplicate_key": ["test/twice"],
    }
    if with_embeddings:
        reasons |= {"wrong_embedding_length": ["val/long"], "embedding_not_finite": ["val/nan"]}
    assert why(tables["rejected_validation_images"]) == reasons
    check_ledger(manifest, len(rows), 4, reasons)


def test_opt_outs_from_json(spark, tmp_path):
    digest = "ab" * 32
    path = tmp_path / "blocked.json"
    path.write_text(
        f'{{"image_id": "a", "sha256": "{digest.upper()}"}}\n{{"image_id": "a"}}\n'
        f'{{"sha256": " {digest}"}}\n{{"sha256": "12"}}\n{{"image_id": " ", "sha256": ""}}\n'
    )
    inputs = Inputs(blocked_images=Source(path=str(path), format="json"))
    _, _, tables = run_stage(spark, tmp_path / "root", BLOCKED, {}, inputs=inputs)
    assert [tuple(r.values()) for r in tables["blocked_images"]] == [
        ("image_id", "a"),
        ("sha256", digest),
    ]
    assert why(tables["rejected_blocked_images"]) == {"bad_sha256": ["/12"], "empty_key": [" /"]}


def test_taxonomy_and_seeds(spark, tmp_path):
    names, seeds = tmp_path / "names.txt", tmp_path / "seeds.csv"
    names.write_text("DIY and crafts\n\n Animals \r\nDIY and crafts\n")
    seeds.write_text(
        "word,interest\nCat,animals\ncat,ANIMALS\ncat,diy  and crafts\n,animals\ndog,nothing\n"
        '"\u200b",animals\nyarn,\n'
    )
    options = {"header": "true"}
    columns = {"text": "word", "l1_interest": "interest"}
    inputs = Inputs(
        taxonomy=Source(path=str(names), format="text", columns={"l1_interest": "value"}),
        interest_seeds=Source(path=str(seeds), format="csv", options=options, columns=columns),
    )
    stage = ingest_interests.TAXONOMY_STAGE
    _, _, tables = run_stage(spark, tmp_path / "names", stage, {}, inputs=inputs)
    found = [r["l1_interest"] for r in tables["interests"]]
    assert found == ["Animals", "DIY and crafts"]
    given = {INTERESTS: tables["interests"]}
    stage = ingest_interests.SEEDS_STAGE
    _, manifest, tables = run_stage(spark, tmp_path / "seeds", stage, given, inputs=inputs)
    (seed,) = tables["interest_seeds"]
    assert seed == {"text": "cat", "l1_interests": found, "source_nodes": []}
    reasons = {
        "empty_key": ["/animals"],
        "merged": ["cat/ANIMALS"],
        "unknown_interest": ["dog/nothing"],
        "null_value": ["yarn/"],
        "empty_text": ["\u200b/animals"],
    }
    assert why(tables["rejected_interest_seeds"]) == reasons
    check_ledger(manifest, 7, 2, reasons)


INTEREST_STAGES = {
    "term_interests": ingest_interests.TERM_INTERESTS_STAGE,
    "image_interests": ingest_interests.IMAGE_INTERESTS_STAGE,
    "image_interest_seeds": ingest_interests.IMAGE_SEEDS_STAGE,
    "image_interactions": ingest_interests.INTERACTIONS_STAGE,
}


@pytest.mark.parametrize("name", INTEREST_STAGES)
def test_given_interests(spark, tmp_path, name):
    is_term, is_count = name == "term_interests", name == "image_interactions"
    key = "term_id" if is_term else "image_id"
    ids = (4, 7, -1) if is_term else ("a", "b", "c")
    rows = [(ids[0], "food"), (ids[0], "Animals"), (ids[0], "food"), (ids[1], "cars")]
    rows += [(None, "food"), (ids[1], None), (ids[2], "food")]
    rows = [{key: k, "l1_interest": n, "count": 10 + i} for i, (k, n) in enumerate(rows)]
    rows[-1]["count"] = -1
    types = {key: pa.int64() if is_term else pa.string(), "l1_interest": pa.string()}
    types |= {"count": pa.int64()} if is_count else {}
    source = write(tmp_path / "x.parquet", rows, **types)
    given = {INTERESTS: [{"l1_interest": n} for n in ("animals", "food")]}
    _, manifest, tables = run_stage(
        spark, tmp_path / "root", INTEREST_STAGES[name], given, 3, inputs=Inputs(**{name: source})
    )
    found = [tuple(row.values()) for row in tables[name]]
    reasons = {"merged": 1, "unknown_interest": 1, "empty_key": 1, "null_value": 1}
    if is_term:
        assert found == [(4, "animals", 1.0), (4, "food", 1.0)]
        reasons["id_out_of_range"] = 1
    elif is_count:
        counts = [{"l1_interest": "animals", "count": 11}, {"l1_interest": "food", "count": 22}]
        assert found == [("a", counts)]
        reasons["negative_count"] = 1
    else:
        assert found == [("a", ["animals", "food"]), ("c", ["food"])]
    (line,) = manifest.ledger
    assert (line.rows_in, line.rows_out, line.dropped) == (7, 7 - sum(reasons.values()), reasons)
    keys = {r["row_key"] for r in tables[f"rejected_{name}"] if r["reason"] == "merged"}
    assert keys == {f"{ids[0]}/food"}
