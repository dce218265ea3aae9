"""A batch is added to a corpus, images go and change: the table is that of a search of all.

INCREMENTAL_ROUNDS sets how many batches follow each other (1); `make test-faults` runs more.
"""

import itertools
import os

import numpy as np
import pytest
from given import publish_version
from near_duplicate_rows import packed, print_row

from pipeline.config.images import NearDuplicateParams, VerifyParams
from pipeline.config.run import RunConfig
from pipeline.config.runtime import RuntimeParams
from pipeline.files.storage import open_storage
from pipeline.kernels.vectors import l2_normalise
from pipeline.runtime.lifecycle import Lifecycle
from pipeline.runtime.planning import plan_stage
from pipeline.runtime.reader import read_table
from pipeline.runtime.relational import RelationalContext
from pipeline.stages.find_near_duplicates import STAGE
from schemas import ALL

ROUNDS = int(os.environ.get("INCREMENTAL_ROUNDS", "1"))
WIDTH, NUM_CELLS, RADIUS = 8, 12, 4
HOT, COLD = 1030, 20
"""Members of a cloud of equal vectors with a star (``absorb_hot``), and without."""
PARAMS = NearDuplicateParams(
    max_hamming=RADIUS,
    min_cosine=0.9,
    num_probes=3,
    incremental_min_images=0,
    verify=VerifyParams(enabled=False),
)
CENTROIDS = l2_normalise(np.random.default_rng(1).normal(size=(NUM_CELLS, WIDTH)))


