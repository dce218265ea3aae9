"""The planted world holds what it says, judged by code that did not plant it (Z1)."""

import io
from collections import Counter
from pathlib import Path

import imagehash
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image, ImageOps
from sklearn.metrics import roc_auc_score

from pipeline.demo.planted_content import EDIT_COSINE
from pipeline.demo.planted_terms import make_terms
from pipeline.demo.planted_world import PlantedWorld, generate
from pipeline.demo.planted_writer import WorldOptions
from pipeline.kernels.images import ImageLimits, Rejection, decode_image
from pipeline.kernels.ingest import (
    TermIndex,
    check_annotations_long,
    check_annotations_nested,
    check_embeddings,
    check_images,
    embedding_lengths,
    most_common_length,
)
from pipeline.kernels.ingest_interests import check_interests
from pipeline.kernels.ingest_terms import check_blocked, check_terms
from pipeline.kernels.row_checks import Checked
from pipeline.kernels.vectors import l2_normalise, to_matrix

RADIUS = 4


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> PlantedWorld:
    return generate(tmp_path_factory.mktemp("world"), 1200, seed=3)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> PlantedWorld:
    options = WorldOptions(annotations="nested")
    return generate(tmp_path_factory.mktemp("large"), 12_000, 200, 1, False, options)


@pytest.fixture(scope="module")
def hashes(world: PlantedWorld) -> dict[str, imagehash.ImageHash]:
    rows = [r for r in world.read("images").select(["image_id", "bytes"]).to_pylist() if r["bytes"]]
    known = set(world.read("truth/families")["image_id"].to_pylist())
    return {r["image_id"]: phash(r["bytes"]) for r in rows if r["image_id"] in known}


def phash(data: bytes) -> imagehash.ImageHash:
    return imagehash.phash(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))


def rejected(checked: Checked) -> Counter:
    rows = checked.rejected.to_pylist()
    return Counter((r["row_key"], r["reason"]) for r in rows)


def planted(world: PlantedWorld, table: str) -> Counter:
    rows = world.read("truth/corrupt_rows").to_pylist()
    return Counter((r["row_key"], r["reason"]) for r in rows if r["table"] == table)


def test_ingest_finds_each_corrupt_row_and_no_other(world: PlantedWorld) -> None:
    images = check_images(world.read("images"))
    assert rejected(images) == planted(world, "images")
    terms = check_terms(world.read("terms"))
    assert rejected(terms) == planted(world, "terms")
    index = TermIndex(terms.valid, "en")
    annotations = check_annotations_long(world.read("annotations_long"), index)
    assert rejected(annotations) == planted(world, "annotations")
    vectors = world.read("image_embeddings")
    width = most_common_length(embedding_lengths(vectors["embedding"]))
    assert width == 64
    assert rejected(check_embeddings(vectors, width)) == planted(world, "image_embeddings")
    assert rejected(check_blocked(world.read("blocked_images"))) == planted(world, "blocked_images")
    reasons = set(world.read("truth/corrupt_rows")["reason"].to_pylist())
    assert len(reasons) >= 19


def test_nested_form_finds_its_corrupt_rows_too(large: PlantedWorld) -> None:
    got = check_annotations_nested(large.read("annotations_nested"), np.ones(200, bool))
    assert rejected(got) == planted(large, "annotations")
    rows = Counter((r["row_key"], r["reason"]) for r in got.rejected_rows.to_pylist())
    assert rows == planted(large, "annotated_images")
    assert (
        got.valid.num_rows + got.rejected_rows.num_rows == large.read("annotations_nested").num_rows
    )


def test_long_and_nested_say_the_same(tmp_path: Path) -> None:
    both = generate(tmp_path, 2000, 200, 4, False, WorldOptions(annotations="both"))
    terms = check_terms(both.read("terms")).valid
    long = check_annotations_long(both.read("annotations_long"), TermIndex(terms, "en"))
    nested = check_annotations_nested(both.read("annotations_nested"), np.ones(200, bool))
    spoken = {r["image_id"]: r["annotations"] for r in nested.valid.to_pylist() if r["annotations"]}
    assert {r["image_id"]: r["annotations"] for r in long.valid.to_pylist()} == spoken


