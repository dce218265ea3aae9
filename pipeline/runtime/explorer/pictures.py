"""Small pictures of some images: decoded within the run's limits and encoded anew.

Cost: of each bucket that holds one of them the identifiers and sizes, and the bytes of the pictures
themselves. They stand in packs of a hundred, scripts as all data of the explorer: thousands of
files would take an object store minutes.
"""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from pipeline.config.run import RunConfig
from pipeline.files.fetch import FetchPolicy, fetch, fetch_in_order, fetch_range
from pipeline.files.storage import Storage
from pipeline.kernels.hashing import bucket_of
from pipeline.kernels.image_headers import ImageLimits, Rejection
from pipeline.kernels.images import decode_image
from pipeline.report.site import write_data
from pipeline.runtime.catalog import Catalog, rows_of
from pipeline.runtime.logs import event
from pipeline.runtime.places import locate_stored
from pipeline.runtime.reader import bucket_path
from schemas import ALL

logger = logging.getLogger(__name__)

_PACK = 100
"""Pictures of a pack: some 300 kB."""


@dataclass(frozen=True)
class _Place:
    """Where the bytes of an image are: at hand, in a part of a table, or at a uri."""

    image_id: str
    content: bytes | None = None
    part: str | None = None
    offset: int = 0
    size: int = 0
    uri: str | None = None


class Shelf:
    """Pictures of the explorer, each written once.

    Args:
        catalog: of the root.
        config: of the run: its limits of images, size and quality of pictures.
        folder: of the explorer.
    """

    def __init__(self, catalog: Catalog, config: RunConfig, folder: Storage) -> None:
        self._catalog, self._folder = catalog, folder
        self._params = config.report.explorer
        given = config.fingerprint_images
        self._limits = ImageLimits(given.limits.max_bytes, given.limits.max_pixels)
        self._policy = FetchPolicy(given.read_seconds, given.read_retries, given.read_threads)
        self._places: dict[tuple[str, str], str | None] = {}
        self.packs: list[str] = []
        """Names of the packs written so far."""

    def load(self, table: str, ids: Iterable[str]) -> dict[str, str]:
        """Write the pictures of images that have none yet.

        Args:
            table: ``images`` or ``validation_images``.
            ids: keys of it, those that are seen together side by side; repeats do not matter.

        Returns:
            identifier -> ``pack/place``, for those whose bytes are an image that can be read.
        """
        wanted = list(dict.fromkeys(ids))
        new = [i for i in wanted if (table, i) not in self._places]
        small: dict[str, str] = {}
        if new and self._catalog.has(table):
            small = {i: s for i, c in self._contents(table, new) if (s := self._small(c))}
        shown = [i for i in new if i in small]
        for start in range(0, len(shown), _PACK):
            part = shown[start : start + _PACK]
            self._places |= {(table, i): f"{len(self.packs)}/{at}" for at, i in enumerate(part)}
            self.packs.append(f"pictures-{len(self.packs)}")
            write_data(self._folder, self.packs[-1], [small[i] for i in part])
        absent = [i for i in new if i not in small]
        self._places |= dict.fromkeys(((table, i) for i in absent), None)
        if absent:
            event(logger, "pictures_missing", table=table, number=len(absent), first=absent[0])
        found = {i: self._places[table, i] for i in wanted}
        return {i: place for i, place in found.items() if place is not None}

    def _small(self, content: bytes | None) -> str:
        """A picture as base64, empty where there is none."""
        params = self._params
        small = thumbnail(content, self._limits, params.picture_side, params.picture_quality)
        return "" if small is None else base64.b64encode(small).decode()

    def _contents(self, table: str, ids: list[str]) -> Iterator[tuple[str, bytes | None]]:
        is_located = table == "images" and self._has_sizes()
        places = self._stored(ids) if is_located else self._whole(table, ids)
        for place, content in fetch_in_order(
            places, lambda p: p.content, self._read, self._policy.threads
        ):
            yield place.image_id, None if isinstance(content, Exception) else bytes(content)

    def _read(self, place: _Place) -> bytes:
        if place.part is not None:
            storage = self._catalog.storage
            return fetch_range(storage, place.part, place.offset, place.size, self._policy)
        if place.uri is None:
            raise FileNotFoundError(f"{place.image_id}: neither bytes nor uri")
        return fetch(place.uri, self._limits.max_bytes, self._policy)

    def _has_sizes(self) -> bool:
        """Whether ``images`` has the column that tells places; roots of older versions lack it."""
        manifest = self._catalog.tables["images"]
        path = next((p for f in manifest.files if (p := bucket_path(manifest, f.bucket))), None)
        if path is None:
            return False
        with self._catalog.storage.open_read(path) as handle:
            return "num_bytes" in pq.ParquetFile(handle).schema_arrow.names

    def _stored(self, ids: list[str]) -> Iterator[_Place]:
        """Places of images, from identifiers, sizes and footers of their buckets alone."""
        manifest = self._catalog.tables["images"]
        wanted = pa.array(ids, pa.string())
        for bucket in sorted(set(bucket_of(wanted, manifest.num_buckets).tolist())):
            path = bucket_path(manifest, bucket)
            if path is None:
                continue
            with self._catalog.storage.open_read(path) as handle:
                columns = ("image_id", "uri", "num_bytes")
                for batch in locate_stored(handle, path, columns, "bytes", "num_bytes"):
                    found = batch.filter(pc.is_in(batch["image_id"], value_set=wanted))
                    for row in found.to_pylist():
                        yield _Place(
                            row["image_id"],
                            part=row["part"],
                            offset=row["offset"] or 0,
                            size=row["num_bytes"] or 0,
                            uri=row["uri"],
                        )

    def _whole(self, table: str, ids: list[str]) -> Iterator[_Place]:
        """Contents that are read with the buckets that hold them."""
        key = ALL[table].key[0]
        rows = rows_of(self._catalog, table, ids, [key, "uri", "bytes"])
        for row in rows.to_pylist():
            yield _Place(row[key], content=row["bytes"], uri=row["uri"])


def thumbnail(content: bytes | None, limits: ImageLimits, side: int, quality: int) -> bytes | None:
    """A small WebP of an image on white; None where it is refused or does not decode.

    Args:
        content: encoded image.
        limits: what is decoded at all (SPEC Y1).
        side: longer side in pixels; smaller images stay as they are.
        quality: of WebP.
    """
    decoded = decode_image(content, limits)
    if isinstance(decoded, Rejection):
        return None
    small = decoded.image.convert("RGBA")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    sheet = Image.new("RGB", small.size, "white")
    sheet.paste(small, (0, 0), small)
    buffer = io.BytesIO()
    sheet.save(buffer, "WEBP", quality=quality)
    return buffer.getvalue()
