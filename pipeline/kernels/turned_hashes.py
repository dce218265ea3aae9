"""Perceptual hashes of all flips and turns of a picture, from its stored thumbnail.

Turned copies are found by comparing the eight hashes of one picture with the one of another. A copy
in a frame, or between bars, has no hash near its original's: so the hashes of what the frame
encloses stand beside those of the whole.

Source: SPEC-dataset N7.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.kernels.fingerprints import GREY_SIDE, phash_grey
from pipeline.kernels.pair_search import NUM_TURNS, turned

_FRAME_TOLERANCE = 16
"""Grey levels within which a row of a frame is of one colour: JPEG's ringing at an edge."""
_LEAST_SIDE = 24
"""Pixels of the thumbnail that a frame must leave on either side."""


def turned_hashes(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Perceptual hashes of the eight turns.

    The thumbnail is halved by averaging, so a hash differs from imagehash's (Lanczos from the whole
    picture) in some bits: compare these with each other, never with the column `phash`.

    Args:
        thumbnails: uint8 (n, 64, 64).

    Returns:
        uint64 (n, 8), in the order of `pipeline.kernels.pair_search.turned`; column 0 is upright.
    """
    n = len(thumbnails)
    halves = thumbnails.reshape(n, GREY_SIDE, 2, GREY_SIDE, 2).astype(np.uint16).sum(axis=(2, 4))
    small = turned(((halves + 2) // 4).astype(np.uint8)).reshape(-1, GREY_SIDE, GREY_SIDE)
    return phash_grey(small)[0].reshape(n, NUM_TURNS)


def framed_hashes(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """`turned_hashes` of pictures, and those of what their frames enclose.

    Args:
        thumbnails: uint8 (n, 64, 64).

    Returns:
        uint64 (n, 16): eight of the whole, eight of the inside; the same eight twice where a
        picture has no frame.
    """
    whole = turned_hashes(thumbnails)
    inside = whole.copy()
    boxes = enclosed(thumbnails)
    framed = np.flatnonzero((boxes != (0, 0, *thumbnails.shape[1:])).any(axis=1))
    if len(framed):
        size = (GREY_SIDE, GREY_SIDE)
        cut = [
            Image.fromarray(thumbnails[row]).resize(size, Image.Resampling.BOX, box=box)
            for row, box in zip(framed, boxes[framed].tolist(), strict=True)
        ]
        small = turned(np.stack([np.asarray(picture) for picture in cut]))
        hashes = phash_grey(small.reshape(-1, GREY_SIDE, GREY_SIDE))[0]
        inside[framed] = hashes.reshape(len(framed), NUM_TURNS)
    return np.concatenate([whole, inside], axis=1)


def enclosed(pictures: NDArray[np.uint8]) -> NDArray[np.int64]:
    """What is left without rows and columns of one colour at the sides.

    Args:
        pictures: uint8 (n, h, w).

    Returns:
        int64 (n, 4): left, top, right, bottom, the last two exclusive; the whole picture where so
        little would be left that it is no picture in a frame.
    """
    height, width = pictures.shape[1:]
    left, right = _margins(pictures.transpose(0, 2, 1))
    top, bottom = _margins(pictures)
    boxes = np.stack([left, top, width - right, height - bottom], axis=1)
    is_small = (boxes[:, 2:] - boxes[:, :2] < _LEAST_SIDE).any(axis=1)
    boxes[is_small] = (0, 0, width, height)
    return boxes


def _margins(pictures: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of one colour at the first side and at the last, each of the colour of its edge."""
    wide = pictures.astype(np.int16)
    found = []
    for edge in (0, -1):
        near = np.abs(wide - wide[:, edge, :1, None]).max(axis=2) <= _FRAME_TOLERANCE
        from_edge = near if edge == 0 else near[:, ::-1]
        found.append(np.cumprod(from_edge, axis=1).sum(axis=1))
    return found[0], found[1]


def turned_distance(
    a: NDArray[np.uint64], b: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Least Hamming distance of pairs over the turns, taken both ways round.

    Args:
        a: uint64 (n, 8), `turned_hashes` of one picture of each pair; or (n, 16), `framed_hashes`.
        b: of the other, likewise.

    Returns:
        distance: int64 (n,), 0 to 64; the same when a and b change places.
        turn: int64 (n,), the turn of ``a`` whose hash is nearest to upright ``b``.
    """
    there = np.bitwise_count(a ^ b[:, :1]).astype(np.int64)
    back = np.bitwise_count(b ^ a[:, :1]).astype(np.int64)
    return np.minimum(there.min(axis=1), back.min(axis=1)), there.argmin(axis=1)