class Corpus:
    """Images by id: (hash or None where flat, vector or None). Clouds are images of two kinds."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.images = {}
        self.centres = self.rng.normal(size=(2, WIDTH))
        self.add(150)
        self.sizes = {0: 0, 1: 0}
        self.cloud(0, HOT)
        self.cloud(1, COLD)

    def add(self, count):
        """Images of any id, so that some become the first of their hash; copies and neighbours."""
        for _ in range(count):
            name = f"{self.rng.choice(list('abü'))}{self.rng.integers(1 << 40):012d}"
            self.images[name] = (self._hash(), self._vector())

    def _hash(self):
        known = [h for h, _ in self.images.values() if h is not None]
        kind = self.rng.random()
        if kind < 0.1:
            return None
        if kind < 0.4 or not known:
            return int(self.rng.integers(1 << 64, dtype=np.uint64))
        flips = self.rng.choice(64, self.rng.integers(RADIUS + 2), replace=False)
        return known[self.rng.integers(len(known))] ^ sum(1 << int(bit) for bit in flips)

    def _vector(self):
        known = [v for _, v in self.images.values() if v is not None]
        kind = self.rng.random()
        if kind < 0.1:
            return None if kind < 0.05 else np.zeros(WIDTH)
        if kind < 0.4 or not known:
            return self.rng.normal(size=WIDTH)
        base = known[self.rng.integers(len(known))]
        return base + self.rng.normal(size=WIDTH) * np.linalg.norm(base) * 0.1

    def cloud(self, number, size):
        """Grow or shrink a cloud of nearly equal vectors; its hashes are far from all."""
        names = [f"cloud{number}-{k:04d}" for k in range(max(HOT, COLD))]
        for k, name in enumerate(names):
            if k >= size:
                self.images.pop(name, None)
            elif name not in self.images:
                noise = self.rng.normal(size=WIDTH) * 0.002
                self.images[name] = (None, self.centres[number] + noise)
        self.sizes[number] = size

    def next_batch(self):
        """A tenth goes, a tenth changes, a fifth comes; each cloud turns hot or cold."""
        plain = [name for name in self.images if not name.startswith("cloud")]
        for name in plain:
            draw = self.rng.random()
            if draw < 0.1:
                del self.images[name]
            elif draw < 0.2:
                value, vector = self.images[name]
                change = self.rng.integers(3)
                value = value if change == 1 else self._hash()
                self.images[name] = (value, vector if change == 0 else self._vector())
        self.add(30)
        for number, size in self.sizes.items():
            self.cloud(number, HOT + COLD - size)

    def tables(self):
        prints = [
            print_row(name, f"d{value or name}", value or 0, value is None)
            for name, (value, _) in self.images.items()
        ]
        embeddings = [
            {"image_id": name, "embedding": packed(vector)}
            for name, (_, vector) in self.images.items()
            if vector is not None
        ]
        embeddings.append({"image_id": "no such image", "embedding": packed(CENTROIDS[0])})
        cells = [{"cell_id": k, "centroid": packed(c)} for k, c in enumerate(CENTROIDS)]
        return {
            "image_fingerprints": prints,
            "image_embeddings": embeddings,
            "embedding_cells": cells,
        }


class Root:
    """A root that keeps its versions, and runs of the stage over it."""

    def __init__(self, spark, folder, incremental="auto"):
        params = PARAMS.model_copy(update={"incremental": incremental})
        runtime = RuntimeParams(num_buckets=2)
        self.config = RunConfig(root=str(folder), runtime=runtime, near_duplicates=params)
        self.spark, self.storage = spark, open_storage(str(folder))

    def run(self, tables):
        given = {n: publish_version(self.storage, ALL[n], r, 2) for n, r in tables.items()}
        versions = {name: manifest.version for name, manifest in given.items()}
        planned = plan_stage(STAGE, self.config, self.storage, versions)
        return Lifecycle(self.spark, self.config, self.storage, given).run(planned)

    def files(self, manifest):
        """Bytes of every published file."""
        return {
            f"{name}/{file.name}": self.storage.read_bytes(f"{table.path}/{file.name}")
            for name, table in manifest.tables.items()
            for file in table.files
        }


def fields_of(caplog, message):
    return [record.fields for record in caplog.records if record.getMessage() == message]


def num_hash_pairs(now, then):
    """(pairs of hashes of which one was not there then, the other pairs)."""
    hashes, old = (
        sorted({v for v, _ in images.values() if v is not None}) for images in (now, then)
    )
    old = set(old)
    near = [(a, b) for a, b in itertools.combinations(hashes, 2) if (a ^ b).bit_count() <= RADIUS]
    new = [pair for pair in near if not old.issuperset(pair)]
    return len(new), len(near) - len(new)


def test_incremental_bytes_are_those_of_a_search_of_all(spark, tmp_path, monkeypatch, caplog):
    corpus = Corpus(seed=5)
    root = Root(spark, tmp_path / "kept")
    shown = root.run(corpus.tables())
    for number in range(ROUNDS):
        before = dict(corpus.images)
        corpus.next_batch()
        tables = corpus.tables()
        with monkeypatch.context() as patch:
            patch.setattr(RelationalContext, "materialise", killed_at(3))
            with pytest.raises(RuntimeError, match="killed"):
                root.run(tables)
        pointer = root.storage.read_json(f"{STAGE.name}/CURRENT.json")
        assert pointer["version"] == shown.version
        caplog.clear()
        with caplog.at_level("INFO"):
            shown = root.run(tables)
        found, taken = num_hash_pairs(corpus.images, before)
        told = fields_of(caplog, "perceptual_incremental")[0]
        assert (told["pairs_found"], told["pairs_taken_over"]) == (found, taken)
        assert min(found, taken) > 10
        gone = before.keys() - corpus.images.keys()
        assert told["images_gone"] == len(gone)
        assert told["images_new"] == len(corpus.images.keys() - before.keys())
        assert told["images_changed"] > 5
        semantic = fields_of(caplog, "semantic_incremental")[0]
        assert min(semantic["pairs_found"], semantic["pairs_taken_over"]) > 10
        anew = Root(spark, tmp_path / f"anew{number}", "never")
        manifest = anew.run(tables)
        assert manifest.version == shown.version
        assert root.files(shown) == anew.files(manifest)
    rows = read_table(root.storage, shown.tables["near_duplicate_candidates"], STAGE.outputs[0])
    tiers = rows["tier"].value_counts().to_pylist()
    assert {row["values"] for row in tiers} == {"exact", "perceptual", "semantic"}


def killed_at(number):
    calls = itertools.count(1)
    real = RelationalContext.materialise

    def materialise(self, df):
        if next(calls) == number:
            raise RuntimeError("killed")
        return real(self, df)

    return materialise
