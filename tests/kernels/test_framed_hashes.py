"""Hashes of what a frame encloses: frames by hand, and copies in frames."""

import numpy as np
from PIL import Image, ImageOps

from pipeline.kernels.turned_hashes import enclosed, framed_hashes, turned_distance, turned_hashes

WHOLE = [0, 0, 64, 64]


def pictures(count=6):
    """Smooth pictures with no side of one colour."""
    rng = np.random.default_rng(3)
    waves = np.cos(np.pi * np.arange(7)[:, None] * (np.arange(256) + 0.5) / 256)
    grey = waves.T @ rng.normal(size=(count, 7, 7)) @ waves
    return [Image.fromarray(np.clip(128 + 30 * g, 0, 255).astype(np.uint8)) for g in grey]


def thumbnail(picture):
    return np.asarray(picture.resize((64, 64), Image.Resampling.BOX))


def test_enclosed_by_hand():
    plain = thumbnail(pictures(1)[0])
    framed, bars, uneven, two, specks, tiny = (plain.copy() for _ in range(6))
    framed[:6] = framed[-6:] = framed[:, :6] = framed[:, -6:] = 0
    bars[:10] = bars[-9:] = 255
    uneven[:, :5] = 90
    two[:4], two[-7:] = 0, 255
    specks[:6] = 0
    specks[3, 30] = 40  # no frame beyond a mark in it
    tiny[:25] = tiny[-25:] = 0
    flat = np.full((64, 64), 77, np.uint8)
    given = np.stack([plain, framed, bars, uneven, two, specks, tiny, flat])
    assert enclosed(given).tolist() == [
        WHOLE, [6, 6, 58, 58], [0, 10, 64, 55], [5, 0, 64, 64], [0, 4, 64, 57], [0, 3, 64, 64],
        WHOLE, WHOLE,
    ]  # fmt: skip


def test_without_a_frame_the_same_eight_stand_twice():
    stack = np.stack([thumbnail(p) for p in pictures()])
    whole = turned_hashes(stack)
    np.testing.assert_array_equal(framed_hashes(stack), np.concatenate([whole, whole], axis=1))


def test_copies_in_frames_of_any_colour_and_turn_are_near():
    helped = 0
    for picture in pictures():
        original = thumbnail(picture)[None]
        for width, colour, turn in ((26, 0, 0), (26, 255, 90), (13, 120, 180), (40, 0, 270)):
            copy = ImageOps.expand(picture, width, colour).rotate(turn, expand=True)
            pair = original, thumbnail(copy)[None]
            far, _ = turned_distance(*(turned_hashes(p) for p in pair))
            near, _ = turned_distance(*(framed_hashes(p) for p in pair))
            assert near[0] <= 8, (width, colour, turn)
            helped += int(far[0] > 8)
    assert helped >= 18
