"""Files of the planted world: the same for a seed, whatever the chunks."""

from pathlib import Path

import pytest

from pipeline.demo import planted_writer
from pipeline.demo.planted_world import generate


def folder_bytes(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*.parquet"))}


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        generate(tmp_path / name, 150, seed=seed)
    a, b, c = (folder_bytes(tmp_path / n) for n in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert a["images.parquet"] != c["images.parquet"]


def test_rows_do_not_depend_on_chunks_or_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = generate(tmp_path / "one", 400, seed=2)
    monkeypatch.setattr(planted_writer, "CHUNK_IMAGES", 130)
    many = generate(tmp_path / "many", 400, seed=2)
    bare = generate(tmp_path / "bare", 400, seed=2, with_bytes=False)
    for name in ("annotations_long", "images", "image_embeddings", "truth/families",
                 "truth/wrong_labels", "truth/validation_leaks", "validation_images"):  # fmt: skip
        keep = 400 if name in ("images", "image_embeddings") else 700
        assert many.read(name).slice(0, keep).equals(one.read(name).slice(0, keep)), name
        if "images" not in name:
            assert bare.read(name).slice(0, keep).equals(one.read(name).slice(0, keep)), name


@pytest.mark.parametrize(("images", "terms"), [(50, None), (200, 50)])
def test_a_world_too_small_is_refused(tmp_path: Path, images: int, terms: int | None) -> None:
    with pytest.raises(ValueError, match="expected >= 100"):
        generate(tmp_path, images, terms)
