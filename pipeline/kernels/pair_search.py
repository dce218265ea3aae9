"""Where one thumbnail lies in another: flips, turns, crops and borders, then an affine refinement.

Two steps. A *scan* shrinks the inner picture to a few sizes, turns it eight ways and slides it
over the outer one; the score is normalised cross-correlation, all of it products of matrices over a
batch of pairs. A *refinement* (Gauss-Newton on an affine map, steep residuals weighted down) then
follows what the grid of the scan cannot say: small rotations, borders of one thickness around
pictures that are not square, crops between two sizes.

Positions are in units of half a side: a picture covers [-1, 1] x [-1, 1], x to the right, y down.

Source: SPEC-dataset N7; Lewis 1995 (normalised cross-correlation); Lucas and Kanade 1981, Baker and
Matthews 2004 (compositional alignment).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

NUM_TURNS: Final = 8
SCAN_SIDE: Final = 32
"""Side of the pictures that the scan compares, pixels."""
INNER_SIDES: Final = (32, 30, 28, 26, 24, 22, 20)
"""Sides that the inner picture is shrunk to: shares 1 to 0.62 of the outer one's. Even, so
that windows two pixels apart lie symmetrically."""
_OFFSET_STEP: Final = 2
_EPSILON: Final = 1e-6
_NOISE: Final = 0.25
"""Variance, grey levels squared, added to every window: flat ones must not look alike."""

F32 = NDArray[np.float32]
Pixel = TypeVar("Pixel", bound=np.generic)


class Placement(NamedTuple):
    """Best place of each inner picture in its outer one.

    Attributes:
        score: float32 (n,), normalised cross-correlation in [-1, 1].
        turn: int64 (n,), which of the eight turns of the inner picture (see `turned`).
        warp: float32 (n, 2, 3), affine map from the turned inner picture to the outer one.
        margin: float32 (n,), score less that of the best other turn.
    """

    score: F32
    turn: NDArray[np.int64]
    warp: F32
    margin: F32


def turned(pictures: NDArray[Pixel]) -> NDArray[Pixel]:
    """All flips and turns of square pictures.

    Args:
        pictures: (n, s, s).

    Returns:
        (n, 8, s, s): rotated by 0, 90, 180, 270 degrees, then the same of the mirrored picture.
    """
    mirrored = pictures[:, :, ::-1]
    ways = [np.rot90(p, k, axes=(1, 2)) for p in (pictures, mirrored) for k in range(4)]
    return np.ascontiguousarray(np.stack(ways, axis=1))


@lru_cache(maxsize=64)
def area_weights(size: int, to: int) -> F32:
    """Weights (to, size) of shrinking by exact areas; rows sum to one, symmetric under flips."""
    edges = np.arange(to + 1) * (size / to)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(size)
    covered = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
    return np.asarray(covered / covered.sum(axis=1, keepdims=True), np.float32)


def shrink(pictures: F32, side: int) -> F32:
    """Shrink square pictures (..., s, s) to (..., side, side) by area."""
    weights = area_weights(pictures.shape[-1], side)
    return np.asarray(weights @ pictures @ weights.T, np.float32)


def turned_each(pictures: F32, turn: NDArray[np.int64]) -> F32:
    """One turn of each picture: ``turned(pictures)[arange(n), turn]`` without the others."""
    result = np.empty_like(pictures)
    for way in range(NUM_TURNS):
        rows = np.flatnonzero(turn == way)
        chosen = pictures[rows] if way < 4 else pictures[rows][:, :, ::-1]
        result[rows] = np.rot90(chosen, way % 4, axes=(1, 2))
    return result


def _windows(outer: F32, inner: int) -> tuple[F32, F32]:
    """Windows of each picture, (n, w, inner * inner), and their centres, (w, 2) as x, y."""
    side = outer.shape[-1]
    views = np.lib.stride_tricks.sliding_window_view(outer, (inner, inner), axis=(1, 2))
    views = views[:, ::_OFFSET_STEP, ::_OFFSET_STEP]
    rows, columns = views.shape[1:3]
    top, left = np.indices((rows, columns)).reshape(2, -1) * _OFFSET_STEP
    centre = (np.stack([left, top], axis=1) + inner / 2) * (2 / side) - 1
    windows = views.reshape(len(outer), rows * columns, inner * inner)
    return windows, centre.astype(np.float32)


def scan(inner: F32, outer: F32) -> Placement:
    """Find the turn, size and place of each inner picture in its outer one.

    Args:
        inner: float32 (n, 32, 32).
        outer: float32 (n, 32, 32).
    """
    n, side = len(inner), outer.shape[-1]
    outer = outer - outer.mean(axis=(1, 2), keepdims=True)  # or float32 cancels below
    best = np.full((n, NUM_TURNS), -2.0, np.float32)
    place = np.zeros((n, NUM_TURNS, 3), np.float32)  # share, x, y
    for small in INNER_SIDES:
        window, centre = _windows(outer, small)
        template = turned(shrink(inner, small)).reshape(n, NUM_TURNS, small * small)
        template = template - template.mean(axis=2, keepdims=True)
        noise = _NOISE * small * small
        template /= np.sqrt((template**2).sum(axis=2, keepdims=True) + noise)
        mean = window.mean(axis=2)
        power = np.einsum("nwp,nwp->nw", window, window) - small * small * mean**2
        score = window @ template.transpose(0, 2, 1)
        score /= np.sqrt(np.maximum(power, 0) + noise)[:, :, None]
        at = score.argmax(axis=1)
        found = np.take_along_axis(score, at[:, None], axis=1)[:, 0]
        where = np.concatenate(
            [np.full((n, NUM_TURNS, 1), small / side, np.float32), centre[at]], axis=2
        )
        better = found > best
        best = np.where(better, found, best)
        place = np.where(better[:, :, None], where, place)
    rows, turn = np.arange(n), best.argmax(axis=1)
    share, x, y = np.moveaxis(place[rows, turn], -1, 0)
    zero = np.zeros_like(share)
    warp = np.stack([np.stack([share, zero, x], -1), np.stack([zero, share, y], -1)], axis=1)
    ordered = np.sort(best, axis=1) if n else best
    return Placement(best[rows, turn], turn, warp, ordered[:, -1] - ordered[:, -2])


@lru_cache(maxsize=8)
def grid(side: int) -> F32:
    """Pixel centres of a picture, (3, side * side): x, y, 1."""
    line = (np.arange(side) + 0.5) * (2 / side) - 1
    y, x = np.meshgrid(line, line, indexing="ij")
    return np.stack([x.ravel(), y.ravel(), np.ones(side * side)]).astype(np.float32)


def sample(pictures: F32, warp: F32, side: int) -> tuple[F32, NDArray[np.bool_]]:
    """Look up pictures through affine maps, bilinearly.

    Args:
        pictures: (n, s, s).
        warp: (n, 2, 3).
        side: of the result.

    Returns:
        values: (n, side * side), pixels outside repeat the edge.
        is_inside: (n, side * side).
    """
    size = pictures.shape[-1]
    position = (warp @ grid(side) + 1) * (size / 2) - 0.5  # (n, 2, p) in pixels
    is_inside = ((position > -0.75) & (position < size - 0.25)).all(axis=1)
    np.clip(position, 0, size - 1, out=position)
    low = np.minimum(position.astype(np.int32), size - 2)
    part = position - low
    flat = pictures.reshape(len(pictures), size * size)
    corner = low[:, 1] * size + low[:, 0]
    right, down = part[:, 0], part[:, 1]
    row = np.arange(len(pictures), dtype=np.int64)[:, None] * (size * size)
    pixels, corner = flat.ravel(), corner + row
    top = pixels[corner] * (1 - right) + pixels[corner + 1] * right
    corner += size
    bottom = pixels[corner] * (1 - right) + pixels[corner + 1] * right
    return np.asarray(top * (1 - down) + bottom * down, np.float32), is_inside


def standardise(values: F32, weight: F32) -> F32:
    """Values (n, p) less their weighted mean, over their weighted deviation."""
    total = weight.sum(axis=1, keepdims=True) + _EPSILON
    centred = values - (values * weight).sum(axis=1, keepdims=True) / total
    power = (centred**2 * weight).sum(axis=1, keepdims=True) / total
    return np.asarray(centred / np.sqrt(power + _EPSILON), np.float32)


def refine(template: F32, outer: F32, warp: F32, num_steps: int, softness: float = 0.5) -> F32:
    """Follow the affine map from where the scan left it.

    Args:
        template: float32 (n, s, s), the inner picture already turned.
        outer: float32 (n, s, s).
        warp: (n, 2, 3), start.
        num_steps: Gauss-Newton steps.
        softness: residual, in standard deviations of the picture, whose weight is one half: a bar
            of text must not pull the map.

    Returns:
        (n, 2, 3).
    """
    n, side = len(template), template.shape[-1]
    x, y, _ = grid(side)
    flat = template.reshape(n, side * side)
    for _ in range(num_steps):
        seen, is_inside = sample(outer, warp, side)
        weight = is_inside.astype(np.float32)
        for _ in range(2):  # standardise by what agrees, not by what was painted over
            wanted, found = standardise(flat, weight), standardise(seen, weight)
            residual = wanted - found
            weight = is_inside / (1 + (residual / softness) ** 2)
        middle = ((wanted + found) / 2).reshape(n, side, side)
        slope_y, slope_x = (s.reshape(n, -1) * (side / 2) for s in np.gradient(middle, axis=(1, 2)))
        basis = np.stack([slope_x * x, slope_x * y, slope_x, slope_y * x, slope_y * y, slope_y], 1)
        weighted = basis * weight[:, None]
        normal = weighted @ basis.transpose(0, 2, 1)
        damping = 0.01 * np.trace(normal, axis1=1, axis2=2) / 6 + 1e-3
        normal += damping[:, None, None] * np.eye(6, dtype=np.float32)
        change = np.linalg.solve(normal, weighted @ residual[:, :, None])[:, :, 0]
        change = np.clip(change, -0.1, 0.1).reshape(n, 2, 3)
        change[:, [0, 1], [0, 1]] += 1
        linear = warp[:, :, :2] @ change
        linear[:, :, 2] += warp[:, :, 2]
        warp = linear.astype(np.float32)
    return warp
