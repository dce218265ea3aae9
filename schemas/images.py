"""Fingerprints, near-duplicates and the images that remain."""

from schemas.contract import Column, Table
from schemas.ingested import IMAGE_ID, rejected

TIERS = ("exact", "perceptual", "semantic")
"""Tiers of near-duplicate search, strongest first."""
VERIFIED = "verified"
"""How a member matches its kept image where a model looked at the two."""


def _fingerprints(name: str, doc: str, key: Column) -> Table:
    return Table(
        name=name,
        doc=doc,
        key=(key.name,),
        columns=(
            key,
            Column(name="sha256", type="string", doc="hex digest of the encoded bytes"),
            Column(
                name="phash", type="bigint", doc="64-bit perceptual hash as imagehash computes it"
            ),
            Column(name="width", type="int", doc="after orientation", unit="pixels", min=1),
            Column(name="height", type="int", doc="after orientation", unit="pixels", min=1),
            Column(name="num_bytes", type="bigint", doc="encoded size", unit="bytes", min=1),
            Column(name="format", type="string", doc="jpeg, png or webp, by content"),
            Column(
                name="orientation",
                type="int",
                doc="EXIF orientation that was applied",
                min=1,
                max=8,
            ),
            Column(name="is_flat", type="boolean", doc="too uniform for its hash to mean anything"),
            Column(name="thumbnail", type="binary", doc="64 x 64 grey pixels, row by row"),
        ),
    )


_TIER = Column(name="tier", type="string", doc="exact, perceptual or semantic")
_DISTANCE = Column(
    name="distance",
    type="float",
    doc="0 for exact, Hamming distance for perceptual (least over flips and turns where those are "
    "searched), 1 - cosine for semantic",
    min=0,
)
_VALIDATION_ID = Column(name="validation_id", type="string", doc="`dataset/image_id`")

