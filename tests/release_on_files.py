"""A release of small pictures that are files, and its bytes."""

import io

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline.files.storage import open_storage
from pipeline.stages.shard_files import PlannedSample
from schemas.dataset import SHARD_ASSIGNMENTS
from schemas.ingested import IMAGES

NUM_SHARDS, PER_SHARD = 4, 6


def pictures():
    """Rows of image_id and bytes."""
    found = []
    for i in range(NUM_SHARDS * PER_SHARD):
        pixels = np.random.default_rng(i).integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, ("PNG", "JPEG")[i % 2])
        found.append({"image_id": f"dir/im.{i}", "bytes": data.getvalue()})
    return found


def images(rows, folder=None):
    """Rows of `images`; where ``folder`` is a uri, the bytes are put there and the row says so."""
    storage, found = None if folder is None else open_storage(folder), []
    for i, row in enumerate(rows):
        image = dict.fromkeys(IMAGES.column_names) | {"image_id": row["image_id"], "source": "s"}
        if storage is None:
            image["bytes"] = row["bytes"]
        else:
            storage.write_bytes_atomic(f"im.{i} ü+%.bin", row["bytes"])
            image["uri"] = f"{folder}/im.{i} ü+%.bin"
        found.append(image)
    return found


def samples_of(files):
    """Those of a release's files that tell nothing of the configuration it was made with."""
    plain = ("label_map.json", "statistics.json", "LICENCES.md")
    return {n: data for n, data in files.items() if n in plain or n.startswith("shards/")}


def files_of(release):
    """Name -> content of what the manifest names, and of the manifest."""
    manifest = release.read_json("manifest.json")
    names = [f["name"] for f in manifest["files"]]
    names += [line[part] for line in manifest["shards"] for part in ("name", "index")]
    return {name: release.read_bytes(name) for name in ["manifest.json", *names]}


def batches(given):
    """The rows of all shards, as a task gets them."""
    for row in sorted(given[SHARD_ASSIGNMENTS], key=lambda r: (r["shard_id"], r["position"])):
        yield pa.RecordBatch.from_pylist([{n: row[n] for n in PlannedSample._fields}])


def shards(storage, folder="r"):
    """Name -> content of the shards and their indexes in a folder of a release."""
    names = [name for name in storage.list(f"{folder}/shards") if not name.startswith(".")]
    return {f"shards/{name}": storage.read_bytes(f"{folder}/shards/{name}") for name in names}
