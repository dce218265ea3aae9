"""Photos in a release, for loaders to read: 500 x 375 JPEGs of 30 to 60 KB."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from release_given import write_small_release

from benchmarks.photos import data_folder

GROCERIES = "photos/grocery_store.parquet"
SIDES = ((500, 375), (375, 500))
LARGE = (1600, 1200)
QUALITY = 85
NUM_DISTINCT = {"full": 400, "small": 20}
NUM_SHARDS = {"full": 8, "small": 4}
PER_SHARD = {"full": 1024, "small": 300}


@dataclass(frozen=True)
class World:
    """A release on disk and the photos in it.

    Attributes:
        uri: of the release.
        photos: JPEG files.
        large: the same pictures as JPEGs of 1600 x 1200.
        source: where the pictures come from.
    """

    uri: str
    photos: list[bytes]
    large: list[bytes]
    source: str


def make_world(folder: str, size: str) -> World:
    """Write the release; the development data's grocery photos are enlarged, with grain on top, or
    pictures are drawn where there are none."""
    path = data_folder() / GROCERIES
    is_there = path.is_file()
    originals = pq.read_table(path, columns=["image"])["image"].to_pylist() if is_there else []
    count = NUM_DISTINCT[size]
    pictures = [_picture(originals, i) for i in range(count)]
    photos = [_photo(picture, SIDES[i % 2], i) for i, picture in enumerate(pictures)]
    write_small_release(
        folder, NUM_SHARDS[size], PER_SHARD[size], image=lambda i: photos[i % count]
    )
    large = [_photo(picture, LARGE, i) for i, picture in enumerate(pictures[: count // 10])]
    return World(folder, photos, large, "grocery photos, enlarged" if is_there else "drawn")


def _picture(originals: list[bytes], i: int) -> Image.Image:
    if originals:
        return Image.open(io.BytesIO(originals[i * 13 % len(originals)])).convert("RGB")
    rng = np.random.default_rng([7, i])
    blocks = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((128, 128), Image.Resampling.BICUBIC)


def _photo(picture: Image.Image, size: tuple[int, int], i: int) -> bytes:
    rng = np.random.default_rng([8, i])
    pixels = np.asarray(picture.resize(size, Image.Resampling.BICUBIC)).astype(np.int16)
    grain = rng.normal(0, 1, (*pixels.shape[:2], 1))
    grain = 2 * (grain + np.roll(grain, 1, 0) + np.roll(grain, 1, 1))
    out = io.BytesIO()
    noisy = np.clip(pixels + grain, 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
