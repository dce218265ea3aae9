"""Visual embeddings: one interface over the packaged encoder and any timm model.

Every forward pass has the same shape: the last batch is filled up with empty pictures. Measured on
CPU (torch 2.14, oneDNN, AVX-512): a picture's vector depends on the size of its batch (2e-5, other
convolution kernels are chosen), but not on its neighbours. On its place it depends where a map of
the whole batch does not fill vector registers: torch computes the rest of a SiLU or GELU one value
at a time, with another exponential. Such a batch size is refused. With the size fixed, the same
picture then gets the same bits however rows are cut into files and tasks. Another processor, torch
or device may change the last bits.

torch is imported when an encoder is loaded: clusters that bring their embeddings do without it.

Source: SPEC-dataset I6.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor, nn

SPECS = (
    "package:efficientnet_lite0",
    "timm:<name>",
    "timm:<name>@<checkpoint path>",
    "timm:<name>?random=<seed>",
)
Picture = Image.Image | NDArray[np.uint8]


class ImageEncoder:
    """A model and its preprocessing.

    Attributes:
        dimension: length of a vector.
        image_size: side of the square input, pixels.
        batch_size: pictures of every forward pass.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocess: Callable[[Image.Image], Tensor],
        image_size: int,
        batch_size: int,
        device: str,
    ) -> None:
        """Args:
        model: float32 (n, 3, image_size, image_size) -> (n, d); put into eval mode here.
        preprocess: RGB picture of any size -> float32 (3, image_size, image_size).

        Raises:
            ValueError: with this batch size a vector would depend on its picture's place.
        """
        import torch

        from pipeline.kernels.image_models import checked_lanes

        layout = torch.channels_last if device == "cpu" else torch.contiguous_format
        model = model.eval().requires_grad_(False).to(device)
        self._model = model.to(memory_format=layout)
        self._preprocess, self._device, self._layout = preprocess, device, layout
        self.image_size, self.batch_size = image_size, batch_size
        with checked_lanes(self._model):
            self.dimension = int(self._forward([]).shape[1])

    def encode(self, images: Iterable[Picture]) -> NDArray[np.float32]:
        """Embed pictures; holds one batch of them at a time.

        Args:
            images: RGB, as Pillow pictures or uint8 arrays of shape (height, width, 3).

        Returns:
            float32 of shape (n, d), not normalised.
        """
        found: list[NDArray[np.float32]] = []
        batch: list[Tensor] = []
        for image in images:
            batch.append(self._preprocess(as_picture(image)))
            if len(batch) == self.batch_size:
                found.append(self._forward(batch))
                batch = []
        if batch:
            found.append(self._forward(batch)[: len(batch)])
        return np.concatenate(found) if found else np.zeros((0, self.dimension), np.float32)

    def _forward(self, batch: Sequence[Tensor]) -> NDArray[np.float32]:
        """One pass of exactly ``batch_size`` pictures, missing ones empty."""
        import torch

        pixels = torch.zeros((self.batch_size, 3, self.image_size, self.image_size))
        for row, image in enumerate(batch):
            pixels[row] = image
        with torch.inference_mode():
            pixels = pixels.to(self._device, memory_format=self._layout)
            return np.asarray(self._model(pixels).float().cpu().numpy(), np.float32)


def as_picture(image: Picture) -> Image.Image:
    """An RGB array as a Pillow picture; pictures go through :func:`to_rgb`."""
    return to_rgb(image if isinstance(image, Image.Image) else Image.fromarray(image))


def to_rgb(image: Image.Image) -> Image.Image:
    """Three channels; transparent parts become white, as a page shows them."""
    if image.mode == "RGB":
        return image
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        picture = image.convert("RGBA")
        page = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(page, picture).convert("RGB")
    return image.convert("RGB")


@functools.lru_cache(maxsize=2)
def load_image_encoder(
    spec: str, image_size: int, device: str = "cpu", batch_size: int = 16, threads: int = 1
) -> ImageEncoder:
    """Load an encoder, once a process.

    Args:
        spec: one of ``SPECS``. ``@`` names a safetensors or weights-only checkpoint of the whole
            model; without one, timm takes its pretrained weights from its hub or local cache;
            ``?random=`` is for tests.
        image_size: side of the square input, pixels.
        device: torch device.
        batch_size: pictures a forward pass; vectors of two sizes differ in their last bits.
        threads: threads of torch in this process, a setting of the process: one a Spark task, or
            tasks fight for cores.

    Raises:
        ValueError: an unknown spec, model or checkpoint, weights that are not to be had, or a batch
            size with which a vector would depend on its picture's place.
    """
    kind, _, name = spec.partition(":")
    if spec != SPECS[0] and not (kind == "timm" and name):
        raise ValueError(
            f"image encoder {spec!r}: expected one of {', '.join(SPECS)}. Set embed_images.model."
        )
    import torch

    from pipeline.kernels.image_models import load_packaged_model, load_timm_model

    torch.set_num_threads(threads)
    if spec == SPECS[0]:
        model, preprocess = load_packaged_model(image_size)
    else:
        model, preprocess = load_timm_model(name, image_size)
    return ImageEncoder(model, preprocess, image_size, batch_size, device)
