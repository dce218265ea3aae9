"""Perceptual hashes from JPEG bytes: ours, exact and approximate, beside imagehash, one core each.

Pictures are photos of the development data laid out two by two and cut to 300 to 400 px, 34 KB,
the size of a pin; a smoke run takes the demo's pictures. Systems take turns block by block in one
process, so that a slow moment of the machine meets all of them; seconds are the process's own.
`ours` computes what imagehash does, the hash; `ours_kernel` all of the stage's columns. `decode`
is the ceiling: the decoder alone, to the same RGB pixels.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from benchmarks.harness import Measurement, Size, in_process, say
from benchmarks.photos import REPOSITORY, data_folder
from pipeline.kernels.fingerprints import (
    APPROXIMATE_SIDE,
    GREY_SIDE,
    fingerprint_images,
    phash_grey,
)
from pipeline.kernels.images import DecodedImage, ImageLimits, decode_image
from pipeline.kernels.resample import grey_pixels, resize_grey, resize_nearly

NUM_PICTURES = {"full": 1000, "small": 60}
ROUNDS = {"full": 3, "small": 2}
BLOCK = 50
QUALITY = 85
LIMITS = ImageLimits(max_bytes=1 << 26, max_pixels=1 << 26)
ONE_CORE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
SMALL_PHOTOS = "photos/grocery_store.parquet"


def run(size: Size) -> Measurement:
    """Measure and compare every bit.

    Args:
        size: full is 1,000 pictures of photos.

    Raises:
        ValueError: the photos are not there.
    """
    ran = in_process(measure, size, environment=ONE_CORE)
    pictures, num_bytes, seconds, hashes = ran.value
    bits = {
        name: np.bitwise_count(hashes[name] ^ hashes["imagehash"])
        for name in ("ours", "ours_kernel", "approximate")
    }
    rate = {name: pictures / value for name, value in seconds.items()}
    away = bits["approximate"]
    return Measurement(
        size={"size": size, "pictures": pictures, "mean_bytes": num_bytes, "cores": 1},
        seconds=seconds,
        rate=rate,
        ratio={
            "imagehash": rate["ours"] / rate["imagehash"],
            "imagehash_whole_kernel": rate["ours_kernel"] / rate["imagehash"],
            "imagehash_approximate": rate["approximate"] / rate["imagehash"],
            "imagehash_approximate_whole_kernel": (
                rate["approximate_kernel"] / rate["imagehash"]
            ),
            "decode_ceiling": rate["ours"] / rate["decode"],
        },
        quality={
            "identical_bits": float(np.mean((bits["ours"] == 0) & (bits["ours_kernel"] == 0))),
            "identical_bits_approximate": float(np.mean(away == 0)),
            "mean_bits_approximate": float(np.mean(away)),
            "max_bits_approximate": int(away.max()),
            "within_2_bits_approximate": float(np.mean(away <= 2)),
        },
        peak_mib={"all": ran.peak_mib},
    )  # fmt: skip


def measure(size: Size) -> tuple[int, float, dict[str, float], dict[str, NDArray[np.uint64]]]:
    """Number of pictures, mean bytes, seconds of each system (least of the rounds), hashes."""
    import imagehash

    files = photos(NUM_PICTURES[size]) if size == "full" else demo_pictures(NUM_PICTURES[size])
    systems: dict[str, Callable[[Sequence[bytes]], Any]] = {
        "imagehash": lambda part: [
            int(str(imagehash.phash(Image.open(io.BytesIO(data)))), 16) for data in part
        ],
        "ours": partial(hashes_of, luma_side=0),
        "ours_kernel": partial(kernel_hashes, is_approximate=False),
        "approximate": partial(hashes_of, luma_side=APPROXIMATE_SIDE),
        "approximate_kernel": partial(kernel_hashes, is_approximate=True),
        "decode": decode,
        "decode_pillow": lambda part: [Image.open(io.BytesIO(d)).convert("RGB") for d in part],
    }
    seconds = {name: np.full(len(files), np.inf) for name in systems}
    hashes = {name: np.zeros(len(files), np.uint64) for name in systems}
    for turn in range(ROUNDS[size]):
        for at in range(0, len(files), BLOCK):
            part = files[at : at + BLOCK]
            for name, function in systems.items():
                started = time.process_time()
                found = function(part)
                took = (time.process_time() - started) / len(part)
                here = slice(at, at + len(part))
                seconds[name][here] = np.minimum(seconds[name][here], took)
                if "decode" not in name:
                    hashes[name][here] = np.array(found, np.uint64)
        say(f"fingerprints {turn}: " + ", ".join(f"{n} {s.sum():.2f}" for n, s in seconds.items()))
    mean_bytes = float(np.mean([len(data) for data in files]))
    return len(files), mean_bytes, {n: float(s.sum()) for n, s in seconds.items()}, hashes


def hashes_of(part: Sequence[bytes], luma_side: int) -> NDArray[np.uint64]:
    """Hashes alone, by the kernel's own functions."""
    grey = []
    for data in part:
        decoded = decode_image(data, LIMITS, grey=True, luma_side=luma_side)
        assert isinstance(decoded, DecodedImage), decoded
        shrink = resize_nearly if luma_side else resize_grey
        grey.append(shrink(grey_pixels(decoded.image), GREY_SIDE))
    return phash_grey(np.stack(grey))[0]


def kernel_hashes(part: Sequence[bytes], is_approximate: bool) -> NDArray[np.uint64]:
    """Hashes with everything that the stage stores beside them."""
    found = fingerprint_images(part, LIMITS, is_approximate=is_approximate)
    assert found.reasons == []
    return found.table["phash"].to_numpy().view(np.uint64)


def decode(part: Sequence[bytes]) -> None:
    """The decoder alone."""
    for data in part:
        simplejpeg.decode_jpeg(data, colorspace="RGB", fastdct=False, fastupsample=False)


def photos(count: int) -> list[bytes]:
    """Four photos of 128 px each, enlarged to 200 and laid out in a square, cut and encoded."""
    path = data_folder() / SMALL_PHOTOS
    if not path.is_file():
        raise ValueError(
            f"photos: found no {path}, expected the development data. It is no part of the "
            "project: set BENCH_DATA to the folder that holds photos/, or run with --size small."
        )
    return _laid_out(pq.read_table(path, columns=["image"])["image"].to_pylist(), count)


def demo_pictures(count: int) -> list[bytes]:
    """The demo's pictures in the same layout."""
    path = REPOSITORY / "pipeline" / "demo" / "data" / "images.parquet"
    return _laid_out(pq.read_table(path, columns=["bytes"])["bytes"].to_pylist(), count)


def _laid_out(pictures: Sequence[bytes], count: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    files = []
    for _ in range(count):
        square = Image.new("RGB", (400, 400))
        for place, row in enumerate(rng.integers(0, len(pictures), 4).tolist()):
            tile = Image.open(io.BytesIO(pictures[row])).convert("RGB")
            tile = tile.resize((200, 200), Image.Resampling.BICUBIC)
            square.paste(tile, (place % 2 * 200, place // 2 * 200))
        width, height = (int(side) for side in rng.integers(300, 401, 2))
        out = io.BytesIO()
        square.crop((0, 0, width, height)).save(out, "JPEG", quality=QUALITY)
        files.append(out.getvalue())
    return files
