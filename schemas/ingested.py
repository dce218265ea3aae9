"""Clean forms of the inputs: valid keys, vectors as bytes, nested annotations."""

from schemas.contract import Column, Layout, Table


def rejected(of: str, layout: Layout = "bucketed") -> Table:
    """Rows that ingest set aside: ``rejected_<of>``."""
    return Table(
        name=f"rejected_{of}",
        doc=f"Rows of `{of}` that were set aside, with the reason.",
        key=("row_key", "reason", "detail"),
        is_unique=False,
        layout=layout,
        columns=(
            Column(
                name="row_key", type="string", doc="key of the row as text; empty where it had none"
            ),
            Column(name="reason", type="string", doc="what is wrong, from a fixed list"),
            Column(
                name="detail", type="string", doc="the offending value, shortened", nullable=True
            ),
        ),
    )


IMAGE_ID = Column(name="image_id", type="string", doc="stable identifier of the image")
TERM_ID = Column(name="term_id", type="int", doc="identifier of the term", min=0, max=2**27 - 1)
L1_INTEREST = Column(name="l1_interest", type="string", doc="one of the taxonomy's interests")
ANNOTATION_LIST = "array<struct<term_id:int,score:float>>"

IMAGES = Table(
    name="images",
    doc="Images with a valid, unique identifier.",
    key=("image_id",),
    columns=(
        IMAGE_ID,
        Column(
            name="uri", type="string", doc="where the bytes are, if not in `bytes`", nullable=True
        ),
        Column(
            name="bytes",
            type="binary",
            doc="encoded image, if not at `uri`",
            nullable=True,
            is_stored=True,
        ),
        Column(
            name="num_bytes",
            type="bigint",
            doc="size of `bytes`",
            unit="bytes",
            nullable=True,
            min=0,
        ),
        Column(name="title", type="string", doc="title as the user wrote it", nullable=True),
        Column(name="description", type="string", doc="description or caption", nullable=True),
        Column(name="tags", type="array<string>", doc="user tags", nullable=True),
        Column(name="source", type="string", doc="where the image came from", nullable=True),
        Column(name="licence", type="string", doc="licence of the image", nullable=True),
    ),
)
TERMS = Table(
    name="terms",
    doc="The term dictionary, texts normalised.",
    key=("term_id",),
    layout="single",
    columns=(
        TERM_ID,
        Column(name="text", type="string", doc="normalised text"),
        Column(name="language", type="string", doc="ISO 639-1 code"),
        Column(
            name="canonical_term_id", type="int", doc="canonical form; own id if canonical", min=0
        ),
        Column(
            name="is_sensitive",
            type="boolean",
            doc="marked so, or its skeleton matches the sensitive list or a marked term",
        ),
    ),
)
ANNOTATIONS = Table(
    name="annotations",
    doc="Annotations of an image, nested; dictionary terms only.",
    key=("image_id",),
    columns=(
        IMAGE_ID,
        Column(
            name="annotations",
            type=ANNOTATION_LIST,
            doc="terms ascending without repeats, with their confidence",
        ),
    ),
)
TERM_DOCUMENTS = Table(
    name="term_documents",
    doc="In how many images' texts a term stands.",
    key=("term_id",),
    layout="single",
    columns=(
        TERM_ID,
        Column(name="num_images", type="bigint", doc="images whose text names it", min=0),
    ),
)
ANNOTATOR_MODEL = Table(
    name="annotator_model",
    doc="The model of annotation confidence as data.",
    key=("name", "index"),
    layout="single",
    columns=(
        Column(name="name", type="string", doc="what the number is"),
        Column(name="index", type="int", doc="place in an array; 0 for a single number", min=0),
        Column(name="value", type="double", doc="the number"),
    ),
)
IMAGE_EMBEDDINGS = Table(
    name="image_embeddings",
    doc="Visual embedding of an image.",
    key=("image_id",),
    columns=(IMAGE_ID, Column(name="embedding", type="vector", doc="little-endian float32 bytes")),
)
TEXT_EMBEDDINGS = Table(
    name="text_embeddings",
    doc="Text embedding of every term and seed text, L2-normalised.",
    key=("text",),
    layout="single",
    columns=(
        Column(name="text", type="string", doc="normalised text"),
        Column(name="embedding", type="vector", doc="little-endian float32 bytes, unit length"),
    ),
)
INTERESTS = Table(
    name="interests",
    doc="The L1 interests of the taxonomy.",
    key=("l1_interest",),
    layout="single",
    columns=(L1_INTEREST,),
)
INTEREST_SEEDS = Table(
    name="interest_seeds",
    doc="Labelled terms that train the term classifier.",
    key=("text",),
    layout="single",
    columns=(
        Column(name="text", type="string", doc="normalised text"),
        Column(
            name="l1_interests",
            type="array<string>",
            doc="its interests, ascending; `none` for a term without any",
        ),
        Column(
            name="source_nodes",
            type="array<string>",
            doc="nodes it comes from, ascending; seeds that share one stay in one fold",
        ),
    ),
)
IMAGE_INTEREST_SEEDS = Table(
    name="image_interest_seeds",
    doc="Labelled images that train the image classifier.",
    key=("image_id",),
    columns=(
        IMAGE_ID,
        Column(name="l1_interests", type="array<string>", doc="its interests, ascending"),
    ),
)
IMAGE_INTERACTIONS = Table(
    name="image_interactions",
    doc="User interactions with an image, by interest.",
    key=("image_id",),
    columns=(
        IMAGE_ID,
        Column(
            name="interactions",
            type="array<struct<l1_interest:string,count:bigint>>",
            doc="counts by interest, ascending by name",
        ),
    ),
)
VALIDATION_IMAGES = Table(
    name="validation_images",
    doc="Images of evaluation sets.",
    key=("validation_id",),
    columns=(
        Column(name="validation_id", type="string", doc="`dataset/image_id`"),
        Column(name="dataset", type="string", doc="evaluation set"),
        IMAGE_ID,
        Column(
            name="uri", type="string", doc="where the bytes are, if not in `bytes`", nullable=True
        ),
        Column(name="bytes", type="binary", doc="encoded image, if not at `uri`", nullable=True),
        Column(name="embedding", type="vector", doc="float32 bytes, where known", nullable=True),
    ),
)
VALIDATION_EMBEDDINGS = Table(
    name="validation_embeddings",
    doc="Visual embedding of a validation image, given or computed.",
    key=("validation_id",),
    columns=(
        Column(name="validation_id", type="string", doc="`dataset/image_id`"),
        Column(name="embedding", type="vector", doc="little-endian float32 bytes"),
    ),
)
BLOCKED_IMAGES = Table(
    name="blocked_images",
    doc="Opt-outs.",
    key=("kind", "value"),
    layout="single",
    columns=(
        Column(name="kind", type="string", doc="`image_id` or `sha256`"),
        Column(name="value", type="string", doc="the identifier, or the lower-case hex digest"),
    ),
)

