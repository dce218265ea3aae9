"""Labelled pairs from edit families: labels, signals of true pairs, the packaged model."""

from __future__ import annotations

import io
from collections.abc import Iterable
from importlib import resources

import numpy as np
import pytest
from PIL import Image

from pipeline.config.ingest import EmbedImagesParams
from pipeline.demo.edit_pairs import (
    COPIES,
    MODELS,
    Families,
    Pairs,
    candidate_pairs,
    demo_and_pool,
    demo_pictures,
    fit,
    make_families,
    make_pool,
)
from pipeline.kernels.pair_model import PairModel
from pipeline.kernels.pair_signals import SIGNALS

NUM_PHOTOS = 5


def encode(images: Iterable[Image.Image]) -> np.ndarray:
    """A stand-in for an encoder: colours of a small copy."""
    small = [np.asarray(image.convert("RGB").resize((4, 4)), np.float32) for image in images]
    return np.stack(small).reshape(len(small), -1) - 128


@pytest.fixture(scope="module")
def families() -> Families:
    return make_families(demo_pictures(NUM_PHOTOS, seed=0), encode)


@pytest.fixture(scope="module")
def pairs(families: Families) -> Pairs:
    return candidate_pairs(families, num_nearest=3, max_candidates=3)


def test_families_hold_the_original_and_its_copies(families: Families) -> None:
    assert families.thumbnails.shape == (NUM_PHOTOS, 1 + len(COPIES), 64, 64)
    assert np.linalg.norm(families.vectors, axis=2) == pytest.approx(1.0, abs=1e-5)
    original = families.thumbnails[:, 0]
    turned = families.thumbnails[:, 1 + COPIES.index("rotate_180")]
    # Pillow's box filter breaks ties to one side: a turned thumbnail differs along edges.
    assert np.abs(turned[:, ::-1, ::-1].astype(int) - original).mean() < 3
    grey = families.thumbnails[:, 1 + COPIES.index("grey")]
    assert np.abs(grey.astype(int) - original).mean() < 4


def test_every_copy_has_candidates_within_the_cap(pairs: Pairs) -> None:
    query = pairs.photo * len(COPIES) + pairs.copy
    counts = np.bincount(query, minlength=NUM_PHOTOS * len(COPIES))
    assert (counts.min(), counts.max()) == (3, 3)
    assert pairs.overflow >= 0
    assert pairs.signals.shape == (len(query), len(SIGNALS))
    assert np.array_equal(pairs.is_same, pairs.photo == pairs.base)
    # Every turn finds its original, by its hash.
    turns = pairs.copy >= 16
    assert (pairs.is_same & turns).sum() == NUM_PHOTOS * 7


def test_true_pairs_stand_out(pairs: Pairs) -> None:
    median = pairs.signals[:, SIGNALS.index("block_median")]
    assert np.median(median[pairs.is_same]) > 0.8 > 0.6 > np.median(median[~pairs.is_same])


def test_a_verifier_is_fitted(pairs: Pairs) -> None:
    model = fit(pairs, num_hidden=0, words="five")
    taken = model.predict(pairs.signals) >= model.threshold(0.9)
    assert pairs.is_same[taken].mean() > 0.85
    assert pairs.is_same[taken].sum() > 0.8 * pairs.is_same.sum()
    assert model.trained_on == "five"


def test_the_packaged_model_knows_true_pairs(pairs: Pairs) -> None:
    lines = (resources.files("pipeline.demo") / "data" / MODELS).read_text().splitlines()
    models = [PairModel.from_json(line) for line in lines]
    assert [m.encoder for m in models] == [EmbedImagesParams().model, ""]
    signals = pairs.signals.copy()
    signals[:, SIGNALS.index("cosine")] = np.nan  # the stand-in's cosines are no encoder's
    for model in models:
        assert "pictures of the demo corpus among" in model.trained_on
        assert model.predict(signals[pairs.is_same]).mean() > 0.8
        assert model.predict(signals[~pairs.is_same]).mean() < 0.1


def test_a_pool_adds_candidates_that_are_never_right(families: Families, pairs: Pairs) -> None:
    photos, others = demo_and_pool(NUM_PHOTOS, 12, seed=0)
    assert photos == demo_pictures(NUM_PHOTOS, seed=0)
    assert len(others) == 12
    assert not set(photos) & set(others)
    wider = candidate_pairs(families, make_pool(others, encode), num_nearest=3, max_candidates=3)
    of_pool = wider.base >= NUM_PHOTOS
    assert of_pool.any()
    assert not wider.is_same[of_pool].any()
    assert wider.base.max() < NUM_PHOTOS + 12
    assert wider.is_same.sum() >= 0.9 * pairs.is_same.sum()


def test_demo_pictures_are_the_same_ones_every_time() -> None:
    taken = demo_pictures(5, seed=0)
    assert taken == demo_pictures(9, seed=0)[:5]
    assert taken != demo_pictures(5, seed=1)
    assert all(Image.open(io.BytesIO(data)).size[0] > 0 for data in taken)


def test_a_broken_picture_is_named() -> None:
    with pytest.raises(OSError, match="identify"):
        make_families([b"not a picture"], encode)