IMAGE_FINGERPRINTS = _fingerprints(
    "image_fingerprints", "What near-duplicate search knows of an image that decodes.", IMAGE_ID
)
VALIDATION_FINGERPRINTS = _fingerprints(
    "validation_fingerprints", "The same of a validation image.", _VALIDATION_ID
)
BAD_IMAGES = rejected("fingerprints")
BAD_VALIDATION_IMAGES = rejected("validation_fingerprints")
EMBEDDING_CELLS = Table(
    name="embedding_cells",
    doc="Centroids of the coarse cells of the semantic search.",
    key=("cell_id",),
    layout="single",
    columns=(
        Column(name="cell_id", type="int", doc="number of the cell, from 0", min=0),
        Column(name="centroid", type="vector", doc="float32 bytes, unit length"),
    ),
)
PAIR_MODELS = Table(
    name="pair_models",
    doc="The model that verifies candidates: chosen for the run's embeddings, as JSON.",
    key=("encoder",),
    layout="single",
    columns=(
        Column(name="encoder", type="string", doc="whose cosines it knows; empty: it reads none"),
        Column(name="model", type="string", doc="JSON of `pipeline.kernels.pair_model`"),
    ),
)
_PAIR = (
    Column(name="image_id_a", type="string", doc="the smaller identifier"),
    Column(name="image_id_b", type="string", doc="the greater identifier"),
    _TIER,
    _DISTANCE,
)
_PROBABILITY = Column(
    name="probability",
    type="float",
    doc="chance that the two are one picture; null where no model looked: exact duplicates, or "
    "verification is off",
    nullable=True,
    min=0,
    max=1,
)
NEAR_DUPLICATE_CANDIDATES = Table(
    name="near_duplicate_candidates",
    doc="Pairs of images that may be near-duplicates, once for each tier that proposes them; "
    "identical ones as a star.",
    key=("image_id_a", "image_id_b", "tier"),
    columns=_PAIR,
)
CANDIDATE_OVERFLOWS = Table(
    name="candidate_overflows",
    doc="Images with more candidates than the cap.",
    key=("image_id",),
    columns=(
        IMAGE_ID,
        Column(
            name="num_over_cap",
            type="bigint",
            doc="candidates beyond the image's own best; the other image may still have kept them",
            min=1,
        ),
    ),
)
NEAR_DUPLICATE_PAIRS = Table(
    name="near_duplicate_pairs",
    doc="Near-duplicate pairs, once for each tier that proposed them; identical ones as a star.",
    key=("image_id_a", "image_id_b", "tier"),
    columns=(*_PAIR, _PROBABILITY),
)
REJECTED_PAIRS = Table(
    name="rejected_pairs",
    doc="Candidates that verification rejected.",
    key=("image_id_a", "image_id_b", "tier"),
    columns=(
        *_PAIR,
        _PROBABILITY,
        Column(name="reason", type="string", doc="improbable: below the least probability"),
    ),
)
DUPLICATE_GROUPS = Table(
    name="duplicate_groups",
    doc="Images that have near-duplicates, and the one of their group that is kept.",
    key=("image_id",),
    columns=(
        IMAGE_ID,
        Column(name="kept_image_id", type="string", doc="the image that stands for the group"),
        Column(
            name="tier",
            type="string",
            doc="how it matches the kept image: a tier, or verified where a model decides; empty "
            "for that itself; linked if only neighbours match (where members need not match the "
            "kept image)",
        ),
        Column(
            name="distance",
            type="float",
            doc="to the kept image, as in the pairs, 1 - probability for verified; null if linked",
            nullable=True,
            min=0,
        ),
        Column(
            name="is_blocked",
            type="boolean",
            doc="it or its kept image is blocked or matches a blocked image",
        ),
    ),
)
VALIDATION_OVERLAPS = Table(
    name="validation_overlaps",
    doc="Images within the radius or cosine of a validation image, with the nearest one by tier.",
    key=("image_id", "tier"),
    columns=(IMAGE_ID, _TIER, _VALIDATION_ID, _DISTANCE),
)
VALIDATION_NEAREST = Table(
    name="validation_nearest",
    doc="Comparison of each batch of images with all validation images: how many pairs, and the "
    "remaining image nearest to a validation image. Cut as the batches are.",
    key=("image_id", "tier"),
    columns=(
        Column(name="image_id", type="string", doc="first image of the batch"),
        _TIER,
        Column(name="num_pairs", type="bigint", doc="pairs compared", min=0),
        Column(
            name="nearest_image_id",
            type="string",
            doc="remaining image nearest to a validation image; null if none remains",
            nullable=True,
        ),
        Column(name="validation_id", type="string", doc="that validation image", nullable=True),
        Column(name="distance", type="float", doc="between the two", nullable=True, min=0),
    ),
)
VALIDATION_CERTIFICATE = Table(
    name="validation_certificate",
    doc="Evidence that no kept image is near a validation image.",
    key=("tier",),
    layout="single",
    columns=(
        _TIER,
        Column(name="num_images", type="bigint", doc="images checked", min=0),
        Column(name="num_validation_images", type="bigint", doc="validation images", min=0),
        Column(
            name="num_pairs_checked",
            type="double",
            doc="pairs compared: images that have the tier's signal times such validation images",
            min=0,
        ),
        Column(name="num_removed", type="bigint", doc="images within the limit", min=0),
        Column(name="limit", type="float", doc="distance up to which images are removed", min=0),
        Column(
            name="nearest_remaining",
            type="float",
            doc="least distance between a remaining image and a validation image",
            nullable=True,
        ),
    ),
)
UNIQUE_IMAGES = Table(
    name="unique_images",
    doc="Images that remain: decodable, not blocked, one of each group, far from validation sets.",
    key=("image_id",),
    columns=(
        IMAGE_ID,
        Column(name="sha256", type="string", doc="hex digest of the encoded bytes"),
        Column(name="format", type="string", doc="jpeg, png or webp"),
        Column(name="num_bytes", type="bigint", doc="encoded size", unit="bytes", min=1),
    ),
)
DROPPED_IMAGES = Table(
    name="dropped_images",
    doc="Images that were dropped, with the reason and the image that caused it.",
    key=("image_id",),
    columns=(
        IMAGE_ID,
        Column(
            name="reason",
            type="string",
            doc="blocked, blocked_duplicate, validation_<tier>, duplicate_<tier> or "
            "duplicate_verified",
        ),
        Column(name="other_id", type="string", doc="kept or validation image", nullable=True),
        Column(name="distance", type="float", doc="to that image", nullable=True, min=0),
    ),
)

IMAGE_TABLES = (
    IMAGE_FINGERPRINTS,
    VALIDATION_FINGERPRINTS,
    BAD_IMAGES,
    BAD_VALIDATION_IMAGES,
    EMBEDDING_CELLS,
    PAIR_MODELS,
    NEAR_DUPLICATE_CANDIDATES,
    CANDIDATE_OVERFLOWS,
    NEAR_DUPLICATE_PAIRS,
    REJECTED_PAIRS,
    DUPLICATE_GROUPS,
    VALIDATION_OVERLAPS,
    VALIDATION_NEAREST,
    VALIDATION_CERTIFICATE,
    UNIQUE_IMAGES,
    DROPPED_IMAGES,
)
