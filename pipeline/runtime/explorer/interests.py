"""Interests and polysemy: how good the classifiers are, and which images lost which label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.labels import LabelImagesParams
from pipeline.kernels.align import positions_of, take_or_null
from pipeline.kernels.label_lookup import interest_bits
from pipeline.kernels.lost_labels import GivenLabels, given_labels
from pipeline.report import charts
from pipeline.report.blocks import Block, Column, Value, View, chart, gallery, group, table
from pipeline.runtime.explorer.sampling import Reading, lowest_by_hash
from pipeline.stages.label_images import LabelState, prepare

_POLYSEMY = (
    "A term of several interests has a cluster in each; an image keeps the clusters of its own "
    "interests. These terms are counted over "
)


def interests(reading: Reading) -> View | None:
    """Numbers by interest, quality of the classifiers, polysemous terms and lost labels.

    Cost: term-level tables, and a sample of ``image_interests`` and ``selected_annotations``.
    """
    if not reading.has("interests"):
        return None
    blocks = [*_sizes(reading), *_quality(reading)]
    if reading.has(*_NEEDED):
        blocks += _polysemy(reading)
    text = (
        "Terms and images are given interests of one taxonomy; a label counts for an image only if "
        "its interest is one of the image's."
    )
    return View("interests", "Interests", text, blocks)


_NEEDED = ("selected_annotations", "image_interests", "visual_terms", "term_clusters", "clusters",
           "terms")  # fmt: skip


def _sizes(reading: Reading) -> Iterator[Block]:
    names = sorted(reading.catalog.read("interests")["l1_interest"].to_pylist())
    counted: dict[str, Mapping[str, int]] = {}
    for title, name in (
        ("terms", "term_interests"),
        ("clusters", "clusters"),
        ("labels", "label_map"),
    ):
        if reading.has(name):
            counted[title] = Counter(
                reading.catalog.read(name, ["l1_interest"])["l1_interest"].to_pylist()
            )
    if reading.has("image_interests"):
        images: Counter[str] = Counter()
        for batch in reading.sample("image_interests", ["l1_interests"]):
            images.update(pc.list_flatten(batch["l1_interests"]).to_pylist())
        counted["images"] = images
    if not counted:
        return
    columns = [Column("interest"), *(Column(title, "count") for title in counted)]
    rows = [[name, *(numbers.get(name, 0) for numbers in counted.values())] for name in names]
    text = "How many there are of each interest"
    text += f"; images in {reading.sampled('image_interests')}." if "images" in counted else "."
    few = {
        title: [float(n.get(name, 0)) for name in names]
        for title, n in counted.items()
        if title != "images"
    }
    if few:
        option = charts.bars(names, few, "number")
        title, height = "Terms, clusters and labels by interest", 60 + 44 * len(names)
        yield chart("sizes-chart", title, text, option, height)
    yield table("sizes", "By interest", text, columns, rows)


def _quality(reading: Reading) -> Iterator[Block]:
    for name, what in (("term_interest_report", "terms"), ("image_interest_report", "images")):
        if not reading.has(name):
            continue
        columns = [
            Column("interest"),
            Column("seeds", "count"),
            Column("precision", "real"),
            Column("recall", "real"),
            Column("F1", "real"),
            Column("average precision", "real"),
            Column("threshold", "real"),
            Column("status", is_choice=True),
        ]
        fields = ("l1_interest", "num_seeds", "precision", "recall", "f1", "average_precision",
                  "threshold", "status")  # fmt: skip
        rows = [[row[f] for f in fields] for row in reading.catalog.read(name).to_pylist()]
        text = "On held-out seeds; seeds of one group are held out together."
        yield table(name.replace("_", "-"), f"Classifier of {what}", text, columns, rows)


@dataclass
class _Lost:
    """What the restriction took in the sample.

    Attributes:
        kept, lost: (term, cluster) -> images.
        cases: image_id -> its interests, and labels kept and lost as (term, cluster) pairs.
    """

    kept: Counter[tuple[int, int]] = field(default_factory=Counter)
    lost: Counter[tuple[int, int]] = field(default_factory=Counter)
    cases: list[tuple[str, Value]] = field(default_factory=list)


def _polysemy(reading: Reading) -> Iterator[Block]:
    catalog = reading.catalog
    visual, of_terms = catalog.read("visual_terms"), catalog.read("term_clusters")
    clusters = catalog.read("clusters")
    params = LabelImagesParams()
    state = prepare(visual, of_terms, clusters, catalog.read("interests"), params)
    found = _scan(reading, state)
    terms = catalog.read("terms", ["term_id", "text"])
    texts = dict(zip(terms["term_id"].to_pylist(), terms["text"].to_pylist(), strict=True))
    about = {row["cluster_id"]: (row["name"], row["l1_interest"]) for row in clusters.to_pylist()}
    yield _ambiguous(reading, found, texts, about)
    yield _cases(reading, found, texts, about)


def _scan(reading: Reading, state: LabelState) -> _Lost:
    """Label a sample of images without the restriction, and keep what it would take."""
    found = _Lost()
    tables = {
        "selected_annotations": ("image_id", "annotations"),
        "image_interests": ("image_id", "l1_interests"),
    }
    for annotated, interested in reading.aligned(tables):
        at = positions_of(annotated["image_id"], interested["image_id"])
        names = take_or_null(interested["l1_interests"], at)
        bits = interest_bits(names, state.interests)
        labels = given_labels(annotated["annotations"], bits, state.lookup)
        for is_lost, counter in ((False, found.kept), (True, found.lost)):
            counter.update(_pairs(labels, is_lost))
        # Images that lose some and keep some labels tell most.
        lost, kept = (np.unique(labels.rows[labels.is_lost == x]) for x in (True, False))
        rows = np.intersect1d(lost, kept)
        ids = annotated["image_id"].take(pa.array(rows)).to_pylist()
        for image_id, row in _fewest(reading, zip(ids, rows.tolist(), strict=True)):
            mine = np.flatnonzero(labels.rows == row)
            given = [labels.terms[mine], labels.clusters[mine], labels.is_lost[mine]]
            pairs = list(zip(*(part.tolist() for part in given), strict=True))
            found.cases.append((image_id, (names[row].as_py(), pairs)))
        found.cases = _fewest(reading, found.cases)
    return found


def _fewest(reading: Reading, cases: Iterable[tuple[str, Value]]) -> list[tuple[str, Value]]:
    return lowest_by_hash(cases, reading.params.num_lost, reading.seed, "explorer_lost")


def _pairs(labels: GivenLabels, is_lost: bool) -> dict[tuple[int, int], int]:
    """(term, cluster) -> images that keep or lose it."""
    mine = labels.is_lost == is_lost
    keys = labels.terms[mine] << 32 | labels.clusters[mine]
    unique, numbers = np.unique(keys, return_counts=True)
    pairs = zip((unique >> 32).tolist(), (unique & 0xFFFFFFFF).tolist(), strict=True)
    return dict(zip(pairs, numbers.tolist(), strict=True))


def _ambiguous(
    reading: Reading, found: _Lost, texts: Mapping[int, str], about: Mapping[int, tuple[str, str]]
) -> Block:
    by_term: dict[int, set[int]] = {}
    for term, cluster in (*found.kept, *found.lost):
        by_term.setdefault(term, set()).add(cluster)
    rows: list[list[Value]] = []
    for term, clusters in sorted(by_term.items()):
        if len({about[c][1] for c in clusters}) < 2:
            continue
        shares = [
            (about[c][1], c, found.kept[term, c], found.lost[term, c]) for c in sorted(clusters)
        ]
        rows += [
            [
                texts[term],
                interest,
                [about[c][0], f"#clusters/{c}"],
                kept,
                lost,
                lost / (kept + lost),
            ]
            for interest, c, kept, lost in shares
        ]
    columns = [
        Column("term"),
        Column("interest", is_choice=True),
        Column("cluster", "link"),
        Column("images that keep it", "count"),
        Column("images that lose it", "count"),
        Column("share lost", "percent"),
    ]
    text = _POLYSEMY + reading.sampled("selected_annotations") + "."
    limit = reading.params.max_terms
    rows = sorted(rows, key=lambda row: (-(row[3] + row[4]), row[0], row[1]))[:limit]
    return table("polysemy", "Terms of several interests", text, columns, rows)


def _cases(
    reading: Reading, found: _Lost, texts: Mapping[int, str], about: Mapping[int, tuple[str, str]]
) -> Block:
    ids = [image_id for image_id, _ in found.cases]
    strips = reading.strips({0: ids}).get(0, [])
    groups = []
    for (_, (names, pairs)), shown in zip(found.cases, strips, strict=True):
        parts = {
            is_lost: sorted({_said(texts[t], *about[c]) for t, c, lost in pairs if lost == is_lost})
            for is_lost in (False, True)
        }
        text = (
            f"Interests of the image: {', '.join(names or [])}. "
            f"Kept: {'; '.join(parts[False])}. Lost: {'; '.join(parts[True])}."
        )
        groups.append(group(shown["id"], text, [shown]))
    text = (
        "Images that keep some labels and lose others, drawn by hash: the label, its interest, and "
        "the term that gave it."
    )
    return gallery("lost", "Which images lost which label", text, groups)


def _said(term: str, cluster: str, interest: str) -> str:
    by = "" if term == cluster else f" by “{term}”"
    return f"{cluster} ({interest}{by})"
