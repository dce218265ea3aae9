"""Dictionary of the planted world: what each term is, how often it is said, where it lies.

Kinds of terms:

- ``concrete``: nearly always said of images that show it. ``polysemous``: concrete, with two
  senses in two interests that look different. ``graded``: shown by a planted share of its images.
- ``abstract``: said of images at random.
- ``alias``, ``foreign``, ``sensitive``, ``sensitive_alias`` (not flagged, canonical is flagged) and
  ``look_alike`` (not flagged, a sensitive text in Cyrillic letters): must be merged or removed.

Source: SPEC Z1.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels.hashing import stream_seed
from pipeline.kernels.vectors import l2_normalise

VISUAL_KINDS: Final = ("concrete", "polysemous", "graded", "abstract")
"""Kinds that can become labels; Zipf ranks run over these."""

_SHARES: Final = {
    "polysemous": 0.06, "graded": 0.12, "abstract": 0.25, "alias": 0.06, "foreign": 0.04,
    "sensitive": 0.03, "sensitive_alias": 0.01, "look_alike": 0.01,
}  # fmt: skip
_PURITY: Final = {"concrete": (0.85, 1.0), "polysemous": (0.9, 1.0), "graded": (0.1, 0.8),
                  "abstract": (0.0, 0.05)}  # fmt: skip
MIN_TERMS: Final = 100
"""So that each kind has a term."""
TOPICS_PER_INTEREST: Final = 4
_CONSONANTS: Final = "bdfgklmnprstvz"
_VOWELS: Final = "aeiou"
_CYRILLIC: Final = str.maketrans("aeopcx", "аеорсх")
_ZIPF_SHIFT: Final = 10.0
"""Zipf-Mandelbrot shift: keeps the commonest term below a fifth of the images."""


@dataclass(frozen=True)
class PlantedTerms:
    """The dictionary, arrays indexed by term_id.

    Attributes:
        text: T texts, normalised and distinct.
        language: T codes.
        canonical: int32 (T,).
        is_sensitive: bool (T,), the dictionary's own flag.
        kind: T names.
        purity: float64 (T,), share of its images that show it; 0 for kinds that show nothing.
        weight: float64 (T,), relative frequency, 0 for kinds outside ``VISUAL_KINDS``.
        interests: T tuples of interest indices.
        topic: int32 (T,), group of terms of similar text inside the interest.
        text_embedding: float32 (T, d), unit length.
        sense_term: int32 (S,), term of each sense; senses are grouped by interest.
        sense_interest: int32 (S,), ascending.
        sense_direction: float32 (S, d'), unit length: what the sense looks like.
        interest_names: names of the taxonomy.
    """

    text: list[str]
    language: list[str]
    canonical: NDArray[np.int32]
    is_sensitive: NDArray[np.bool_]
    kind: list[str]
    purity: NDArray[np.float64]
    weight: NDArray[np.float64]
    interests: list[tuple[int, ...]]
    topic: NDArray[np.int32]
    text_embedding: NDArray[np.float32]
    sense_term: NDArray[np.int32]
    sense_interest: NDArray[np.int32]
    sense_direction: NDArray[np.float32]
    interest_names: tuple[str, ...]

    def of_kind(self, *kinds: str) -> NDArray[np.int32]:
        """term_ids of some kinds."""
        return np.array([t for t, k in enumerate(self.kind) if k in kinds], np.int32)

    @property
    def separability(self) -> NDArray[np.float64]:
        """Accuracy that an ideal classifier of each term's images reaches, 0.5 to 1."""
        return 0.5 + 0.5 * self.purity

    def source_table(self) -> pa.Table:
        """Rows of `source_terms`."""
        return pa.table(
            {
                "term_id": pa.array(range(len(self.text)), pa.int32()),
                "text": pa.array(self.text, pa.string()),
                "language": pa.array(self.language, pa.string()),
                "canonical_term_id": pa.array(self.canonical, pa.int32()),
                "is_sensitive": pa.array(self.is_sensitive),
            }
        )


def make_terms(
    num_terms: int, seed: int, image_width: int = 64, text_width: int = 48, exponent: float = 1.0
) -> PlantedTerms:
    """Draw a dictionary.

    Args:
        num_terms: terms in all, at least ``MIN_TERMS``.
        seed: seed of the world.
        image_width: numbers of an image embedding.
        text_width: numbers of a text embedding.
        exponent: of the Zipf-Mandelbrot law over the visual terms.

    Raises:
        ValueError: too few terms.
    """
    if num_terms < MIN_TERMS:
        raise ValueError(f"planted world: num_terms {num_terms}, expected >= {MIN_TERMS}.")
    rng = np.random.default_rng(stream_seed(seed, "planted terms"))
    names = _interest_names()
    kind = _draw_kinds(num_terms, rng)
    of = {k: np.array([t for t, v in enumerate(kind) if v == k]) for k in (*_SHARES, "concrete")}
    weight, purity = np.zeros(num_terms), np.zeros(num_terms)
    visual = np.sort(np.concatenate([of[k] for k in VISUAL_KINDS]))
    ranks = rng.permutation(len(visual))
    weight[visual] = (ranks + 1 + _ZIPF_SHIFT) ** -exponent
    for k in VISUAL_KINDS:
        purity[of[k]] = rng.uniform(*_PURITY[k], len(of[k]))
    canonical = np.arange(num_terms, dtype=np.int32)
    canonical[of["alias"]] = rng.choice(of["concrete"], len(of["alias"]), replace=False)
    canonical[of["sensitive_alias"]] = rng.choice(of["sensitive"], len(of["sensitive_alias"]))
    text = _texts(num_terms, rng)
    language = ["en"] * num_terms
    for t in of["foreign"].tolist():
        language[t] = ("fr", "de", "es")[t % 3]
        text[t] = text[t].replace("a", "á").replace("u", "ü")
    sensitive_texts = [text[t] for t in of["sensitive"].tolist()]
    sensitive_texts = [t for t in sensitive_texts if t.translate(_CYRILLIC) != t]
    for i, t in enumerate(of["look_alike"].tolist()):
        text[t] = sensitive_texts[i % len(sensitive_texts)].translate(_CYRILLIC)
    first = rng.integers(0, len(names), num_terms)
    other = (first + rng.integers(1, len(names), num_terms)) % len(names)
    first[canonical != np.arange(num_terms)] = first[canonical[canonical != np.arange(num_terms)]]
    interests: list[tuple[int, ...]] = [
        (int(a), int(b)) if k == "polysemous" else (int(a),)
        for a, b, k in zip(first, other, kind, strict=True)
    ]
    topic = rng.integers(0, TOPICS_PER_INTEREST, num_terms).astype(np.int32)
    senses = sorted((g, t) for t in visual.tolist() for g in interests[t])
    return PlantedTerms(
        text=text,
        language=language,
        canonical=canonical,
        is_sensitive=np.isin(np.arange(num_terms), of["sensitive"]),
        kind=kind,
        purity=purity,
        weight=weight,
        interests=interests,
        topic=topic,
        text_embedding=_text_embeddings(interests, topic, len(names), text_width, rng),
        sense_term=np.array([t for _, t in senses], np.int32),
        sense_interest=np.array([g for g, _ in senses], np.int32),
        sense_direction=_sense_directions(senses, len(names), image_width, rng),
        interest_names=names,
    )


def _interest_names() -> tuple[str, ...]:
    source = files("pipeline.config").joinpath("taxonomy/l1_interests.txt")
    lines = [line.strip() for line in source.read_text(encoding="utf-8").splitlines()]
    return tuple(line for line in lines if line and not line.startswith("#"))


def _draw_kinds(num_terms: int, rng: np.random.Generator) -> list[str]:
    kinds = [k for k, share in _SHARES.items() for _ in range(max(1, round(share * num_terms)))]
    kinds += ["concrete"] * (num_terms - len(kinds))
    return [kinds[i] for i in rng.permutation(num_terms)]


def _texts(num_terms: int, rng: np.random.Generator) -> list[str]:
    """Distinct pronounceable words; every tenth term is two words."""
    syllables = [c + v for c in _CONSONANTS for v in _VOWELS]
    size, parts = len(syllables), 3
    while size**parts < 4 * num_terms:
        parts += 1
    codes = rng.choice(size**parts, num_terms, replace=False)
    words = ["".join(syllables[c // size**p % size] for p in range(parts)) for c in codes.tolist()]
    return [w if i % 10 else f"{w} {w[::-1]}n" for i, w in enumerate(words)]


def _text_embeddings(
    interests: list[tuple[int, ...]],
    topic: NDArray[np.int32],
    num_interests: int,
    width: int,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Interest centre + topic + own noise; a polysemous term lies between its two centres."""
    centre = l2_normalise(rng.standard_normal((num_interests, width)))
    nuance = l2_normalise(rng.standard_normal((num_interests * TOPICS_PER_INTEREST, width)))
    own = l2_normalise(rng.standard_normal((len(interests), width)))
    vectors = np.empty((len(interests), width))
    for t, pair in enumerate(interests):
        parts = [centre[g] + 0.5 * nuance[g * TOPICS_PER_INTEREST + topic[t]] for g in pair]
        vectors[t] = l2_normalise(np.sum(parts, axis=0)[None])[0] + 0.35 * own[t]
    return l2_normalise(vectors)


def _sense_directions(
    senses: list[tuple[int, int]], num_interests: int, width: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Images of one interest look somewhat alike: directions share a quarter of their variance."""
    shared = l2_normalise(rng.standard_normal((num_interests, width)))
    own = l2_normalise(rng.standard_normal((len(senses), width)))
    return l2_normalise(0.5 * shared[[g for g, _ in senses]] + 0.866 * own)
