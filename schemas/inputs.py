"""Tables that a user brings. Any Spark-readable source; columns beyond these are ignored.

Their values are not trusted: ingest checks each row and sets bad ones aside with a reason.
"""

from schemas.contract import Column, Table


def _source(name: str, doc: str, *columns: Column, key: tuple[str, ...]) -> Table:
    return Table(name=f"source_{name}", doc=doc, columns=columns, key=key, is_unique=False)


_IMAGE_ID = Column(name="image_id", type="string", doc="stable identifier of the image")
_URI = Column(
    name="uri",
    type="string",
    doc="where the bytes are: a path or an object-store URI",
    nullable=True,
)
_BYTES = Column(
    name="bytes", type="binary", doc="encoded image, where the table carries it", nullable=True
)
_EMBEDDING = Column(
    name="embedding",
    type="array<float>",
    doc="production visual embedding; little-endian float32 binary is accepted too",
)

SOURCE_IMAGES = _source(
    "images",
    "Images with the text around them. Each has a `uri` or `bytes`.",
    _IMAGE_ID,
    _URI,
    _BYTES,
    Column(name="title", type="string", doc="title as the user wrote it", nullable=True),
    Column(name="description", type="string", doc="description or caption", nullable=True),
    Column(name="tags", type="array<string>", doc="user tags", nullable=True),
    Column(name="source", type="string", doc="where the image came from", nullable=True),
    Column(name="licence", type="string", doc="licence of the image", nullable=True),
    key=("image_id",),
)
SOURCE_ANNOTATIONS_LONG = _source(
    "annotations_long",
    "Output of a keyword prediction model, one row an annotation.",
    _IMAGE_ID,
    Column(name="term", type="string", doc="text of the term"),
    Column(
        name="language",
        type="string",
        doc="ISO 639-1 code; null means the configured one",
        nullable=True,
    ),
    Column(name="score", type="float", doc="confidence", min=0, max=1),
    key=("image_id",),
)
SOURCE_ANNOTATIONS_NESTED = _source(
    "annotations_nested",
    "Output of a keyword prediction model, one row an image.",
    _IMAGE_ID,
    Column(
        name="annotations",
        type="array<struct<term_id:int,score:float>>",
        doc="terms and confidences",
    ),
    key=("image_id",),
)
SOURCE_TERMS = _source(
    "terms",
    "The term dictionary.",
    Column(name="term_id", type="int", doc="identifier of the term", min=0, max=2**27 - 1),
    Column(name="text", type="string", doc="the term"),
    Column(name="language", type="string", doc="ISO 639-1 code"),
    Column(
        name="canonical_term_id",
        type="int",
        doc="term this one is an alias of; own id if canonical",
    ),
    Column(name="is_sensitive", type="boolean", doc="must never reach a release"),
    key=("term_id",),
)
SOURCE_IMAGE_EMBEDDINGS = _source(
    "image_embeddings", "Precomputed visual embeddings.", _IMAGE_ID, _EMBEDDING, key=("image_id",)
)
SOURCE_TERM_EMBEDDINGS = _source(
    "term_embeddings",
    "Precomputed text embeddings of terms.",
    Column(name="term_id", type="int", doc="identifier of the term", min=0),
    Column(
        name="embedding", type="array<float>", doc="text embedding; float32 binary is accepted too"
    ),
    key=("term_id",),
)
SOURCE_TAXONOMY = _source(
    "taxonomy",
    "Names of the L1 interests.",
    Column(name="l1_interest", type="string", doc="name of the interest"),
    key=("l1_interest",),
)
SOURCE_INTEREST_SEEDS = _source(
    "interest_seeds",
    "Labelled terms that train the term classifier.",
    Column(name="text", type="string", doc="seed term"),
    Column(
        name="l1_interest",
        type="string",
        doc="one of the taxonomy's interests, or `none` for a term that has no interest",
    ),
    Column(
        name="source_node",
        type="string",
        doc="topic or taxonomy node the seed comes from; seeds of a node are held out together",
        nullable=True,
    ),
    key=("text",),
)
SOURCE_TERM_INTERESTS = _source(
    "term_interests",
    "Given interests of terms, instead of the classifier.",
    Column(name="term_id", type="int", doc="identifier of the term", min=0),
    Column(name="l1_interest", type="string", doc="one of the taxonomy's interests"),
    key=("term_id",),
)
SOURCE_IMAGE_INTERESTS = _source(
    "image_interests",
    "Given interests of images, instead of the classifier.",
    _IMAGE_ID,
    Column(name="l1_interest", type="string", doc="one of the taxonomy's interests"),
    key=("image_id",),
)
SOURCE_IMAGE_INTEREST_SEEDS = _source(
    "image_interest_seeds",
    "Labelled images that train the image classifier.",
    _IMAGE_ID,
    Column(name="l1_interest", type="string", doc="one of the taxonomy's interests"),
    key=("image_id",),
)
SOURCE_IMAGE_INTERACTIONS = _source(
    "image_interactions",
    "User interactions with images, by interest of the user or board.",
    _IMAGE_ID,
    Column(name="l1_interest", type="string", doc="one of the taxonomy's interests"),
    Column(name="count", type="bigint", doc="interactions", min=0),
    key=("image_id",),
)
SOURCE_VALIDATION_IMAGES = _source(
    "validation_images",
    "Images of evaluation sets, none of which may have a near-duplicate in the release.",
    Column(name="dataset", type="string", doc="evaluation set"),
    _IMAGE_ID,
    _URI,
    _BYTES,
    Column(
        name="embedding", type="array<float>", doc="visual embedding, where known", nullable=True
    ),
    key=("dataset", "image_id"),
)
SOURCE_BLOCKED_IMAGES = _source(
    "blocked_images",
    "Opt-outs: images that must never reach a release. Each row has an `image_id` or a `sha256`.",
    Column(name="image_id", type="string", doc="identifier of the image", nullable=True),
    Column(name="sha256", type="string", doc="hex digest of the image's bytes", nullable=True),
    key=("image_id",),
)
SOURCE_LABELLED_ANNOTATIONS = _source(
    "labelled_annotations",
    "A sample of annotations judged by people, for the choice of a confidence threshold.",
    _IMAGE_ID,
    Column(name="term_id", type="int", doc="identifier of the term", min=0),
    Column(name="score", type="float", doc="confidence", min=0, max=1),
    Column(name="is_correct", type="boolean", doc="whether the annotation holds"),
    key=("image_id",),
)
SOURCE_BOUNDARY_EVALUATIONS = _source(
    "boundary_evaluations",
    "A proxy evaluation of some decision boundaries, e.g. of small models pretrained at each.",
    Column(name="boundary", type="float", doc="decision boundary", min=0, max=1),
    Column(name="metric", type="double", doc="what was measured, more is better"),
    key=("boundary",),
)
SOURCE_PAIR_MODELS = _source(
    "pair_models",
    "Models that verify near-duplicate candidates, as `make fit_pair_model` writes them.",
    Column(name="model", type="string", doc="one model as JSON"),
    key=("model",),
)

SOURCES = (
    SOURCE_IMAGES,
    SOURCE_ANNOTATIONS_LONG,
    SOURCE_ANNOTATIONS_NESTED,
    SOURCE_TERMS,
    SOURCE_IMAGE_EMBEDDINGS,
    SOURCE_TERM_EMBEDDINGS,
    SOURCE_TAXONOMY,
    SOURCE_INTEREST_SEEDS,
    SOURCE_TERM_INTERESTS,
    SOURCE_IMAGE_INTERESTS,
    SOURCE_IMAGE_INTEREST_SEEDS,
    SOURCE_IMAGE_INTERACTIONS,
    SOURCE_VALIDATION_IMAGES,
    SOURCE_BLOCKED_IMAGES,
    SOURCE_LABELLED_ANNOTATIONS,
    SOURCE_BOUNDARY_EVALUATIONS,
    SOURCE_PAIR_MODELS,
)
