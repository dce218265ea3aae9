"""Labelled edit families: what people do to a picture before they store it again.

From any photo come sixteen edited copies and seven lossless flips and turns. They are what the
verifier of near-duplicates is trained on and judged by. Every edit is a function of the picture
alone; chance enters only in which photos are taken (:func:`sample_photos`).

Source: SPEC-dataset N7; the edits are those of issue 4.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from pipeline.kernels.encode_images import to_rgb
from pipeline.kernels.hashing import hash64

JPEG_QUALITY: Final = 90
"""Quality of an edited copy where the edit names none."""
TURNS: Final[Mapping[str, Image.Transpose]] = {
    "flip_left_right": Image.Transpose.FLIP_LEFT_RIGHT,
    "flip_top_bottom": Image.Transpose.FLIP_TOP_BOTTOM,
    "rotate_90": Image.Transpose.ROTATE_90,
    "rotate_180": Image.Transpose.ROTATE_180,
    "rotate_270": Image.Transpose.ROTATE_270,
    "transpose": Image.Transpose.TRANSPOSE,
    "transverse": Image.Transpose.TRANSVERSE,
}
"""The non-identity flips and turns of a rectangle, the tier `dihedral`."""


def _resize(image: Image.Image, share: float) -> Image.Image:
    width, height = (max(1, round(share * side)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _crop(image: Image.Image, share: float) -> Image.Image:
    """The centre, ``share`` of each side."""
    width, height = (max(1, round(share * side)) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _border(image: Image.Image) -> Image.Image:
    """A black frame of one thickness, 10% of the shorter side."""
    return ImageOps.expand(image, round(0.1 * min(image.size)), fill="black")


def _text(image: Image.Image) -> Image.Image:
    """A black bar with white words over the lowest 20%."""
    result = image.copy()
    draw = ImageDraw.Draw(result)
    bar = max(1, round(0.2 * image.height))
    top = image.height - bar
    draw.rectangle((0, top, image.width, image.height), fill="black")
    font = ImageFont.load_default(max(6.0, 0.6 * bar))
    draw.text((0.03 * image.width, top + 0.1 * bar), "look at this picture", "white", font=font)
    return result


def _combo(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(_crop(image, 0.9)).enhance(1.2)


_EDITS: Final[Mapping[str, tuple[Callable[[Image.Image], Image.Image], int]]] = {
    "jpeg30": (lambda image: image, 30),
    "resize50": (lambda image: _resize(image, 0.5), JPEG_QUALITY),
    "crop90": (lambda image: _crop(image, 0.9), JPEG_QUALITY),
    "crop75": (lambda image: _crop(image, 0.75), JPEG_QUALITY),
    "bright07": (lambda image: ImageEnhance.Brightness(image).enhance(0.7), JPEG_QUALITY),
    "bright14": (lambda image: ImageEnhance.Brightness(image).enhance(1.4), JPEG_QUALITY),
    "contrast06": (lambda image: ImageEnhance.Contrast(image).enhance(0.6), JPEG_QUALITY),
    "contrast15": (lambda image: ImageEnhance.Contrast(image).enhance(1.5), JPEG_QUALITY),
    "hflip": (ImageOps.mirror, JPEG_QUALITY),
    "rot5": (lambda image: image.rotate(5, Image.Resampling.BICUBIC), JPEG_QUALITY),
    "rot90": (lambda image: image.transpose(Image.Transpose.ROTATE_90), JPEG_QUALITY),
    "border": (_border, JPEG_QUALITY),
    "text": (_text, JPEG_QUALITY),
    "blur": (lambda image: image.filter(ImageFilter.GaussianBlur(2)), JPEG_QUALITY),
    "grey": (lambda image: image.convert("L"), JPEG_QUALITY),
    "combo": (_combo, 50),
}
EDITS: Final = tuple(_EDITS)
"""Names of the sixteen edits: an operation and the JPEG quality of its copy."""


def edit(image: Image.Image, name: str) -> bytes:
    """One edited copy as a file.

    Args:
        image: upright picture of any mode.
        name: one of ``EDITS`` (a JPEG comes out) or of ``TURNS`` (a PNG: nothing is lost).

    Raises:
        ValueError: no such edit.
    """
    rgb = to_rgb(image)
    out = io.BytesIO()
    if name in TURNS:
        rgb.transpose(TURNS[name]).save(out, "PNG")
    elif name in _EDITS:
        change, quality = _EDITS[name]
        change(rgb).save(out, "JPEG", quality=quality)
    else:
        raise ValueError(f"edit {name!r}: expected one of {', '.join((*EDITS, *TURNS))}.")
    return out.getvalue()


def edit_family(image: Image.Image, names: Sequence[str] = (*EDITS, *TURNS)) -> dict[str, bytes]:
    """Edited copies of one photo, by name of the edit."""
    return {name: edit(image, name) for name in names}


def sample_photos(ids: Sequence[str], num_photos: int, seed: int) -> NDArray[np.int64]:
    """Photos to make families of: bottom-k by seeded hash, the same set in any order of ``ids``.

    Returns:
        int64 (min(num_photos, n),), positions in ``ids``, in the order of their hash.
    """
    hashes = hash64(ids, seed, "edit families")
    order = np.lexsort((np.array(ids, dtype=object), hashes))
    return order[:num_photos].astype(np.int64)
