"""From an image file to the encoder's input, as the export says and in no other way.

Source: SPEC D14.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from pipeline.train.images import decode


@dataclass(frozen=True)
class Preprocess:
    """Resize the short side, cut the middle square, normalise.

    Attributes:
        size: side of the square in pixels.
        crop: size over the short side before the cut, in (0, 1].
        mean: subtracted from RGB in [0, 1].
        std: divides it then.
        max_pixels: pictures whose header announces more are not decoded.
    """

    size: int
    crop: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    max_pixels: int

    def load(self, data: bytes, suffix: str) -> Tensor:
        """Decode, resize and cut an image file.

        Returns:
            uint8 (3, size, size).

        Raises:
            CorruptSampleError: it cannot be decoded.
        """
        return self.cut(decode(data, suffix, self.max_pixels))

    def cut(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Resize (bilinear, antialiased) and cut decoded pixels, uint8 (h, w, 3)."""
        height, width = pixels.shape[:2]
        short = math.floor(self.size / self.crop)
        scale = short / min(height, width)
        tall, wide = (max(short, int(side * scale)) for side in (height, width))
        nchw = torch.from_numpy(pixels.copy()).permute(2, 0, 1).unsqueeze(0)
        resized = interpolate(nchw, size=(tall, wide), mode="bilinear", antialias=True)[0]
        top, left = round((tall - self.size) / 2), round((wide - self.size) / 2)
        return resized[:, top : top + self.size, left : left + self.size].contiguous()

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) to the encoder's float32."""
        shape = (1, 3, 1, 1)
        mean = 255 * torch.tensor(self.mean, device=images.device).view(shape)
        std = 255 * torch.tensor(self.std, device=images.device).view(shape)
        return (images.float() - mean) / std


def preprocess_of(config: Mapping[str, Any], where: str) -> Preprocess:
    """The preprocessing that an export's configuration fixes.

    Args:
        config: of the export.
        where: its place, for errors.

    Raises:
        ValueError: it names none, or another interpolation or crop than this code does.
    """
    fixed = config["pretrained_cfg"]
    found = {name: fixed.get(name) for name in ("interpolation", "crop_mode")}
    if "crop_pct" not in fixed or found != {"interpolation": "bilinear", "crop_mode": "center"}:
        raise ValueError(
            f"{where}: pretrained_cfg has crop_pct {fixed.get('crop_pct')}, {found}; expected a "
            "crop_pct, bilinear and center. Pretrain again: the export is from an older version."
        )
    return Preprocess(
        size=int(fixed["input_size"][-1]),
        crop=float(fixed["crop_pct"]),
        mean=tuple(fixed["mean"]),
        std=tuple(fixed["std"]),
        max_pixels=int(config["train"]["data"]["max_pixels"]),
    )
