"""Questions to a root's tables, for notebooks: small Arrow tables as answers. No Spark.

Cost: small tables whole; of image tables one pass over the columns that are counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.evaluate import BandParams
from pipeline.kernels.hashing import hash64, uniform
from pipeline.kernels.spread import effective_number, least_alike
from pipeline.kernels.vectors import l2_normalise, to_matrix
from pipeline.runtime.catalog import Catalog

_GROUP_COLUMNS = ["image_id", "kept_image_id", "tier", "distance"]
_GROUP_ROWS = 1_000_000
"""Rows of ``duplicate_groups`` that are held at once."""
_COUNTS = ("num_terms", "num_annotations", "num_images")


def boundary_costs(catalog: Catalog, boundary: float, shifts: Sequence[float]) -> pa.Table:
    """What the decision boundary keeps where it is and where it is shifted to.

    Args:
        catalog: of a root with ``term_concreteness``.
        boundary: in use.
        shifts: added to it.

    Returns:
        boundary, num_terms scored at or above it, and from ``concreteness_sweep`` the nearest
        boundary that was swept with its num_annotations and num_images; null without that table
        or where none within 0.02 was swept.
    """
    scores = _scores(catalog)["concreteness"].to_numpy().astype(np.float64)
    places = [round(boundary + shift, 6) for shift in shifts]
    # In double precision, as `select_visual_terms` compares: float32 0.7 is below 0.7.
    kept = [int((scores >= place).sum()) for place in places]
    columns = {"boundary": pa.array(places), "num_terms": pa.array(kept)}
    swept = catalog.read("concreteness_sweep") if catalog.has("concreteness_sweep") else None
    nearest = [_nearest_swept(swept, place) for place in places]
    for name in _COUNTS[1:]:
        values = [None if row is None else row[name] for row in nearest]
        columns[name] = pa.array(values, pa.int64())
    return pa.table(columns)


def _nearest_swept(swept: pa.Table | None, boundary: float) -> dict[str, int] | None:
    if swept is None or not swept.num_rows:
        return None
    away = np.abs(swept["boundary"].to_numpy().astype(np.float64) - boundary)
    at = int(np.argmin(away))
    found: dict[str, int] = swept.slice(at, 1).to_pylist()[0]
    return found if away[at] <= 0.02 else None


def _scores(catalog: Catalog) -> pa.Table:
    scores = catalog.read("term_concreteness")
    return scores.filter(pc.is_valid(scores["concreteness"]))


def boundary_terms(catalog: Catalog, boundary: float, num: int) -> pa.Table:
    """Scored terms next to the boundary, at most ``num`` from each side, most concrete first.

    Returns:
        term_id, text, concreteness, standard_error, num_positives.
    """
    columns = ["term_id", "text", "concreteness", "standard_error", "num_positives"]
    terms = catalog.read("terms", ["term_id", "text"])
    joined = _scores(catalog).join(terms, "term_id", join_type="inner").select(columns)
    ranked = joined.sort_by([("concreteness", "descending"), ("term_id", "ascending")])
    kept = int((ranked["concreteness"].to_numpy().astype(np.float64) >= boundary).sum())
    return ranked.slice(max(kept - num, 0), min(kept, num) + num)


def widest_clusters(catalog: Catalog) -> pa.Table:
    """The two least alike terms of every cluster that has two, least alike first.

    Args:
        catalog: of a root with ``clusters``, ``term_clusters``, ``terms`` and ``text_embeddings``.

    Returns:
        cluster_id, name, l1_interest, num_terms, term_a, term_b, term_id_a, term_id_b, cosine.

    Cost: ``text_embeddings`` whole (336 MB for the paper's 218,879 terms).
    """
    texts = catalog.read("terms", ["term_id", "text"])
    members = catalog.read("term_clusters", ["term_id", "cluster_id"]).join(texts, "term_id")
    stored = catalog.read("text_embeddings")
    at = pc.index_in(members["text"], value_set=stored["text"])
    members = members.append_column("at", at).filter(pc.is_valid(at))
    members = members.sort_by([("cluster_id", "ascending"), ("term_id", "ascending")])
    vectors = l2_normalise(to_matrix(stored["embedding"].take(members["at"])))
    ids, starts = np.unique(members["cluster_id"].to_numpy(), return_index=True)
    a, b, cosine = least_alike(vectors, np.append(starts, members.num_rows).astype(np.int64))
    is_pair = a >= 0
    pairs = {"cluster_id": pa.array(ids[is_pair]), "cosine": pa.array(cosine[is_pair])}
    for end, rows in (("a", a), ("b", b)):
        ends = members.take(pa.array(rows[is_pair]))
        pairs |= {f"term_{end}": ends["text"], f"term_id_{end}": ends["term_id"]}
    columns = ["cluster_id", "name", "l1_interest", "num_terms"]
    found = pa.table(pairs).join(catalog.read("clusters", columns), "cluster_id", join_type="inner")
    shown = [*columns, "term_a", "term_b", "term_id_a", "term_id_b", "cosine"]
    return found.select(shown).sort_by([("cosine", "ascending"), ("cluster_id", "ascending")])


def duplicate_tiers(catalog: Catalog) -> pa.Table:
    """Dropped near-duplicates by how they match the kept image.

    Returns:
        tier, num_dropped, mean_distance and farthest (null where no member has one); by tier.

    Cost: one pass over ``duplicate_groups``, a bucket in memory.
    """
    sums = [("image_id", "count"), ("distance", "count"), ("distance", "sum"), ("distance", "max")]
    parts = []
    for batch in catalog.batches("duplicate_groups", _GROUP_COLUMNS):
        dropped = batch.filter(pc.not_equal(batch["image_id"], batch["kept_image_id"]))
        parts.append(dropped.group_by("tier").aggregate(sums))
    found = pa.concat_tables(parts).group_by("tier").aggregate(
        [(f"{name}_{how}", "max" if how == "max" else "sum") for name, how in sums]
    )  # fmt: skip
    num_known = pc.cast(found["distance_count_sum"], pa.float64())
    columns = {
        "tier": found["tier"],
        "num_dropped": found["image_id_count_sum"],
        "mean_distance": pc.divide(found["distance_sum_sum"], num_known),
        "farthest": found["distance_max_max"],
    }
    return pa.table(columns).sort_by("tier")


def risky_groups(catalog: Catalog, num: int) -> pa.Table:
    """Near-duplicate groups that are likeliest wrong: large, or held together by weak links.

    Of more than a million images in groups only a share of the groups, by hash of the kept image,
    is looked at: whole groups, so that their sizes are true.

    Returns:
        kept_image_id, num_images with the kept one, num_linked members that match a neighbour
        only, farthest distance to the kept image; most linked first, then largest.

    Cost: one pass over ``duplicate_groups``, a bucket and about a million rows in memory.
    """
    share = _GROUP_ROWS / max(catalog.tables["duplicate_groups"].num_rows, 1)
    parts = []
    for batch in catalog.batches("duplicate_groups", _GROUP_COLUMNS):
        at = uniform(hash64(batch["kept_image_id"], 0, "risky_groups"))
        parts.append(batch.filter(pa.array(at < share)))
    groups = pa.concat_tables(parts)
    is_linked = pc.cast(pc.equal(groups["tier"], "linked"), pa.int64())
    found = groups.append_column("linked", is_linked).group_by("kept_image_id").aggregate(
        [("image_id", "count"), ("linked", "sum"), ("distance", "max")]
    )  # fmt: skip
    names = {"image_id_count": "num_images", "linked_sum": "num_linked", "distance_max": "farthest"}
    named = found.rename_columns([names.get(n, n) for n in found.column_names])
    order = [("num_linked", "descending"), ("num_images", "descending")]
    return named.sort_by([*order, ("kept_image_id", "ascending")]).slice(0, num)


def resampled_bands(catalog: Catalog, bands: BandParams) -> pa.Table:
    """What resampling did to head, middle and tail labels.

    Args:
        catalog: of a root with ``resampling_report``.
        bands: of labels by the images they had.

    Returns:
        band, num_labels, num_before, expected_after, realised_after, effective_before and
        effective_after (see `effective_number`); the last row is of all labels.
    """
    report = catalog.read("resampling_report")
    before = report["num_before"].to_numpy()
    is_head, is_tail = before >= bands.head_min, before <= bands.tail_max
    masks = {"head": is_head, "middle": ~is_head & ~is_tail, "tail": is_tail,
             "all": np.ones(len(before), np.bool_)}  # fmt: skip
    rows = []
    for band, mask in masks.items():
        part = report.filter(pa.array(mask))
        counts = {n: part[n].to_numpy() for n in ("num_before", "expected_after", "realised_after")}
        row = {"band": band, "num_labels": part.num_rows}
        row |= {name: float(values.sum()) for name, values in counts.items()}
        row["effective_before"] = effective_number(counts["num_before"])
        row["effective_after"] = effective_number(counts["realised_after"])
        rows.append(row)
    return pa.Table.from_pylist(rows)


def repeats(catalog: Catalog) -> pa.Table:
    """Images by how often the release shows them; those resampled out 0 times.

    Returns:
        copies, num_images; by copies.

    Cost: one pass over ``copies`` of ``samples``.
    """
    counts = np.zeros(1, np.int64)
    if catalog.has("resampled_out"):
        counts[0] = catalog.tables["resampled_out"].num_rows
    for batch in catalog.batches("samples", ["copies"]):
        more = np.bincount(batch["copies"].to_numpy(), minlength=len(counts))
        more[: len(counts)] += counts
        counts = more
    copies = np.flatnonzero(counts)
    return pa.table({"copies": copies, "num_images": counts[copies]})
