"""Candidates are judged once: a later run looks again only at pictures that are new or changed."""

import itertools
from importlib import resources

import numpy as np
from given import publish_version
from near_duplicate_rows import packed, print_row

from pipeline.config.run import RunConfig
from pipeline.config.runtime import RuntimeParams
from pipeline.files.storage import open_storage
from pipeline.kernels.pair_model import PairModel
from pipeline.runtime.lifecycle import Lifecycle
from pipeline.runtime.planning import plan_stage
from pipeline.runtime.reader import read_table
from pipeline.stages.known_judgements import known_judgements
from pipeline.stages.verify_near_duplicates import STAGE
from schemas import ALL

NUM = 12


def picture(seed):
    """Coarse squares; seeds 2k and 2k + 1 differ in their noise alone."""
    squares = np.random.default_rng(seed // 2).integers(0, 200, (8, 8))
    noise = np.random.default_rng(1000 + seed).integers(0, 9, (64, 64))
    return (np.kron(squares, np.ones((8, 8), int)) + noise).astype(np.uint8).tobytes()


def vector(seed):
    return packed(np.random.default_rng(seed // 2).normal(size=6))


def tables(is_later, model):
    """Twelve images, each with the next as a candidate; later one goes, two change, one comes."""
    ids = [f"i{k:02d}" for k in range(NUM)]
    prints = {i: print_row(i, i, thumbnail=picture(k)) for k, i in enumerate(ids)}
    vectors = {i: vector(k) for k, i in enumerate(ids)}
    pairs = [(a, b, "perceptual", 4.0) for a, b in itertools.pairwise(ids)]
    pairs += [("i00", "i01", "semantic", 0.25), ("i04", "i05", "exact", 0.0)]
    if is_later:
        prints["i03"] |= {"thumbnail": picture(40)}
        vectors["i06"] = vector(41)
        prints["i06"] |= {"width": 11}  # of no consequence
        prints["i07"] |= {"phash": 9}
        del prints["i11"], vectors["i11"], vectors["i09"]
        prints["i12"] = print_row("i12", "i12", thumbnail=picture(0))
        pairs = [p for p in pairs if "i11" not in p and p[2] != "semantic"]
        # New pairs: of known pictures, with a new one; and another tier of a known one.
        pairs += [("i00", "i02", "perceptual", 5.0), ("i01", "i12", "perceptual", 1.0)]
        pairs += [("i01", "i02", "semantic", 0.125)]
    columns = ALL["near_duplicate_candidates"].column_names
    return {
        "near_duplicate_candidates": [dict(zip(columns, p, strict=True)) for p in pairs],
        "image_fingerprints": list(prints.values()),
        "image_embeddings": [{"image_id": i, "embedding": v} for i, v in vectors.items()],
        "pair_models": [{"encoder": model.encoder, "model": model.to_json()}],
    }


def run(spark, folder, given, incremental="auto"):
    runtime = RuntimeParams(num_buckets=2)
    # Squares are no photos to the model: it tells them apart at a low level.
    params = {"incremental": incremental, "verify": {"min_probability": 0.1}}
    config = RunConfig(root=str(folder), runtime=runtime, near_duplicates=params)
    storage = open_storage(str(folder))
    made = {n: publish_version(storage, ALL[n], r, 2) for n, r in given.items()}
    planned = plan_stage(STAGE, config, storage, {n: m.version for n, m in made.items()})
    manifest = Lifecycle(spark, config, storage, made).run(planned)
    rows = {t.name: read_table(storage, manifest.tables[t.name], t) for t in STAGE.outputs}
    files = {
        f"{name}/{file.name}": storage.read_bytes(f"{table.path}/{file.name}")
        for name, table in manifest.tables.items()
        for file in table.files
    }
    return manifest.version, files, rows


def test_a_later_run_has_the_bytes_of_judging_all(spark, tmp_path, caplog):
    text = resources.files("pipeline.demo").joinpath("data/pair_models.jsonl").read_text()
    model = next(m for m in map(PairModel.from_json, text.splitlines()) if m.uses_cosine)
    first, later = (tables(is_later, model) for is_later in (False, True))
    _, _, rows = run(spark, tmp_path / "kept", first)
    assert min(table.num_rows for table in rows.values()) > 3
    with caplog.at_level("INFO"):
        found = run(spark, tmp_path / "kept", later)
    told = [r.fields for r in caplog.records if r.getMessage() == "judgements_incremental"]
    # Of ten old pairs those of i03 (two), i06 (two) and i09 (two) have a changed picture.
    expected = {"images_new_or_changed": 3, "images_gone_or_changed": 4}
    assert told == [expected | {"judgements_taken_over": 4}]
    version, files, _ = run(spark, tmp_path / "anew", later, "never")
    assert found[:2] == (version, files)


def test_another_model_judges_all_anew(caplog):
    class Other:
        """An earlier run with another model: nothing else of it may be asked for."""

        def has_same(self, table):
            assert table == "pair_models"
            return False

    with caplog.at_level("INFO"):
        assert known_judgements(None, True, Other(), None) is None
    told = [r.fields for r in caplog.records if r.getMessage() == "judgements_from_scratch"]
    assert told == [{"reason": "another model"}]
