"""The explorer of a root of literal tables: what every view says, by hand."""

import base64
import io
import json

import pytest
from explorer_root import HOSTILE, REJECTED, explorer_root
from PIL import Image

from pipeline.config.report import ExplorerParams, ReportParams
from pipeline.config.run import RunConfig
from pipeline.runtime.catalog import open_catalog
from pipeline.runtime.explorer.build import write_explorer


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return explorer_root(tmp_path_factory.mktemp("explored"))


def written(root, name="report", **params):
    catalog = open_catalog(root)
    config = RunConfig(root=root, report=ReportParams(explorer=ExplorerParams(**params)))
    folder = catalog.storage.child(name)
    write_explorer(config, catalog, folder)
    return folder


def value(folder, name):
    text = folder.read_bytes(f"data/{name}.js").decode()
    start = f'explorer.take("{name}",'
    assert text.startswith(start)
    return json.loads(text.removeprefix(start).removesuffix(");\n"))


@pytest.fixture(scope="module")
def folder(root):
    return written(root)


def test_every_view_is_there(folder):
    html = folder.read_bytes("index.html").decode()
    views = ("overview", "concreteness", "clusters", "labels", "interests", "duplicates",
             "validation", "rejected", "run", "training")  # fmt: skip
    assert all(f'id="view-{name}"' in html for name in views)
    assert "http" not in html.replace("http-equiv", "")


def test_overview_tells_the_funnel_and_the_reasons(folder):
    data = value(folder, "overview")
    assert [row[0] for row in data["funnel"]["rows"]][:2] == ["annotations", "selected"]
    assert ["ingest_terms", "terms", "bad_utf8", 1, 0.2] in data["drops"]["rows"]


def test_terms_around_the_boundary_have_examples(folder):
    data = value(folder, "concreteness")
    rows = {row[0]: row[1] for row in data["terms"]["rows"]}
    assert rows == {"cat": "kept", HOSTILE: "kept", "boat": "kept", "idea": "below_boundary"}
    (below,) = data["terms-below"]["groups"]
    assert below["title"] == "idea"
    assert [p["id"] for p in below["pictures"]]
    assert all(p["file"] for p in below["pictures"])
    assert [g["title"] for g in data["terms-above"]["groups"]] == ["cat", HOSTILE, "boat"]


def test_cluster_has_members_neighbours_and_examples(folder):
    rows = value(folder, "clusters")["clusters"]["rows"]
    assert [row[0][1] for row in rows] == ["#clusters/0", "#clusters/1", "#clusters/2"]
    assert rows[2][6] == "cat · boat" or rows[2][6] == "boat · cat"
    details = value(folder, "clusters-0")
    assert details["1"]["name"] == HOSTILE
    assert details["0"]["before"] == 6
    assert details["0"]["label"] == 0
    # Clusters 0 and 2 share the term cat: each is the other's nearest.
    assert [n[0] for n in details["0"]["neighbours"]] == [2, 1]
    assert {p["id"] for p in details["2"]["pictures"]} == {"image-09", "image-10", "image-11"}


def test_pictures_are_the_images(folder):
    shown = value(folder, "clusters-0")["2"]["pictures"][0]
    pack, place = shown["file"].split("/")
    data = base64.b64decode(value(folder, f"pictures-{pack}")[int(place)])
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("WEBP", (8, 8))


def test_polysemy_says_who_lost_what(folder):
    data = value(folder, "interests")
    rows = {(row[0], row[1]): row[3:5] for row in data["polysemy"]["rows"]}
    # Cat is on six images, all of animals: they keep cluster 0 and lose cluster 2.
    assert rows == {("cat", "animals"): [6, 0], ("cat", "vehicles"): [0, 6]}
    groups = data["lost"]["groups"]
    assert len(groups) == 6
    assert "Lost: boat (vehicles by “cat”)" in groups[0]["text"]


def test_groups_and_removals_stand_side_by_side(folder):
    (group,) = value(folder, "duplicates")["groups"]["groups"]
    assert [(p["id"], p["mark"], p["caption"]) for p in group["pictures"]] == [
        ("image-00", "kept", ""),
        ("image-01", "dropped", "perceptual, 2 bits"),
    ]
    (removal,) = value(folder, "validation")["removals"]["groups"]
    assert [p["id"] for p in removal["pictures"]] == ["set/a", "image-02"]
    assert all(p["file"] for p in removal["pictures"])


def test_rejected_run_and_training(folder):
    assert value(folder, "rejected")["rows"]["rows"] == [
        ["rejected_terms", "bad_utf8", REJECTED, None]
    ]
    # Pairs that the verifier rejected are no rows of anybody's input.
    page = folder.read_bytes("index.html").decode()
    assert "1 input rows were rejected by 1 checks" in page
    run = value(folder, "run")
    assert ["ingest_terms", "terms", 5, 4, 1, "bad_utf8 1", "yes"] in run["ledger"]["rows"]
    assert "root:" in run["configuration"]["content"]
    training = value(folder, "training")
    assert training["loss"]["option"]["series"][0]["data"] == [[1.0, 3.0], [2.0, 2.0]]
    assert training["results"]["rows"][0][3:6] == [0.5, None, 0.75]
    assert ["training, images a second", "99.50"] in training["throughput"]["pairs"]
    assert ["latency of one image, median, ms", "3.25"] in training["throughput"]["pairs"]


def test_ablations_have_verdicts_and_intervals(folder):
    found = value(folder, "ablations")
    series = found["findings"]["option"]["series"]
    assert series[0]["data"] == [[0.02, 0]]
    assert series[1]["data"] == [[-0.01, 0], [0.05, 0]]
    assert [row[:1] + row[2:6] for row in found["by-metric"]["rows"]] == [
        ["retrieval P@1", "+0.0200", "-0.0100 to +0.0500", "+10.0%", "undecided"],
        ["other", "-0.0200", "-0.0300 to -0.0100", "", "not seen"],
    ]
    assert found["arms"]["rows"][0][0:5] == ["with", "vit", "4", "3", "9"]


def test_same_bytes_again_and_samples_stay_small(root, folder):
    again = written(root, "again")
    assert again.list("data") == folder.list("data")
    for name in folder.list("data"):
        assert again.read_bytes(f"data/{name}") == folder.read_bytes(f"data/{name}")
    small = written(root, "small", max_rows=3, max_pictures=1, num_examples=1)
    details = value(small, "clusters-0")
    assert len({p["id"] for one in details.values() for p in one["pictures"]}) == 1
    assert "3 of the 12 rows" in small.read_bytes("index.html").decode()


def test_a_root_without_tables_has_a_page(tmp_path):
    folder = written(str(tmp_path / "empty"))
    assert "no release yet" in folder.read_bytes("index.html").decode()
