"""Real photos with noisy keywords, as a user's tables: what the ablations are run on.

Photos are the CIFAR-100 search terms (see `benchmarks.photos`). A photo's own keyword is the web
query that found it. Two kinds of noise are planted beside it, with confidences of the same
distribution, so that no threshold takes them out: words that say nothing of a picture, by Zipf, for
the visual dictionary to find; and keywords of other photos, of which the restriction to interests
can find those of another interest. Queries are photos of the test part with their clean class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.photos import search_term_photos
from pipeline.kernels.hashing import hash64, uniform

_WORDS = """
    advice answer attitude basic belief best blessing bonus budget busy career chance cheap
    choice classic comfort common concept courage custom daily deal debate deluxe discount dream
    duty easy effort energy english ethics event expert extra fact faith famous favorite final
    focus forever free freedom fresh friday future genuine gift goal good gratitude great guide
    habit happy help history hope humor idea important inspiration interesting job joy justice
    kind knowledge last legend lesson life limited logic love loyalty luck luxury magic meaning
    memory method mindset monday mood moral motivation music mystery name new nice notice offer
    official online opinion order original passion patience peace perfect philosophy plan policy
    popular power premium price pride problem promise proof purpose quality question quick
    random reason regret respect review rule sale saturday secret serious service simple skill
    special spirit story strategy success sunday surprise talent theory thing thought thursday
    tip today tomorrow top tradition trend trust truth tuesday update useful value vision vote
    weekend wisdom wish wonderful work worth
"""
NON_VISUAL = _WORDS.split()
"""Words that name no thing that a camera sees."""
NON_VISUAL_AN_IMAGE, WRONG_AN_IMAGE = 1.5, 1.0
"""Means of Poisson draws."""
SEEDED = 0.2
"""Share of the photos whose interest is told to the image classifier."""
_INTERESTS = {
    "food_and_drinks": "apple bottle bowl can cup mushroom orange pear plate sweet_pepper",
    "electronics": "clock keyboard telephone television",
    "home_decor": "bed chair couch lamp table wardrobe",
    "gardening": "maple_tree oak_tree orchid palm_tree pine_tree poppy rose sunflower tulip "
    "willow_tree",
    "architecture": "bridge castle house skyscraper",
    "travel": "cloud forest mountain plain road sea",
    "parenting": "baby boy girl",
    "mens_fashion": "man",
    "womens_fashion": "woman",
    "vehicles": "bicycle bus lawn_mower motorcycle pickup_truck rocket streetcar tank tractor "
    "train",
}
INTEREST_OF = {name: i for i, names in _INTERESTS.items() for name in names.split()}
"""Clean class -> interest; every other class is an animal."""


@dataclass(frozen=True)
class PhotoWorld:
    """Tables on disk.

    Attributes:
        preset: a preset of them, for `run_ablations`.
        num_images: photos of the corpus.
        num_queries: tagged photos.
        annotations: kind -> how many.
    """

    preset: Path
    num_images: int
    num_queries: int
    annotations: dict[str, int]


def make_photo_world(
    folder: Path, num_images: int, num_queries: int, sections: Mapping[str, Any], seed: int = 0
) -> PhotoWorld:
    """Write the tables and a preset.

    Args:
        folder: where to.
        num_images: photos of the corpus, chosen by hash.
        num_queries: tagged photos, chosen by hash.
        sections: of the preset, besides its inputs.
        seed: of every draw.

    Raises:
        ValueError: the photos are not there.
    """
    photos = pq.read_table(search_term_photos()).to_pandas().drop_duplicates("image_id")
    photos["draw"] = uniform(hash64(photos["image_id"].tolist(), seed, "ablations"))
    photos = photos.sort_values("draw", kind="stable")
    corpus = photos[photos["split"] == "train"].head(num_images)
    queries = photos[photos["split"] == "test"].head(num_queries)
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, columns: dict[str, object]) -> dict[str, str]:
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
        return {"path": str(folder / f"{name}.parquet")}

    ids, terms = corpus["image_id"].tolist(), corpus["search_term"].tolist()
    rows, numbers = _annotations(ids, terms, np.random.default_rng(seed))
    words = sorted({row[1] for row in rows})
    is_seeded = uniform(hash64(ids, seed, "seeds")) < SEEDED
    seeded = corpus[is_seeded]
    count = len(words)
    inputs = {
        "images": write(
            "images", {"image_id": ids, "bytes": corpus["image"].tolist(), "title": terms}
        ),
        "terms": write(
            "terms",
            {
                "term_id": pa.array(range(count), pa.int32()),
                "text": words,
                "language": ["en"] * count,
                "canonical_term_id": pa.array(range(count), pa.int32()),
                "is_sensitive": [False] * count,
            },
        ),
        "annotations_long": write(
            "annotations",
            {
                "image_id": [row[0] for row in rows],
                "term": [row[1] for row in rows],
                "language": ["en"] * len(rows),
                "score": pa.array([row[2] for row in rows], pa.float32()),
            },
        ),
        "image_interest_seeds": write(
            "interest_seeds",
            {
                "image_id": seeded["image_id"].tolist(),
                "l1_interest": [INTEREST_OF.get(c, "animals") for c in seeded["class_name"]],
            },
        ),
        "validation_images": write(
            "validation_images",
            {
                "image_id": queries["image_id"].tolist(),
                "dataset": ["queries"] * len(queries),
                "bytes": queries["image"].tolist(),
            },
        ),
    }
    tagged = write(
        "queries",
        {
            "image_id": queries["image_id"].tolist(),
            "tag": queries["class_name"].tolist(),
            "bytes": queries["image"].tolist(),
        },
    )
    ablations = {**sections.get("ablations", {}), "tagged": [{"name": "classes", **tagged}]}
    preset = folder / "photos.yaml"
    preset.write_text(yaml.safe_dump({**sections, "inputs": inputs, "ablations": ablations}))
    return PhotoWorld(preset, len(corpus), len(queries), numbers)


def _annotations(
    ids: list[str], terms: list[str], rng: np.random.Generator
) -> tuple[list[tuple[str, str, float]], dict[str, int]]:
    """(image_id, term, confidence), at most one of a term an image, and how many of each kind."""
    rank = 1 / np.arange(1, len(NON_VISUAL) + 1)
    found: dict[tuple[str, str], str] = {}
    for image_id, term in zip(ids, terms, strict=True):
        found[image_id, term] = "own"
        for other in rng.integers(0, len(terms), rng.poisson(WRONG_AN_IMAGE)):
            found.setdefault((image_id, terms[other]), "wrong")
        for word in rng.choice(
            len(NON_VISUAL), rng.poisson(NON_VISUAL_AN_IMAGE), p=rank / rank.sum()
        ):
            found.setdefault((image_id, NON_VISUAL[word]), "non_visual")
    scores = rng.beta(5, 2, len(found)).astype(np.float32)
    rows = [(*key, float(s)) for key, s in zip(found, scores, strict=True)]
    kinds = list(found.values())
    return rows, {kind: kinds.count(kind) for kind in ("own", "wrong", "non_visual")}
