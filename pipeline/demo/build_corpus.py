"""Rebuild the committed demo corpus from the packages it comes from.

    python -m pipeline.demo.build_corpus --work-dir build/demo_sources

Needs ``apt-get``, ``dpkg-deb`` and ``npm`` on the PATH, the package wordfreq, and about 1 GB in the
working folder. Equal inputs and equal versions of Pillow, libwebp and pyarrow give equal bytes;
``provenance.json`` holds them all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import features

from pipeline.demo import emoji, openclipart, pictures, sources, validation, vocabulary
from pipeline.demo.records import (
    BLOCKED_IMAGES,
    IMAGE_INTEREST_SEEDS,
    IMAGES,
    VALIDATION_IMAGES,
    Harvest,
    Picture,
)

logger = logging.getLogger(__name__)

DATA = Path(__file__).parent / "data"
BLOCKED_BY_ID = "openclipart/food/desserts/birthday_cake.png"
"""Opt-out by name; the same bytes stand in two other folders."""
BLOCKED_BY_HASH = "openclipart/animals/mammals/elephant_01.png"
BLOCKED_BY_BOTH = "fluent/food-drink/pizza.webp"
SENSITIVE_LANGUAGE = "en"


def images_table(corpus: Sequence[Picture]) -> pa.Table:
    """The ``images`` input, in order of image_id."""
    return pa.Table.from_pylist(
        [
            {
                "image_id": p.image_id,
                "uri": None,
                "bytes": p.data,
                "title": p.title,
                "description": p.description,
                "tags": list(p.tags),
                "source": p.source,
                "licence": p.licence,
            }
            for p in corpus
        ],
        schema=IMAGES,
    )


def validation_table(rows: Sequence[tuple[str, str, bytes]]) -> pa.Table:
    """The ``validation_images`` input."""
    return pa.Table.from_pylist(
        [{"dataset": d, "image_id": i, "uri": None, "bytes": b} for d, i, b in rows],
        schema=VALIDATION_IMAGES,
    )


def interest_seeds_table(corpus: Sequence[Picture]) -> pa.Table:
    """Interests of pictures whose folder or emoji group is clear, one row a pair."""
    return pa.Table.from_pylist(
        [{"image_id": p.image_id, "l1_interest": i} for p in corpus for i in p.interests],
        schema=IMAGE_INTEREST_SEEDS,
    )


def blocked_table(corpus: Sequence[Picture]) -> pa.Table:
    """Three sample opt-outs: by name, by content, by both.

    Raises:
        KeyError: one of the three is no longer in the corpus.
    """
    sha256 = {p.image_id: hashlib.sha256(p.data).hexdigest() for p in corpus}
    return pa.Table.from_pylist(
        [
            {"image_id": BLOCKED_BY_ID, "sha256": None},
            {"image_id": None, "sha256": sha256[BLOCKED_BY_HASH]},
            {"image_id": BLOCKED_BY_BOTH, "sha256": sha256[BLOCKED_BY_BOTH]},
        ],
        schema=BLOCKED_IMAGES,
    )


def build_terms(corpus: Sequence[Picture], naughty_words: Path) -> pa.Table:
    """The ``terms`` input; see ``pipeline.demo.vocabulary``."""
    import wordfreq  # only the build needs it

    words = sources.npm_json(naughty_words, f"{SENSITIVE_LANGUAGE}.json")
    assert isinstance(words, list), "naughty-words lists are arrays of strings"
    return vocabulary.build_terms(corpus, words, wordfreq.zipf_frequency, "Fluent Emoji")


def build(work_dir: Path) -> tuple[dict[str, pa.Table], dict[str, object]]:
    """Make all tables.

    Args:
        work_dir: where archives are downloaded and unpacked.

    Returns:
        Tables by name, and the counts for ``provenance.json``.
    """
    archive = {p: sources.fetch(p, work_dir) for p in sources.PACKAGES}
    for package in (sources.OPENCLIPART_PNG, sources.OPENCLIPART_SVG):
        unpacked = sources.unpack_debian(archive[package], work_dir / "openclipart")
    harvests: dict[str, Harvest] = {
        "openclipart": openclipart.harvest(unpacked),
        "fluent": emoji.harvest(
            archive[sources.FLUENT_EMOJI], archive[sources.EMOJILIB], archive[sources.EMOJIBASE]
        ),
    }
    corpus = sorted((p for h in harvests.values() for p in h.pictures), key=lambda p: p.image_id)
    repeated = [i for i, n in Counter(p.image_id for p in corpus).items() if n > 1]
    assert not repeated, f"image_ids are unique, found twice: {repeated[:5]}"
    split = validation.hold_out(
        corpus, frozenset({BLOCKED_BY_ID, BLOCKED_BY_HASH, BLOCKED_BY_BOTH})
    )
    tables = {
        "images": images_table(split.kept),
        "validation_images": validation_table(split.rows),
        "terms": build_terms(corpus, archive[sources.NAUGHTY_WORDS]),
        "image_interest_seeds": interest_seeds_table(split.kept),
        "blocked_images": blocked_table(split.kept),
    }
    return tables, _counts(harvests, split, tables["terms"])


def _counts(
    harvests: dict[str, Harvest], split: validation.Split, terms: pa.Table
) -> dict[str, object]:
    rows = terms.to_pylist()
    return {
        "harvested": {name: len(h.pictures) for name, h in harvests.items()},
        "left_out": {name: dict(sorted(h.left_out.items())) for name, h in harvests.items()},
        "images": {
            "openclipart": sum(p.image_id.startswith("openclipart/") for p in split.kept),
            "emoji_bases": sum(
                p.image_id.startswith("fluent/") and not p.is_variant for p in split.kept
            ),
            "emoji_variants": sum(p.is_variant for p in split.kept),
        },
        "validation_images": dict(sorted(Counter(d for d, _, _ in split.rows).items())),
        "terms": {
            "all": len(rows),
            "aliases": sum(r["term_id"] != r["canonical_term_id"] for r in rows),
            "not_english": sum(r["language"] != "en" for r in rows),
            "sensitive": sum(r["is_sensitive"] for r in rows),
        },
    }


def write(tables: dict[str, pa.Table], counts: dict[str, object], out: Path) -> None:
    """Write the tables as Parquet, and ``provenance.json`` beside them."""
    out.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, table in tables.items():
        path = out / f"{name}.parquet"
        pq.write_table(table, path, compression="zstd", compression_level=19)
        files[path.name] = {
            "rows": table.num_rows,
            "bytes": path.stat().st_size,
            "sha256": sources.sha256_file(path),
        }
    provenance = {
        "packages": [
            {
                "registry": p.registry,
                "name": p.name,
                "version": p.version,
                "sha256": p.sha256,
                "licence": p.licence,
            }
            for p in sources.PACKAGES
        ],
        "made_with": {
            "pillow": version("pillow"),
            "libwebp": str(features.version("webp")),
            "pyarrow": version("pyarrow"),
            "wordfreq": version("wordfreq"),
        },
        "pictures": {
            "format": "WebP",
            "quality": pictures.WEBP_QUALITY,
            "longest_side": pictures.LONGEST_SIDE,
            "background": "white",
        },
        "counts": counts,
        "files": files,
    }
    (out / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--work-dir", type=Path, default=Path("build/demo_sources"))
    parser.add_argument("--out", type=Path, default=DATA)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    tables, counts = build(args.work_dir)
    write(tables, counts, args.out)
    logger.info("event=written out=%s", args.out)


if __name__ == "__main__":
    main()
