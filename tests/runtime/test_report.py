"""The report of a root of literal tables: the funnel by hand, every picture there and readable."""

import re

import numpy as np
import pytest
from PIL import Image
from small_root import small_root

from pipeline.config.run import RunConfig
from pipeline.report import figures
from pipeline.runtime.catalog import open_catalog
from pipeline.runtime.funnel import funnel_steps
from pipeline.runtime.report import write_report


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return small_root(tmp_path_factory.mktemp("root"))


def test_funnel_by_hand(root):
    steps = funnel_steps(open_catalog(root))
    assert [(s.name, s.num_classes, s.kind, s.num_images, s.num_given) for s in steps] == [
        ("annotations", 4, "terms", 12, 26),
        ("selected", 4, "terms", 12, 18),
        ("visual dictionary", 3, "terms", 12, 14),
        ("clusters", 3, "clusters", 12, 14),
        ("interest restriction", 3, "clusters", 12, 14),
        ("near-duplicates out", 3, "labels", 12, 14),
        ("resampled", 3, "labels", 13, 16),
    ]


def test_page_shows_every_picture(root):
    folder = write_report(RunConfig(root=root))
    page = folder.read_bytes("pictures.html").decode()
    named = re.findall(r'src="([^"]+)"', page)
    drawn = [name for name in folder.list() if name.endswith(".png")]
    assert sorted(named) == sorted(drawn)
    assert set(drawn) == {
        "borderline_pairs.png",
        "concrete_terms.png",
        "concreteness.png",
        "concreteness_sweep.png",
        "contact_sheet.png",
        "funnel.png",
        "label_distribution.png",
        "near_duplicates.png",
    }
    for name in drawn:
        with Image.open(folder.path(name)) as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 10, f"{name} is blank"


def test_boundary_is_an_edge_of_a_bin():
    """A bar never mixes terms that are kept with terms that are not."""
    scores = np.array([0.31, 0.69, 0.699, 0.7, 0.71, 1.0, np.nan])
    axes = figures.concreteness_histogram(scores, 0.7).axes[0]
    bars = [(b.get_x(), b.get_width(), b.get_height(), b.get_facecolor()) for b in axes.patches]
    for colour, kept in (("#adb5bd", False), ("#0b7285", True)):
        rgb = tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        mine = [b for b in bars if b[2] and np.allclose(b[3][:3], rgb)]
        assert sum(b[2] for b in mine) == 3
        assert all((b[0] >= 0.7 - 1e-9) == kept for b in mine)
    assert max(x + width for x, width, _, _ in bars) == pytest.approx(1.0)


def test_label_distribution_ranks_each_series():
    before, realised = np.array([9, 4, 1]), np.array([0, 5, 6])
    figure = figures.label_distribution(before, realised + 0.5, realised, "root")
    drawn = {line.get_label(): line.get_ydata().tolist() for line in figure.axes[0].lines}
    assert drawn["before"] == [9, 4, 1]
    assert drawn["realised after"] == [6, 5, 0.5]
