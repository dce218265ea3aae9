"""A root of 18,000 labels and a million images, as far as the explorer reads it. No JVM."""

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline.files.storage import open_storage
from pipeline.runtime.checks import buckets
from pipeline.runtime.manifest import StageManifest, TableManifest, publish
from pipeline.runtime.writer import write_part
from pipeline.stages import (
    classify_images,
    cluster_terms,
    embed_terms,
    freeze_labels,
    ingest_images,
    ingest_interests,
    ingest_terms,
    report_resampling,
    score_concreteness,
    select_annotations,
    select_visual_terms,
)

NUM_LABELS, NUM_TERMS, NUM_INTERESTS, PER_IMAGE = 18_000, 60_000, 24, 3
BUCKETS = 8


def large_root(folder, num_images):
    """Publish the tables; returns the root."""
    storage = open_storage(str(folder))
    pictures = [f"{folder}/pictures/{i}.jpg" for i in range(200)]
    for i, path in enumerate(pictures):
        storage.make_folder("pictures")
        waves = np.add.outer(
            np.sin(np.arange(160) / (3 + i % 17)), np.cos(np.arange(160) / (5 + i % 13))
        )
        rgb = np.stack([waves * (60 + i % 60), waves * 40, -waves * 50], axis=2) + 120
        Image.fromarray(rgb.clip(0, 255).astype(np.uint8)).save(path)
    for stage, tables in stages(num_images, pictures):
        contracts = {table.name: table for table in stage.outputs}
        found = {
            name: _publish(storage, contracts[name], columns) for name, columns in tables.items()
        }
        manifest = StageManifest(
            stage=stage.name, version="0" * 12, layout=BUCKETS, params={}, inputs={}, tables=found,
            counts={}, ledger=[], seconds=1.0, finished="", commit="",
        )  # fmt: skip
        publish(storage, stage, manifest)
    return str(folder)


def _publish(storage, contract, columns):
    rows = len(next(iter(columns.values())))
    full = {f.name: columns.get(f.name, pa.nulls(rows, f.type)) for f in contract.arrow_schema}
    data = pa.table(full).cast(contract.arrow_schema)
    data = data.sort_by([(key, "ascending") for key in contract.key])
    num = BUCKETS if contract.layout == "bucketed" else 1
    at = buckets(data[contract.key[0]], num) if num > 1 else np.zeros(rows, int)
    folder = f"given/{contract.name}"
    parts = [data.filter(pa.array(at == bucket)) for bucket in range(num)]
    files = [write_part(storage, folder, contract, i, num, part) for i, part in enumerate(parts)]
    totals = {name: sum(f.totals.get(name, 0) for f in files) for name in contract.column_names}
    return TableManifest(
        name=contract.name,
        path=folder,
        num_buckets=num,
        num_rows=rows,
        totals=totals,
        reasons={},
        files=files,
    )


def stages(num_images, pictures):
    """(stage, table -> columns)."""
    rng = np.random.default_rng(0)
    texts = [f"term {i} of the dictionary" for i in range(NUM_TERMS)]
    terms = np.arange(NUM_TERMS)
    names = [f"interest_{i:02d}" for i in range(NUM_INTERESTS)]
    cluster_of = terms % NUM_LABELS
    interest_of = [names[c % NUM_INTERESTS] for c in range(NUM_LABELS)]
    clusters = np.arange(NUM_LABELS)
    ids = [f"image-{i:07d}" for i in range(num_images)]
    flat = (rng.power(0.4, (num_images, PER_IMAGE)) * NUM_LABELS).astype(int)
    flat.sort(axis=1)
    flat += np.arange(PER_IMAGE)  # no repeats
    flat %= NUM_LABELS
    flat.sort(axis=1)
    offsets = pa.array(np.arange(num_images + 1) * PER_IMAGE, pa.int32())
    labels = pa.ListArray.from_arrays(offsets, pa.array(flat.ravel(), pa.int32()))
    values = pa.StructArray.from_arrays(
        [pa.array(flat.ravel(), pa.int32()), pa.array(np.full(flat.size, 0.5), pa.float32())],
        ["term_id", "score"],
    )
    before = np.bincount(flat.ravel(), minlength=NUM_LABELS)
    after = np.sqrt(np.maximum(before, 1) * 200.0)
    yes = pa.array(np.zeros(NUM_TERMS, bool))
    scores = rng.uniform(0.4, 1.0, NUM_TERMS)
    yield ingest_terms.STAGE, {
        "terms": {"term_id": terms, "text": texts, "language": ["en"] * NUM_TERMS,
                  "canonical_term_id": terms, "is_sensitive": yes}}  # fmt: skip
    yield ingest_images.STAGE, {"images": {"image_id": ids, "uri": np.resize(pictures, num_images)}}
    yield ingest_interests.TAXONOMY_STAGE, {"interests": {"l1_interest": names}}
    ok = {"status": ["ok"] * NUM_TERMS, "seed": terms, "num_test": terms, "num_positives": terms}
    yield score_concreteness.STAGE, {
        "term_concreteness": {"term_id": terms, "concreteness": scores, "wilson_lower": scores,
                              "standard_error": scores / 50, **ok}}  # fmt: skip
    visual = {"term_id": terms, "concreteness": scores, "num_positives": terms}
    yield select_visual_terms.STAGE, {"visual_terms": visual}
    vectors = rng.standard_normal((NUM_TERMS, 64)).astype("<f4")
    yield (
        embed_terms.STAGE,
        {"text_embeddings": {"text": texts, "embedding": [row.tobytes() for row in vectors]}},
    )
    yield cluster_terms.STAGE, {
        "clusters": {"cluster_id": clusters, "l1_interest": interest_of, "name": texts[:NUM_LABELS],
                     "medoid_term_id": clusters, "num_terms": np.bincount(cluster_of),
                     "top_terms": [[text] for text in texts[:NUM_LABELS]],
                     "inertia": np.ones(NUM_LABELS)},
        "term_clusters": {"term_id": terms, "cluster_id": cluster_of,
                          "distance": np.ones(NUM_TERMS)}}  # fmt: skip
    chosen = pa.ListArray.from_arrays(
        pa.array(np.arange(num_images + 1), pa.int32()), pa.array(np.resize(names, num_images))
    )
    yield classify_images.STAGE, {"image_interests": {"image_id": ids, "l1_interests": chosen}}
    annotations = pa.ListArray.from_arrays(offsets, values)
    yield (
        select_annotations.STAGE,
        {"selected_annotations": {"image_id": ids, "annotations": annotations}},
    )
    kept = {"label_id": clusters, "cluster_id": clusters, "name": texts[:NUM_LABELS],
            "l1_interest": interest_of, "num_images": np.maximum(before, 1)}  # fmt: skip
    yield freeze_labels.STAGE, {
        "label_map": kept, "training_images": {"image_id": ids, "label_ids": labels}
    }  # fmt: skip
    drawn = {"label_id": clusters, "num_before": before, "expected_after": after,
             "realised_after": rng.poisson(after)}  # fmt: skip
    yield report_resampling.STAGE, {"resampling_report": drawn}
