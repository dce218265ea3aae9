"""From annotations to image labels: selection, concreteness, interests, clusters, labels."""

from schemas.contract import Column, Layout, Table
from schemas.ingested import ANNOTATION_LIST, IMAGE_ID, L1_INTEREST, TERM_ID

_CLUSTER_ID = Column(name="cluster_id", type="int", doc="identifier of the cluster", min=0)
_EMBEDDING = Column(name="embedding", type="vector", doc="little-endian float32 bytes")


def _reasons(name: str, doc: str, key: Column, layout: Layout) -> Table:
    return Table(
        name=name,
        doc=doc,
        key=(key.name,),
        layout=layout,
        columns=(key, Column(name="reason", type="string", doc="why, from a fixed list")),
    )


ANNOTATION_THRESHOLDS = Table(
    name="annotation_thresholds",
    doc="Least confidence of a term, calibrated on a labelled sample.",
    key=("term_id",),
    layout="single",
    columns=(
        TERM_ID,
        Column(name="min_confidence", type="float", doc="least confidence kept", min=0),
    ),
)
THRESHOLD_CURVE = Table(
    name="threshold_curve",
    doc="Precision of the labelled sample above each threshold.",
    key=("min_confidence",),
    layout="single",
    columns=(
        Column(name="min_confidence", type="float", doc="least confidence kept", min=0, max=1),
        Column(name="num_kept", type="bigint", doc="annotations kept", min=0),
        Column(name="precision", type="double", doc="share of them that holds", min=0, max=1),
        Column(name="precision_lower", type="double", doc="confidence bound of it", min=0, max=1),
    ),
)
SELECTED_ANNOTATIONS = Table(
    name="selected_annotations",
    doc="Canonical, non-sensitive annotations in the language, at or above the threshold.",
    key=("image_id",),
    columns=(
        IMAGE_ID,
        Column(name="annotations", type=ANNOTATION_LIST, doc="terms ascending without repeats"),
    ),
)
CONCRETENESS_POOL = Table(
    name="concreteness_pool",
    doc="Random images that serve every term as negatives.",
    key=("image_id",),
    layout="single",
    columns=(
        IMAGE_ID,
        Column(name="term_ids", type="array<int>", doc="its terms at any score, ascending"),
        _EMBEDDING,
    ),
)
CONCRETENESS_POSITIVES = Table(
    name="concreteness_positives",
    doc="Sampled positive images of a term.",
    key=("term_id", "image_id"),
    columns=(TERM_ID, IMAGE_ID, _EMBEDDING),
)
TERM_CONCRETENESS = Table(
    name="term_concreteness",
    doc="Held-out accuracy of a term's classifier: how visually predictable the term is.",
    key=("term_id",),
    columns=(
        TERM_ID,
        Column(
            name="concreteness",
            type="float",
            doc="top-1 accuracy on a balanced held-out set; null unless `status` is ok",
            min=0,
            max=1,
            nullable=True,
        ),
        Column(name="num_positives", type="int", doc="positive images used", min=0),
        Column(name="num_test", type="int", doc="held-out items, both classes", min=0),
        Column(
            name="standard_error", type="float", doc="of the accuracy", min=0, max=1, nullable=True
        ),
        Column(
            name="wilson_lower",
            type="float",
            doc="lower Wilson bound of the accuracy",
            min=0,
            max=1,
            nullable=True,
        ),
        Column(name="status", type="string", doc="ok, too_few_positives or too_few_negatives"),
        Column(name="seed", type="bigint", doc="seed of sampling, split and starting weights"),
    ),
)
VISUAL_TERMS = Table(
    name="visual_terms",
    doc="The visual dictionary: terms not below the decision boundary.",
    key=("term_id",),
    layout="single",
    columns=(
        TERM_ID,
        Column(name="concreteness", type="float", doc="as in `term_concreteness`", nullable=True),
        Column(name="num_positives", type="int", doc="as in `term_concreteness`", min=0),
    ),
)
DROPPED_TERMS = _reasons(
    "dropped_terms", "Selectable terms that are not in the visual dictionary.", TERM_ID, "single"
)
CONCRETENESS_SWEEP = Table(
    name="concreteness_sweep",
    doc="What each decision boundary keeps.",
    key=("boundary",),
    layout="single",
    columns=(
        Column(name="boundary", type="float", doc="decision boundary", min=0, max=1),
        Column(name="num_terms", type="bigint", doc="terms kept", min=0),
        Column(name="num_annotations", type="bigint", doc="annotations kept", min=0),
        Column(name="num_images", type="bigint", doc="images that keep an annotation", min=0),
        Column(
            name="metric",
            type="double",
            doc="proxy evaluation of the boundary, null where none is given",
            nullable=True,
        ),
    ),
)
TERM_INTERESTS = Table(
    name="term_interests",
    doc="L1 interests of a term.",
    key=("term_id", "l1_interest"),
    layout="single",
    columns=(
        TERM_ID,
        L1_INTEREST,
        Column(name="probability", type="float", doc="calibrated", min=0, max=1),
    ),
)
UNCATEGORISED_TERMS = _reasons(
    "uncategorised_terms", "Terms without an interest.", TERM_ID, "single"
)


