"""One unit of an import: read, check, write one part of every table, count terms."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.config.imports import ImportParams, Kind
from pipeline.files.storage import Storage, open_storage
from pipeline.kernels.image_headers import ImageLimits, Rejection
from pipeline.kernels.images import check_header, decode_image
from pipeline.kernels.import_reasons import ImportReason
from pipeline.kernels.row_checks import rejected_rows
from pipeline.kernels.source_records import caption_terms, keyword_terms
from pipeline.runtime.adapters import folders, hub_parquet, tars
from pipeline.runtime.adapters.units import Refused, Sample, Unit, refuse
from pipeline.runtime.writer import PartWriter
from schemas.contract import Table
from schemas.imports import REJECTED_IMPORTS
from schemas.inputs import SOURCE_ANNOTATIONS_LONG, SOURCE_IMAGES

_BATCH_ROWS, _BATCH_BYTES = 256, 32 << 20
"""Samples are handed to the writer at whichever comes first."""
_READERS: dict[Kind, Callable[[Storage, Unit, ImportParams], Iterator[Sample | Refused]]] = {
    "webdataset": tars.read_unit,
    "folder": folders.read_unit,
    "parquet": hub_parquet.read_unit,
}
TABLES = {"images": SOURCE_IMAGES, "annotations_long": SOURCE_ANNOTATIONS_LONG}
REJECTED = "rejected_imports"


@dataclass(frozen=True)
class Task:
    """A unit and where its parts go; plain data, so that another process can do it."""

    kind: Kind
    source: str
    unit: Unit
    root: str
    folder: str
    index: int
    params: ImportParams


@dataclass
class Outcome:
    """What one unit gave.

    Attributes:
        num_samples: pictures, rows and side-cars seen: images and those refused.
        num_images: written.
        num_with_keywords: images that have keywords.
        reasons: of everything set aside.
        keywords, captions: term -> images of the unit that have it.
    """

    num_samples: int = 0
    num_images: int = 0
    num_with_keywords: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    keywords: Counter[str] = field(default_factory=Counter)
    captions: Counter[str] = field(default_factory=Counter)

    def add(self, other: Outcome) -> None:
        """Take in the outcome of another unit."""
        self.num_samples += other.num_samples
        self.num_images += other.num_images
        self.num_with_keywords += other.num_with_keywords
        for name in ("reasons", "keywords", "captions"):
            getattr(self, name).update(getattr(other, name))


def run_task(task: Task) -> Outcome:
    """Read one unit and write its parts; each appears whole or not at all.

    Raises:
        OSError: the storage fails; a broken row does not.
    """
    writer = _Parts(task)
    try:
        samples = _READERS[task.kind](open_storage(task.source), task.unit, task.params)
        for sample in samples:
            writer.put(_check(sample, task.params))
        return writer.close()
    except BaseException:
        writer.abort()
        raise


def _check(sample: Sample | Refused, params: ImportParams) -> Sample | Refused:
    if isinstance(sample, Refused):
        return sample
    if sample.texts.is_empty:
        return refuse(sample.image_id, ImportReason.MISSING_TEXT)
    if not sample.texts.is_utf8:
        return refuse(sample.image_id, ImportReason.BAD_TEXT, "half of a surrogate pair")
    if params.check == "none":
        return sample
    limits = ImageLimits(params.limits.max_bytes, params.limits.max_pixels)
    look = decode_image if params.check == "decode" else check_header
    found = look(sample.data, limits)
    if isinstance(found, Rejection):
        return refuse(sample.image_id, found.reason, found.detail)
    return sample


class _Parts:
    """The parts of one unit while they grow."""

    def __init__(self, task: Task) -> None:
        self._params = task.params
        storage = open_storage(task.root)
        tables = TABLES | {REJECTED: REJECTED_IMPORTS}
        self._writers = {
            name: PartWriter(
                storage, f"{task.folder}/{name}", _in_source_order(table), task.index, 1
            )
            for name, table in tables.items()
        }
        self._samples: list[Sample] = []
        self._refused: list[Refused] = []
        self._bytes = 0
        self._outcome = Outcome()

    def put(self, item: Sample | Refused) -> None:
        """Take one sample or refusal."""
        if isinstance(item, Refused):
            self._refused.append(item)
            self._outcome.num_samples += item.is_sample
            self._outcome.reasons[item.reason] += 1
        else:
            self._samples.append(item)
            self._bytes += len(item.data or b"") if item.uri is None else 0
        if len(self._samples) + len(self._refused) >= _BATCH_ROWS or self._bytes >= _BATCH_BYTES:
            self._flush()

    def close(self) -> Outcome:
        """Complete all parts."""
        self._flush()
        for name, writer in self._writers.items():
            breaches = writer.close().breaches
            assert not breaches, (name, breaches)
        return self._outcome

    def abort(self) -> None:
        """Leave nothing behind."""
        for writer in self._writers.values():
            writer.abort()

    def _flush(self) -> None:
        samples, refused = self._samples, self._refused
        self._samples, self._refused, self._bytes = [], [], 0
        if samples:
            self._writers["images"].write(_image_rows(samples))
            self._writers["annotations_long"].write(_annotation_rows(samples))
        if refused:
            keys, reasons, details = zip(
                *((r.key, r.reason, r.detail) for r in refused), strict=True
            )
            rows = rejected_rows(list(keys), list(reasons), list(details))
            self._writers[REJECTED].write(rows)
        texts = [sample.texts for sample in samples]
        self._outcome.num_samples += len(samples)
        self._outcome.num_images += len(samples)
        self._outcome.num_with_keywords += sum(bool(text.keywords) for text in texts)
        self._outcome.keywords.update(keyword_terms(texts, self._params.max_term_words))
        self._outcome.captions.update(caption_terms(texts))


def _in_source_order(table: Table) -> Table:
    """The contract without its order: the rows stand as the source has them."""
    return dataclasses.replace(table, key=())


def _image_rows(samples: list[Sample]) -> pa.Table:
    rows = [
        {
            "image_id": s.image_id,
            "uri": s.uri,
            "bytes": s.data if s.uri is None else None,
            "title": s.texts.title,
            "description": s.texts.description,
            "tags": [word.text for word in s.texts.keywords] or None,
            "source": s.texts.source,
            "licence": s.texts.licence,
        }
        for s in samples
    ]
    return pa.Table.from_pylist(rows, SOURCE_IMAGES.arrow_schema)


def _annotation_rows(samples: list[Sample]) -> pa.Table:
    rows = [
        {"image_id": s.image_id, "term": word.text, "score": word.score}
        for s in samples
        for word in s.texts.keywords
    ]
    return pa.Table.from_pylist(rows, SOURCE_ANNOTATIONS_LONG.arrow_schema)
