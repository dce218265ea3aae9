"""Whether two pictures are near-duplicates by the calibrated model, over stored thumbnails.

Two steps, both functions of the two pictures alone. *Related* asks the cheap signals, hashes over
the eight turns and the cosine: it says what the search proposes as a candidate. *Verified* lays one
thumbnail on the other (``pair_signals``) and asks the model. Both hold in the search and again
where a member of a group is compared with the kept image, so the two agree.

Cost: some 400 verified pairs a second and core; a related pair that is not verified costs nothing.

Source: SPEC-dataset N4, N7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.fingerprints import THUMBNAIL_SIDE
from pipeline.kernels.groups import NONE, VERIFIED, Match, Verifier
from pipeline.kernels.pair_model import PairModel
from pipeline.kernels.pair_search import NUM_TURNS
from pipeline.kernels.pair_signals import pair_signals
from pipeline.kernels.turned_hashes import turned_distance
from pipeline.kernels.vectors import row_products

U8 = NDArray[np.uint8]
U64 = NDArray[np.uint64]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class PairRule:
    """What makes a pair a candidate and a candidate a near-duplicate.

    Attributes:
        model: of the signals.
        min_probability: from which a pair is taken.
        radius: greatest Hamming distance of a candidate; None switches the tier off.
        is_turned: whether the hashes of all eight turns count, or the upright ones alone.
        tau: least cosine of a candidate; None switches the tier off.
    """

    model: PairModel
    min_probability: float
    radius: int | None
    is_turned: bool
    tau: float | None

    def is_related(
        self, distance: I64, cosine: F64, is_flat: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Whether cheap signals make pairs candidates, bool (n,).

        Args:
            distance: int64 (n,), Hamming.
            cosine: float64 (n,), NaN where there is none.
            is_flat: bool (n,), whether a picture of the pair is flat: it has no hash.
        """
        related = np.zeros(len(distance), np.bool_)
        if self.radius is not None:
            related |= (distance <= self.radius) & ~is_flat
        if self.tau is not None:
            related |= np.nan_to_num(cosine, nan=-2.0) >= self.tau
        return related

    def probability(self, a: U8, b: U8, distance: I64, cosine: F64) -> F32:
        """Chance that each pair is one picture, float32 (n,) in [0, 1], rounded to 2^-20.

        Args:
            a: uint8 (n, 64, 64), thumbnails.
            b: uint8 (n, 64, 64).
            distance: int64 (n,), least Hamming distance over the eight turns.
            cosine: float64 (n,), NaN where there is none.
        """
        chance = self.model.predict(pair_signals(a, b, distance, cosine))
        return np.asarray(np.round(chance * _STEPS) / _STEPS, np.float32)

    def accepts(self, probability: F32) -> NDArray[np.bool_]:
        """Whether pairs of these probabilities are near-duplicates, bool (n,)."""
        return np.asarray(probability >= np.float32(self.min_probability))


_STEPS = float(1 << 20)
"""Probabilities are written in steps that float32 holds, and so does 1 - probability."""


@dataclass(frozen=True)
class PictureVerifier(Verifier):
    """Two images match if their bytes do, or if they are related and the model says so.

    Rows ascend by image_id within what is compared: the model sees the smaller one first, as in the
    search, so that both round alike.

    Attributes:
        thumbnails: uint8 (n, 64, 64).
        hashes: uint64 (n, 16), ``framed_hashes`` of them.
        rule: what counts; ``radius`` and ``tau`` of the base class are not asked.
    """

    thumbnails: U8 | None = None
    hashes: U64 | None = None
    rule: PairRule | None = None

    def match(self, one: I64, two: I64) -> Match:
        """Strongest tier by which images match; the distance of a verified pair is 1 - chance."""
        assert self.thumbnails is not None
        assert self.rule is not None
        found = Verifier(self.sha256, self.phash, self.is_flat).match(one, two)
        rows = np.flatnonzero(found.tier == NONE)
        distance, cosine = self._cheap(one[rows], two[rows])
        turned, bits = distance
        is_flat = self.is_flat[one[rows]] | self.is_flat[two[rows]]
        related = self.rule.is_related(bits, cosine, is_flat)
        rows, turned, cosine = rows[related], turned[related], cosine[related]
        first, second = np.minimum(one[rows], two[rows]), np.maximum(one[rows], two[rows])
        a, b = self.thumbnails[first], self.thumbnails[second]
        chance = self.rule.probability(a, b, turned, cosine)
        taken = self.rule.accepts(chance)
        found.tier[rows[taken]] = VERIFIED
        found.distance[rows[taken]] = 1 - chance[taken]
        return found

    def _cheap(self, one: I64, two: I64) -> tuple[tuple[I64, I64], F64]:
        """Hamming distances over the turns, which the model asks for, and of the search, which has
        frames cut off and may leave turns out; cosines."""
        assert self.hashes is not None
        assert self.rule is not None
        a, b = self.hashes[one], self.hashes[two]
        turned, _ = turned_distance(a[:, :NUM_TURNS], b[:, :NUM_TURNS])
        step = 1 if self.rule.is_turned else NUM_TURNS
        searched, _ = turned_distance(a[:, ::step], b[:, ::step])
        return (turned, searched), cosines(self.vectors, one, two)


def cosines(vectors: F32 | None, one: I64, two: I64) -> F64:
    """Cosines of pairs of unit rows, float64 (n,); NaN where one of them is zero or unknown."""
    if vectors is None:
        return np.full(len(one), np.nan)
    known = np.any(vectors != 0, axis=1)
    cosine = row_products(vectors, vectors, one, two)
    return np.where(known[one] & known[two], cosine, np.nan)


def as_thumbnails(values: Sequence[bytes]) -> U8:
    """Thumbnails stored row by row as uint8 (n, 64, 64).

    Raises:
        ValueError: one of another size.
    """
    side = THUMBNAIL_SIDE
    wrong = next((len(v) for v in values if len(v) != side * side), None)
    if wrong is not None:
        raise ValueError(
            f"image_fingerprints.thumbnail: {wrong} bytes, expected {side * side}. "
            "Run fingerprint_images anew."
        )
    return np.frombuffer(b"".join(values), np.uint8).reshape(-1, side, side)
