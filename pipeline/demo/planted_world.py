"""The planted world: a corpus of any size whose every answer is known beforehand (Z1).

``generate`` writes user tables in the form of SPEC I1 and, beside them in `truth/`, what was
planted. It streams by chunks of 8,192 images, so that memory does not depend on the size; with
``with_bytes=False`` a million images take about a minute.

    images, annotations_long or annotations_nested, terms, image_embeddings, term_embeddings,
    interest_seeds, term_interests, image_interests, validation_images, blocked_images

    truth/families          image_id, family_id, edit, is_inside: copies of one picture
    truth/look_alikes       image_id, resembles: different pictures that look much alike
    truth/flat_images       image_id: one colour all over, each its own
    truth/concreteness      term_id, kind, class, purity, separability
    truth/wrong_labels      image_id, term_id, l1_interest, cause, score: must not become labels
    truth/validation_leaks  dataset, validation_image_id, image_id, edit, is_inside
    truth/blocked           image_id, kind
    truth/terms             term_id, text, kind, canonical_term_id, topic: what is in the dictionary
    truth/corrupt_rows      table, row_key, reason

Truth about families is by the number of the picture they were made from, never by a distance.

Source: SPEC Z1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.demo.planted_terms import MIN_TERMS, make_terms
from pipeline.demo.planted_writer import WorldOptions, WorldWriter


@dataclass(frozen=True)
class PlantedWorld:
    """Where a world was written.

    Attributes:
        root: folder.
        num_images: images, corrupt rows not counted.
        num_terms: terms of the dictionary, corrupt rows not counted.
        seed: its seed.
        with_bytes: whether images carry bytes.
        tables: input tables by name.
        truth: truth tables by name.
    """

    root: Path
    num_images: int
    num_terms: int
    seed: int
    with_bytes: bool
    tables: dict[str, Path]
    truth: dict[str, Path]

    def read(self, name: str) -> pa.Table:
        """An input table, or a truth table by `truth/<name>`."""
        return pq.read_table(self.root / f"{name}.parquet")


def generate(
    out: Path,
    num_images: int,
    num_terms: int | None = None,
    seed: int = 0,
    with_bytes: bool = True,
    options: WorldOptions | None = None,
) -> PlantedWorld:
    """Write a planted world. Equal arguments give equal bytes.

    Args:
        out: folder to write into; files of an older world are replaced.
        num_images: images of the corpus, >= 100.
        num_terms: terms of the dictionary, >= 100; None for one a 50 images.
        seed: any integer from 0.
        with_bytes: write pictures; else `uri`s that lead nowhere.
        options: shares of what is planted.

    Raises:
        ValueError: fewer than 100 images or terms.
    """
    if num_images < 100:
        raise ValueError(f"planted world: num_images {num_images}, expected >= 100.")
    chosen = options or WorldOptions()
    terms = make_terms(
        max(MIN_TERMS, num_images // 50) if num_terms is None else num_terms,
        seed,
        exponent=chosen.zipf_exponent,
    )
    writer = WorldWriter(out, num_images, terms, seed, with_bytes, chosen)
    try:
        writer.write_all()
    finally:
        writer.close()
    tables = {p.stem: p for p in sorted(out.glob("*.parquet"))}
    truth = {p.stem: p for p in sorted((out / "truth").glob("*.parquet"))}
    return PlantedWorld(out, num_images, len(terms.text), seed, with_bytes, tables, truth)
