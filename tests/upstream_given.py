"""The tables that the shard writer reads, as their stages would have made and published them."""

import hashlib
import io

from given import publish_rows

from pipeline.config.load import load_config
from pipeline.files.storage import open_storage
from pipeline.kernels.samples import sample_key
from pipeline.runtime.manifest import publish
from pipeline.stages.chain import build_chain
from schemas.dataset import (
    LABEL_MAP,
    RESAMPLING_REPORT,
    SAMPLING_POLICY,
    SHARD_ASSIGNMENTS,
    SHARD_PLAN,
)
from schemas.ingested import IMAGES

NUM_SHARDS, PER_SHARD = 3, 20


def upstream(images, num_shards=NUM_SHARDS, per_shard=PER_SHARD):
    """Rows of the tables beside `images`: a release of one label, images dealt to shards in order.

    Args:
        images: rows with image_id and bytes, num_shards * per_shard of them.
        num_shards: of the release.
        per_shard: samples of each.
    """
    count = len(images)
    samples = [
        {
            "shard_id": i % num_shards,
            "position": i // num_shards,
            "key": sample_key(image["image_id"], 0),
            "image_id": image["image_id"],
            "copy_index": 0,
            "label_ids": [0],
            "weight": 1.0,
            "sha256": hashlib.sha256(image["bytes"]).hexdigest(),
            "format": format_of(image["bytes"]),
            "num_bytes": len(image["bytes"]),
        }
        for i, image in enumerate(images)
    ]
    label = {"label_id": 0, "cluster_id": 7, "name": "thing", "l1_interest": "art"}
    policy = {"policy": "inverse_sqrt", "materialised": True, "threshold": 0.1, "cap": None}
    policy |= {"max_copies": 20, "seed": 3, "num_images": count}
    plan = {"seed": 9, "samples_per_shard": per_shard, "num_shards": num_shards}
    return {
        SHARD_ASSIGNMENTS: samples,
        SHARD_PLAN: [plan | {"num_samples": count}],
        LABEL_MAP: [label | {"num_images": count}],
        SAMPLING_POLICY: [policy],
        RESAMPLING_REPORT: [
            {"label_id": 0, "num_before": count, "expected_after": count, "realised_after": count}
        ],
    }


def with_places(root, given):
    """The given tables, with what `assign_shards` knows of each image.

    Args:
        root: gets a file with the images that `images` has as bytes.
        given: contract -> rows, `images` among them.
    """
    places, stored = {}, io.BytesIO()
    for image in given[IMAGES]:
        place = {name: image.get(name) for name in ("uri", "source", "licence")}
        place |= {"part": None, "offset": None}
        if image.get("bytes") is not None:
            place |= {"part": "images.bin", "offset": stored.tell()}
            stored.write(image["bytes"])
        places[image["image_id"]] = place
    open_storage(str(root)).write_bytes_atomic("images.bin", stored.getvalue())
    samples = [row | places[row["image_id"]] for row in given[SHARD_ASSIGNMENTS]]
    return given | {SHARD_ASSIGNMENTS: samples}


def format_of(data):
    """Of the three that there are."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    return "png" if data.startswith(b"\x89PNG") else "webp"


def publish_upstream(root, given):
    """Publish literal rows as what their stages would have made."""
    config = load_config("demo", root=str(root))
    storage = open_storage(config.root)
    for stage in build_chain(config):
        tables = [t for t in stage.outputs if t in given]
        made = [publish_rows(storage, t, given[t], config.runtime.num_buckets) for t in tables]
        if made:
            mine = {name: table for manifest in made for name, table in manifest.tables.items()}
            publish(storage, stage, made[0].model_copy(update={"tables": mine}))
