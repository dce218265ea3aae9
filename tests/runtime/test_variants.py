"""The paper's Table 2 on rows worked by hand: three variants in one root, one upstream."""

from contextlib import contextmanager

import numpy as np
import pytest
from given import publish_rows

from pipeline.config.labels import ClusterTermsParams, SelectAnnotationsParams
from pipeline.config.load import with_overrides
from pipeline.config.run import RunConfig
from pipeline.config.runtime import RuntimeParams
from pipeline.files.storage import open_storage
from pipeline.runtime.lifecycle import Lifecycle
from pipeline.runtime.manifest import home_of, read_current
from pipeline.runtime.planning import plan_chain
from pipeline.runtime.variants import run_variants, to_csv, variant_lines
from pipeline.stages import cluster_terms, label_images, select_annotations, select_visual_terms
from schemas.ingested import ANNOTATIONS, IMAGES, INTERESTS, TERMS, TEXT_EMBEDDINGS
from schemas.labels import IMAGE_INTERESTS, TERM_CONCRETENESS, TERM_INTERESTS

CHAIN = [
    select_annotations.STAGE,
    select_visual_terms.STAGE,
    cluster_terms.STAGE,
    label_images.STAGE,
]
TEXTS = ("cat", "car", "joy")
INTEREST_OF = ("animals", "vehicles", "animals")
CONCRETENESS = (0.9, 0.8, 0.5)  # joy is not visual
# image -> its terms and its interests
WORLD = {
    "a": ([0, 2], ["animals"]),
    "b": ([1], ["animals"]),
    "c": ([2], ["vehicles"]),
    "d": ([0], ["animals"]),
    "e": ([], ["animals"]),
}


def rows():
    absent = dict.fromkeys(("uri", "bytes", "title", "description", "tags", "source", "licence"))
    terms = [
        {
            "term_id": i,
            "text": text,
            "language": "en",
            "canonical_term_id": i,
            "is_sensitive": False,
        }
        for i, text in enumerate(TEXTS)
    ]
    scores = [
        {
            "term_id": i,
            "concreteness": score,
            "num_positives": 5,
            "num_test": 10,
            "standard_error": 0.1,
            "wilson_lower": 0.4,
            "status": "ok",
            "seed": 0,
        }
        for i, score in enumerate(CONCRETENESS)
    ]
    return {
        TERMS: terms,
        TERM_CONCRETENESS: scores,
        INTERESTS: [{"l1_interest": name} for name in ("animals", "vehicles")],
        TERM_INTERESTS: [
            {"term_id": i, "l1_interest": name, "probability": 0.9}
            for i, name in enumerate(INTEREST_OF)
        ],
        TEXT_EMBEDDINGS: [
            {"text": text, "embedding": np.eye(3, dtype="<f4")[i].tobytes()}
            for i, text in enumerate(TEXTS)
        ],
        IMAGES: [{"image_id": name, **absent} for name in WORLD],
        ANNOTATIONS: [
            {"image_id": name, "annotations": [{"term_id": t, "score": 0.9} for t in found]}
            for name, (found, _) in WORLD.items()
        ],
        IMAGE_INTERESTS: [
            {"image_id": name, "l1_interests": interests} for name, (_, interests) in WORLD.items()
        ],
    }


@pytest.fixture
def root(spark, tmp_path):
    """Storage, configuration and given tables of a root whose own run is done."""
    config = RunConfig(
        root=str(tmp_path),
        runtime=RuntimeParams(num_buckets=2),
        select_annotations=SelectAnnotationsParams(min_confidence=0.5),
        cluster_terms=ClusterTermsParams(terms_per_cluster=1),
    )
    storage = open_storage(config.root)
    given = {table.name: publish_rows(storage, table, r, 2) for table, r in rows().items()}
    versions = {name: manifest.version for name, manifest in given.items()}
    lifecycle = Lifecycle(spark, config, storage, given)
    for planned in plan_chain(CHAIN, config, storage, versions):
        lifecycle.run(planned)
    return storage, config, given, versions


def compare(root, session):
    storage, config, given, versions = root
    return run_variants(config, storage, CHAIN, versions, given, session)


def pointers(storage):
    return {stage.name: read_current(storage, home_of(stage)) for stage in CHAIN}


def num_versions(storage, stage):
    return len([name for name in storage.list(home_of(stage)) if name != "CURRENT.json"])


def test_table_2_by_hand_shares_what_lies_before(spark, root):
    storage = root[0]
    before = pointers(storage)
    opened = []

    @contextmanager
    def session():
        opened.append(1)
        yield spark

    found = compare(root, session)
    # Every term is its own cluster. Without the dictionary a has cat and joy, b car, c joy, d cat;
    # with it a and d have cat, b car; b's car is no vehicle to an image of animals.
    assert [
        (r.num_terms, r.num_clusters, r.num_labels, r.num_images, r.num_given) for r in found
    ] == [(3, 3, 3, 4, 5), (2, 2, 2, 3, 3), (2, 2, 1, 2, 2)]
    assert pointers(storage) == before
    assert {r.stages["select_annotations"] for r in found} == {before["select_annotations"].version}
    assert found[1].stages["cluster_terms"] == found[2].stages["cluster_terms"]
    counts = [num_versions(storage, stage) for stage in CHAIN]
    assert counts == [1, 2, 2, 3]

    assert compare(root, session) == found
    assert opened == [1]  # the second time everything was there
    assert to_csv(found).splitlines()[1] == "annotation clustering,3,3,3,4,1.2500"
    assert variant_lines(found)[3].split()[-5:] == ["2", "2", "1", "2", "1.00"]


def test_overrides_name_what_does_not_exist():
    with pytest.raises(ValueError, match=r"Did you mean 'restrict'"):
        with_overrides(RunConfig(), ["select_visual_terms.restrct=false"])
    changed = with_overrides(RunConfig(root="x"), ["label_images.restrict_to_interests=false"])
    assert not changed.label_images.restrict_to_interests
    assert changed.root == "x"
