"""Edit families through the real stages: one image of each remains, look-alikes all do."""

import io
from collections import Counter
from importlib import resources

import numpy as np
import pytest
from given import publish_rows
from PIL import Image

from pipeline.config.images import NearDuplicateParams, VerifyParams
from pipeline.config.run import RunConfig
from pipeline.config.runtime import RuntimeParams
from pipeline.demo.edit_pairs import MODELS, demo_pictures
from pipeline.demo.planted_pictures import encode, make_picture
from pipeline.files.storage import open_storage
from pipeline.kernels.edits import edit_family
from pipeline.kernels.pair_model import PairModel
from pipeline.runtime.lifecycle import Lifecycle
from pipeline.runtime.planning import plan_chain
from pipeline.runtime.reader import read_table
from pipeline.runtime.sources import source_versions
from pipeline.stages import (
    choose_pair_model,
    drop_near_duplicates,
    find_near_duplicates,
    fingerprint_images,
    group_near_duplicates,
    train_cells,
    verify_near_duplicates,
)
from pipeline.stages.verify_near_duplicates import rule_of
from schemas.ingested import IMAGE_EMBEDDINGS, IMAGES
from schemas.labels import IMAGE_LABELS

CHAIN = (
    fingerprint_images.STAGE,
    train_cells.STAGE,
    find_near_duplicates.STAGE,
    choose_pair_model.GIVEN_STAGE,
    verify_near_duplicates.STAGE,
    group_near_duplicates.STAGE,
    drop_near_duplicates.STAGE,
)
NUM_FAMILIES, NUM_ALIKE = 3, 3
EDITS = ("jpeg30", "resize50", "crop90", "bright07", "contrast15", "hflip", "rot90", "grey")
PARAMS = NearDuplicateParams(num_probes=3, verify=VerifyParams(min_cosine=0.6, min_probability=0.8))


def pictures():
    """image_id -> file: families of demo pictures, one exact copy each, and planted look-alikes."""
    files = {}
    for k, data in enumerate(demo_pictures(NUM_FAMILIES, seed=2)):
        family = {"original": data, "again": data} | edit_family(
            Image.open(io.BytesIO(data)), EDITS
        )
        files |= {f"f{k}-{name}": content for name, content in family.items()}
    for k in range(NUM_ALIKE):
        other = make_picture(100 + k, 0, resembles=k)
        files[f"p{k}-one"] = encode(make_picture(k, 0), "png")
        files[f"p{k}-two"] = encode(other, "png")
    return files


def embedding(data, image_id):
    """Colours of a small copy; look-alikes have equal ones."""
    if image_id.startswith("p"):
        rng = np.random.default_rng(int(image_id[1]))
        return rng.normal(size=48).astype("<f4").tobytes()
    small = Image.open(io.BytesIO(data)).convert("RGB").resize((4, 4))
    return (np.asarray(small, "<f4").ravel() - 128).tobytes()


@pytest.fixture(scope="module")
def given_tables():
    files = pictures()
    absent = dict.fromkeys(("uri", "title", "description", "tags", "source", "licence"))
    return {
        IMAGES: [{"image_id": i, "bytes": data} | absent for i, data in files.items()],
        IMAGE_EMBEDDINGS: [
            {"image_id": i, "embedding": embedding(data, i)} for i, data in files.items()
        ],
        IMAGE_LABELS: [],
    }


def run_all(spark, root, given, num_buckets, params=PARAMS):
    """Tables by name as rows, and manifests by stage."""
    runtime = RuntimeParams(num_buckets=num_buckets)
    config = RunConfig(root=str(root), runtime=runtime, near_duplicates=params)
    storage = open_storage(config.root)
    published = {t.name: publish_rows(storage, t, r, num_buckets) for t, r in given.items()}
    versions = source_versions(config.inputs, storage) | {
        n: m.version for n, m in published.items()
    }
    lifecycle = Lifecycle(spark, config, storage, published)
    tables, manifests = {}, {}
    for plan in plan_chain(CHAIN, config, storage, versions):
        manifests[plan.stage.name] = manifest = lifecycle.run(plan)
        for table in plan.stage.outputs:
            rows = read_table(storage, manifest.tables[table.name], table)
            tables[table.name] = rows.sort_by([(k, "ascending") for k in table.key]).to_pylist()
    return tables, manifests


@pytest.fixture(scope="module")
def result(spark, tmp_path_factory, given_tables):
    return run_all(spark, tmp_path_factory.mktemp("two"), given_tables, 2)


def test_one_image_of_each_family_remains_and_all_look_alikes(result):
    unique = [row["image_id"] for row in result[0]["unique_images"]]
    assert Counter(i.split("-")[0] for i in unique) == {
        **{f"f{k}": 1 for k in range(NUM_FAMILIES)},
        **{f"p{k}": 2 for k in range(NUM_ALIKE)},
    }
    dropped = {r["image_id"]: r for r in result[0]["dropped_images"]}
    assert {r["reason"] for r in dropped.values()} == {"duplicate_verified"}
    for image_id, row in dropped.items():
        assert image_id[:2] == row["other_id"][:2]
        assert row["distance"] <= 1 - PARAMS.verify.min_probability


def test_a_stated_precision_takes_the_place_of_the_probability():
    text = (resources.files("pipeline.demo") / "data" / MODELS).read_text()
    model = PairModel.from_json(text.splitlines()[0])
    assert dict(model.thresholds)[0.95] == pytest.approx(0.539746)
    by_default, stated = (
        rule_of(model, NearDuplicateParams(verify=limits)).min_probability
        for limits in (VerifyParams(), VerifyParams(min_precision=0.95))
    )
    assert (by_default, stated) == (0.9, model.threshold(0.95))
    with pytest.raises(ValueError, match="no threshold for precision 1"):
        rule_of(model, NearDuplicateParams(verify=VerifyParams(min_precision=1)))


def test_look_alikes_were_candidates_and_are_counted_as_rejected(result):
    tables, manifests = result
    rejected = tables["rejected_pairs"]
    alike = {(f"p{k}-one", f"p{k}-two") for k in range(NUM_ALIKE)}
    assert alike <= {(r["image_id_a"], r["image_id_b"]) for r in rejected}
    assert {r["reason"] for r in rejected} == {"improbable"}
    assert all(r["probability"] < PARAMS.verify.min_probability for r in rejected)
    line = manifests["verify_near_duplicates"].ledger[0]
    assert line.dropped == {"improbable": len(rejected)}
    assert line.rows_in == line.rows_out + len(rejected)
    for row in tables["near_duplicate_pairs"]:
        assert row["image_id_a"][:2] == row["image_id_b"][:2]
        assert (row["probability"] is None) == (row["tier"] == "exact")
    assert Counter(r["tier"] for r in tables["near_duplicate_pairs"])["exact"] == NUM_FAMILIES


def test_rows_do_not_depend_on_the_layout_or_the_order_of_rows(
    spark, tmp_path, result, given_tables
):
    turned = {table: rows[::-1] for table, rows in given_tables.items()}
    tables, _ = run_all(spark, tmp_path, turned, 3)
    for name in tables:
        assert tables[name] == result[0][name], name
