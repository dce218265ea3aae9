"""Statistics of a shard stay short."""

from pipeline.stages.shard_tally import MAX_VALUES, Tally


def test_tally_is_bounded_for_free_text():
    tally = Tally()
    for i in range(MAX_VALUES + 10):
        for copy in range(1 + (i == 3)):
            tally.add(copy == 0, 5, source=f"u{i:03d}", num_labels=str(i))
    rows = [row for row in tally.rows() if row["kind"] == "source"]
    assert len(rows) == MAX_VALUES + 1
    assert rows[0] == {
        "kind": "source", "value": "(other)", "num_images": 10, "num_samples": 10, "num_bytes": 50
    }  # fmt: skip
    assert next(r for r in rows if r["value"] == "u003")["num_samples"] == 2
    assert len(tally.rows()) == len(rows) + MAX_VALUES + 10
