"""Writer of the planted world: dictionary, corpus chunk by chunk, validation, corrupt rows.

Source: SPEC Z1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.demo import planted_tables as tables
from pipeline.demo.planted_content import (
    BEYOND_EDITS,
    COPY_STRIDE,
    EDITS,
    Contents,
    Copies,
    World,
    draw,
    draw_copies,
)
from pipeline.demo.planted_corrupt import (
    CorruptRows,
    corrupt_embeddings,
    corrupt_images,
    corrupt_long,
    corrupt_nested,
    corrupt_terms,
)
from pipeline.demo.planted_pictures import edit_picture, encode, make_picture
from pipeline.demo.planted_rows import NESTED_SCHEMA, image_names, image_rows, long_rows
from pipeline.demo.planted_terms import PlantedTerms
from pipeline.kernels.annotate import to_nested

CHUNK_IMAGES: Final = 8192
_VALIDATION_NUMBERS: Final = 2**40
"""Numbers of contents that only validation images show start here."""


@dataclass(frozen=True)
class WorldOptions:
    """Shares of what is planted.

    Attributes:
        copy_share: images that copy another one.
        validation_share: validation images, against the corpus; half of them leak.
        blocked_share: blocked images, against the corpus.
        look_alike_share: images that resemble another picture without being a copy.
        flat_share: images of a single colour.
        corrupt_share: rows of each corrupt kind, against the corpus; at least three.
        zipf_exponent: of term frequencies.
        annotations: form of the annotations.
    """

    copy_share: float = 0.15
    validation_share: float = 0.02
    blocked_share: float = 0.01
    look_alike_share: float = 0.01
    flat_share: float = 0.005
    corrupt_share: float = 0.0002
    zipf_exponent: float = 1.0
    annotations: Literal["long", "nested", "both"] = "long"


class WorldWriter:
    """Draws and writes one world."""

    def __init__(
        self,
        out: Path,
        num_images: int,
        terms: PlantedTerms,
        seed: int,
        with_bytes: bool,
        options: WorldOptions,
    ) -> None:
        self.out, self.num_images, self.terms, self.seed = out, num_images, terms, seed
        self.with_bytes, self.options = with_bytes, options
        self.world = World(terms, seed)
        self.corrupt = CorruptRows()
        self.num_corrupt = max(3, round(options.corrupt_share * num_images))
        self._files: dict[str, pq.ParquetWriter] = {}
        (out / "truth").mkdir(parents=True, exist_ok=True)
        for old in (*out.glob("*.parquet"), *out.glob("truth/*.parquet")):
            old.unlink()

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def put(self, name: str, table: pa.Table) -> None:
        """Append rows to a table."""
        if name not in self._files:
            path = self.out / f"{name}.parquet"
            self._files[name] = pq.ParquetWriter(path, table.schema, compression="zstd")
        self._files[name].write_table(table)

    def write_all(self) -> None:
        self._write_dictionary()
        for begin in range(0, self.num_images, CHUNK_IMAGES):
            stop = min(begin + CHUNK_IMAGES, self.num_images)
            self._write_chunk(np.arange(begin, stop, dtype=np.int64))
        self._write_validation()
        self._write_corrupt()

    def _write_dictionary(self) -> None:
        for name, table in tables.dictionary_tables(self.terms, self.seed).items():
            self.put(name, table)
        self.put("terms", corrupt_terms(self.terms, self.corrupt))

    def _write_chunk(self, numbers: NDArray[np.int64]) -> None:
        copies = draw_copies(numbers, self.num_images, self.options.copy_share, self.seed)
        contents = self.world.contents(copies.content)
        ids = image_names(numbers, self.seed)
        position, term, score = self.world.annotations(numbers, contents)
        data = self._pictures(numbers, copies) if self.with_bytes else None
        said: list[list[str]] = [[] for _ in ids]
        for p, t in zip(position.tolist(), term.tolist(), strict=True):
            said[p].append(self.terms.text[t])
        self.put("images", image_rows(ids, numbers, data, said, self.seed))
        self._put_annotations(pa.array(ids), numbers, position, term, score)
        vectors = self.world.embeddings(copies.content, contents)
        edited = self.world.edited(vectors, numbers, copies.edit, "copy")
        self.put("image_embeddings", tables.embedding_rows(ids, edited))
        self._put_interests(ids, contents)
        self._put_families(ids, numbers, copies)
        wrong = tables.wrong_labels(self.terms, ids, contents, position, term, score)
        self.put("truth/wrong_labels", wrong)
        self._put_blocked(ids, numbers, data)

    def _pictures(self, numbers: NDArray[np.int64], copies: Copies) -> list[bytes]:
        resembles, flat = self._picture_kinds(copies.content)
        result = []
        for number, content, edit, other, is_flat in zip(
            numbers.tolist(), copies.content.tolist(), copies.edit.tolist(), resembles.tolist(),
            flat.tolist(), strict=True,
        ):  # fmt: skip
            pixels = make_picture(content, self.seed, resembles=other, is_flat=is_flat)
            result.append(edit_picture(pixels, EDITS[edit], content, number, self.seed))
        return result

    def _picture_kinds(
        self, content: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """By content: the root it resembles (-1 for none), and whether it is one flat colour.

        Roots do neither, so that what resembles a root resembles a plain picture.
        """
        is_root = content % COPY_STRIDE == 0
        u = draw(content, 0, self.seed, "picture kinds")
        share, flat_share = self.options.look_alike_share, self.options.flat_share
        roots = (self.num_images + COPY_STRIDE - 1) // COPY_STRIDE
        root = (draw(content, 1, self.seed, "picture kinds") * roots).astype(np.int64) * COPY_STRIDE
        resembles = np.where((u < share) & ~is_root, root, -1)
        return resembles, (u >= share) & (u < share + flat_share) & ~is_root

    def _put_annotations(
        self,
        ids: pa.Array,
        numbers: NDArray[np.int64],
        position: NDArray[np.int64],
        term: NDArray[np.int32],
        score: NDArray[np.float32],
    ) -> None:
        form = self.options.annotations
        if form != "nested":
            rows = long_rows(ids, numbers, position, term, score, self.terms, self.seed)
            self.put("annotations_long", rows)
        if form != "long":
            nested = to_nested(position, term, score, len(ids))
            self.put("annotations_nested", pa.table([ids, nested], schema=NESTED_SCHEMA))

    def _put_interests(self, ids: list[str], contents: Contents) -> None:
        image, slot = np.nonzero(contents.interest >= 0)
        names = [self.terms.interest_names[g] for g in contents.interest[image, slot].tolist()]
        self.put(
            "image_interests",
            pa.table({"image_id": [ids[i] for i in image.tolist()], "l1_interest": names}),
        )

    def _put_families(self, ids: list[str], numbers: NDArray[np.int64], copies: Copies) -> None:
        self.put("truth/families", tables.family_rows(ids, copies))
        if self.with_bytes:
            resembles, flat = self._picture_kinds(copies.content)
            rows = np.flatnonzero((resembles >= 0) & (copies.content == numbers))
            roots = image_names(resembles[rows], self.seed)
            names = [ids[i] for i in rows.tolist()]
            self.put("truth/look_alikes", tables.strings(image_id=names, resembles=roots))
            flat_names = [ids[i] for i in np.flatnonzero(flat).tolist()]
            self.put("truth/flat_images", tables.strings(image_id=flat_names))

    def _put_blocked(
        self, ids: list[str], numbers: NDArray[np.int64], data: list[bytes] | None
    ) -> None:
        u = draw(numbers, 0, self.seed, "blocked")
        rows = np.flatnonzero(u < self.options.blocked_share).tolist()
        by_hash = [data is not None and u[i] < self.options.blocked_share / 2 for i in rows]
        digests = [
            hashlib.sha256(data[i]).hexdigest() if data is not None and h else None
            for i, h in zip(rows, by_hash, strict=True)
        ]
        names = [None if h else ids[i] for i, h in zip(rows, by_hash, strict=True)]
        self.put("blocked_images", tables.strings(image_id=names, sha256=digests))
        kinds = ["sha256" if h else "image_id" for h in by_hash]
        self.put("truth/blocked", tables.strings(image_id=[ids[i] for i in rows], kind=kinds))

    def _write_validation(self) -> None:
        """Half of the validation images copy a root of the corpus, the others are new."""
        count = max(10, round(self.options.validation_share * self.num_images))
        numbers = np.arange(count, dtype=np.int64) + _VALIDATION_NUMBERS
        u = draw(numbers, 0, self.seed, "validation")
        roots = (self.num_images + COPY_STRIDE - 1) // COPY_STRIDE
        root = (draw(numbers, 1, self.seed, "validation") * roots).astype(np.int64) * COPY_STRIDE
        content = np.where(u < 0.5, root, numbers)
        kinds = len(EDITS) - len(BEYOND_EDITS)
        edit = (draw(numbers, 2, self.seed, "validation") * kinds).astype(np.int8)
        copies = Copies(content, np.where(u < 0.5, edit, 0).astype(np.int8))
        contents = self.world.contents(content)
        vectors = self.world.embeddings(content, contents)
        edited = self.world.edited(vectors, numbers, copies.edit, "copy")
        ids = image_names(numbers, self.seed, "v")
        sets = ["val_a" if i % 2 else "val_b" for i in range(count)]
        data = self._pictures(numbers, copies) if self.with_bytes else [None] * count
        uris = [None if self.with_bytes else f"memory://planted/{i}" for i in ids]
        self.put(
            "validation_images",
            pa.table(
                {
                    "dataset": sets,
                    "image_id": ids,
                    "uri": pa.array(uris, pa.string()),
                    "bytes": pa.array(data, pa.binary()),
                    "embedding": tables.embedding_rows(ids, edited)["embedding"],
                }
            ),
        )
        self._put_leaks(ids, sets, content)

    def _put_leaks(self, ids: list[str], sets: list[str], content: NDArray[np.int64]) -> None:
        """Every corpus image made from the picture that a validation image was made from."""
        share = self.options.copy_share
        chunks = (
            (numbers, draw_copies(numbers, self.num_images, share, self.seed))
            for numbers in self._chunks()
        )
        rows = tables.leak_rows(ids, sets, content, chunks, self.seed)
        self.put("truth/validation_leaks", rows)

    def _chunks(self) -> Iterator[NDArray[np.int64]]:
        for begin in range(0, self.num_images, CHUNK_IMAGES):
            yield np.arange(begin, min(begin + CHUNK_IMAGES, self.num_images), dtype=np.int64)

    def _write_corrupt(self) -> None:
        first = np.arange(min(self.num_images, CHUNK_IMAGES), dtype=np.int64)
        ids = image_names(first, self.seed)
        jpeg = encode(make_picture(2**42, self.seed), "jpeg") if self.with_bytes else None
        count, truth = self.num_corrupt, self.corrupt
        self.put("images", corrupt_images(self._doubled(first), count, jpeg, self.seed, truth))
        concrete = int(self.terms.of_kind("concrete")[0])
        if self.options.annotations != "nested":
            rows = corrupt_long(ids, count, self.terms.text[concrete], truth)
            self.put("annotations_long", rows)
        if self.options.annotations == "nested":
            rows = corrupt_nested(count, concrete, len(self.terms.text), truth)
            self.put("annotations_nested", rows)
        self.put("image_embeddings", corrupt_embeddings(count, self.world.width, truth))
        self.put("blocked_images", tables.strings(image_id=[None], sha256=["not a digest"]))
        truth.add("blocked_images", "/not a digest", "bad_sha256")
        self.put("truth/corrupt_rows", truth.to_table())

    def _doubled(self, numbers: NDArray[np.int64]) -> dict[str, bytes | None]:
        """Some image_ids with their bytes, to be given twice."""
        picked = np.unique(np.arange(self.num_corrupt) * 37 % len(numbers))
        ids = image_names(numbers[picked], self.seed)
        if not self.with_bytes:
            return dict.fromkeys(ids)
        copies = draw_copies(numbers, self.num_images, self.options.copy_share, self.seed)
        some = Copies(copies.content[picked], copies.edit[picked])
        return dict(zip(ids, self._pictures(numbers[picked], some), strict=True))
