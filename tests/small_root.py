"""A root of literal tables, as a finished chain leaves it: for what only reads. No JVM."""

import io

import numpy as np
from given import publish_rows
from PIL import Image

from pipeline.files.storage import open_storage
from pipeline.runtime.manifest import publish
from pipeline.stages import (
    certify_validation,
    cluster_terms,
    freeze_labels,
    group_near_duplicates,
    ingest_images,
    ingest_terms,
    label_images,
    predict_annotations,
    report_resampling,
    resample_images,
    score_concreteness,
    select_annotations,
    select_visual_terms,
    sweep_concreteness,
    verify_near_duplicates,
)

TERMS = ("cat", "dog", "boat", "idea")
INTERESTS = ("animals", "animals", "vehicles")
IMAGES = [f"image-{i:02d}" for i in range(12)]
# The first half are cats, the next dogs or boats; "idea" is on every third image.
LABELS = [[0], [0], [0], [0, 1], [0], [0], [1], [1], [1], [2], [2], [1, 2]]
COPIES = [1, 0, 1, 1, 1, 0, 1, 1, 1, 2, 2, 2]


def picture(seed):
    """PNG bytes of a few grey pixels."""
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def small_root(folder):
    """Publish every table that the report and the notebook read; returns the root."""
    storage = open_storage(str(folder))
    for stage, tables, counts in stages():
        contracts = {table.name: table for table in stage.outputs}
        parts = [publish_rows(storage, contracts[name], rows, 2) for name, rows in tables.items()]
        found = {name: table for part in parts for name, table in part.tables.items()}
        names = {"stage": stage.name, "tables": found, "counts": counts}
        publish(storage, stage, parts[0].model_copy(update=names))
    return str(folder)


def stages():
    """(stage, table -> rows, counts), those of one chain."""
    before = [sum(label in labels for labels in LABELS) for label in range(3)]
    after = [
        sum(c for labels, c in zip(LABELS, COPIES, strict=True) if label in labels)
        for label in range(3)
    ]
    yield ingest_terms.STAGE, {"terms": [term(i) for i in range(4)]}, {}
    yield ingest_images.STAGE, {"images": [image(i) for i in range(12)]}, {}
    yield predict_annotations.STAGE, {"annotations": [annotated(i, 0) for i in range(12)]}, {}
    selected = {"selected_annotations": [annotated(i, 1) for i in range(12)]}
    yield select_annotations.STAGE, selected, {}
    yield score_concreteness.STAGE, {"term_concreteness": [scored(i) for i in range(4)]}, {}
    yield sweep_concreteness.STAGE, {"concreteness_sweep": [swept(b) for b in (0.5, 0.7, 0.9)]}, {}
    visual = [{"term_id": i, "concreteness": 0.9, "num_positives": 5} for i in range(3)]
    yield select_visual_terms.STAGE, {"visual_terms": visual}, {}
    yield cluster_terms.STAGE, {"clusters": [cluster(i) for i in range(3)]}, {}
    labelled = [
        {"image_id": name, "cluster_ids": labels, "label_terms": [[i] for i in labels]}
        for name, labels in zip(IMAGES, LABELS, strict=True)
    ]
    yield label_images.STAGE, {"image_labels": labelled}, label_counts()
    groups = [grouped("image-00", "", 0.0), grouped("image-01", "perceptual", 2.0)]
    yield group_near_duplicates.STAGE, {"duplicate_groups": groups}, {}
    yield verify_near_duplicates.STAGE, verified_pairs(), {}
    yield certify_validation.STAGE, {"validation_certificate": [certified()]}, {}
    label_map = [label(i, n) for i, n in enumerate(before)]
    training = [
        {"image_id": name, "label_ids": labels} for name, labels in zip(IMAGES, LABELS, strict=True)
    ]
    yield freeze_labels.STAGE, {"label_map": label_map, "training_images": training}, {}
    yield resample_images.STAGE, resampled(), {}
    rows = [
        {"label_id": i, "num_before": n, "expected_after": a + 0.25, "realised_after": a}
        for i, (n, a) in enumerate(zip(before, after, strict=True))
    ]
    yield report_resampling.STAGE, {"resampling_report": rows}, {}


def term(i):
    return {
        "term_id": i,
        "text": TERMS[i],
        "language": "en",
        "canonical_term_id": i,
        "is_sensitive": False,
    }


def image(i):
    absent = dict.fromkeys(("uri", "title", "description", "tags", "source", "licence"))
    data = picture(i)
    return {"image_id": IMAGES[i], "bytes": data, "num_bytes": len(data), **absent}


def annotated(i, is_selected):
    terms = [*LABELS[i], 3] if i % 3 == 0 or not is_selected else LABELS[i]
    given = [{"term_id": t, "score": 0.5} for t in terms]
    return {"image_id": IMAGES[i], "annotations": given}


def scored(i):
    return {
        "term_id": i,
        "concreteness": (0.95, 0.9, 0.85, 0.5)[i],
        "num_positives": 5,
        "num_test": 10,
        "standard_error": 0.05,
        "wilson_lower": 0.4,
        "status": "ok",
        "seed": 0,
    }


def swept(boundary):
    return {"boundary": boundary, "num_terms": 3, "num_annotations": 14, "num_images": 12}


def cluster(i):
    return {
        "cluster_id": i,
        "l1_interest": INTERESTS[i],
        "name": TERMS[i],
        "medoid_term_id": i,
        "num_terms": 1,
        "top_terms": [TERMS[i]],
        "inertia": 0.0,
    }


def label_counts():
    """Images and what they carry after each step of labelling."""
    steps = {"selected": 18, "in_visual_dictionary": 14, "clustered": 14, "restricted": 14}
    units = ("annotations", "annotations", "labels", "labels")
    counts = {f"images.{name}": 12 for name in steps}
    named = zip(units, steps.items(), strict=True)
    return counts | {f"{unit}.{name}": n for unit, (name, n) in named}


def grouped(name, tier, distance):
    return {
        "image_id": name,
        "kept_image_id": "image-00",
        "tier": tier,
        "distance": distance,
        "is_blocked": False,
    }


def verified_pairs():
    def pair(a, b, probability):
        names = {"image_id_a": f"image-{a:02d}", "image_id_b": f"image-{b:02d}"}
        tier = "exact" if probability is None else "semantic"
        return names | {"tier": tier, "distance": 0.0, "probability": probability}

    rejected = [pair(0, 2, 0.25), pair(3, 4, 0.125)]
    return {
        "near_duplicate_pairs": [pair(0, 1, 0.75), pair(5, 6, None)],
        "rejected_pairs": [row | {"reason": "improbable"} for row in rejected],
    }


def certified():
    return {
        "tier": "exact",
        "num_images": 12,
        "num_validation_images": 1,
        "num_pairs_checked": 12.0,
        "num_removed": 0,
        "limit": 0.0,
        "nearest_remaining": None,
    }


def label(i, num_images):
    return {
        "label_id": i,
        "cluster_id": i,
        "name": TERMS[i],
        "l1_interest": INTERESTS[i],
        "num_images": num_images,
    }


def resampled():
    kept, out = [], []
    for name, labels, copies in zip(IMAGES, LABELS, COPIES, strict=True):
        row = {"image_id": name, "label_ids": labels, "weight": copies + 0.125}
        if copies:
            kept.append(row | {"copies": copies})
        else:
            out.append(row | {"reason": "resampled_out"})
    return {"samples": kept, "resampled_out": out}
