"""The figures of a planted world fall when a run is wrong: each is seen to fail here, each time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from planted_run import WorldRun

from pipeline.demo.planted_duplicate_scores import (
    blocked_scores,
    duplicate_scores,
    validation_scores,
)
from pipeline.demo.planted_scores import (
    concreteness_scores,
    read_truth,
    resampling_scores,
    restriction_scores,
    selection_scores,
)
from pipeline.runtime.world_check import corrupt_scores, ledger_scores

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3600)]

Change = Callable[[pa.Table], pa.Table]


def tampered(run: WorldRun, name: str, change: Change):
    """Tables of the run, one of them changed."""

    def read(table: str, columns: list[str] | None = None) -> pa.Table:
        if table != name:
            return run.catalog.read(table, columns)
        rows = change(run.catalog.read(table))
        return rows.select(columns) if columns else rows

    return read


def with_column(name: str, change: Callable[[pa.ChunkedArray], object]) -> Change:
    def apply(rows: pa.Table) -> pa.Table:
        at = rows.schema.get_field_index(name)
        return rows.set_column(at, rows.schema.field(at), change(rows[name]))

    return apply


def turned(column: pa.ChunkedArray) -> pa.Array:
    """Every row gets the value of another, far away: neighbours may be of one family."""
    half = len(column) // 2
    return pa.array(column.to_pylist()[half:] + column.to_pylist()[:half], column.type)


def with_rows(run: WorldRun, source: str) -> Change:
    """Unique images and some others."""

    def apply(rows: pa.Table) -> pa.Table:
        names = run.world.read(f"truth/{source}")
        if "is_inside" in names.column_names:
            names = names.filter(names["is_inside"])
        names = names["image_id"].unique()
        more = run.catalog.read("image_fingerprints", rows.column_names)
        more = more.filter(pc.is_in(more["image_id"], value_set=names))
        return pa.concat_tables([rows, more])

    return apply


def test_lost_and_invented_annotations_are_counted(run: WorldRun) -> None:
    truth, said = read_truth(run.world.read), run.world.read("annotations_nested")
    read = tampered(run, "selected_annotations", with_column("annotations", turned))
    found = selection_scores(read, truth, said, run.config.select_annotations.min_confidence)
    assert min(found["missing"], found["unexpected"]) > run.world.num_images


def test_concreteness_of_other_terms_has_no_auc(run: WorldRun) -> None:
    read = tampered(run, "term_concreteness", with_column("concreteness", turned))
    assert concreteness_scores(read, read_truth(run.world.read))["auc"] < 0.8


def test_labels_of_other_images_are_wrong(run: WorldRun) -> None:
    def both(rows: pa.Table) -> pa.Table:
        return with_column("label_terms", turned)(with_column("cluster_ids", turned)(rows))

    read = tampered(run, "image_labels", both)
    truth = read_truth(run.world.read)
    found = restriction_scores(read, truth, run.config.select_annotations.min_confidence)
    assert found["polysemy"]["precision"] < 0.8
    unrestricted = tampered(run, "image_labels", lambda rows: every_label(run, rows))
    found = restriction_scores(unrestricted, truth, run.config.select_annotations.min_confidence)
    assert found["polysemy"]["recall"] < 0.5


def every_label(run: WorldRun, rows: pa.Table) -> pa.Table:
    """Labels as they would be without the restriction."""
    of_term: dict[int, list[int]] = {}
    for r in run.catalog.read("term_clusters").to_pylist():
        of_term.setdefault(r["term_id"], []).append(r["cluster_id"])
    labels = []
    for row in run.catalog.read("selected_annotations").to_pylist():
        by_cluster: dict[int, list[int]] = {}
        for item in row["annotations"]:
            for cluster in of_term.get(item["term_id"], ()):
                by_cluster.setdefault(cluster, []).append(item["term_id"])
        labels.append((row["image_id"], list(by_cluster), list(by_cluster.values())))
    columns = zip(*labels, strict=True)
    arrays = [pa.array(c, t) for c, t in zip(columns, rows.schema.types, strict=True)]
    return pa.Table.from_arrays(arrays, schema=rows.schema)


def test_missed_pairs_and_pairs_of_strangers_are_counted(run: WorldRun) -> None:
    truth = read_truth(run.world.read)
    fewer = tampered(run, "near_duplicate_pairs", lambda rows: rows.slice(rows.num_rows // 2))
    assert duplicate_scores(fewer, truth)["recall_found"] < 0.9
    strangers = tampered(run, "near_duplicate_pairs", with_column("image_id_b", turned))
    assert duplicate_scores(strangers, truth)["precision_pairs"] < 0.2
    groups = tampered(run, "duplicate_groups", with_column("kept_image_id", turned))
    assert duplicate_scores(groups, truth)["precision_groups"] < 0.9
    dropped = tampered(run, "dropped_images", with_column("image_id", turned))
    assert duplicate_scores(dropped, truth)["precision_removed"] < 0.9
    kept = tampered(run, "unique_images", with_rows(run, "families"))
    assert duplicate_scores(kept, truth)["recall_removed"] == 0.0
    lost = tampered(run, "unique_images", lambda rows: rows.slice(10))
    assert duplicate_scores(lost, truth)["num_families_lost"] > 5


def test_leaks_are_counted_wherever_they_are(run: WorldRun) -> None:
    truth = read_truth(run.world.read)
    leaks = run.world.read("truth/validation_leaks").filter(pc.field("is_inside"))
    read = tampered(run, "unique_images", with_rows(run, "validation_leaks"))
    assert validation_scores(read, truth, set())["num_left"] > 10
    released = {leaks["image_id"][0].as_py()}
    assert validation_scores(run.catalog.read, truth, released)["num_left"] == 1
    turned_ids = tampered(run, "dropped_images", with_column("other_id", turned))
    assert validation_scores(turned_ids, truth, set())["precision"] < 0.9


def test_opted_out_images_are_counted_wherever_they_are(run: WorldRun) -> None:
    truth = read_truth(run.world.read)
    named = run.world.read("truth/blocked")["image_id"][0].as_py()
    assert blocked_scores(run.catalog.read, truth, {named})["num_named_left"] == 1
    opted_out = tampered(run, "unique_images", with_rows(run, "blocked"))
    found = blocked_scores(opted_out, truth, set())
    assert found["num_named_left"] == found["num_named"]
    everything = tampered(run, "unique_images", with_rows(run, "families"))
    found = blocked_scores(everything, truth, set())
    assert found["num_copies_left"] == found["num_copies"] > 0
    reasons = with_column("reason", lambda c: pc.replace_substring(c, "duplicate_exact", BLOCKED))
    assert blocked_scores(tampered(run, "dropped_images", reasons), truth, set())["precision"] < 0.9


BLOCKED = "blocked_duplicate"


def test_other_counts_than_the_drawn_ones_are_found(run: WorldRun) -> None:
    read, cap = run.catalog.read, run.config.resample_images.max_copies
    counts = read("resampling_report").sort_by("label_id")
    before, realised = (counts[n].to_numpy() for n in ("num_before", "realised_after"))
    assert resampling_scores(read, before, cap)["max_z"] > 4.5
    assert not resampling_scores(read, before, cap)["is_as_reported"]
    expected = np.rint(counts["expected_after"].to_numpy()).astype(np.int64)
    assert resampling_scores(read, expected, cap)["mean_square_z"] < 0.2
    assert resampling_scores(read, realised, cap, 1000)["max_relative_error"] > 0.01


def test_another_reason_is_not_the_planted_one(run: WorldRun) -> None:
    read = tampered(run, "rejected_images", with_column("reason", turned))
    changed = SimpleNamespace(tables=run.catalog.tables, read=read)
    found = corrupt_scores(changed, run.world)
    assert found["missing"]
    assert found["unexpected"]


def test_images_without_fate_and_wrong_counts_are_found(run: WorldRun) -> None:
    released = set(run.catalog.read("samples")["image_id"].to_pylist())
    one = min(released)
    assert ledger_scores(run.catalog, run.world, released - {one})["num_without_fate"] == 1
    assert ledger_scores(run.catalog, run.world, released | {"x"})["num_invented"] == 1
    dropped = run.catalog.read("dropped_images")["image_id"][0].as_py()
    assert ledger_scores(run.catalog, run.world, released | {dropped})["num_with_several"] == 1
    stages = {n: m.model_copy(deep=True) for n, m in run.catalog.stages.items()}
    stages["label_images"].ledger[0].rows_out += 1
    stages["ingest_images"].tables["images"].num_rows += 1
    found = ledger_scores(dataclasses.replace(run.catalog, stages=stages), run.world, released)
    assert found["open"] == ["label_images"]
    assert found["miscounted"] == ["images"]
    fewer = dataclasses.replace(run.world, tables={**run.world.tables, "images": short(run)})
    assert ledger_scores(run.catalog, fewer, released)["num_unaccounted"] != 0


def short(run: WorldRun):
    """The input images without a row."""
    path = run.world.root / "truth" / "fewer_images.parquet"
    pq.write_table(pq.read_table(run.world.tables["images"]).slice(1), path)
    return path
