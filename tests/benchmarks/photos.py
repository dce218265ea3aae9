"""Real pictures and their vectors for benchmarks: the packaged encoder, run once and kept.

Photos are the CIFAR-100 search terms of the folder of development data, which the project does not
ship: ``shared/data`` beside or above the checkout, or the folder that BENCH_DATA names. The demo's
pictures are in the repository. Vectors are kept in ``build/bench``, or in the folder that
BENCH_CACHE names.
"""

from __future__ import annotations

import functools
import hashlib
import io
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from benchmarks.harness import say
from pipeline.demo.records import family_of

REPOSITORY = Path(__file__).resolve().parents[2]
PHOTOS = "photos/cifar100_search_terms.parquet"
ENCODER, IMAGE_SIZE = "package:efficientnet_lite0", 96
"""Photos of 32 x 32 gain nothing from the encoder's own 224, which costs five times as much."""
_BLOCK = 256


@dataclass(frozen=True)
class Photos:
    """Pictures with words.

    Attributes:
        vectors: float32 (n, d), not normalised; a mapped file.
        path: of that file.
        terms: names of the terms.
        members: rows of each term's pictures, ascending.
        content: (n,) what a picture truly shows, an integer; None where nobody knows.
    """

    vectors: NDArray[np.float32]
    path: Path
    terms: list[str]
    members: list[NDArray[np.int64]]
    content: NDArray[np.int64] | None


def search_terms() -> Photos:
    """The 40,000 photos by the web query that found them; their content is the clean class.

    Raises:
        ValueError: the photos are not there.
    """
    path = search_term_photos()
    table = pq.read_table(path, columns=["class_name", "search_term"])
    words = np.array(table["search_term"].to_pylist())
    _, content = np.unique(table["class_name"].to_pylist(), return_inverse=True)
    terms, term_of = np.unique(words, return_inverse=True)
    members = [np.flatnonzero(term_of == t) for t in range(len(terms))]
    vectors, kept = _vectors(path, "image")
    return Photos(vectors, kept, terms.tolist(), members, np.asarray(content, np.int64))


def search_term_photos() -> Path:
    """The file of the photos.

    Raises:
        ValueError: it is not there.
    """
    path = data_folder() / PHOTOS
    if not path.is_file():
        raise ValueError(
            f"photos: found no {path}, expected the development data's search terms. They are no "
            "part of the project: set BENCH_DATA to the folder that holds photos/, or run with "
            "--size small, which plants its pictures."
        )
    return path


def demo_keywords(min_images: int) -> Photos:
    """The demo's pictures by keyword; those keywords that at least ``min_images`` carry.

    Skin-tone variants of a picture are left out, as `deduplicate` would: a probe that trains on one
    and is tested on another knows the answer.
    """
    path = REPOSITORY / "pipeline" / "demo" / "data" / "images.parquet"
    rows_of: dict[str, list[int]] = {}
    table = pq.read_table(path, columns=["image_id", "tags"])
    is_base = [family_of(image_id) == image_id for image_id in table["image_id"].to_pylist()]
    for row, tags in enumerate(table.filter(pa.array(is_base))["tags"].to_pylist()):
        for tag in sorted(set(tags)):
            rows_of.setdefault(tag, []).append(row)
    terms = sorted(tag for tag, rows in rows_of.items() if len(rows) >= min_images)
    vectors, kept = _vectors(path, "bytes", is_base)
    return Photos(vectors, kept, terms, [np.array(rows_of[tag]) for tag in terms], None)


def data_folder() -> Path:
    """Folder of development data; it need not be there."""
    if named := os.environ.get("BENCH_DATA"):
        return Path(named)
    places = [parent / "shared" / "data" for parent in REPOSITORY.parents]
    return next((place for place in places if place.is_dir()), places[0])


def cache_folder() -> Path:
    """Folder of what benchmarks keep."""
    folder = Path(os.environ.get("BENCH_CACHE") or REPOSITORY / "build" / "bench")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _vectors(
    path: Path, column: str, is_kept: Sequence[bool] | None = None
) -> tuple[NDArray[np.float32], Path]:
    """Vectors of a file's pictures and where they are kept; encoded if they are not there yet."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    kept = cache_folder() / f"{path.stem}_lite0_{IMAGE_SIZE}_{digest}.npy"
    if not kept.is_file():
        table = pq.read_table(path, columns=[column])
        table = table if is_kept is None else table.filter(pa.array(is_kept))
        pictures = table[column].to_pylist()
        blocks = [pictures[at : at + _BLOCK] for at in range(0, len(pictures), _BLOCK)]
        say(f"encoding {len(pictures)} pictures of {path.name}, once; kept as {kept}")
        with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
            found = np.concatenate(pool.map(encode, blocks, chunksize=1))
        unfinished = kept.with_name(f"{os.getpid()}_{kept.name}")
        np.save(unfinished, found)
        unfinished.replace(kept)
    return np.load(kept, mmap_mode="r"), kept


def encode(pictures: Sequence[bytes]) -> NDArray[np.float32]:
    """Vectors of encoded pictures, float32 (n, d)."""
    return _encoder().encode(Image.open(io.BytesIO(picture)) for picture in pictures)


@functools.cache
def _encoder():
    from pipeline.kernels.encode_images import load_image_encoder

    return load_image_encoder(ENCODER, IMAGE_SIZE)


def planted_photos(
    num_classes: int = 12, each: int = 200, dimensions: int = 32, distance: float = 0.55
) -> Photos:
    """A smoke run's stand-in for the search terms: Gaussian classes, each cut into a term of 60%,
    one of 30% and one of the rest."""
    rng = np.random.default_rng(0)
    content = np.repeat(np.arange(num_classes), each)
    middles = rng.standard_normal((num_classes, dimensions)) * distance
    noise = rng.standard_normal((len(content), dimensions))
    vectors = (middles[content] + noise).astype(np.float32)
    kept = cache_folder() / f"planted_{num_classes}_{each}_{dimensions}_{distance}.npy"
    np.save(kept, vectors)
    members: list[NDArray[np.int64]] = []
    for c in range(num_classes):
        members += np.split(np.flatnonzero(content == c), [round(0.6 * each), round(0.9 * each)])
    names = [f"term {t}" for t in range(len(members))]
    return Photos(np.load(kept, mmap_mode="r"), kept, names, members, content)
