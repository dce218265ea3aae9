"""The shared pool of negatives of the concreteness probes, and the draw from it.

One random pool of images serves every term, so that negatives cost no join of the embedding table.
A pool image is no negative of a term it carries at ANY score, itself or through an alias, nor of a
term it is a positive of. Images are known by a 64-bit hash of their image_id, so the draw does not
depend on the order of the pool.

Source: SPEC C1, C3; paper section 3.2.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.concreteness_features import Preparation
from pipeline.kernels.finite import require_finite
from pipeline.kernels.hashing import hash_ints

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class NegativePool:
    """Standardised pool in the order of its image hashes, with an index from term to rows.

    Attributes:
        image_hashes: uint64 (P,), ascending.
        features: float32 (P + 1, c), prepared by the pool's own statistics; the last row is zero
            and stands for padding.
        preparation: how raw embeddings become features.
        term_offsets: int64 (max_term + 2,), into term_rows.
        term_rows: int32, pool rows that carry the canonical term.
        canonical: int32 (n_terms,) canonical term of each term, or None if all are their own.
    """

    image_hashes: NDArray[np.uint64]
    features: NDArray[np.float32]
    preparation: Preparation
    term_offsets: NDArray[np.int64]
    term_rows: NDArray[np.int32]
    canonical: NDArray[np.int32] | None

    @classmethod
    def build(
        cls,
        image_hashes: NDArray[np.integer],
        embeddings: NDArray[np.floating],
        offsets: NDArray[np.integer],
        term_ids: NDArray[np.integer],
        canonical: NDArray[np.integer] | None = None,
        max_components: int = 0,
    ) -> NegativePool:
        """Sort, prepare and index a pool.

        The statistics are the pool's, not the term's: they are the same in every task, cost
        nothing per term, and let no test row into the training of its own probe.

        Args:
            image_hashes: (P,) 64-bit hashes of image_id, signed or unsigned, without repeats.
            embeddings: (P, d), finite; zero vectors are allowed.
            offsets: (P + 1,), image i carries term_ids[offsets[i]:offsets[i + 1]], at any score.
            term_ids: flat, >= 0.
            canonical: (n_terms,) canonical term of each term_id; terms beyond it are their own.
            max_components: principal components kept of wider embeddings; 0 keeps all columns.

        Raises:
            ValueError: lengths that do not fit, repeated images, NaN or infinite rows.
        """
        hashes = np.asarray(image_hashes).astype(np.uint64)
        size = len(hashes)
        if size == 0 or len(embeddings) != size or len(offsets) != size + 1:
            raise ValueError(
                f"negative pool: {size} hashes, {len(embeddings)} embeddings, {len(offsets)} "
                f"offsets; expected P >= 1, P and P + 1."
            )
        require_finite(embeddings, "negative pool embeddings")
        order = np.argsort(hashes, kind="stable")
        if np.any(hashes[order][1:] == hashes[order][:-1]):
            raise ValueError("negative pool: repeated image hash, expected each image once.")
        raw = np.asarray(embeddings, np.float32)[order]
        preparation = Preparation.fit(raw, max_components)
        features = preparation.apply(raw)
        lengths = np.diff(offsets)
        row_of_old = np.empty(size, np.int32)
        row_of_old[order] = np.arange(size, dtype=np.int32)
        rows = np.repeat(row_of_old, lengths)
        own = None if canonical is None else np.asarray(canonical, np.int32)
        terms = to_canonical(np.asarray(term_ids[offsets[0] : offsets[-1]], np.int64), own)
        by_term = np.argsort(terms, kind="stable")
        counts = np.bincount(terms, minlength=1)
        term_offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls(hashes[order], features, preparation, term_offsets, rows[by_term], own)

    @property
    def size(self) -> int:
        """Number of images P."""
        return len(self.image_hashes)

    @cached_property
    def block_starts(self) -> NDArray[np.int64]:
        """First row of each block, int64 (2^b + 1,): a block is the images, 8 to 16 if they are
        not fewer, whose hashes agree in their leading b bits."""
        bits = max((self.size // 8).bit_length() - 1, 0)
        firsts = np.arange(1, 2**bits, dtype=np.uint64) << np.uint64(64 - bits if bits else 0)
        inner = np.searchsorted(self.image_hashes, firsts)
        return np.concatenate([[0], inner, [self.size]]).astype(np.int64)

    @cached_property
    def narrow_features(self) -> Tensor:
        """Features as bfloat16, (P + 1, c)."""
        import torch  # here, for a driver plans the stages that use this module without it

        return torch.from_numpy(self.features).to(torch.bfloat16)

    def rows_with(self, term_id: int) -> NDArray[np.int32]:
        """Rows of the images that carry the term, itself or through an alias."""
        term = int(to_canonical(np.array([term_id]), self.canonical)[0])
        if term + 1 >= len(self.term_offsets):
            return np.zeros(0, np.int32)
        return self.term_rows[self.term_offsets[term] : self.term_offsets[term + 1]]

    def draw(
        self, term_id: int, positives: NDArray[np.uint64], num: int, seed: int
    ) -> NDArray[np.int64]:
        """Negatives of one term: the images with the lowest hash of (seed, term, image).

        The hash is that of the image's block, then its own. A term so hashes the blocks, an eighth
        to a sixteenth of the images, and the images of the few blocks it needs, in place of all.
        Blocks are of images alike in nothing but their hashes.

        Args:
            term_id: the term.
            positives: image hashes that are never drawn, any order.
            num: how many are wanted.
            seed: of the run.

        Returns:
            int64 rows of the pool, at most ``num``, in the order of the hash; fewer if the pool
            has fewer images without the term.
        """
        own, carried = np.sort(positives), self.rows_with(term_id)
        num_blocks = len(self.block_starts) - 1
        hashes = sample_hashes(
            np.arange(num_blocks, dtype=np.uint64), term_id, seed, "concreteness.negative_blocks"
        )
        eligible = max(self.size - len(carried), 1) / num_blocks  # of a block, about
        taken = int(1.1 * num / eligible) + 8
        while True:
            blocks = _lowest(hashes, min(taken, num_blocks))
            rows, place = self._rows_of(blocks)
            free = ~_is_among(self.image_hashes[rows], own)
            if len(carried):
                free &= ~np.isin(rows, carried)
            if taken >= num_blocks or np.count_nonzero(free) >= num:
                break
            taken *= 2
        rows, place = rows[free], place[free]
        each = sample_hashes(self.image_hashes[rows], term_id, seed, "concreteness.negatives")
        return rows[np.lexsort((each, place))[:num]]

    def _rows_of(self, blocks: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of blocks, one block after the other, and the place of each row's block."""
        starts = self.block_starts[blocks]
        lengths = self.block_starts[blocks + 1] - starts
        place = np.repeat(np.arange(len(blocks)), lengths)
        ends = np.cumsum(lengths)
        return np.arange(len(place)) + (starts - ends + lengths)[place], place


