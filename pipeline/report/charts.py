"""Charts of the explorer: arrays in, options of Apache ECharts out. Colours come from the page.

Source: https://echarts.apache.org/en/option.html.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.report.blocks import rounded_all

MAX_POINTS = 2_000
"""Points of a curve or a cloud: more cannot be told apart."""
_GRID = {"left": 8, "right": 24, "top": 40, "bottom": 32, "containLabel": True}
Option = dict[str, Any]


def concreteness(scores: NDArray[np.floating], boundary: float) -> Option:
    """Distribution of concreteness over terms, with the decision boundary.

    Args:
        scores: (n,) in [0, 1], NaN for terms that were not scored.
        boundary: an edge of a bin, so that no bar mixes kept and dropped terms.

    Source: paper Figure 3.
    """
    scores = scores[np.isfinite(scores)].astype(np.float64)
    # Accuracies are multiples of one over the test set: bins narrower than that draw a comb.
    width = 0.01 if len(scores) > 5_000 else 0.025
    first = int(np.floor(round((float(scores.min(initial=0.4)) - boundary) / width, 6)))
    last = max(int(np.ceil(round((1.0 - boundary) / width, 6))), 1)
    bins = np.floor(np.round((scores - boundary) / width, 6)).astype(int)
    numbers = np.bincount(np.clip(bins, first, last - 1) - first, minlength=last - first)
    names = [f"{boundary + width * i:.3f}" for i in range(first, last)]
    is_kept = np.arange(first, last) >= 0
    series: list[Option] = [
        {
            "name": name,
            "type": "bar",
            "stack": "terms",
            "barCategoryGap": "4%",
            "data": [int(n) if mine else 0 for n, mine in zip(numbers, part, strict=True)],
        }
        for name, part in (("kept", is_kept), ("dropped", ~is_kept))
    ]
    series[0]["markLine"] = {
        "symbol": "none",
        "label": {"formatter": f"boundary {boundary:g}", "position": "insideEndTop"},
        "data": [{"xAxis": f"{boundary:.3f}"}],
    }
    return _axes(series, "category", "value", "concreteness", "terms", {"data": names})


def sweep(
    boundaries: NDArray[np.floating],
    shares: Mapping[str, NDArray[np.floating]],
    boundary: float,
    metric: NDArray[np.floating],
) -> Option:
    """Share of terms, annotations and images that each boundary keeps, and a proxy evaluation.

    Args:
        boundaries: (b,) ascending.
        shares: name -> (b,), in [0, 1].
        boundary: the one in use.
        metric: (b,) NaN where there is none; drawn on an axis of its own.

    Source: SPEC C6.
    """
    series = [_line(name, boundaries, share) for name, share in shares.items()]
    series[0]["markLine"] = {
        "symbol": "none",
        "label": {"formatter": f"in use {boundary:g}", "position": "insideEndTop"},
        "data": [{"xAxis": boundary}],
    }
    option = _axes(series, "value", "value", "decision boundary", "share kept")
    option["xAxis"] |= {"min": float(boundaries.min(initial=1)), "max": 1}
    known = np.isfinite(metric)
    if known.any():
        option["yAxis"] = [option["yAxis"], {"type": "value", "name": "metric", "scale": True}]
        series.append(_line("metric", boundaries[known], metric[known]) | {"yAxisIndex": 1})
    return option


def label_distribution(series: Mapping[str, NDArray[np.number]]) -> Option:
    """Images a label by the label's rank in its own series, both axes logarithmic.

    Args:
        series: name -> (n_labels,) numbers in any order; 0, which has no place on a logarithmic
            axis, is left out.

    Source: paper Figure 5.
    """
    drawn = []
    for name, values in series.items():
        ranked = np.sort(np.asarray(values, np.float64))[::-1]
        ranked = ranked[ranked > 0]
        at = spread_ranks(len(ranked))
        drawn.append(_line(name, at + 1.0, ranked[at]))
    return _axes(drawn, "log", "log", "rank of the label", "images")


def spread_ranks(num: int) -> NDArray[np.int64]:
    """At most `MAX_POINTS` of the places 0 .. num - 1, even on a logarithmic axis."""
    if num <= MAX_POINTS:
        return np.arange(num)
    return np.unique(np.geomspace(1, num, MAX_POINTS).round().astype(np.int64) - 1)


def expected_and_realised(
    expected: NDArray[np.floating], realised: NDArray[np.integer], names: Sequence[str]
) -> Option:
    """Every label's realised number of images against the expected one, both logarithmic.

    Args:
        expected: (n,) summed weights.
        realised: (n,) summed copies.
        names: of the labels, for the tips.

    Source: SPEC R2.
    """
    is_there = np.flatnonzero((expected > 0) & (realised > 0))
    if len(is_there) > MAX_POINTS:
        order = is_there[np.argsort(expected[is_there], kind="stable")]
        is_there = order[spread_ranks(len(order))]
    points: list[Option] = [
        {"name": names[i], "value": [round(float(expected[i]), 2), int(realised[i])]}
        for i in is_there.tolist()
    ]
    cloud = {"name": "labels", "type": "scatter", "symbolSize": 5, "data": points}
    values = [v for p in points for v in p["value"]]
    ends = [max(min(values, default=1.0), 0.1), max(values, default=1.0)]
    ideal = _line("realised = expected", np.array(ends), np.array(ends))
    return _axes([cloud, ideal], "log", "log", "expected images", "realised images")


def bars(names: Sequence[str], series: Mapping[str, Sequence[float]], unit: str) -> Option:
    """Horizontal bars, the first name at the top.

    Args:
        names: of the bars.
        series: name -> a value a bar.
        unit: of the values.
    """
    label = {"show": len(series) == 1, "position": "right"}
    drawn = [
        {"name": name, "type": "bar", "data": rounded_all(values), "label": label}
        for name, values in series.items()
    ]
    option = _axes(drawn, "value", "category", unit, "")
    option["yAxis"] |= {
        "data": list(names),
        "inverse": True,
        "axisLabel": {"width": 150, "overflow": "truncate", "interval": 0},
    }
    option["grid"] = _GRID | {"right": 64, "top": 30 if len(series) > 1 else 4}
    return option


def intervals(
    names: Sequence[str], values: Sequence[tuple[float, float, float]], unit: str
) -> Option:
    """Figures with intervals beside a line at 0, the first name at the top.

    Args:
        names: of the figures.
        values: figure, lower and upper end of each.
        unit: of the values.
    """
    rows = range(len(names))
    ends = [rounded_all(value) for value in values]
    dots = {
        "name": "difference",
        "type": "scatter",
        "symbolSize": 10,
        "data": [[ends[i][0], i] for i in rows],
        "markLine": {"symbol": "none", "label": {"show": False}, "data": [{"xAxis": 0}]},
    }
    bars = [
        {
            "name": "interval",  # series of one name have one colour
            "type": "line",
            "symbol": "rect",
            "symbolSize": [2, 12],
            "data": [[ends[i][1], i], [ends[i][2], i]],
        }
        for i in rows
    ]
    option = _axes([dots, *bars], "value", "category", unit, "")
    option["legend"] = {"show": False}
    option["yAxis"] |= {
        "data": list(names),
        "inverse": True,
        "axisLabel": {"width": 110, "overflow": "break", "interval": 0, "lineHeight": 14},
    }
    return option


def curves(
    series: Mapping[str, tuple[NDArray[np.floating], NDArray[np.floating]]], x: str, y: str
) -> Option:
    """Lines over a common axis.

    Args:
        series: name -> places and values, each (n,).
        x: name of the horizontal axis.
        y: name of the vertical one.
    """
    drawn = []
    for name, (places, values) in series.items():
        step = -(-len(places) // MAX_POINTS) or 1
        drawn.append(_line(name, places[::step], values[::step]))
    option = _axes(drawn, "value", "value", x, y)
    option["yAxis"]["scale"] = True
    return option


def _line(name: str, x: NDArray[np.floating], y: NDArray[np.floating]) -> Option:
    points = [list(pair) for pair in zip(rounded_all(x), rounded_all(y), strict=True)]
    return {"name": name, "type": "line", "showSymbol": len(points) < 60, "data": points}


def _axes(
    series: list[Option], x: str, y: str, x_name: str, y_name: str, more: Option | None = None
) -> Option:
    """An option with one pair of axes; a name stands below or at the top of its axis."""
    return {
        "grid": _GRID,
        "tooltip": {"trigger": "axis" if series[0]["type"] != "scatter" else "item"},
        "legend": {"top": 0, "show": len(series) > 1},
        "xAxis": {
            "type": x,
            "name": x_name,
            "nameLocation": "middle",
            "nameGap": 28,
            "axisLabel": {"hideOverlap": True},
        }
        | (more or {}),
        "yAxis": {"type": y, "name": y_name},
        "series": series,
    }
