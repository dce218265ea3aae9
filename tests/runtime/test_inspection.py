"""Answers of the notebooks' questions on roots of literal tables."""

from __future__ import annotations

from types import SimpleNamespace

import pyarrow as pa
import pytest
from explorer_root import explorer_root

from pipeline.config.evaluate import BandParams
from pipeline.config.load import load_config
from pipeline.runtime import inspection
from pipeline.runtime.catalog import Catalog, open_catalog
from pipeline.runtime.sheets import term_sheet


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    return open_catalog(explorer_root(tmp_path_factory.mktemp("root")))


def without(catalog, *tables):
    stages = {
        name: manifest
        for name, manifest in catalog.stages.items()
        if not set(tables) & set(manifest.tables)
    }
    return Catalog(catalog.storage, stages)


def test_boundary_costs_count_scores_and_take_the_nearest_sweep(catalog):
    rows = inspection.boundary_costs(catalog, 0.7, (-0.21, 0.0, 0.15, 0.25)).to_pylist()
    assert [row["boundary"] for row in rows] == [0.49, 0.7, 0.85, 0.95]
    # 0.85 and 0.95 are scores too, and as float32 they are a little more and a little less
    assert [row["num_terms"] for row in rows] == [4, 3, 3, 0]
    assert [row["num_images"] for row in rows] == [12, 12, None, None]
    alone = without(catalog, "concreteness_sweep")
    rows = inspection.boundary_costs(alone, 0.7, (0.0,)).to_pylist()
    assert rows == [{"boundary": 0.7, "num_terms": 3, "num_annotations": None, "num_images": None}]


def test_boundary_terms_are_those_on_both_sides(catalog):
    found = inspection.boundary_terms(catalog, 0.7, 1)
    assert found["text"].to_pylist() == ["boat", "idea"]
    assert inspection.boundary_terms(catalog, 0.99, 2)["term_id"].to_pylist() == [0, 1]
    assert inspection.boundary_terms(catalog, 0.1, 2)["term_id"].to_pylist() == [2, 3]
    scores = catalog.read("term_concreteness", ["concreteness"])["concreteness"].to_pylist()
    least = min(score for score in scores if score is not None and score >= 0.7)
    at_it = inspection.boundary_terms(catalog, least, 1)  # a score at the boundary is kept
    assert at_it["text"].to_pylist() == ["boat", "idea"]


def test_widest_clusters_name_the_two_terms(catalog):
    (row,) = inspection.widest_clusters(catalog).to_pylist()
    assert (row["cluster_id"], row["name"]) == (2, "boat")
    assert {row["term_a"], row["term_b"]} == {"cat", "boat"}
    # eight halves, of which the one vector's own is 1.5
    assert row["cosine"] == pytest.approx((2 * 0.75 + 6 * 0.25) / (2.25 + 7 * 0.25))


def test_duplicates(catalog):
    assert inspection.duplicate_tiers(catalog).to_pylist() == [
        {"tier": "perceptual", "num_dropped": 1, "mean_distance": 2.0, "farthest": 2.0}
    ]
    (group,) = inspection.risky_groups(catalog, 5).to_pylist()
    assert group == {
        "kept_image_id": "image-00", "num_images": 2, "num_linked": 0, "farthest": 2.0,
    }  # fmt: skip


class Buckets:
    """Two buckets of `duplicate_groups`: 200 groups of three, whose members lie in either."""

    def __init__(self):
        kept = [f"g{i:03d}" for i in range(200) for _ in range(3)]
        ids = [f"{k}-{i % 3}" if i % 3 else k for i, k in enumerate(kept)]
        tiers = ["", "perceptual", "linked"] * 200
        rows = pa.table([ids, kept, tiers, pa.array([0.0, 3.0, None] * 200, pa.float32())],
                        names=["image_id", "kept_image_id", "tier", "distance"])  # fmt: skip
        self.parts = [rows.take(list(range(first, 600, 2))) for first in (0, 1)]
        self.tables = {"duplicate_groups": SimpleNamespace(num_rows=600)}

    def batches(self, table, columns):
        return iter(self.parts)


def test_groups_over_buckets(monkeypatch):
    """Of many rows a share of the groups, each of them whole."""
    tiers = inspection.duplicate_tiers(Buckets()).to_pylist()
    assert tiers == [
        {"tier": "linked", "num_dropped": 200, "mean_distance": None, "farthest": None},
        {"tier": "perceptual", "num_dropped": 200, "mean_distance": 3.0, "farthest": 3.0},
    ]
    assert inspection.risky_groups(Buckets(), 1000).num_rows == 200
    monkeypatch.setattr(inspection, "_GROUP_ROWS", 300)
    some = inspection.risky_groups(Buckets(), 1000)
    assert 70 < some.num_rows < 130
    assert some["num_images"].unique().to_pylist() == [3]
    assert some["num_linked"].unique().to_pylist() == [1]


def test_resampled_bands_and_repeats(catalog):
    bands = BandParams(head_min=6, tail_max=3)
    rows = {r["band"]: r for r in inspection.resampled_bands(catalog, bands).to_pylist()}
    assert {name: row["num_labels"] for name, row in rows.items()} == {
        "head": 1, "middle": 1, "tail": 1, "all": 3,
    }  # fmt: skip
    assert rows["all"]["num_before"] == sum(
        rows[b]["num_before"] for b in ("head", "middle", "tail")
    )
    assert rows["tail"]["effective_after"] == 1
    assert 1 < rows["all"]["effective_before"] < rows["all"]["effective_after"] < 3
    counts = inspection.repeats(catalog).to_pylist()
    assert [(r["copies"], r["num_images"]) for r in counts] == [(0, 2), (1, 7), (2, 3)]


def test_term_sheet_draws_a_row_a_term_and_nothing_without_tables(catalog):
    config = load_config("demo")
    figure = term_sheet(catalog, config, {0: "cat", 3: "idea"}, "Terms", num=2)
    assert figure is not None
    assert len(figure.axes) == 4
    assert sum(len(axes.images) for axes in figure.axes) == 4
    assert term_sheet(catalog, config, {}, "Terms") is None
    assert term_sheet(without(catalog, "selected_annotations"), config, {0: "cat"}, "T") is None
