"""Fit the verifier's models on edit families of any photos: a folder of files, or a table.

Two models come out, one a line of JSON: the first reads the cosine of one encoder, the second reads
pixels and hashes alone, for runs whose embeddings come from elsewhere. Pictures that show one scene
twice count as two photos, so a collection without series is wanted.

Source: SPEC-dataset N7.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.demo.edit_pairs import (
    candidate_pairs,
    demo_and_pool,
    fit,
    make_families,
    make_pool,
)
from pipeline.files.contents import stream_contents
from pipeline.files.fetch import FetchPolicy
from pipeline.files.storage import Storage, open_storage
from pipeline.kernels.edits import sample_photos
from pipeline.kernels.encode_images import load_image_encoder
from pipeline.kernels.image_headers import ImageLimits
from pipeline.kernels.images import Rejection, decode_image
from pipeline.kernels.pair_model import PairModel

logger = logging.getLogger(__name__)

DEMO = "demo"
"""Name of the packaged corpus in place of a folder."""
_LIMITS = ImageLimits(max_bytes=1 << 26, max_pixels=10**8)
_POLICY = FetchPolicy()

Named = tuple[list[str], Callable[[int], bytes | None]]
"""Identifiers of pictures, and the content of one by position."""


def fit_models(
    place: str,
    num_photos: int,
    num_pool: int,
    *,
    encoder: str,
    image_size: int,
    seed: int = 0,
) -> list[PairModel]:
    """Models with the encoder's cosine and without.

    Args:
        place: folder or URI of pictures, a Parquet file or folder of them with `image_id` and
            `bytes` or `uri`, or ``demo``.
        num_photos: photos that families are made of, drawn by hash of their names.
        num_pool: further pictures that copies are compared with, fewer where there are no more.
        encoder: as `embed_images.model`.
        image_size: as `embed_images.image_size`.
        seed: of the draw.

    Raises:
        ValueError: fewer pictures that decode than asked for.
    """
    pictures, others = read_pictures(place, num_photos, num_pool, seed)
    fields = {"photos": len(pictures), "pool": len(others)}
    logger.info("fit_pair_models", extra={"fields": fields})
    encode = load_image_encoder(encoder, image_size).encode
    pairs = candidate_pairs(make_families(pictures, encode), make_pool(others, encode))
    source = "the demo corpus" if place == DEMO else PurePosixPath(place).name
    words = f"edit families of {len(pictures)} pictures of {source} among {len(others)} others"
    known = fit(pairs, words=words, encoder=encoder)
    return [known, fit(pairs, words=words)]


def read_pictures(
    place: str, num_photos: int, num_pool: int, seed: int
) -> tuple[list[bytes], list[bytes]]:
    """Photos and a pool from a folder or table: what decodes, the first by hash of their names.

    Raises:
        ValueError: fewer photos than asked for.
    """
    if place == DEMO:
        return demo_and_pool(num_photos, num_pool, seed)
    storage = open_storage(place)
    ids, content = _table(storage) if _parquet(storage) else _folder(storage)
    found: list[bytes] = []
    for at in sample_photos(ids, len(ids), seed):
        data = content(int(at))
        if data is not None and not isinstance(decode_image(data, _LIMITS), Rejection):
            found.append(data)
        if len(found) == num_photos + num_pool:
            break
    if len(found) >= num_photos:
        return found[:num_photos], found[num_photos:]
    raise ValueError(
        f"{place}: {len(found)} of {len(ids)} files are pictures that decode, expected at least "
        f"{num_photos}. Give more of them or a smaller --photos."
    )


def _parquet(storage: Storage) -> list[str]:
    """Parquet files, as names below the storage; the empty name is the place itself."""
    if storage.root.endswith(".parquet") and storage.fs.isfile(storage.root):
        return [""]
    return [name for name in _names(storage) if name.endswith(".parquet")]


def _names(storage: Storage) -> list[str]:
    paths = storage.fs.find(storage.root)
    return sorted(str(path).removeprefix(storage.root + "/") for path in paths)


def _folder(storage: Storage) -> Named:
    names = _names(storage)
    return names, lambda at: storage.read_bytes(names[at])


def _table(storage: Storage) -> Named:
    """Identifiers are read whole, contents a row group at a time."""
    ids: list[str] = []
    places: list[tuple[str, int, int]] = []
    for name in _parquet(storage):
        with storage.open_read(name) as handle:
            file = pq.ParquetFile(handle)
            for group in range(file.num_row_groups):
                column = file.read_row_group(group, columns=["image_id"])["image_id"]
                ids += [str(value) for value in column.to_pylist()]
                places += [(name, group, row) for row in range(len(column))]

    def content(at: int) -> bytes | None:
        name, group, row = places[at]
        return next(_contents(storage, name, group, row))

    return ids, content


def _contents(storage: Storage, name: str, group: int, row: int) -> Iterator[bytes | None]:
    with storage.open_read(name) as handle:
        file = pq.ParquetFile(handle)
        wanted = [c for c in ("bytes", "uri") if c in file.schema_arrow.names]
        table = file.read_row_group(group, columns=wanted).slice(row, 1)
    nothing = pa.chunked_array([pa.nulls(1, pa.binary())])
    data = table["bytes"] if "bytes" in wanted else nothing
    uris = table["uri"] if "uri" in wanted else nothing.cast(pa.string())
    for found in stream_contents(data, uris, _LIMITS.max_bytes, _POLICY):
        yield None if isinstance(found, Exception) else found
