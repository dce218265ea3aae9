"""A root of literal tables for the explorer, with names that try to be markup. No JVM."""

import json

import numpy as np
from given import publish_rows
from small_root import IMAGES, INTERESTS, LABELS, cluster, picture, small_root, term

from pipeline.files.storage import open_storage
from pipeline.runtime.manifest import LedgerLine, publish
from pipeline.stages import (
    classify_images,
    cluster_terms,
    drop_near_duplicates,
    embed_terms,
    find_validation_overlaps,
    ingest_interests,
    ingest_terms,
    ingest_validation_images,
    select_visual_terms,
)

HOSTILE = "dog<img src=x onerror=window.hacked=1>&amp;</script>"
REJECTED = "row<script>window.hacked=1</script>"


def explorer_root(folder):
    """Publish every table that the explorer reads; returns the root."""
    root = small_root(folder)
    storage = open_storage(root)
    for stage, tables, ledger in stages():
        contracts = {table.name: table for table in stage.outputs}
        parts = [publish_rows(storage, contracts[name], rows, 2) for name, rows in tables.items()]
        found = {name: table for part in parts for name, table in part.tables.items()}
        for name, table in found.items():
            reasons = [row["reason"] for row in tables[name] if "reason" in row]
            counted = {reason: reasons.count(reason) for reason in reasons}
            found[name] = table.model_copy(update={"reasons": counted})
        names = {"stage": stage.name, "tables": found, "ledger": ledger, "seconds": 1.5}
        publish(storage, stage, parts[0].model_copy(update=names))
    write_training(storage)
    write_ablations(storage)
    return root


def stages():
    """(stage, table -> rows, ledger)."""
    rejected = [{"row_key": REJECTED, "reason": "bad_utf8", "detail": None}]
    terms = [term(i) | ({"text": HOSTILE} if i == 1 else {}) for i in range(4)]
    line = LedgerLine(unit="terms", rows_in=5, rows_out=4, dropped={"bad_utf8": 1})
    yield ingest_terms.STAGE, {"terms": terms, "rejected_terms": rejected}, [line]
    taxonomy = [{"l1_interest": name} for name in ("animals", "vehicles")]
    yield ingest_interests.TAXONOMY_STAGE, {"interests": taxonomy}, []
    visual = [{"term_id": i, "concreteness": 0.9, "num_positives": 5} for i in range(3)]
    dropped = [{"term_id": 3, "reason": "below_boundary"}]
    yield select_visual_terms.STAGE, {"visual_terms": visual, "dropped_terms": dropped}, []
    vectors = np.eye(4, 8, dtype="<f4") + 0.5
    embedded = [
        {"text": row["text"], "embedding": vectors[i].tobytes()} for i, row in enumerate(terms)
    ]
    yield embed_terms.STAGE, {"text_embeddings": embedded}, []
    # Term 0 is of both interests, and cluster 2 is of vehicles: cats lose it.
    clusters = [cluster(i) | ({"name": HOSTILE} if i == 1 else {}) for i in range(3)]
    pairs = [(0, 0), (0, 2), (1, 1), (2, 2)]
    of_terms = [{"term_id": t, "cluster_id": c, "distance": 0.1 * c} for t, c in pairs]
    yield cluster_terms.STAGE, {"clusters": clusters, "term_clusters": of_terms}, []
    interests = [
        {"image_id": name, "l1_interests": sorted({INTERESTS[label] for label in labels})}
        for name, labels in zip(IMAGES, LABELS, strict=True)
    ]
    yield classify_images.STAGE, {"image_interests": interests}, []
    dropped = [
        {"image_id": "image-01", "reason": "duplicate_perceptual", "other_id": "image-00"},
        {"image_id": "image-02", "reason": "validation_exact", "other_id": "set/a"},
    ]
    yield (
        drop_near_duplicates.STAGE,
        {"dropped_images": [d | {"distance": 0.0} for d in dropped]},
        [],
    )
    shown = {"validation_id": "set/a", "dataset": "set", "image_id": "a", "bytes": picture(2)}
    yield ingest_validation_images.STAGE, {"validation_images": [shown]}, []
    overlap = {"image_id": "image-02", "tier": "exact", "validation_id": "set/a", "distance": 0.0}
    yield find_validation_overlaps.STAGE, {"validation_overlaps": [overlap]}, []


def write_training(storage):
    """A log of two updates and a table of results, as the trainer and the evaluation leave them."""
    lines = [{"step": s, "loss": 4.0 - s, "lr": 0.1, "images_per_second": 9.0} for s in (1, 2)]
    log = "\n".join(json.dumps(line) for line in lines) + "\n"
    storage.write_bytes_atomic("pretrain/v/log.jsonl", log.encode())
    storage.write_json_atomic("pretrain/CURRENT.json", {"version": "v", "path": "v"})
    row = {"task": "held_out/labels", "metric": "recall@5", "system": "model", "value": 0.5,
           "low": None, "high": 0.75, "num": 8}  # fmt: skip
    results = {"about": {"architecture": "vit"}, "notes": ["a note"], "rows": [row]}
    storage.write_json_atomic("evaluate/v/results.json", results)
    speed = {"device": "a processor", "threads": 2, "batch": 8, "inference": 1234.5,
             "training": 99.5, "latency_median_ms": 3.25, "latency_p95_ms": 4.5}  # fmt: skip
    storage.write_json_atomic("evaluate/v/speed.json", speed)
    storage.write_json_atomic("evaluate/CURRENT.json", {"version": "v", "path": "v"})


def write_ablations(storage):
    """Two arms and a finding by two metrics, as `run_ablations` leaves them."""
    found = {"value": 0.02, "low": -0.01, "high": 0.05, "gain": 0.1, "verdict": "undecided"}
    other = {"value": -0.02, "low": -0.03, "high": -0.01, "gain": None, "verdict": "not seen"}
    figures = {"retrieval P@1": {"value": 0.22, "low": 0.2, "high": 0.24}}
    arm = {
        "about": HOSTILE, "architecture": "vit", "num_terms": 4, "num_labels": 3,
        "num_own_images": 12, "num_images": 11, "num_trained_images": 9, "labels_an_image": 1.5,
        "num_parameters": 1234, "updates": 10, "images_shown": 640, "runs": ["a", "b"],
        "untrained": 0.1, "figures": figures,
    }  # fmt: skip
    arms = [{"name": name, **arm} for name in ("with", "without")]
    finding = {"name": "dictionary", "claim": HOSTILE, "better": ["with"], "worse": ["without"],
               "paper": "+0.9 %",
               "by_metric": {"retrieval P@1": found, "other": other}}  # fmt: skip
    record = {"format": 1, "metric": "retrieval P@1", "level": 0.95, "seeds": [0, 1],
              "is_same_images": True, "num_queries": 50, "arms": arms,
              "findings": [finding]}  # fmt: skip
    storage.write_json_atomic("ablations/v/results.json", record)
    storage.write_json_atomic("ablations/CURRENT.json", {"version": "v", "path": "v"})
