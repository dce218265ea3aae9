"""Pictures of the demo corpus: one background, one size, one format, the same bytes every time."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image

LONGEST_SIDE = 128
"""Pixels of a picture's longest side; smaller pictures are not enlarged."""
WEBP_QUALITY = 80
"""Lossy quality that keeps the committed corpus within its 12 MB."""
MIN_CONTENT_SIDE = 32
"""Longest side, in source pixels, of what is drawn; a smaller drawing is a speck on a page."""
MIN_SPREAD = 8.0
"""Standard deviation of grey (0 to 255) below which nothing can be seen."""
_NEAR_WHITE = 245
_MARGIN = 0.03


def png_size(path: Path) -> tuple[int, int]:
    """Width and height from a PNG's header, without decoding.

    Raises:
        ValueError: the file is not a PNG.
    """
    with path.open("rb") as file:
        head = file.read(24)
    if head[:8] != b"\x89PNG\r\n\x1a\n" or len(head) < 24:
        raise ValueError(f"{path}: not a PNG file, expected one from package openclipart-png.")
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def on_white(image: Image.Image) -> Image.Image:
    """Flatten transparency onto white; returns RGB of the same size."""
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def trim(image: Image.Image) -> Image.Image | None:
    """Cut the white page around a drawing, leaving a margin of 3% of its longest side.

    Most drawings of the clip art library stand on a whole sheet of paper, where at 128 pixels
    they would be a few pixels wide.

    Args:
        image: RGB.

    Returns:
        RGB, or None when what is drawn is smaller than ``MIN_CONTENT_SIDE`` or cannot be seen.
    """
    drawn = np.asarray(image).min(axis=2) < _NEAR_WHITE
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    if rows.size == 0:
        return None
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    longest = max(bottom - top, right - left)
    if longest < MIN_CONTENT_SIDE:
        return None
    margin = round(_MARGIN * float(longest))
    box = (
        max(0, int(left) - margin),
        max(0, int(top) - margin),
        min(image.width, int(right) + margin),
        min(image.height, int(bottom) + margin),
    )
    return image.crop(box)


def is_visible(image: Image.Image) -> bool:
    """Whether the small picture shows anything: its grey values spread enough."""
    return float(np.asarray(image.convert("L"), np.float64).std()) >= MIN_SPREAD


def shrink(image: Image.Image, longest_side: int = LONGEST_SIDE) -> Image.Image:
    """Scale down (Lanczos) so that no side is longer than ``longest_side``; never up."""
    scale = longest_side / max(image.size)
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def webp(image: Image.Image, quality: int = WEBP_QUALITY) -> bytes:
    """Encode as lossy WebP without metadata; equal pixels give equal bytes."""
    out = io.BytesIO()
    image.save(out, "WEBP", quality=quality, method=6)
    return out.getvalue()


def jpeg(image: Image.Image, quality: int) -> bytes:
    """Encode as baseline JPEG without metadata."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def open_image(data: bytes) -> Image.Image:
    """Decode in the picture's own mode, transparency kept."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image