def test_broken_pictures_break_as_planted(world: PlantedWorld) -> None:
    table = world.read("images")
    names = table["image_id"].cast(pa.binary()).to_pylist()
    data = {n.decode(): b for n, b in zip(names, table["bytes"].to_pylist(), strict=True) if n}
    limits = ImageLimits(max_bytes=1 << 20, max_pixels=10_000_000)
    expected = dict(planted(world, "fingerprints").keys())
    assert len(expected) == 18
    for key, reason in expected.items():
        got = decode_image(data[key], limits)
        assert isinstance(got, Rejection), key
        assert got.reason == reason, key


def test_families_are_near_and_strangers_are_far(
    world: PlantedWorld, hashes: dict[str, imagehash.ImageHash]
) -> None:
    family = world.read("truth/families").to_pylist()
    data = {r["image_id"]: r["bytes"] for r in world.read("images").slice(0, 1200).to_pylist()}
    root = {r["family_id"]: r["image_id"] for r in family if r["edit"] == "original"}
    seen = Counter()
    for row in family:
        seen[row["edit"]] += 1
        distance = hashes[row["image_id"]] - hashes[root[row["family_id"]]]
        if row["is_inside"]:
            assert distance <= RADIUS, row
        else:
            assert distance > 2 * RADIUS, row
        if row["edit"] == "exact":
            assert data[row["image_id"]] == data[root[row["family_id"]]]
    assert set(seen) == set(EDIT_COSINE)
    flat = set(world.read("truth/flat_images")["image_id"].to_pylist())
    plain = [r["image_id"] for r in family if r["edit"] == "original"]
    bits = np.array([hashes[i].hash.ravel() for i in plain if i not in flat])
    apart = bits.shape[1] - (bits[:, None] == bits[None]).sum(axis=2)
    assert apart[np.triu_indices(len(bits), 1)].min() > 2 * RADIUS
    for row in world.read("truth/look_alikes").to_pylist():
        assert RADIUS < hashes[row["image_id"]] - hashes[row["resembles"]] <= 18


def test_embeddings_follow_the_edits(large: PlantedWorld) -> None:
    family = large.read("truth/families")
    table = large.read("image_embeddings").slice(0, 12_000)
    assert table["image_id"].equals(family["image_id"])
    x = l2_normalise(to_matrix(table["embedding"]))
    names = np.array(family["edit"].to_pylist())
    ids = np.array(family["family_id"])
    root = {f: i for i, (f, e) in enumerate(zip(ids.tolist(), names, strict=True))
            if e == "original"}  # fmt: skip
    cosine = np.einsum("nd,nd->n", x, x[[root[f] for f in ids.tolist()]])
    np.testing.assert_allclose(cosine, [EDIT_COSINE[e] for e in names], atol=1e-3)
    alone = x[names == "original"][:3000]
    strangers = alone @ alone.T
    assert strangers[np.triu_indices(len(alone), 1)].max() < 0.95


def test_concrete_terms_separate_and_abstract_ones_do_not(large: PlantedWorld) -> None:
    rows = large.read("annotations_nested").slice(0, 12_000)
    lists = rows["annotations"].combine_chunks()
    image = np.asarray(pc.list_parent_indices(lists))
    term = pc.struct_field(lists.flatten(), "term_id").to_numpy()
    canonical = large.read("truth/terms")["canonical_term_id"].to_numpy()
    term = canonical[term]
    x = to_matrix(large.read("image_embeddings").slice(0, 12_000)["embedding"])
    truth = large.read("truth/concreteness").to_pylist()
    accuracy = [probe(x, image[term == r["term_id"]]) for r in truth]
    clear = [(a, r["class"] == "concrete") for a, r in zip(accuracy, truth, strict=True)
             if r["class"] != "between"]  # fmt: skip
    assert roc_auc_score([c for _, c in clear], [a for a, _ in clear]) >= 0.97
    purity = [r["purity"] for r in truth]
    ranks = [np.argsort(np.argsort(v)) for v in (accuracy, purity)]
    assert np.corrcoef(*ranks)[0, 1] > 0.85
    realised = np.array(accuracy) - [r["separability"] for r in truth]
    assert np.abs(realised).mean() < 0.08


def probe(x: np.ndarray, positives: np.ndarray) -> float:
    """Held-out balanced accuracy of the mean-difference direction."""
    positives = np.unique(positives)
    others = np.setdiff1d(np.arange(len(x)), positives)
    train, test = positives[::2], positives[1::2]
    direction = x[train].mean(axis=0) - x[others[::2]].mean(axis=0)
    cut = (x[train].mean(axis=0) + x[others[::2]].mean(axis=0)) @ direction / 2
    return float(
        ((x[test] @ direction > cut).mean() + (x[others[1::2]] @ direction <= cut).mean()) / 2
    )


