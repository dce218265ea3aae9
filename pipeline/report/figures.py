"""Pictures of a dataset: arrays in, matplotlib figures out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

INK, ACCENT, SOFT, WARN = "#1f2933", "#0b7285", "#adb5bd", "#c92a2a"


def concreteness_histogram(
    concreteness: NDArray[np.floating], boundary: float, num_bins: int = 40
) -> Figure:
    """Distribution of concreteness over terms, with the decision boundary.

    Args:
        concreteness: of shape (n_terms,), in [0, 1]; NaN for terms that were not scored.
        boundary: decision boundary.
        num_bins: bins over the range of the scores.

    Source: paper Figure 3.
    """
    scores = concreteness[np.isfinite(concreteness)]
    figure = _figure(8, 4.2)
    axes = figure.subplots()
    low = min(0.4, float(scores.min(initial=0.4)))
    counts, edges = np.histogram(scores, np.linspace(low, 1.0, num_bins + 1))
    is_kept = edges[:-1] >= boundary - 1e-9
    colours = [ACCENT if kept else SOFT for kept in is_kept]
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=colours)
    axes.axvline(boundary, color=WARN, lw=1.5)
    kept = int((scores >= boundary).sum())
    top = float(np.max(counts, initial=1))
    axes.text(
        boundary, top, f" boundary {boundary:g}: {kept:,} of {len(scores):,} terms kept", color=WARN
    )
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
    """Images a label by rank, before and after resampling, on log-log axes.

    Args:
        before: images that carry each label, of shape (n_labels,).
        expected: summed weights, the same shape.
        realised: summed copies, the same shape.
        policy: name of the resampling policy.

    Source: paper Figure 5 and section 4.6.
    """
    order = np.argsort(-before, kind="stable")
    rank = np.arange(1, len(order) + 1)
    figure = _figure(8, 4.8)
    axes = figure.subplots()
    axes.loglog(rank, np.maximum(realised[order], 0.5), ".", ms=4, color=ACCENT, label="realised")
    axes.loglog(rank, np.maximum(expected[order], 0.5), "-", lw=1, color=WARN, label="expected")
    axes.loglog(rank, before[order], "-", lw=2, color=INK, label="before")
    axes.set_xlabel("label, by rank before resampling")
    axes.set_ylabel("images")
    axes.set_title(f"Label distribution before and after resampling ({policy})", loc="left")
    axes.legend(frameon=False)
    return figure


def funnel(
    steps: Sequence[str], images: Sequence[int], labels_per_image: Sequence[float]
) -> Figure:
    """Images and labels an image after each step, from the first at the top."""
    figure = _figure(9, 0.55 * len(steps) + 1.4)
    left, right = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(steps))
    _bars(left, places, images, "images", [f"{n:,}" for n in images])
    _bars(
        right, places, labels_per_image, "labels an image", [f"{x:.2f}" for x in labels_per_image]
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
        axes.barh(places, concreteness[part], color=ACCENT if title[0] == "M" else SOFT)
        axes.errorbar(
            concreteness[part], places, xerr=standard_error[part], fmt="none", ecolor=INK, lw=0.8
        )
        axes.set_yticks(places, texts[part], fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(0.3, 1.02)
        axes.axvline(0.5, color=WARN, lw=0.8, ls=":")
        axes.set_title(title, loc="left")
        axes.set_xlabel("concreteness (0.5 is chance)")
    return figure


def sweep(
    boundaries: NDArray[np.floating],
    shares: dict[str, NDArray[np.floating]],
    boundary: float,
) -> Figure:
    """Share of terms, annotations and images that each boundary keeps."""
    figure = _figure(8, 4)
    axes = figure.subplots()
    for (name, share), colour in zip(shares.items(), (INK, ACCENT, WARN), strict=False):
        axes.plot(boundaries, share, marker="o", ms=3, color=colour, label=name)
    axes.axvline(boundary, color=SOFT, lw=1.5)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("decision boundary")
    axes.set_ylabel("share kept")
    axes.set_title("What a boundary keeps", loc="left")
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
    figure = _figure(1.35 * width + 2.2, 1.5 * len(rows) + 0.7)
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
            axes.set_title(caption, fontsize=6.5, color=INK, pad=2)
    figure.suptitle(title, x=0.02, ha="left", color=INK)
    return figure


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
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    figure.patch.set_facecolor("white")
    return figure
