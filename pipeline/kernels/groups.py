"""Which image of a group of near-duplicates is kept, and a guard against drift along chains.

Near-duplicate is not transitive: a component may be a chain whose ends share nothing. So a member
is dropped only if it verifies against the image that is kept, not against a neighbour. Components
are peeled: the best image is kept and takes the members that verify against it; the best of the
others is kept next, and so on. An image that verifies against nobody better is kept.

Source: SPEC-dataset N4 (drift), N5 (kept image).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.kernels.vectors import row_products

EXACT, PERCEPTUAL, SEMANTIC, VERIFIED, NONE = 0, 1, 2, 3, -1
"""Tiers by strength; ``TIER_NAMES[tier]``. NONE: two images do not match."""
TIER_NAMES = ("exact", "perceptual", "semantic", "verified")


class Match(NamedTuple):
    """How two images match: strongest tier int8 (n,) and its distance float32 (n,).

    Distance: 0 for exact, Hamming for perceptual, 1 - cosine for semantic, 1 - probability for
    verified (``pair_verifier``), NaN for none.
    """

    tier: NDArray[np.int8]
    distance: NDArray[np.float32]


class Peeled(NamedTuple):
    """Result of ``peel_groups``, one entry for each row.

    Attributes:
        kept: int64, position of the image kept for this row (its own if it is kept).
        tier: int8, how it matches the kept image; NONE for the kept image itself.
        distance: float32, 0 for the kept image itself.
        round: int32, 0 for the group of the component's best image, 1 for the next, ...
    """

    kept: NDArray[np.int64]
    tier: NDArray[np.int8]
    distance: NDArray[np.float32]
    round: NDArray[np.int32]


@dataclass(frozen=True)
class Verifier:
    """What decides whether two images are near-duplicates. All arrays have one entry an image.

    Attributes:
        sha256: content hashes as integers or codes: equal if and only if the bytes are.
        phash: uint64 (n,).
        is_flat: bool (n,): such an image does not match by hash.
        radius: greatest Hamming distance; None switches the tier off.
        vectors: float32 (n, d), unit rows; zero rows match nothing; None switches the tier off.
        tau: least cosine.
    """

    sha256: NDArray[np.int64]
    phash: NDArray[np.uint64]
    is_flat: NDArray[np.bool_]
    radius: int | None = None
    vectors: NDArray[np.float32] | None = None
    tau: float = 1.0

    def match(self, one: NDArray[np.int64], two: NDArray[np.int64]) -> Match:
        """Strongest tier by which the images at positions ``one`` and ``two`` match."""
        tier = np.full(len(one), NONE, dtype=np.int8)
        distance = np.full(len(one), np.nan, dtype=np.float32)
        if self.vectors is not None:
            cosine = row_products(self.vectors, self.vectors, one, two)
            near = cosine >= self.tau
            tier[near] = SEMANTIC
            distance[near] = np.maximum(1.0 - cosine[near], 0.0)
        if self.radius is not None:
            bits = np.bitwise_count(self.phash[one] ^ self.phash[two])
            near = (bits <= self.radius) & ~self.is_flat[one] & ~self.is_flat[two]
            tier[near] = PERCEPTUAL
            distance[near] = bits[near]
        same = self.sha256[one] == self.sha256[two]
        tier[same] = EXACT
        distance[same] = 0.0
        return Match(tier, distance)


def keep_order(
    is_blocked: NDArray[np.bool_],
    area: NDArray[np.int64],
    num_labels: NDArray[np.int64],
    sha256: pa.Array,
    image_id: pa.Array,
) -> NDArray[np.int64]:
    """Positions from the first to keep to the last.

    Not blocked > larger area > more labels > lowest sha256 > lowest image_id (UTF-8 bytes).

    Returns:
        int64 (n,), a permutation.
    """
    table = pa.table(
        {
            "is_blocked": pa.array(is_blocked).cast(pa.int8()),
            "area": area,
            "num_labels": num_labels,
            "sha256": sha256,
            "image_id": image_id,
        }
    )
    keys = [
        ("is_blocked", "ascending"),
        ("area", "descending"),
        ("num_labels", "descending"),
        ("sha256", "ascending"),
        ("image_id", "ascending"),
    ]
    return np.asarray(pc.sort_indices(table, sort_keys=keys).to_numpy(), dtype=np.int64)


def choose_kept(group: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """The kept image of each row's group, without the drift guard.

    Args:
        group: int64 (n,), group of each row.
        order: int64 (n,), from ``keep_order``.

    Returns:
        int64 (n,): position of the kept row.
    """
    grouped = order[np.argsort(group[order], kind="stable")]
    is_first = np.ones(len(grouped), dtype=np.bool_)
    is_first[1:] = group[grouped[1:]] != group[grouped[:-1]]
    kept = np.empty(len(grouped), dtype=np.int64)
    kept[grouped] = grouped[is_first][np.cumsum(is_first) - 1]
    return kept


def peel_groups(group: NDArray[np.int64], order: NDArray[np.int64], verifier: Verifier) -> Peeled:
    """Split components so that every member verifies against its kept image.

    In each round, and in all components at once, the best remaining row of each component is kept
    and takes the remaining rows that match it. The result follows from the rows alone.

    Equal copies (component and sha256) are one row while peeling, so a million copies of one
    picture cost one comparison a round. Time: remaining rows x rounds; a component needs as many
    rounds as it has kept images.

    Args:
        group: int64 (n,), component of each row.
        order: int64 (n,), from ``keep_order``.
        verifier: signals of the n rows; equal sha256 must come with equal signals.
    """
    copies = _copies(group, verifier.sha256, order)
    kept = np.full(len(group), -1, dtype=np.int64)
    tier = np.full(len(group), NONE, dtype=np.int8)
    distance = np.zeros(len(group), dtype=np.float32)
    round_of = np.zeros(len(group), dtype=np.int32)
    left = order[copies[order] == order]
    left = left[np.argsort(group[left], kind="stable")]
    rounds = 0
    while len(left):
        is_first = np.ones(len(left), dtype=np.bool_)
        is_first[1:] = group[left[1:]] != group[left[:-1]]
        head = left[is_first][np.cumsum(is_first) - 1]
        rows = left[~is_first]
        found = verifier.match(rows, head[~is_first])
        tier[rows], distance[rows] = found.tier, found.distance
        distance[left[is_first]] = 0.0
        taken = is_first | (tier[left] != NONE)
        kept[left[taken]] = head[taken]
        round_of[left[taken]] = rounds
        left = left[~taken]
        rounds += 1
    # What holds of a picture holds of its copies.
    kept, round_of = kept[copies], round_of[copies]
    tier, distance = tier[copies], distance[copies]
    tier[(kept == copies) & (kept != np.arange(len(group)))] = EXACT
    return Peeled(kept, tier, distance, round_of)


def match_blocked(
    group: NDArray[np.int64], is_blocked: NDArray[np.bool_], verifier: Verifier
) -> NDArray[np.bool_]:
    """Whether a row is blocked or matches a blocked row of its component, bool (n,).

    Peeling may put a blocked image and an image that matches it in different groups; opt-outs must
    not depend on that. Time: rows of a component x its blocked rows.

    Args:
        group: int64 (n,), component of each row.
        is_blocked: bool (n,).
        verifier: signals of the n rows.
    """
    found = is_blocked.copy()
    blocked = np.flatnonzero(is_blocked)
    blocked = blocked[np.argsort(group[blocked], kind="stable")]
    starts = np.searchsorted(group[blocked], group)
    number = np.searchsorted(group[blocked], group, side="right") - starts
    for i in range(int(number.max(initial=0))):
        rows = np.flatnonzero((number > i) & ~found)
        tier = verifier.match(rows, blocked[starts[rows] + i]).tier
        found[rows[tier != NONE]] = True
    return found


def spread_blocked(kept: NDArray[np.int64], is_blocked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether a row's group holds a blocked image, bool (n,).

    Args:
        kept: int64 (n,), position of each row's kept image.
        is_blocked: bool (n,).
    """
    holds = np.zeros(len(kept), dtype=np.bool_)
    holds[kept[is_blocked]] = True
    return holds[kept]


def _copies(
    group: NDArray[np.int64], sha256: NDArray[np.int64], order: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Best row with the same component and content, int64 (n,)."""
    by = order[np.lexsort((sha256[order], group[order]))]
    is_first = np.ones(len(by), dtype=np.bool_)
    is_first[1:] = (group[by[1:]] != group[by[:-1]]) | (sha256[by[1:]] != sha256[by[:-1]])
    best = np.empty(len(by), dtype=np.int64)
    best[by] = by[is_first][np.cumsum(is_first) - 1]
    return best
