"""Tables of the planted world that are computed, not streamed: dictionary, families, wrong labels.

Source: SPEC I1, Z1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.demo.planted_content import BEYOND_EDITS, EDITS, Contents, Copies, draw
from pipeline.demo.planted_rows import image_names
from pipeline.demo.planted_terms import VISUAL_KINDS, PlantedTerms


def dictionary_tables(terms: PlantedTerms, seed: int) -> dict[str, pa.Table]:
    """Tables of the dictionary, input and truth, by name."""
    ids = np.arange(len(terms.text))
    pairs = [(t, g) for t in ids.tolist() for g in terms.interests[t]]
    names = [terms.interest_names[g] for _, g in pairs]
    is_seed = draw(ids, 0, seed, "interest seeds") < 0.5
    is_seed &= np.isin(np.array(terms.kind), VISUAL_KINDS)
    seeds = [(terms.text[t], n) for (t, _), n in zip(pairs, names, strict=True) if is_seed[t]]
    visual = terms.of_kind(*VISUAL_KINDS)
    kinds = [terms.kind[t] for t in visual.tolist()]
    clear = {"concrete": "concrete", "polysemous": "concrete", "abstract": "abstract"}
    vectors = embedding_rows(terms.text, terms.text_embedding)["embedding"]
    return {
        "terms": terms.source_table(),
        "term_embeddings": pa.table({"term_id": pa.array(ids, pa.int32()), "embedding": vectors}),
        "term_interests": pa.table(
            {"term_id": pa.array([t for t, _ in pairs], pa.int32()), "l1_interest": names}
        ),
        "interest_seeds": strings(text=[t for t, _ in seeds], l1_interest=[n for _, n in seeds]),
        "truth/concreteness": pa.table(
            {
                "term_id": pa.array(visual, pa.int32()),
                "kind": kinds,
                "class": [clear.get(k, "between") for k in kinds],
                "purity": terms.purity[visual],
                "separability": terms.separability[visual],
            }
        ),
        "truth/terms": pa.table(
            {
                "term_id": pa.array(ids, pa.int32()),
                "text": terms.text,
                "kind": terms.kind,
                "canonical_term_id": pa.array(terms.canonical, pa.int32()),
                "topic": pa.array(terms.topic, pa.int32()),
            }
        ),
    }


def wrong_labels(
    terms: PlantedTerms,
    ids: list[str],
    contents: Contents,
    position: NDArray[np.int64],
    term: NDArray[np.int32],
    score: NDArray[np.float32],
) -> pa.Table:
    """Interests of a said term that are not the image's: its clusters there are wrong labels.

    ``cause`` is polysemy where the image shows another sense of the term, else noise.
    """
    canonical = terms.canonical[term]
    labels = np.isin(canonical, terms.of_kind(*VISUAL_KINDS))
    rows: dict[str, list[Any]] = {k: [] for k in ("image_id", "term_id", "l1_interest",
                                                  "cause", "score")}  # fmt: skip
    shown = np.where(contents.sense >= 0, terms.sense_term[contents.sense], -1)
    is_shown = (shown[position] == canonical[:, None]).any(axis=1)
    for i in np.flatnonzero(labels).tolist():
        true = contents.interest[position[i]]
        for g in terms.interests[canonical[i]]:
            if g not in true:
                rows["image_id"].append(ids[position[i]])
                rows["term_id"].append(int(canonical[i]))
                rows["l1_interest"].append(terms.interest_names[g])
                rows["cause"].append("polysemy" if is_shown[i] else "noise")
                rows["score"].append(float(score[i]))
    schema = pa.schema([("image_id", pa.string()), ("term_id", pa.int32()),
                        ("l1_interest", pa.string()), ("cause", pa.string()),
                        ("score", pa.float32())])  # fmt: skip
    return pa.table(rows, schema=schema)


def family_rows(ids: list[str], copies: Copies) -> pa.Table:
    """Truth about copies; family_id is the number of the content."""
    edits = [EDITS[e] for e in copies.edit.tolist()]
    return pa.table(
        {
            "image_id": ids,
            "family_id": copies.content,
            "edit": edits,
            "is_inside": [e not in BEYOND_EDITS for e in edits],
        }
    )


def leak_rows(
    ids: list[str],
    sets: list[str],
    content: NDArray[np.int64],
    chunks: Iterable[tuple[NDArray[np.int64], Copies]],
    seed: int,
) -> pa.Table:
    """Corpus images made from the picture that a validation image was made from.

    Args:
        ids: validation images.
        sets: their data sets.
        content: int64, numbers of their pictures.
        chunks: numbers of corpus images with what each one copies.
        seed: of the world.

    Returns:
        one row a pair of validation and corpus image, in the order of the corpus.
    """
    by_content: dict[int, list[int]] = {}
    for i, c in enumerate(content.tolist()):
        by_content.setdefault(c, []).append(i)
    rows: list[tuple[str, str, str, str, bool]] = []
    wanted = np.array(sorted(by_content), np.int64)
    for numbers, copies in chunks:
        hits = np.flatnonzero(np.isin(copies.content, wanted))
        names = image_names(numbers[hits], seed)
        for name, at in zip(names, hits.tolist(), strict=True):
            edit = EDITS[copies.edit[at]]
            for v in by_content[int(copies.content[at])]:
                rows.append((sets[v], ids[v], name, edit, edit not in BEYOND_EDITS))
    sets_of, validation, image, edits, inside = zip(*rows, strict=True) if rows else ([],) * 5
    table = strings(dataset=sets_of, validation_image_id=validation, image_id=image, edit=edits)
    return table.append_column("is_inside", pa.array(inside, pa.bool_()))


def embedding_rows(ids: list[str], vectors: NDArray[np.float32]) -> pa.Table:
    """Rows (image_id, embedding as a list of floats)."""
    offsets = pa.array(np.arange(len(ids) + 1, dtype=np.int32) * vectors.shape[1])
    lists = pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel(), pa.float32()))
    return pa.table({"image_id": pa.array(ids, pa.string()), "embedding": lists})


def strings(**columns: Any) -> pa.Table:
    """A table of string columns."""
    return pa.table({name: pa.array(list(values), pa.string()) for name, values in columns.items()})
