"""Edit families: what each edit does to known pictures, and that chance is in the choice alone."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.kernels.edits import EDITS, TURNS, edit, edit_family, sample_photos


def picture(width: int = 80, height: int = 60) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    red = 128 + 100 * np.sin(x / 7) * np.cos(y / 11)
    rgb = np.stack([red, 255 * x / width, 255 * y / height], axis=2)
    return Image.fromarray(rgb.astype(np.uint8))


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def grey(data: bytes) -> np.ndarray:
    return np.asarray(opened(data).convert("L"), np.float64)


def test_a_family_has_sixteen_edits_and_seven_turns_and_no_chance() -> None:
    family = edit_family(picture())
    assert tuple(family) == (*EDITS, *TURNS)
    assert (len(EDITS), len(TURNS)) == (16, 7)
    assert family == edit_family(picture())


def test_turns_lose_nothing_and_are_seven_different_ones() -> None:
    given = picture()
    pixels = np.asarray(given)
    turned = {name: np.asarray(opened(edit(given, name))) for name in TURNS}
    assert np.array_equal(turned["rotate_90"], np.rot90(pixels))
    assert np.array_equal(turned["transpose"], pixels.transpose(1, 0, 2))
    assert np.array_equal(turned["flip_left_right"], pixels[:, ::-1])
    assert len({data.tobytes() for data in (*turned.values(), pixels)}) == 8


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resize50", (40, 30)),
        ("crop90", (72, 54)),
        ("crop75", (60, 45)),
        ("rot90", (60, 80)),
        ("border", (92, 72)),  # 10% of 60 on each side
        ("rot5", (80, 60)),
        ("combo", (72, 54)),
    ],
)
def test_sizes(name: str, size: tuple[int, int]) -> None:
    assert opened(edit(picture(), name)).size == size


def test_what_is_painted_and_what_is_left() -> None:
    original = grey(edit(picture(), "jpeg30"))
    assert grey(edit(picture(), "border"))[:5].max() < 10
    text = grey(edit(picture(), "text"))
    assert np.abs(text[:46] - original[:46]).mean() < 8
    assert np.median(text[50:]) < 20 < 150 < text[48:].max()
    crop = grey(edit(picture(), "crop75"))
    assert np.abs(crop - original[7:52, 10:70]).mean() < 8


def test_brightness_and_contrast() -> None:
    mean = {n: grey(edit(picture(), n)).mean() for n in ("jpeg30", "bright07", "bright14")}
    assert mean["bright07"] == pytest.approx(0.7 * mean["jpeg30"], rel=0.03)
    assert mean["bright14"] > 1.2 * mean["jpeg30"]
    spread = {n: grey(edit(picture(), n)).std() for n in ("jpeg30", "contrast06", "contrast15")}
    assert spread["contrast06"] == pytest.approx(0.6 * spread["jpeg30"], rel=0.05)
    assert spread["contrast15"] > 1.2 * spread["jpeg30"]


def test_an_unknown_edit_is_named() -> None:
    with pytest.raises(ValueError, match="edit 'sepia': expected one of jpeg30"):
        edit(picture(), "sepia")


def test_the_same_photos_in_any_order() -> None:
    ids = [f"photo {i}" for i in range(50)]
    taken = [ids[i] for i in sample_photos(ids, 10, 3)]
    assert len(set(taken)) == 10
    backwards = ids[::-1]
    assert [backwards[i] for i in sample_photos(backwards, 10, 3)] == taken
    assert [ids[i] for i in sample_photos(ids, 10, 4)] != taken
    assert len(sample_photos(ids, 99, 3)) == 50
