"""Near-duplicate quality: edit families of grocery photos, ours beside imagededup's PHash.

Every edited copy of a photo is looked for among all originals. One threshold, pooled over the
copies of the sixteen edits, is set where 95% of the accepted cross-photo pairs are right; recall is
the share of copies whose original is accepted, so a pair that no tier proposed is a miss. Flips and
turns stored without loss are judged at the same threshold.

**Photos.** Grocery photos stand in series of one shelf, and two photos of a series are true
near-duplicates. So: the classes of the second level (apple, milk, ...) are halved by a hash, the
verifier trains on one half and is judged on the other; photos are drawn by hash, and one whose
number lies within ``MIN_GAP`` of a drawn photo of its class and split is passed over. Drawn photos
may still show the same goods; those pairs count as wrong.

**Systems.** `ours` is fitted on the training half; its candidates are those of a run: block keys
and cells with the configuration's defaults (`blocked_search`), so what the search misses counts.
`ours_all_with_all` compares every query with every original. `ours_packaged` is the packaged
model, fitted on the demo corpus; `without_cosine` are models for given embeddings. `turned_hashes`
and `cosine` are the tiers alone, compared with every original. `imagededup_phash` is imagededup's
PHash as it comes.

``small`` takes both halves from the demo's pictures and needs no grocery photos.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from benchmarks.blocked_search import search
from benchmarks.harness import Measurement, Size, in_process, say
from benchmarks.pair_quality import PRECISION, Ranked, pooled_threshold, with_intervals
from benchmarks.photos import ENCODER, data_folder
from pipeline.config.images import VerifyParams
from pipeline.demo.edit_pairs import (
    COPIES,
    IMAGE_SIZE,
    MODELS,
    Families,
    Pairs,
    candidate_pairs,
    demo_pictures,
    fit,
    make_families,
)
from pipeline.kernels.edits import EDITS, TURNS, edit_family, sample_photos
from pipeline.kernels.hashing import hash64
from pipeline.kernels.pair_model import PairModel
from pipeline.kernels.turned_hashes import turned_hashes

PHOTOS = "photos/grocery_store.parquet"
NUM_TRAIN, NUM_EVALUATE = 200, 300
NUM_SMALL = 12
MIN_GAP = 5
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
POOL = tuple(range(len(EDITS)))
GROUPS: dict[str, Sequence[int]] = {
    "recall_p95": POOL,
    **{f"recall_p95_{name}": (k,) for k, name in enumerate(EDITS)},
    "recall_p95_dihedral": tuple(range(len(EDITS), len(COPIES))),
    **{f"recall_p95_{name}": (len(EDITS) + k,) for k, name in enumerate(TURNS)},
}


def run(size: Size) -> Measurement:
    """Fit on one half, judge on the other, each step in one thread."""
    train, evaluate = grocery() if size == "full" else demo()
    seconds, peak, quality, ratio = {}, {}, {}, {}
    ours = in_process(_ours, train, evaluate, environment=ONE_THREAD)
    seconds |= ours.value["seconds"]
    peak["ours"], quality["model_at_own_threshold"] = ours.peak_mib, ours.value["own"]
    quality["at_limits"] = ours.value["at_limits"]
    say("ours")
    peer = in_process(_imagededup, evaluate, environment=ONE_THREAD)
    seconds["imagededup_phash"], peak["imagededup_phash"] = peer.seconds, peer.peak_mib
    say("imagededup's PHash")
    systems = ours.value["systems"] | {"imagededup_phash": peer.value}
    for name, ranked in systems.items():
        found = with_intervals(ranked, POOL, GROUPS)
        if name == "ours":
            quality |= {key: value for key, (value, _, _) in found.items()}
            quality["intervals"] = {key: bounds for key, (_, *bounds) in found.items()}
            proposed = Ranked(
                ranked.photo, ranked.copy, ranked.is_same, ranked.score * 0, len(evaluate)
            )
            quality |= {f"proposed_{k}": v for k, v in _proposed(proposed).items()}
        else:
            quality[name] = {key: value for key, (value, _, _) in found.items()}
    quality["overflow"] = ours.value["overflow"]
    if peer_recall := quality["imagededup_phash"]["recall_p95"]:
        ratio["imagededup_phash"] = quality["recall_p95"] / peer_recall
    counts = {"size": size, "train": len(train), "photos": len(evaluate), "copies": len(COPIES)}
    counts |= {"pairs": ours.value["pairs"], "precision": PRECISION}
    rate = {"candidates, signals": ours.value["pairs"] / seconds["candidates, signals"]}
    return Measurement(counts, seconds, rate, ratio, quality, peak)


def grocery() -> tuple[list[bytes], list[bytes]]:
    """Pictures to train on and to judge by, of different classes.

    Raises:
        ValueError: the photos are not there.
    """
    path = data_folder() / PHOTOS
    if not path.is_file():
        raise ValueError(
            f"photos: found no {path}, expected the development data's grocery photos. They are no "
            "part of the project: set BENCH_DATA to the folder that holds photos/, or run with "
            "--size small, which takes the demo's pictures."
        )
    table = pq.read_table(path)
    classes = [tags[1] for tags in table["tags"].to_pylist()]
    half = hash64(classes, 0, "half") & np.uint64(1)
    names = table["image_id"].to_pylist()
    ids = [f"{s}/{i}" for s, i in zip(table["split"].to_pylist(), names, strict=True)]
    return tuple(
        [table["image"][row].as_py() for row in _spaced(ids, np.flatnonzero(half == side), count)]
        for side, count in ((1, NUM_TRAIN), (0, NUM_EVALUATE))
    )


def _spaced(ids: list[str], rows: NDArray[np.int64], count: int) -> list[int]:
    """Rows drawn by hash, no two from one stretch of a series."""
    taken: list[int] = []
    numbers: dict[str, list[int]] = {}
    for at in sample_photos([ids[row] for row in rows], len(rows), seed=0):
        series, number = re.fullmatch(r"(.*?)(\d+)", ids[rows[at]]).groups()
        drawn = numbers.setdefault(series, [])
        if len(taken) < count and all(abs(int(number) - other) >= MIN_GAP for other in drawn):
            drawn.append(int(number))
            taken.append(int(rows[at]))
    return taken


def demo() -> tuple[list[bytes], list[bytes]]:
    """Demo pictures in two halves, for a smoke run."""
    pictures = demo_pictures(2 * NUM_SMALL, seed=1)
    return pictures[:NUM_SMALL], pictures[NUM_SMALL:]


def _ours(train: list[bytes], evaluate: list[bytes]) -> dict[str, Any]:
    from pipeline.kernels.encode_images import load_image_encoder

    encode = load_image_encoder(ENCODER, IMAGE_SIZE).encode
    seconds: dict[str, float] = {}

    def timed(name: str, call: Callable[..., Any], *args: Any, **named: Any) -> Any:
        started = time.perf_counter()
        value = call(*args, **named)
        seconds[name] = time.perf_counter() - started
        say(name)
        return value

    train_families = timed("families, training", make_families, train, encode)
    train_pairs = timed("candidates, signals, training", candidate_pairs, train_families)
    model = timed("fit", fit, train_pairs, encoder=ENCODER)
    families = timed("families", make_families, evaluate, encode)
    limits = VerifyParams()
    numbers = limits.max_hamming, limits.num_nearest, limits.max_candidates
    pairs = timed("candidates, signals", candidate_pairs, families, None, *numbers, search)
    every = timed("all with all, signals", candidate_pairs, families)
    chance = timed("predict", model.predict, pairs.signals)
    systems = {"ours": _ranked(pairs, chance)} | _tiers(families)
    systems["ours_all_with_all"] = _ranked(every, model.predict(every.signals))
    blind = fit(train_pairs)
    systems["ours_without_cosine"] = _ranked(pairs, blind.predict(pairs.signals))
    packaged = resources.files("pipeline.demo") / "data" / MODELS
    known, pixels = map(PairModel.from_json, packaged.read_text().splitlines())
    systems["ours_packaged"] = _ranked(pairs, known.predict(pairs.signals))
    systems["ours_packaged_without_cosine"] = _ranked(pairs, pixels.predict(pairs.signals))
    at_limits = {
        f"{name}, {limit}": _at(pairs, each.predict(pairs.signals), threshold)
        for name, each in (("packaged", known), ("packaged_without_cosine", pixels))
        for limit, threshold in (
            ("min_probability", limits.min_probability),
            *((f"min_precision {stated:g}", chance) for stated, chance in each.thresholds),
        )
    }
    own = {
        "threshold": model.threshold(PRECISION),
        "pooled_threshold": pooled_threshold(systems["ours"].of(POOL)),
        **_at(pairs, chance, model.threshold(PRECISION)),
    }
    return {
        "systems": systems,
        "seconds": seconds,
        "own": own,
        "at_limits": at_limits,
        "pairs": len(pairs.photo),
        "overflow": pairs.overflow,
    }


def _at(pairs: Pairs, chance: NDArray[np.floating], threshold: float) -> dict[str, float]:
    """Precision and recall over the sixteen edits at a threshold."""
    taken = (chance >= threshold) & (pairs.copy < len(EDITS))
    right = int((taken & pairs.is_same).sum())
    recall = right / (pairs.shape[0] * len(EDITS))
    return {"precision": right / max(1, int(taken.sum())), "recall": recall}


def _ranked(pairs: Pairs, score: NDArray[np.floating]) -> Ranked:
    return Ranked(pairs.photo, pairs.copy, pairs.is_same, score, pairs.shape[0])


def _tiers(families: Families) -> dict[str, Ranked]:
    """The two tiers alone, each copy against every original."""
    photos, columns = families.thumbnails.shape[:2]
    hashes = turned_hashes(families.thumbnails.reshape(-1, 64, 64)).reshape(photos, columns, 8)
    queries = hashes[:, 1:].reshape(-1, 8)
    near = np.full((len(queries), photos), 64, np.uint8)
    for turn in range(8):
        np.minimum(near, np.bitwise_count(queries[:, turn, None] ^ hashes[:, 0, 0]), out=near)
    vectors = families.vectors[:, 1:].reshape(len(queries), -1)
    cosine = vectors @ families.vectors[:, 0].T
    return {
        "turned_hashes": _all_pairs(-near.astype(np.float32), columns - 1),
        "cosine": _all_pairs(cosine, columns - 1),
    }


def _all_pairs(score: NDArray[np.floating], num_copies: int) -> Ranked:
    """Every query with every original, from a matrix of scores."""
    query, base = (axis.ravel() for axis in np.indices(score.shape))
    photo, copy = np.divmod(query, num_copies)
    return Ranked(photo, copy, photo == base, score.ravel(), score.shape[1])


def _proposed(ranked: Ranked) -> dict[str, float]:
    """Share of the copies whose original was a candidate at all."""
    hit = ranked.is_same
    share = np.bincount(ranked.copy[hit], minlength=len(COPIES)) / ranked.num_photos
    names = ("all", "crop75", "border", "rot90")
    groups = [POOL, *([EDITS.index(name)] for name in names[1:])]
    return {n: float(share[list(g)].mean()) for n, g in zip(names, groups, strict=True)}


def _imagededup(evaluate: list[bytes]) -> Ranked:
    from imagededup.methods import PHash

    hasher = PHash(verbose=False)

    def hashed(data: bytes) -> int:
        with Image.open(io.BytesIO(data)) as image:
            return int(hasher.encode_image(image_array=np.asarray(image.convert("RGB"))), 16)

    originals = np.array([hashed(data) for data in evaluate], np.uint64)
    copies = [
        hashed(copy)
        for data in evaluate
        for copy in edit_family(Image.open(io.BytesIO(data)), COPIES).values()
    ]
    distance = np.bitwise_count(np.array(copies, np.uint64)[:, None] ^ originals)
    return _all_pairs(-distance.astype(np.float32), len(COPIES))
