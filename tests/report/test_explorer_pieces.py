"""Charts, the page and its data files, without a browser; vendored libraries as they were taken."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.files.storage import open_storage
from pipeline.report import charts
from pipeline.report.blocks import Column, View, rounded, table
from pipeline.report.site import page, write_data, write_site

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("folder", ["pipeline/report/static/vendor", "tests/report/vendor"])
def test_libraries_are_those_that_were_reviewed(folder):
    place = REPOSITORY / folder
    listed = json.loads((place / "vendor.json").read_text())
    named = {file["name"]: file["sha256"] for library in listed for file in library["files"]}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in place.iterdir()}
    del found["vendor.json"]
    assert found == named
    assert all(library["licence"] and library["version"] for library in listed)


def test_no_bar_mixes_kept_and_dropped():
    scores = np.array([0.31, 0.69, 0.699, 0.7, 0.71, 1.0, np.nan])
    option = charts.concreteness(scores, 0.7)
    kept, dropped = (series["data"] for series in option["series"])
    edges = [float(name) for name in option["xAxis"]["data"]]
    assert (sum(kept), sum(dropped)) == (3, 3)
    assert all(edge >= 0.7 for edge, number in zip(edges, kept, strict=True) if number)
    assert all(edge < 0.7 for edge, number in zip(edges, dropped, strict=True) if number)
    assert "0.700" in option["xAxis"]["data"]
    assert kept[-1] == 1


def test_series_are_ranked_by_themselves():
    option = charts.label_distribution(
        {"before": np.array([1, 9, 4]), "after": np.array([0, 5, 6])}
    )
    before, after = (series["data"] for series in option["series"])
    assert before == [[1, 9], [2, 4], [3, 1]]
    assert after == [[1, 6], [2, 5]]
    assert option["xAxis"]["type"] == option["yAxis"]["type"] == "log"


def test_long_curves_keep_their_ends():
    ranks = charts.spread_ranks(18_000)
    assert len(ranks) <= charts.MAX_POINTS
    assert (ranks[0], ranks[-1]) == (0, 17_999)


def test_numbers_that_json_cannot_say_become_nothing(tmp_path):
    assert rounded(float("nan")) is None
    assert rounded(0.123456789) == 0.12346
    block = table("t", "", "", [Column("x", "real")], [[float("inf")]])
    assert block.data["rows"] == [[None]]
    with pytest.raises(ValueError, match="JSON"):
        write_data(open_storage(str(tmp_path)), "x", float("nan"))


def test_page_escapes_and_old_data_goes(tmp_path):
    folder = open_storage(str(tmp_path))
    folder.write_bytes_atomic("data/old.js", b"")
    folder.write_bytes_atomic("data/pictures-0.js", b"")
    view = View("v", "<b>", "x & y", [table("t", "<i>", "", [Column("c")], [["</script>"]])])
    write_site(folder, "<h>", "about", [view], ["pictures-0"])
    html = folder.read_bytes("index.html").decode()
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert "<h1>&lt;h&gt;</h1>" in html
    assert folder.list("data") == ["pictures-0.js", "v.js"]
    assert html == page("<h>", "about", [view])