def _report(name: str, of: str) -> Table:
    def score(column: str, doc: str) -> Column:
        return Column(name=column, type="double", doc=doc, min=0, max=1, nullable=True)

    return Table(
        name=name,
        doc=f"Cross-validated quality of the {of} classifier, by interest.",
        key=("l1_interest",),
        layout="single",
        columns=(
            L1_INTEREST,
            Column(name="num_seeds", type="int", doc="positive seeds", min=0),
            Column(
                name="num_groups",
                type="int",
                doc="groups of positive seeds; seeds of a group are held out together",
                min=0,
            ),
            Column(
                name="status",
                type="string",
                doc="ok, too_few_seeds, or macro_average for the row of the mean",
            ),
            score("threshold", "probability at and above which it is given"),
            score("precision", "on held-out seeds"),
            score("recall", "on held-out seeds"),
            score("f1", "on held-out seeds"),
            score("average_precision", "on held-out seeds"),
        ),
    )


def _model(name: str, of: str) -> Table:
    return Table(
        name=name,
        doc=f"The {of} classifier as data.",
        key=("name",),
        layout="single",
        columns=(
            Column(name="name", type="string", doc="what the classifier tells"),
            Column(name="model", type="string", doc="weights, calibration, thresholds as JSON"),
        ),
    )


TERM_INTEREST_MODEL = _model("term_interest_model", "term")
IMAGE_INTEREST_MODEL = _model("image_interest_model", "image")
TERM_INTEREST_REPORT = _report("term_interest_report", "term")
IMAGE_INTEREST_REPORT = _report("image_interest_report", "image")
IMAGE_TEXT_EMBEDDINGS = Table(
    name="image_text_embeddings",
    doc="Text embedding of an image's title, description and tags; zero where it has no text.",
    key=("image_id",),
    columns=(IMAGE_ID, _EMBEDDING),
)
IMAGE_INTERESTS = Table(
    name="image_interests",
    doc="L1 interests of an image; images without any have an empty list.",
    key=("image_id",),
    columns=(
        IMAGE_ID,
        Column(name="l1_interests", type="array<string>", doc="ascending without repeats"),
    ),
)
CLUSTERS = Table(
    name="clusters",
    doc="k-means clusters of visual terms inside an L1 interest.",
    key=("cluster_id",),
    layout="single",
    columns=(
        _CLUSTER_ID,
        L1_INTEREST,
        Column(name="name", type="string", doc="text of the medoid term"),
        Column(name="medoid_term_id", type="int", doc="term nearest to the centroid", min=0),
        Column(name="num_terms", type="int", doc="terms in it", min=1),
        Column(name="top_terms", type="array<string>", doc="terms nearest to the centroid first"),
        Column(name="inertia", type="double", doc="summed squared distance to the centroid", min=0),
    ),
)
TERM_CLUSTERS = Table(
    name="term_clusters",
    doc="Clusters of a term, one for each of its interests.",
    key=("term_id", "cluster_id"),
    layout="single",
    columns=(
        TERM_ID,
        _CLUSTER_ID,
        Column(name="distance", type="float", doc="Euclidean, to the centroid", min=0),
    ),
)
IMAGE_LABELS = Table(
    name="image_labels",
    doc="Clusters of an image after the restriction to its interests.",
    key=("image_id",),
    columns=(
        IMAGE_ID,
        Column(name="cluster_ids", type="array<int>", doc="ascending without repeats"),
        Column(
            name="label_terms",
            type="array<array<int>>",
            doc="for each cluster the term ids that gave it, ascending",
        ),
    ),
)
UNLABELLED_IMAGES = _reasons(
    "unlabelled_images",
    "Images without labels, by the step that took the last one.",
    IMAGE_ID,
    "bucketed",
)

LABELS = (
    ANNOTATION_THRESHOLDS,
    THRESHOLD_CURVE,
    SELECTED_ANNOTATIONS,
    CONCRETENESS_POOL,
    CONCRETENESS_POSITIVES,
    TERM_CONCRETENESS,
    VISUAL_TERMS,
    DROPPED_TERMS,
    CONCRETENESS_SWEEP,
    TERM_INTERESTS,
    UNCATEGORISED_TERMS,
    TERM_INTEREST_MODEL,
    IMAGE_INTEREST_MODEL,
    TERM_INTEREST_REPORT,
    IMAGE_INTEREST_REPORT,
    IMAGE_TEXT_EMBEDDINGS,
    IMAGE_INTERESTS,
    CLUSTERS,
    TERM_CLUSTERS,
    IMAGE_LABELS,
    UNLABELLED_IMAGES,
)
