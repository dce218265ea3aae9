"""Labelled pairs from edit families, to fit and to judge the verifier of near-duplicates.

Photos are made into families (`pipeline.kernels.edits`); every edited copy is a query, every
original a member of the base, and so is a *pool* of further pictures. The pool is what makes a
verifier strict: among thousands of pictures some look alike without being one. Candidates come from
two tiers, perceptual hashes over the eight turns and neighbours by cosine, capped by query. A pair
is right if the copy was made from that original.

`pipeline.demo.fit_pairs` fits models on them.

Source: SPEC-dataset N7.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from typing import Final, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from pipeline.config.images import NearDuplicateParams
from pipeline.demo.records import family_of
from pipeline.kernels.edits import EDITS, TURNS, edit_family, sample_photos
from pipeline.kernels.fingerprints import THUMBNAIL_SIDE, fingerprint_images
from pipeline.kernels.image_headers import ImageLimits
from pipeline.kernels.pair_candidates import cap_candidates, cosine_candidates, hash_candidates
from pipeline.kernels.pair_model import PairModel, fit_pair_model
from pipeline.kernels.pair_search import NUM_TURNS
from pipeline.kernels.pair_signals import pair_signals
from pipeline.kernels.turned_hashes import framed_hashes, turned_distance

COPIES: Final = (*EDITS, *TURNS)
MODELS: Final = "pair_models.jsonl"
"""Packaged models beside the demo corpus, one a line: with the cosine and without."""
NUM_PHOTOS: Final = 120
"""Photos that models are fitted on."""
NUM_POOL: Final = 2000
"""Further pictures that the copies are compared with."""
IMAGE_SIZE: Final = 96
"""Side of the encoder's input, pixels; its own 224 costs five times as much."""
MAX_HAMMING: Final = 8
NUM_NEAREST: Final = 8
MAX_CANDIDATES: Final = 10
_LIMITS: Final = ImageLimits(max_bytes=1 << 26, max_pixels=10**8)

