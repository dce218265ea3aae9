"""Drawing: figures of small arrays, the funnel, the page."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.report import figures
from pipeline.report.funnel import FunnelStep, funnel_rows, to_csv
from pipeline.report.page import Section, to_html


def pixels(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


STEPS = [FunnelStep("annotations", 10, "terms", 4, 12), FunnelStep("labels", 3, "labels", 2, 3)]


@pytest.mark.parametrize(
    "figure",
    [
        lambda: figures.concreteness_histogram(np.array([0.5, 0.7, np.nan, 0.9]), 0.65),
        lambda: figures.concreteness_histogram(np.zeros(0), 0.65),
        lambda: figures.label_distribution(
            np.array([100, 10, 1]), np.array([50.0, 20.0, 3.0]), np.array([51, 19, 0]), "x"
        ),
        lambda: figures.funnel(["a", "b"], [10, 5], [2.0, 1.0]),
        lambda: figures.extreme_terms(
            list("abcd"), np.array([0.9, 0.8, 0.6, 0.5]), np.full(4, 0.1), 2
        ),
        lambda: figures.sweep(
            np.array([0.5, 0.6]), {"terms": np.array([1.0, 0.5])}, 0.6, np.array([np.nan, 0.3])
        ),
        lambda: figures.image_grid([("row", [(np.zeros((8, 8, 3), np.uint8), "c")])], "t"),
        lambda: figures.image_grid([], "empty"),
    ],
)
def test_figure_draws_something(figure):
    drawn = pixels(figure())
    assert drawn.shape[0] > 50
    assert drawn.std() > 0


def test_histogram_says_what_is_kept():
    figure = figures.concreteness_histogram(np.array([0.5, 0.65, 0.9, np.nan]), 0.65)
    texts = [t.get_text() for axes in figure.axes for t in axes.texts]
    assert any("2 of 3 terms kept" in text for text in texts)


def test_funnel_rows_and_csv():
    assert funnel_rows(STEPS)[0] == ("annotations", "10", "terms", "4", "3.00")
    assert to_csv(STEPS).splitlines()[2] == "labels,3,labels,2,1.5000"
    assert FunnelStep("x", 0, "labels", 0, 0).per_image == 0.0


def test_page_escapes_what_users_wrote():
    page = to_html("t", [Section("<b>", "x & y", "p.png", ("h",), [("<script>",)])])
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<p>x &amp; y</p>" in page
    assert 'alt="&lt;b&gt;. x &amp; y"' in page
