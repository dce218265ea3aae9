"""The committed demo corpus: complete, sane, small, and consistent with itself."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.demo import records
from pipeline.kernels.text import normalise_term

ROOT = Path(__file__).parents[2]
DATA = ROOT / "pipeline" / "demo" / "data"
TAXONOMY = ROOT / "pipeline" / "config" / "taxonomy"
MAX_BYTES = 12 * 1024 * 1024
SCHEMAS = {
    "images": records.IMAGES,
    "validation_images": records.VALIDATION_IMAGES,
    "terms": records.TERMS,
    "image_interest_seeds": records.IMAGE_INTEREST_SEEDS,
    "blocked_images": records.BLOCKED_IMAGES,
}


@pytest.fixture(scope="module")
def tables() -> dict[str, pa.Table]:
    return {name: pq.read_table(DATA / f"{name}.parquet") for name in SCHEMAS}


@pytest.fixture(scope="module")
def provenance() -> dict:
    return json.loads((DATA / "provenance.json").read_text())


def l1_interests() -> list[str]:
    return (TAXONOMY / "l1_interests.txt").read_text().split()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_files_fit_the_limit_and_are_those_of_provenance(provenance):
    assert sum(p.stat().st_size for p in DATA.iterdir()) <= MAX_BYTES
    assert set(provenance["files"]) == {f"{name}.parquet" for name in SCHEMAS}
    for name, entry in provenance["files"].items():
        assert sha256((DATA / name).read_bytes()) == entry["sha256"], name
        assert (DATA / name).stat().st_size == entry["bytes"], name


def test_notice_names_every_package(provenance):
    notice = (DATA / "NOTICE").read_text()
    for package in provenance["packages"]:
        assert package["name"] in notice
        assert package["version"] in notice


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema(tables, name):
    assert tables[name].schema.equals(SCHEMAS[name])


def test_counts_are_those_of_provenance(tables, provenance):
    counts = provenance["counts"]
    for name, entry in provenance["files"].items():
        assert tables[name.removesuffix(".parquet")].num_rows == entry["rows"]
    ids = tables["images"]["image_id"].to_pylist()
    variants = sum(records.family_of(i) != i for i in ids)
    clip_art = sum(i.startswith("openclipart/") for i in ids)
    assert counts["images"] == {
        "openclipart": clip_art,
        "emoji_bases": len(ids) - clip_art - variants,
        "emoji_variants": variants,
    }
    assert clip_art >= 2000
    assert variants >= 1400
    assert (
        dict(Counter(tables["validation_images"]["dataset"].to_pylist()))
        == (counts["validation_images"])
    )


def test_image_ids_are_unique_and_validation_is_held_out(tables):
    ids = tables["images"]["image_id"].to_pylist()
    held = tables["validation_images"]["image_id"].to_pylist()
    assert len(set(ids)) == len(ids)
    assert len(set(held)) == len(held)
    assert not set(ids) & set(held)


def test_every_held_out_emoji_leaves_its_family_behind(tables):
    families = {records.family_of(i) for i in tables["images"]["image_id"].to_pylist()}
    emoji = [i for i in tables["validation_images"]["image_id"].to_pylist() if i[:7] == "fluent/"]
    assert len(emoji) == 40
    assert all(records.family_of(i) in families for i in emoji)


def test_copies_have_their_original_in_the_corpus(tables):
    data = dict(
        zip(
            tables["images"]["image_id"].to_pylist(),
            tables["images"]["bytes"].to_pylist(),
            strict=True,
        )
    )
    copies = [r for r in tables["validation_images"].to_pylist() if r["dataset"] == "demo_copies"]
    assert len(copies) == 45
    for row in copies:
        _, kind, original = row["image_id"].split("/", 2)
        assert (row["bytes"] == data[original]) == (kind == "exact")


@pytest.mark.parametrize("name", ["images", "validation_images"])
def test_every_picture_decodes(tables, name):
    for image_id, data in zip(
        tables[name]["image_id"].to_pylist(), tables[name]["bytes"].to_pylist(), strict=True
    ):
        with Image.open(io.BytesIO(data)) as image:
            assert image.format in ("WEBP", "JPEG"), image_id
            image.load()
            assert 16 <= max(image.size) <= 128, image_id
            assert image.mode == "RGB", image_id


def test_every_image_has_text_and_provenance(tables):
    for row in tables["images"].to_pylist():
        assert row["tags"], row["image_id"]
        assert row["licence"] in ("Public domain", "MIT")
        assert row["source"]
        assert row["uri"] is None
        assert all(t.strip() == t and t for t in row["tags"]), row["image_id"]
        assert "@" not in (row["title"] or "") + (row["description"] or ""), row["image_id"]


def test_terms_are_contiguous_normalised_and_their_canonical_exists(tables):
    rows = tables["terms"].to_pylist()
    assert [r["term_id"] for r in rows] == list(range(len(rows)))
    assert 1500 <= len(rows) <= 3000
    assert len({r["text"] for r in rows}) == len(rows)
    for row in rows:
        assert row["text"] == normalise_term(row["text"])
        canonical = rows[row["canonical_term_id"]]
        assert canonical["canonical_term_id"] == canonical["term_id"], row["text"]
        assert canonical["language"] == row["language"], row["text"]


def test_selection_has_something_to_drop(tables):
    rows = tables["terms"].to_pylist()
    text = {r["text"]: r for r in rows}
    assert sum(r["is_sensitive"] for r in rows) >= 3
    assert sum(r["language"] != "en" for r in rows) >= 50
    assert text["cavallo"]["language"] == "it"
    assert text["horse"]["language"] == "en"
    assert rows[text["women"]["canonical_term_id"]]["text"] == "woman"
    assert rows[text["glasses"]["canonical_term_id"]]["text"] == "glasses"


def test_image_seeds_name_corpus_images_and_known_interests(tables):
    ids = set(tables["images"]["image_id"].to_pylist())
    seeds = [tuple(r.values()) for r in tables["image_interest_seeds"].to_pylist()]
    assert len(set(seeds)) == len(seeds)
    assert {i for i, _ in seeds} <= ids
    assert {interest for _, interest in seeds} == set(l1_interests())


def test_blocked_images_point_into_the_corpus(tables):
    images = tables["images"].to_pylist()
    by_id = {r["image_id"]: sha256(r["bytes"]) for r in images}
    rows = tables["blocked_images"].to_pylist()
    assert [(r["image_id"] is None, r["sha256"] is None) for r in rows] == [
        (False, True),
        (True, False),
        (False, False),
    ]
    assert by_id[rows[0]["image_id"]] in (
        h for i, h in by_id.items() if i != rows[0]["image_id"]
    ), "an exact copy under another name"
    assert rows[1]["sha256"] in by_id.values()
    assert by_id[rows[2]["image_id"]] == rows[2]["sha256"]


def test_seed_terms_cover_the_taxonomy():
    names = l1_interests()
    assert len(names) == 24
    assert names == sorted(set(names))
    with (TAXONOMY / "interest_seed_terms.csv").open(newline="") as file:
        given = list(csv.DictReader(file))
    rows = [(r["text"], r["l1_interest"]) for r in given]
    assert len(set(rows)) == len(rows)
    assert all(text == normalise_term(text) and text for text, _ in rows)
    counts = Counter(interest for _, interest in rows)
    assert counts.pop("none") >= 40  # terms of no interest
    assert set(counts) == set(names)
    assert min(counts.values()) >= 40
    assert {i for t, i in rows if t == "jaguar"} == {"animals", "vehicles"}
    assert len({r["text"] for r in given}) == len({(r["text"], r["source_node"]) for r in given})
    with (TAXONOMY / "interest_nodes.csv").open(newline="") as file:
        nodes = {r["source_node"]: r["l1_interests"].split(";") for r in csv.DictReader(file)}
    assert {r["source_node"] for r in given} == set(nodes)
    assert {name for of in nodes.values() for name in of} == {*names, "none"}
