"""How well a run finds planted families of copies, validation leaks and opt-outs (Z1).

Judged by the number of the picture that an image was made from, never by a distance. Edits that
reach beyond the radius are counted by themselves.

Source: SPEC N1-N6, Z1; its relation to the run is that of ``planted_scores``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.demo.planted_scores import ReadTable, Scores


@dataclass(frozen=True)
class Families:
    """What was planted about the images that a run could decode.

    Attributes:
        family: image_id -> number of the picture it was made from.
        beyond: image_id -> edit, of copies beyond the radius.
        members: family -> image_ids inside the radius.
    """

    family: dict[str, int]
    beyond: dict[str, str]
    members: dict[int, list[str]]

    @classmethod
    def of(cls, truth: ReadTable, images: Iterable[str]) -> Families:
        """Families of some images."""
        rows = {r["image_id"]: r for r in truth("families").to_pylist()}
        family, beyond = {}, {}
        members: dict[int, list[str]] = defaultdict(list)
        for image in images:
            row = rows[image]
            family[image] = row["family_id"]
            if row["is_inside"]:
                members[row["family_id"]].append(image)
            else:
                beyond[image] = row["edit"]
        return cls(family, beyond, dict(members))


def duplicate_scores(run: ReadTable, truth: ReadTable) -> Scores:
    """Recall and precision of pairs, of groups and of what was dropped.

    Returns:
        ``recall_found``: pairs of a family inside the radius that the pairs of the run connect;
        ``recall_removed``: copies beyond one a family that are gone from `unique_images`;
        ``precision_pairs``, ``precision_groups``, ``precision_removed``: share of the pairs, of
        the grouped images, of the images dropped as duplicates, that are of one family with the
        other; ``num_families_lost``: families that are gone though neither blocked nor in a
        validation set; ``beyond``: copies by edit, how many are connected with their family, and
        how many are left beside a copy of it inside the radius.
    """
    images = run("image_fingerprints", ["image_id"])["image_id"].to_pylist()
    planted = Families.of(truth, images)
    alive = set(run("unique_images", ["image_id"])["image_id"].to_pylist())
    pairs = run("near_duplicate_pairs", ["image_id_a", "image_id_b"]).to_pylist()
    linked = [(r["image_id_a"], r["image_id_b"]) for r in pairs]
    component = _components(images, linked)
    groups = run("duplicate_groups", ["image_id", "kept_image_id"]).to_pylist()
    grouped = [(r["image_id"], r["kept_image_id"]) for r in groups]
    dropped = run("dropped_images", ["image_id", "reason", "other_id"]).to_pylist()
    removed = [(r["image_id"], r["other_id"]) for r in dropped
               if r["reason"].startswith("duplicate_")]  # fmt: skip
    several = {f: m for f, m in planted.members.items() if len(m) > 1}
    num_pairs = sum(len(m) * (len(m) - 1) // 2 for m in several.values())
    found = sum(
        n * (n - 1) // 2
        for m in several.values()
        for n in Counter(component[i] for i in m).values()
    )
    spare = sum(len(m) - 1 for m in several.values())
    left = {f: sum(i in alive for i in m) for f, m in several.items()}
    return {
        "recall_found": found / max(num_pairs, 1),
        "recall_removed": 1.0 - sum(max(0, n - 1) for n in left.values()) / max(spare, 1),
        "precision_pairs": _share_of_one_family(planted, linked),
        "precision_groups": _share_of_one_family(planted, grouped),
        "precision_removed": _share_of_one_family(planted, removed),
        "num_families_lost": len(_lost(planted, alive, truth)),
        "num_families": len(several),
        "num_pairs_inside": num_pairs,
        "num_copies_inside": spare,
        "num_removed": len(removed),
        "beyond": _beyond(planted, component, alive),
    }


def _components(images: list[str], pairs: list[tuple[str, str]]) -> dict[str, int]:
    at = {image: i for i, image in enumerate(images)}
    rows = np.array([(at[a], at[b]) for a, b in pairs], np.int64).reshape(-1, 2)
    ones = np.ones(len(rows), np.int8)
    graph = coo_array((ones, (rows[:, 0], rows[:, 1])), shape=(len(images), len(images)))
    _, labels = connected_components(graph, directed=False)
    return dict(zip(images, labels.tolist(), strict=True))


def _share_of_one_family(planted: Families, pairs: list[tuple[str, str]]) -> float:
    if not pairs:
        return 1.0
    return sum(planted.family[a] == planted.family[b] for a, b in pairs) / len(pairs)


def _lost(planted: Families, alive: set[str], truth: ReadTable) -> set[int]:
    """Families with no image left and no reason why."""
    excused = {planted.family.get(i) for i in _named_blocked(truth)}
    leaks = truth("validation_leaks", ["image_id"])["image_id"].to_pylist()
    excused |= {planted.family.get(i) for i in leaks}
    return set(planted.family.values()) - {planted.family[i] for i in alive} - excused


def _beyond(planted: Families, component: dict[str, int], alive: set[str]) -> dict[str, Scores]:
    others: dict[int, Counter[int]] = defaultdict(Counter)
    for image, family in planted.family.items():
        others[family][component[image]] += 1
    left = {f for f, members in planted.members.items() if alive.intersection(members)}
    result: dict[str, Scores] = {}
    for image, edit in sorted(planted.beyond.items()):
        family = planted.family[image]
        row = result.setdefault(edit, {"num": 0, "num_found": 0, "num_left": 0})
        row["num"] += 1
        row["num_found"] += others[family][component[image]] > 1
        row["num_left"] += image in alive and family in left
    return result


def validation_scores(run: ReadTable, truth: ReadTable, released: set[str]) -> Scores:
    """Leaks inside the radius that are left, in `unique_images` or in the shards; those beyond.

    Args:
        run: tables of the run.
        truth: tables of the truth.
        released: image_ids as they are in the shards.

    Returns:
        ``num_leaks`` and ``num_left`` inside; ``precision``: share of the images removed for a
        validation image that do show its picture; ``beyond``: by edit.
    """
    rows = truth("validation_leaks").to_pylist()
    images = run("image_fingerprints", ["image_id"])["image_id"].to_pylist()
    alive = released | set(run("unique_images", ["image_id"])["image_id"].to_pylist())
    inside = {r["image_id"] for r in rows if r["is_inside"]}
    beyond: dict[str, Scores] = {}
    for image, edit in sorted({(r["image_id"], r["edit"]) for r in rows if not r["is_inside"]}):
        row = beyond.setdefault(edit, {"num": 0, "num_left": 0})
        row["num"] += 1
        row["num_left"] += image in alive
    dropped = run("dropped_images", ["image_id", "reason", "other_id"]).to_pylist()
    named = {(f"{r['dataset']}/{r['validation_image_id']}", r["image_id"]) for r in rows}
    removed = [(r["other_id"], r["image_id"]) for r in dropped
               if r["reason"].startswith("validation_")]  # fmt: skip
    return {
        "num_leaks": len(inside & set(images)),
        "num_left": len(inside & alive),
        "precision": sum(pair in named for pair in removed) / max(len(removed), 1),
        "num_removed": len(removed),
        "beyond": beyond,
    }


def blocked_scores(run: ReadTable, truth: ReadTable, released: set[str]) -> Scores:
    """Opt-outs and their copies that are left.

    Returns:
        ``num_named_left``; ``num_copies_left``: copies inside the radius of an opt-out that is
        inside itself; ``precision``: share of the images removed as copies of an opt-out that are.
    """
    images = run("image_fingerprints", ["image_id"])["image_id"].to_pylist()
    planted = Families.of(truth, images)
    alive = released | set(run("unique_images", ["image_id"])["image_id"].to_pylist())
    named = _named_blocked(truth)
    families = {planted.family[i] for i in named if i not in planted.beyond}
    copies = {i for f in families for i in planted.members[f]} - named
    dropped = run("dropped_images", ["image_id", "reason"]).to_pylist()
    removed = {r["image_id"] for r in dropped if r["reason"] == "blocked_duplicate"} - named
    of_blocked = {planted.family[i] for i in named}
    right = sum(planted.family[i] in of_blocked for i in removed)
    return {
        "num_named": len(named),
        "num_named_left": len(named & alive),
        "num_copies": len(copies),
        "num_copies_left": len(copies & alive),
        "precision": right / max(len(removed), 1) if removed else 1.0,
        "num_removed_copies": len(removed),
    }


def _named_blocked(truth: ReadTable) -> set[str]:
    return set(truth("blocked", ["image_id"])["image_id"].to_pylist())