Encode = Callable[[Iterable[Image.Image]], NDArray[np.float32]]
Tier = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Query, base and order of proposed pairs, as `cap_candidates` takes them."""


class Families(NamedTuple):
    """Fingerprints of families; column 0 is the original, the others are ``COPIES``.

    Attributes:
        thumbnails: uint8 (n, 24, 64, 64).
        vectors: float32 (n, 24, d), of length one.
    """

    thumbnails: NDArray[np.uint8]
    vectors: NDArray[np.float32]


class Searched(NamedTuple):
    """What the tiers compare: uint64 (n, 16) ``framed_hashes``, float32 (n, d) unit vectors."""

    hashes: NDArray[np.uint64]
    vectors: NDArray[np.float32]


class Limits(NamedTuple):
    """Radius of the perceptual tier in bits, neighbours of the semantic tier."""

    max_hamming: int
    num_nearest: int


Propose = Callable[[Searched, Searched, Limits], list[Tier]]
"""From queries, base and limits to the pairs of each tier."""


def compare_all(queries: Searched, base: Searched, limits: Limits) -> list[Tier]:
    """Every query with all of the base: what a distributed search is judged by."""
    return [
        hash_candidates(queries.hashes, base.hashes[:, 0], limits.max_hamming),
        cosine_candidates(queries.vectors, base.vectors, limits.num_nearest),
    ]


class Pool(NamedTuple):
    """Fingerprints of pictures that no query was made from.

    Attributes:
        thumbnails: uint8 (m, 64, 64).
        vectors: float32 (m, d), of length one.
    """

    thumbnails: NDArray[np.uint8]
    vectors: NDArray[np.float32]


class Pairs(NamedTuple):
    """Candidate pairs with their signals.

    Attributes:
        photo: int64 (m,), family of the query.
        copy: int64 (m,), which of ``COPIES`` the query is.
        base: int64 (m,), family of the original it is compared with; from the number of families
            on a picture of the pool.
        signals: float32 (m, signals).
        overflow: candidates that the cap cut off, in all.
        shape: number of families and of copies of each.
    """

    photo: NDArray[np.int64]
    copy: NDArray[np.int64]
    base: NDArray[np.int64]
    signals: NDArray[np.float32]
    overflow: int
    shape: tuple[int, int]

    @property
    def is_same(self) -> NDArray[np.bool_]:
        """Whether each query was made from that original."""
        return np.equal(self.photo, self.base)


def make_families(pictures: Sequence[bytes], encode: Encode) -> Families:
    """Edit every picture and fingerprint the copies as the stages do.

    Args:
        pictures: n files.
        encode: RGB pictures -> float32 (n, d).

    Raises:
        ValueError: a picture has no fingerprint.
    """
    files: list[bytes] = []
    for data in pictures:
        files += [data, *edit_family(_opened(data), COPIES).values()]
    found = make_pool(files, encode)
    shape = (len(pictures), 1 + len(COPIES))
    square = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return Families(found.thumbnails.reshape(*shape, *square), found.vectors.reshape(*shape, -1))


def make_pool(pictures: Sequence[bytes], encode: Encode) -> Pool:
    """Fingerprint pictures as the stages do.

    Args:
        pictures: m files.
        encode: RGB pictures -> float32 (n, d).

    Raises:
        ValueError: a picture has no fingerprint.
    """
    found = fingerprint_images(pictures, _LIMITS)
    if found.reasons:
        raise ValueError(f"edit families: {found.reasons[0]} at file {found.rejected_rows[0]}.")
    flat = b"".join(found.table["thumbnail"].to_pylist())
    vectors = encode(map(_opened, pictures))
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    thumbnails = np.frombuffer(flat, np.uint8).reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return Pool(thumbnails, vectors.astype(np.float32))


def _opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def candidate_pairs(
    families: Families,
    pool: Pool | None = None,
    max_hamming: int = MAX_HAMMING,
    num_nearest: int = NUM_NEAREST,
    max_candidates: int = MAX_CANDIDATES,
    propose: Propose | None = None,
) -> Pairs:
    """Candidates of every copy among the originals and the pool, and their signals.

    Args:
        families: of n photos.
        pool: pictures of which no query is a copy; None for none.
        max_hamming: radius of the perceptual tier, bits.
        num_nearest: neighbours of the semantic tier.
        max_candidates: of one copy, over both tiers.
        propose: the search; None compares all with all.
    """
    photos, columns = families.thumbnails.shape[:2]
    queries = families.thumbnails[:, 1:].reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    originals, known = families.thumbnails[:, 0], families.vectors[:, 0]
    if pool is not None:
        originals = np.concatenate([originals, pool.thumbnails])
        known = np.concatenate([known, pool.vectors])
    vectors = families.vectors[:, 1:].reshape(len(queries), -1)
    hashes, base_hashes = framed_hashes(queries), framed_hashes(originals)
    limits = Limits(max_hamming, num_nearest)
    search = propose or compare_all
    tiers = search(Searched(hashes, vectors), Searched(base_hashes, known), limits)
    query, base, overflow = cap_candidates(tiers, len(queries), max_candidates)
    judged = ~_is_unknown(query // (columns - 1), base, base_hashes, known, photos)
    query, base = query[judged], base[judged]
    distance, _ = turned_distance(hashes[query, :NUM_TURNS], base_hashes[base, :NUM_TURNS])
    cosine = np.einsum("nd,nd->n", vectors[query], known[base])
    signals = pair_signals(queries[query], originals[base], distance, cosine)
    photo, copy = np.divmod(query, columns - 1)
    return Pairs(photo, copy, base, signals, int(overflow.sum()), (photos, columns - 1))


def _is_unknown(
    photo: NDArray[np.int64],
    base: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    vectors: NDArray[np.float32],
    num_photos: int,
) -> NDArray[np.bool_]:
    """Pairs with a picture of the pool that one signal alone takes for the photo itself.

    Nobody looked whether it is: collections hold a drawing under two names. Such a pair is neither
    right nor wrong.
    """
    limits = NearDuplicateParams()
    distance, _ = turned_distance(hashes[photo], hashes[base])
    cosine = np.einsum("nd,nd->n", vectors[photo], vectors[base])
    alike = (distance <= limits.max_hamming) | (cosine >= limits.min_cosine)
    return np.asarray(alike & (base >= num_photos))


def fit(
    pairs: Pairs,
    num_hidden: int = 0,
    words: str = "",
    encoder: str = "",
) -> PairModel:
    """The verifier fitted on candidates.

    A photo whose query finds another photo's original stands in one fold with its query.

    Args:
        pairs: candidates of families.
        num_hidden: units of the hidden layer.
        words: kept in the model.
        encoder: whose cosines the signals hold; empty for a model that reads no cosine.
    """
    return fit_pair_model(
        pairs.signals,
        pairs.is_same,
        pairs.photo,
        num_hidden=num_hidden,
        trained_on=words,
        encoder=encoder,
    )


def demo_pictures(num_photos: int, seed: int) -> list[bytes]:
    """Pictures of the demo corpus, one of each group of skin-tone variants."""
    return demo_and_pool(num_photos, 0, seed)[0]


def demo_and_pool(num_photos: int, num_pool: int, seed: int) -> tuple[list[bytes], list[bytes]]:
    """The same, and others of the corpus, again one of each group."""
    file = resources.files("pipeline.demo") / "data" / "images.parquet"
    with resources.as_file(file) as path:
        table = pq.read_table(path, columns=["image_id", "bytes"])
    ids = table["image_id"].to_pylist()
    rows = [row for row, image_id in enumerate(ids) if family_of(image_id) == image_id]
    taken = sample_photos([ids[row] for row in rows], num_photos, seed)
    photos = [rows[at] for at in taken]
    others = np.setdiff1d(rows, photos)
    drawn = sample_photos([ids[row] for row in others], num_pool, seed)
    pool = [int(others[at]) for at in drawn]
    first, second = ([table["bytes"][row].as_py() for row in some] for some in (photos, pool))
    return first, second
