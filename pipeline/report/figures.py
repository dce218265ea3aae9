"""Pictures of a dataset: arrays in, matplotlib figures out."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray
from PIL import Image

INK, ACCENT, SOFT, WARN = "#1f2933", "#0b7285", "#adb5bd", "#c92a2a"


def concreteness_histogram(concreteness: NDArray[np.floating], boundary: float) -> Figure:
    """Distribution of concreteness over terms, with the decision boundary.

    Args:
        concreteness: of shape (n_terms,), in [0, 1]; NaN for terms that were not scored.
        boundary: decision boundary; an edge of a bin.

    Source: paper Figure 3.
    """
    scores = concreteness[np.isfinite(concreteness)]
    figure = _figure(8, 4.2)
    axes = figure.subplots()
    # Accuracies are multiples of one over the test set: bins narrower than that draw a comb.
    width = 0.01 if len(scores) > 5_000 else 0.025
    below = np.ceil((boundary - float(scores.min(initial=0.4))) / width - 1e-6)
    above = np.ceil((1.0 - boundary) / width - 1e-6)
    edges = boundary + width * np.arange(-below, above + 1)
    edges[-1] = 1.0
    is_kept = scores >= boundary
    for part, colour in ((scores[~is_kept], SOFT), (scores[is_kept], ACCENT)):
        axes.hist(part, edges.tolist(), color=colour)
    axes.axvline(boundary, color=WARN, lw=1.5)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.12)
    text = f"boundary {boundary:g}: {int(is_kept.sum()):,} of {len(scores):,} terms kept"
    axes.text(0.01, 0.98, text, color=WARN, va="top", transform=axes.transAxes)
    axes.set_xlabel("visual concreteness (held-out accuracy of the term's classifier)")
    axes.set_ylabel("terms")
    axes.set_title("Which terms can be predicted from the picture", loc="left")
    return figure


def label_distribution(
    before: NDArray[np.integer],
    expected: NDArray[np.floating],
    realised: NDArray[np.integer],
    policy: str,
) -> Figure:
    """Images a label, each series by its own rank, and realised against expected numbers.

    Args:
        before: images that carry each label, of shape (n_labels,).
        expected: summed weights, the same shape.
        realised: summed copies, the same shape.
        policy: name of the resampling policy.

    Source: paper Figure 5 and section 4.6.
    """
    figure = _figure(10.5, 4.6)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    rank = np.arange(1, len(before) + 1)
    left.loglog(rank, _descending(before), "-", lw=2, color=INK, label="before")
    left.loglog(rank, _descending(expected), "-", lw=1.2, color=WARN, label="expected after")
    left.loglog(rank, _descending(realised), ".", ms=4, color=ACCENT, label="realised after")
    left.set_xlabel("rank of the label in its own series")
    left.set_ylabel("images")
    left.set_title(f"Label distribution, resampled by {policy}", loc="left", fontsize=10)
    left.legend(frameon=False)
    shown = np.maximum(expected, 0.5), np.maximum(realised, 0.5)
    ends = [np.min(shown, initial=1e12), np.max(shown, initial=1)]
    right.loglog(ends, ends, "-", lw=1, color=WARN)
    right.loglog(*shown, ".", ms=4, color=ACCENT)
    right.set_xlabel("expected images")
    right.set_ylabel("realised images")
    right.set_title("Every label: what was drawn", loc="left", fontsize=10)
    return figure


def _descending(values: NDArray[np.number]) -> NDArray[np.float64]:
    """Numbers by rank; 0, which has no place on a logarithmic axis, is drawn at one half."""
    return np.maximum(np.sort(values.astype(np.float64))[::-1], 0.5)


def funnel(
    steps: Sequence[str], images: Sequence[int], labels_per_image: Sequence[float]
) -> Figure:
    """Images and labels an image after each step, from the first at the top."""
    figure = _figure(9, 0.55 * len(steps) + 1.4)
    left, right = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(steps))
    _bars(left, places, images, "images", [f"{n:,}" for n in images])
    _bars(
        right,
        places,
        labels_per_image,
        "terms or labels an image",
        [f"{x:.2f}" for x in labels_per_image],
    )
    left.set_yticks(places, steps)
    left.invert_yaxis()
    figure.suptitle("What each step leaves", x=0.02, ha="left", color=INK)
    return figure


def extreme_terms(
    texts: Sequence[str],
    concreteness: NDArray[np.floating],
    standard_error: NDArray[np.floating],
    num_terms: int,
) -> Figure:
    """The most and the least concrete terms with their standard errors.

    Args:
        texts: of the scored terms, most concrete first.
        concreteness: of the same terms.
        standard_error: of the same terms.
        num_terms: how many of each end.
    """
    num = min(num_terms, len(texts) // 2) or len(texts)
    figure = _figure(10, 0.28 * num + 1.3)
    for axes, part, title in zip(
        figure.subplots(1, 2), (slice(0, num), slice(len(texts) - num, None)),
        ("Most concrete", "Least concrete"), strict=True,
    ):  # fmt: skip
        places = np.arange(len(texts[part]))
        colour = ACCENT if title[0] == "M" else SOFT
        axes.barh(places, concreteness[part] - 0.5, left=0.5, color=colour)
        axes.errorbar(
            concreteness[part], places, xerr=standard_error[part], fmt="none", ecolor=INK, lw=0.8
        )
        axes.set_yticks(places, texts[part], fontsize=8)
        axes.set_ylim(len(places) - 0.4, -0.6)
        axes.set_xlim(0.3, 1.02)
        axes.axvline(0.5, color=WARN, lw=0.8)
        axes.set_title(title, loc="left")
        axes.set_xlabel("concreteness (0.5 is chance)")
    return figure


def sweep(
    boundaries: NDArray[np.floating],
    shares: dict[str, NDArray[np.floating]],
    boundary: float,
    metric: NDArray[np.floating],
) -> Figure:
    """Share of terms, annotations and images that each boundary keeps, and a proxy evaluation.

    Args:
        boundaries: (b,).
        shares: name -> (b,), in [0, 1].
        boundary: the one in use.
        metric: (b,) evaluation of each boundary, NaN where there is none; drawn on an axis of its
            own.
    """
    figure = _figure(8, 4)
    axes = figure.subplots()
    for (name, share), colour in zip(shares.items(), (INK, ACCENT, WARN), strict=False):
        axes.plot(boundaries, share, marker="o", ms=3, color=colour, label=name)
    axes.axvline(boundary, color=SOFT, lw=1.5)
    axes.text(boundary, 0.03, f" boundary {boundary:g}", color=INK, fontsize=9)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("decision boundary")
    axes.set_ylabel("share kept")
    axes.set_title("What a boundary keeps", loc="left")
    known = np.isfinite(metric)
    if known.any():
        right = axes.twinx()
        right.plot(boundaries[known], metric[known], marker="s", ls="--", color=INK, label="metric")
        right.set_ylabel("proxy evaluation (dashed)")
        right.spines["right"].set_visible(True)
    axes.legend(frameon=False)
    return figure


def image_grid(
    rows: Sequence[tuple[str, Sequence[tuple[NDArray[np.uint8] | None, str]]]], title: str
) -> Figure:
    """Rows of captioned pictures, each row with a name at its left.

    Args:
        rows: (name, [(RGB picture of shape (h, w, 3) or None, caption)]).
        title: of the sheet.
    """
    width = max((len(cells) for _, cells in rows), default=1)
    figure = _figure(1.35 * width + 2.2, 1.4 * len(rows) + 0.5)
    grid = figure.subplots(len(rows) or 1, width, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for line, (name, cells) in zip(grid, rows, strict=False):
        line[0].text(
            -0.12, 0.5, name, transform=line[0].transAxes, ha="right", va="center", fontsize=8
        )
        for axes, (picture, caption) in zip(line, cells, strict=False):
            if picture is not None:
                axes.imshow(picture)
            if caption:
                axes.set_title(caption, fontsize=6.5, color=INK, pad=2)
    figure.suptitle(title, x=0.02, ha="left", color=INK)
    return figure


def to_png(figure: Figure, dpi: float | None = None, num_colours: int | None = None) -> bytes:
    """A figure as PNG.

    Args:
        figure: to draw.
        dpi: dots an inch; None for the figure's own.
        num_colours: size of a palette, at most 256, which takes a third of the bytes; None keeps
            all colours.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi or figure.dpi)
    if num_colours is None:
        return buffer.getvalue()
    small = io.BytesIO()
    with Image.open(buffer) as image:
        image.convert("RGB").quantize(num_colours).save(small, format="PNG", optimize=True)
    return small.getvalue()


def _bars(
    axes: Axes, places: NDArray[np.integer], values: Sequence[float], title: str, texts: list[str]
) -> None:
    axes.barh(places, values, color=ACCENT)
    for place, value, text in zip(places, values, texts, strict=True):
        axes.text(value, place, f" {text}", va="center", fontsize=8)
    axes.set_xlim(0, max([*values, 1e-9]) * 1.22)
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xticks([])


def _figure(width: float, height: float) -> Figure:
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)
    figure = Figure(figsize=(width, height), dpi=110, layout=layout)
    figure.patch.set_facecolor("white")
    return figure
