"""The walk from a stage back to its sources."""

from pipeline.files.storage import open_storage
from pipeline.runtime.history import stage_history
from pipeline.runtime.manifest import StageManifest, TableManifest


def manifest(stage, version, inputs, code_version=1):
    table = TableManifest(
        name=stage, path=f"{stage}/{version}-00002/{stage}", num_buckets=2, num_rows=1, totals={},
        reasons={}, files=[],
    )  # fmt: skip
    return StageManifest(
        stage=stage, version=version, layout=2, code_version=code_version, params={"of": stage},
        inputs=inputs, tables={stage: table}, counts={}, ledger=[], seconds=1, finished="now",
        commit="abc",
    )  # fmt: skip


def test_each_stage_once_behind_those_it_reads(tmp_path):
    published = {
        "d": manifest("d", "4", {"b": "2", "c": "3"}),
        "c": manifest("c", "3", {"a": "1", "b": "2"}),
        "b": manifest("b", "2", {"a": "1"}),
        "a": manifest("a", "1", {"source_a": "9"}, code_version=7),
    }
    found = stage_history(open_storage(str(tmp_path)), {"d": "4", "a": "1"}, published)
    assert [(r.stage, r.version, r.code_version) for r in found] == [
        ("a", "1", 7), ("b", "2", 1), ("c", "3", 1), ("d", "4", 1)
    ]  # fmt: skip
    assert found[0].inputs == {"source_a": "9"}
    assert found[3].params == {"of": "d"}


def test_a_replaced_table_is_looked_up_by_its_version(tmp_path):
    storage = open_storage(str(tmp_path))
    published = {"b": manifest("b", "2", {"a": "old"}), "a": manifest("a", "new", {})}
    assert [r.stage for r in stage_history(storage, {"b": "2"}, published)] == ["b"]
    old = manifest("a", "old", {})
    storage.write_bytes_atomic("a/old-00002/stage.json", old.model_dump_json().encode())
    found = stage_history(storage, {"b": "2"}, published)
    assert [(r.stage, r.version) for r in found] == [("a", "old"), ("b", "2")]