def _is_among(values: NDArray[np.uint64], ascending: NDArray[np.uint64]) -> NDArray[np.bool_]:
    if len(ascending) == 0:
        return np.zeros(len(values), bool)
    at = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.equal(ascending[at], values)


def to_canonical(
    terms: NDArray[np.integer], canonical: NDArray[np.int32] | None
) -> NDArray[np.int64]:
    """Canonical term of each term; terms beyond the array are their own."""
    out = np.asarray(terms, np.int64).copy()
    if canonical is not None and len(canonical):
        known = out < len(canonical)
        out[known] = canonical[out[known]]
    return out


def sample_hashes(
    image_hashes: NDArray[np.uint64],
    term_ids: int | NDArray[np.integer],
    seed: int,
    stream: str,
) -> NDArray[np.uint64]:
    """Hash of (seed, term, image) for each image; ``term_ids`` is one term or one per image."""
    keys = hash_ints(np.asarray(term_ids, np.int64), seed, stream)
    return hash_ints(image_hashes ^ keys, seed, stream)


def _lowest(hashes: NDArray[np.uint64], num: int) -> NDArray[np.int64]:
    """Positions of the ``num`` smallest hashes, ascending, ties by position."""
    if num == 0:
        return np.zeros(0, np.int64)
    # Uniform hashes: a cut at the expected share plus six deviations holds enough rows nearly
    # always, and sorting those few is ten times cheaper than a partition of the whole pool.
    share = (num + 6 * num**0.5 + 6) / len(hashes)
    if share < 0.5:
        rows = np.flatnonzero(hashes < np.uint64(int(share * 2.0**64)))
        if len(rows) >= num:
            return rows[np.argsort(hashes[rows], kind="stable")[:num]]
    return np.argsort(hashes, kind="stable")[:num]