REJECTED_IMAGES = rejected("images")
REJECTED_TERMS = rejected("terms", "single")
REJECTED_ANNOTATIONS = rejected("annotations")
REJECTED_ANNOTATED_IMAGES = rejected("annotated_images")
REJECTED_IMAGE_EMBEDDINGS = rejected("image_embeddings")
REJECTED_TEXT_EMBEDDINGS = rejected("text_embeddings", "single")
REJECTED_INTEREST_SEEDS = rejected("interest_seeds", "single")
REJECTED_TERM_INTERESTS = rejected("term_interests", "single")
REJECTED_IMAGE_INTERESTS = rejected("image_interests")
REJECTED_IMAGE_INTEREST_SEEDS = rejected("image_interest_seeds")
REJECTED_IMAGE_INTERACTIONS = rejected("image_interactions")
REJECTED_VALIDATION_IMAGES = rejected("validation_images")
REJECTED_VALIDATION_EMBEDDINGS = rejected("validation_embeddings")
REJECTED_BLOCKED_IMAGES = rejected("blocked_images", "single")

INGESTED = (
    IMAGES,
    TERMS,
    ANNOTATIONS,
    TERM_DOCUMENTS,
    ANNOTATOR_MODEL,
    IMAGE_EMBEDDINGS,
    TEXT_EMBEDDINGS,
    INTERESTS,
    INTEREST_SEEDS,
    IMAGE_INTEREST_SEEDS,
    IMAGE_INTERACTIONS,
    VALIDATION_IMAGES,
    VALIDATION_EMBEDDINGS,
    BLOCKED_IMAGES,
    REJECTED_IMAGES,
    REJECTED_TERMS,
    REJECTED_ANNOTATIONS,
    REJECTED_ANNOTATED_IMAGES,
    REJECTED_IMAGE_EMBEDDINGS,
    REJECTED_TEXT_EMBEDDINGS,
    REJECTED_INTEREST_SEEDS,
    REJECTED_TERM_INTERESTS,
    REJECTED_IMAGE_INTERESTS,
    REJECTED_IMAGE_INTEREST_SEEDS,
    REJECTED_IMAGE_INTERACTIONS,
    REJECTED_VALIDATION_IMAGES,
    REJECTED_VALIDATION_EMBEDDINGS,
    REJECTED_BLOCKED_IMAGES,
)
