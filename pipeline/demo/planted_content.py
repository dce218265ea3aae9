"""What the images of the planted world show and what is said of them.

Everything is a function of (seed, number), never of a chunk: image i may be a copy of image j far
away, and j is drawn again where it is needed. *Content* is what a picture shows; copies share it.

Source: SPEC Z1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.demo.planted_terms import PlantedTerms
from pipeline.kernels.hashing import hash_ints, uniform

COPY_STRIDE: Final = 10
"""Every tenth image is an original that others may copy; the rest copy one or are alone."""
EXACT, ORIGINAL = "exact", "original"
INSIDE_EDITS: Final = ("jpeg", "resize", "brightness", "format", "turned_exif")
"""Edits that keep the perceptual hash within a few bits."""
BEYOND_EDITS: Final = ("mirror", "heavy_crop", "rotate")
"""Edits that reach beyond any useful radius of it."""
EDITS: Final = (ORIGINAL, EXACT, *INSIDE_EDITS, *BEYOND_EDITS)
EDIT_COSINE: Final = {
    ORIGINAL: 1.0, EXACT: 1.0, "jpeg": 0.995, "resize": 0.99, "brightness": 0.99, "format": 0.998,
    "turned_exif": 0.998, "mirror": 0.985, "heavy_crop": 0.88, "rotate": 0.9,
}  # fmt: skip
"""Cosine of the visual embeddings of an edit and its original."""
_EDIT_WEIGHT: Final = (0.0, 0.2, 0.16, 0.16, 0.12, 0.12, 0.04, 0.08, 0.08, 0.04)

MAX_VISIBLE: Final = 4
MAX_NOISE: Final = 6
_NOISE_SCALE: Final = 0.15
"""Standard deviation of each number of an embedding, against unit-length directions."""
_SECOND_INTEREST: Final = 0.15


def draw(numbers: NDArray[np.integer], slot: int, seed: int, stream: str) -> NDArray[np.float64]:
    """One uniform number in [0, 1) for each (number, slot)."""
    return uniform(hash_ints(np.asarray(numbers, np.int64) * 256 + slot, seed, stream))


def normals(
    numbers: NDArray[np.integer], width: int, seed: int, stream: str
) -> NDArray[np.float64]:
    """Standard normal numbers, float64 (n, width), by Box-Muller; width even and <= 256."""
    grid = np.asarray(numbers, np.int64)[:, None] * 256 + np.arange(width)
    u = uniform(hash_ints(grid, seed, stream))
    radius = np.sqrt(-2.0 * np.log1p(-u[:, ::2]))
    angle = 2.0 * np.pi * u[:, 1::2]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


@dataclass(frozen=True)
class Copies:
    """Which content each image shows.

    Attributes:
        content: int64 (n,), the image whose content it is: its own number, or its root's.
        edit: int8 (n,), position in ``EDITS``.
    """

    content: NDArray[np.int64]
    edit: NDArray[np.int8]


def draw_copies(images: NDArray[np.int64], num_images: int, copy_share: float, seed: int) -> Copies:
    """Decide for each image whether it copies another, and how.

    Few roots get many copies: the root's place is the square of a uniform number.
    """
    roots = (num_images + COPY_STRIDE - 1) // COPY_STRIDE
    share = copy_share * COPY_STRIDE / (COPY_STRIDE - 1)
    is_copy = (images % COPY_STRIDE != 0) & (draw(images, 0, seed, "copies") < share)
    root = (draw(images, 1, seed, "copies") ** 2 * roots).astype(np.int64) * COPY_STRIDE
    cumulative = np.cumsum(_EDIT_WEIGHT)
    u = draw(images, 2, seed, "copies") * cumulative[-1]
    kind = np.searchsorted(cumulative, u, side="right").astype(np.int8)
    return Copies(np.where(is_copy, root, images), np.where(is_copy, kind, 0).astype(np.int8))


@dataclass(frozen=True)
class Contents:
    """What pictures show.

    Attributes:
        sense: int32 (n, MAX_VISIBLE + 1), senses visible in each, -1 for none.
        interest: int32 (n, 2), true interests, -1 for no second one.
    """

    sense: NDArray[np.int32]
    interest: NDArray[np.int32]


class World:
    """Draws contents, embeddings and annotations over one dictionary."""

    def __init__(self, terms: PlantedTerms, seed: int) -> None:
        self.terms = terms
        self.seed = seed
        self.width = terms.sense_direction.shape[1]
        num_senses = np.bincount(terms.sense_term, minlength=len(terms.text))
        shown = terms.weight * terms.purity
        of_sense = shown[terms.sense_term] / num_senses[terms.sense_term]
        self._cumulative = np.cumsum(of_sense)
        bounds = np.arange(len(terms.interest_names) + 1)
        edges = np.searchsorted(terms.sense_interest, bounds)
        self._bound = np.r_[0.0, self._cumulative][edges]
        self._noise = np.cumsum(terms.weight * (1.0 - terms.purity))
        self._noise_ratio = self._noise[-1] / self._cumulative[-1]

    def contents(self, content: NDArray[np.int64]) -> Contents:
        """The first sense is drawn by frequency, the others within its interest.

        So each visible term's frequency is proportional to weight * purity.
        """
        n = len(content)
        sense = np.full((n, MAX_VISIBLE + 1), -1, np.int32)
        count = 1 + (draw(content, 0, self.seed, "contents") * MAX_VISIBLE).astype(int)
        sense[:, 0] = self._sense(draw(content, 1, self.seed, "contents") * self._cumulative[-1])
        interest = np.full((n, 2), -1, np.int32)
        interest[:, 0] = self.terms.sense_interest[sense[:, 0]]
        low, high = self._bound[interest[:, 0]], self._bound[interest[:, 0] + 1]
        for slot in range(1, MAX_VISIBLE):
            u = draw(content, 1 + slot, self.seed, "contents")
            drawn = self._sense(low + u * (high - low))
            seen = (sense[:, :slot] == drawn[:, None]).any(axis=1)
            sense[:, slot] = np.where((slot < count) & ~seen, drawn, -1)
        second = self._sense(draw(content, 8, self.seed, "contents") * self._cumulative[-1])
        has_second = draw(content, 9, self.seed, "contents") < _SECOND_INTEREST
        has_second &= self.terms.sense_interest[second] != interest[:, 0]
        # a word shown in two senses at once would be no polysemy
        shown = np.where(sense[:, :-1] >= 0, self.terms.sense_term[sense[:, :-1]], -1)
        has_second &= ~(shown == self.terms.sense_term[second][:, None]).any(axis=1)
        sense[:, MAX_VISIBLE] = np.where(has_second, second, -1)
        interest[:, 1] = np.where(has_second, self.terms.sense_interest[second], -1)
        return Contents(sense, interest)

    def _sense(self, place: NDArray[np.float64]) -> NDArray[np.int32]:
        found = np.searchsorted(self._cumulative, place, side="right")
        return np.minimum(found, len(self._cumulative) - 1).astype(np.int32)

    def embeddings(self, content: NDArray[np.int64], contents: Contents) -> NDArray[np.float64]:
        """Sum of the visible directions plus noise of the content; float64 (n, width)."""
        vectors = _NOISE_SCALE * normals(content, self.width, self.seed, "embedding")
        for slot in range(contents.sense.shape[1]):
            has = contents.sense[:, slot] >= 0
            vectors[has] += self.terms.sense_direction[contents.sense[has, slot]]
        return vectors

    def edited(
        self,
        vectors: NDArray[np.float64],
        numbers: NDArray[np.int64],
        edit: NDArray[np.int8],
        stream: str,
    ) -> NDArray[np.float32]:
        """Embeddings after an edit, at the cosine of ``EDIT_COSINE`` to the original's."""
        cosine = np.array([EDIT_COSINE[e] for e in EDITS])[edit]
        noise = normals(numbers, self.width, self.seed, stream)
        norm = np.einsum("nd,nd->n", vectors, vectors)
        along = np.einsum("nd,nd->n", vectors, noise) / norm
        noise -= along[:, None] * vectors
        length = np.sqrt(norm / np.einsum("nd,nd->n", noise, noise))
        tangent = np.sqrt(1.0 - cosine**2) / cosine * length
        moved: NDArray[np.float64] = vectors + tangent[:, None] * noise
        return moved.astype(np.float32)

    def annotations(
        self, images: NDArray[np.int64], contents: Contents
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
        """What the keyword model says of each image.

        Returns:
            position int64 (m,), term_id int32 (m,), score float32 (m,), ascending by (position,
            term_id), no repeats.
        """
        columns = [self._visible_terms(images, contents), self._noise_terms(images)]
        columns += [self._odd_terms(images)]
        term = np.concatenate(columns, axis=1)
        score = np.stack(
            [self._score(images, slot, term[:, slot]) for slot in range(term.shape[1])], axis=1
        )
        position, slot = np.nonzero(term >= 0)
        flat_term, flat_score = term[position, slot], score[position, slot]
        order = np.lexsort((-flat_score, flat_term, position))
        position, flat_term = position[order].astype(np.int64), flat_term[order]
        pair = position * len(self.terms.text) + flat_term
        best = np.r_[True, pair[1:] != pair[:-1]][: len(pair)]
        return position[best], flat_term[best], flat_score[order][best]

    def _visible_terms(self, images: NDArray[np.int64], contents: Contents) -> NDArray[np.int32]:
        """Terms of the visible senses; one in twenty goes unsaid, some are said by an alias."""
        term = np.where(contents.sense >= 0, self.terms.sense_term[contents.sense], -1)
        aliases = self.terms.of_kind("alias")
        alias_of = np.full(len(self.terms.text), -1, np.int32)
        alias_of[self.terms.canonical[aliases]] = aliases
        for slot in range(term.shape[1]):
            u = draw(images, slot, self.seed, "said")
            spoken = np.where((u < 0.2) & (term[:, slot] >= 0), alias_of[term[:, slot]], -1)
            term[:, slot] = np.where(spoken >= 0, spoken, term[:, slot])
            term[u >= 0.95, slot] = -1
        return term.astype(np.int32)

    def _noise_terms(self, images: NDArray[np.int64]) -> NDArray[np.int32]:
        """Terms said of an image that need not show them, in proportion to weight * (1 - purity).

        A mean of ``noise ratio * visible terms`` makes a term's share of true images its purity.
        """
        term = np.full((len(images), MAX_NOISE), -1, np.int32)
        mean = min(self._noise_ratio * 0.95 * (1 + MAX_VISIBLE) / 2, float(MAX_NOISE))
        wanted = np.floor(mean + draw(images, 100, self.seed, "noise"))
        for slot in range(MAX_NOISE):
            u = draw(images, slot, self.seed, "noise") * self._noise[-1]
            found = np.searchsorted(self._noise, u, side="right").astype(np.int32)
            term[:, slot] = np.where(slot < wanted, np.minimum(found, len(self._noise) - 1), -1)
        return term

    def _odd_terms(self, images: NDArray[np.int64]) -> NDArray[np.int32]:
        """One image in eight gets a term that selection must remove."""
        odd = self.terms.of_kind("foreign", "sensitive", "sensitive_alias", "look_alike")
        pick = odd[(draw(images, 1, self.seed, "odd") * len(odd)).astype(int)]
        return np.where(draw(images, 0, self.seed, "odd") < 0.125, pick, -1)[:, None].astype(
            np.int32
        )

    def _score(
        self, images: NDArray[np.int64], slot: int, term: NDArray[np.int32]
    ) -> NDArray[np.float32]:
        """0.65 to 1 whether shown or not, so that purity holds at any threshold; a tenth is low."""
        u = draw(images, slot, self.seed, "score")
        low = draw(images, slot + 64, self.seed, "score") < 0.1
        score = np.where(low, 0.05 + 0.4 * u, 1.0 - 0.35 * u**2)
        return np.where(term >= 0, score, 0.0).astype(np.float32)