def test_frequencies_follow_zipf() -> None:
    terms = make_terms(400, 0)
    weights = np.sort(terms.weight[terms.weight > 0])[::-1]
    np.testing.assert_allclose(weights[0] / weights[-1], (len(weights) + 10) / 11)


def test_said_frequencies_follow_the_weights(large: PlantedWorld) -> None:
    lists = large.read("annotations_nested").slice(0, 12_000)["annotations"].combine_chunks()
    canonical = large.read("truth/terms")["canonical_term_id"].to_numpy()
    term = canonical[pc.struct_field(lists.flatten(), "term_id").to_numpy()]
    weight = make_terms(200, 1).weight
    said = np.bincount(term, minlength=200)[weight > 0]
    share = weight[weight > 0] / weight.sum()
    assert np.corrcoef(said, share)[0, 1] > 0.95
    slope = np.polyfit(np.log(share), np.log(said), 1)[0]
    assert 0.85 < slope < 1.1


def test_wrong_labels_are_the_senses_an_image_does_not_show(large: PlantedWorld) -> None:
    interests: dict[str, set[str]] = {}
    for row in large.read("image_interests").to_pylist():
        interests.setdefault(row["image_id"], set()).add(row["l1_interest"])
    of_term: dict[int, set[str]] = {}
    for row in large.read("term_interests").to_pylist():
        of_term.setdefault(row["term_id"], set()).add(row["l1_interest"])
    wrong = large.read("truth/wrong_labels").to_pylist()
    polysemy = [r for r in wrong if r["cause"] == "polysemy"]
    assert len(polysemy) > 300
    assert all(r["l1_interest"] not in interests[r["image_id"]] for r in wrong)
    assert all(r["l1_interest"] in of_term[r["term_id"]] for r in wrong)
    for row in polysemy:
        assert len(of_term[row["term_id"]]) == 2
        assert of_term[row["term_id"]] & interests[row["image_id"]]
    names = set(large.read("image_interests")["l1_interest"].to_pylist())
    checked = check_interests(large.read("image_interests"), "image_id", names)
    assert checked.rejected.num_rows == 0


def test_validation_leaks_are_the_copies_of_validation_images(
    world: PlantedWorld, hashes: dict[str, imagehash.ImageHash]
) -> None:
    validation = {
        r["image_id"]: phash(r["bytes"]) for r in world.read("validation_images").to_pylist()
    }
    leaks = {(r["validation_image_id"], r["image_id"]): r["is_inside"]
             for r in world.read("truth/validation_leaks").to_pylist()}  # fmt: skip
    assert any(leaks.values())
    flat = set(world.read("truth/flat_images")["image_id"].to_pylist())
    near = {
        (v, i)
        for v, a in validation.items()
        for i, b in hashes.items()
        if a - b <= RADIUS and i not in flat
    }
    assert near == {pair for pair, inside in leaks.items() if inside}
    assert len({v for v, _ in leaks}) < len(validation)


def test_blocked_images_are_named_by_id_or_digest(world: PlantedWorld) -> None:
    kinds = Counter(world.read("truth/blocked")["kind"].to_pylist())
    assert kinds["image_id"] > 0
    assert kinds["sha256"] > 0
    assert check_blocked(world.read("blocked_images")).valid.num_rows >= sum(kinds.values()) - 1


def test_sensitive_terms_are_caught_in_every_dress(world: PlantedWorld) -> None:
    valid = check_terms(world.read("terms")).valid.to_pylist()
    flagged = {r["term_id"] for r in valid if r["is_sensitive"]}
    hidden = {"sensitive", "sensitive_alias", "look_alike"}
    expected = {r["term_id"] for r in world.read("truth/terms").to_pylist() if r["kind"] in hidden}
    assert flagged == expected


def test_tables_have_the_contracts_of_sources(world: PlantedWorld) -> None:
    from schemas import inputs

    for name in ("images", "annotations_long", "terms", "image_embeddings", "term_embeddings",
                 "interest_seeds", "term_interests", "image_interests", "validation_images",
                 "blocked_images"):  # fmt: skip
        contract = getattr(inputs, f"SOURCE_{name.upper()}").arrow_schema
        given = world.read(name).schema
        for column in contract:
            if column.nullable and column.name not in given.names:
                continue
            assert given.field(column.name).type == column.type, (name, column.name)
    assert isinstance(world.read("images"), pa.Table)
