"""The training dataset: frozen labels, samples with repeats, shards."""

from schemas.contract import Column, Table
from schemas.ingested import IMAGE_ID, L1_INTEREST

_LABEL_ID = Column(
    name="label_id", type="int", doc="contiguous from 0, in the order of cluster_id", min=0
)
_LABEL_IDS = Column(name="label_ids", type="array<int>", doc="ascending without repeats", min=0)
_SHARD_ID = Column(name="shard_id", type="int", doc="number of the shard, from 0", min=0)
_WEIGHT = Column(name="weight", type="double", doc="expected copies of the image an epoch", min=0)
_SHA256 = "hex SHA-256 of the file"

LABEL_MAP = Table(
    name="label_map",
    doc="The frozen labels: rows of the model head.",
    key=("label_id",),
    layout="single",
    columns=(
        _LABEL_ID,
        Column(name="cluster_id", type="int", doc="cluster it stands for", min=0),
        Column(name="name", type="string", doc="medoid term of the cluster"),
        L1_INTEREST,
        Column(
            name="num_images", type="bigint", doc="images that carry it, before resampling", min=1
        ),
    ),
)
DROPPED_LABELS = Table(
    name="dropped_labels",
    doc="Clusters that no image, or too few images, carry.",
    key=("cluster_id",),
    layout="single",
    columns=(
        Column(name="cluster_id", type="int", doc="identifier of the cluster", min=0),
        Column(name="reason", type="string", doc="too_few_images"),
        Column(name="num_images", type="bigint", doc="images that carry it", min=0),
    ),
)
TRAINING_IMAGES = Table(
    name="training_images",
    doc="Images of the dataset with their frozen labels.",
    key=("image_id",),
    columns=(IMAGE_ID, _LABEL_IDS),
)
EXCLUDED_IMAGES = Table(
    name="excluded_images",
    doc="Labelled images that are not in the dataset.",
    key=("image_id",),
    columns=(
        IMAGE_ID,
        Column(name="reason", type="string", doc="not_unique or labels_too_rare"),
    ),
)
SAMPLES = Table(
    name="samples",
    doc="Images of one epoch, with repeats.",
    key=("image_id",),
    columns=(
        IMAGE_ID,
        _LABEL_IDS,
        _WEIGHT,
        Column(name="copies", type="int", doc="copies in the shards", min=1),
    ),
)
RESAMPLED_OUT = Table(
    name="resampled_out",
    doc="Images whose number of copies is 0; expected label counts need their weights too.",
    key=("image_id",),
    columns=(
        IMAGE_ID,
        Column(name="reason", type="string", doc="resampled_out"),
        _LABEL_IDS,
        _WEIGHT,
    ),
)
LABEL_FREQUENCIES = Table(
    name="label_frequencies",
    doc="Label counts before resampling.",
    key=("label_id",),
    layout="single",
    columns=(
        _LABEL_ID,
        Column(name="num_images", type="bigint", doc="images that carry it", min=0),
        Column(name="frequency", type="double", doc="share of images that carry it", min=0, max=1),
        Column(
            name="num_images_rarest",
            type="bigint",
            doc="images of which it is the rarest label (ties by label_id)",
            min=0,
        ),
    ),
)
RESAMPLING_REPORT = Table(
    name="resampling_report",
    doc="Label counts before, expected after and realised after resampling.",
    key=("label_id",),
    layout="single",
    columns=(
        _LABEL_ID,
        Column(name="num_before", type="bigint", doc="images that carry it", min=0),
        Column(name="expected_after", type="double", doc="summed weights", min=0),
        Column(name="realised_after", type="bigint", doc="summed copies", min=0),
    ),
)
SAMPLING_POLICY = Table(
    name="sampling_policy",
    doc="How images were resampled; one row.",
    key=("policy",),
    layout="single",
    columns=(
        Column(name="policy", type="string", doc="name of the policy"),
        Column(name="materialised", type="boolean", doc="copies are in the shards"),
        Column(
            name="threshold",
            type="double",
            doc="frequency t of the root policies, given or solved for",
            nullable=True,
            min=0,
        ),
        Column(name="cap", type="int", doc="images a label of `cap`", nullable=True, min=1),
        Column(name="max_copies", type="int", doc="most copies of an image", min=1),
        Column(name="seed", type="bigint", doc="seed of the copies"),
        Column(name="num_images", type="bigint", doc="images before", min=0),
    ),
)
SHARD_ASSIGNMENTS = Table(
    name="shard_assignments",
    doc="Where each sample stands in the release, and where its image is.",
    key=("shard_id", "position"),
    columns=(
        _SHARD_ID,
        Column(name="position", type="int", doc="place in the shard, from 0", min=0),
        Column(name="key", type="string", doc="key of the sample in the shard; no dots"),
        IMAGE_ID,
        Column(name="copy_index", type="int", doc="number of the copy, from 0", min=0),
        _LABEL_IDS,
        _WEIGHT,
        Column(name="sha256", type="string", doc="hex digest that the bytes must have"),
        Column(name="format", type="string", doc="jpeg, png or webp"),
        Column(
            name="num_bytes",
            type="bigint",
            doc="size that the bytes must have",
            unit="bytes",
            min=1,
        ),
        Column(
            name="uri", type="string", doc="where the bytes are, if not in `part`", nullable=True
        ),
        Column(
            name="part",
            type="string",
            doc="file of `images`, below the root, that has the bytes",
            nullable=True,
        ),
        Column(
            name="offset",
            type="bigint",
            doc="place of the first of them in `part`",
            unit="bytes",
            nullable=True,
            min=0,
        ),
        Column(name="source", type="string", doc="where the image came from", nullable=True),
        Column(name="licence", type="string", doc="licence of the image", nullable=True),
    ),
)
SHARD_PLAN = Table(
    name="shard_plan",
    doc="How the samples were dealt to shards; one row.",
    key=("seed",),
    layout="single",
    columns=(
        Column(name="seed", type="bigint", doc="seed of the order"),
        Column(name="samples_per_shard", type="int", doc="mean samples asked for", min=1),
        Column(name="num_shards", type="int", doc="shards that follow", min=0),
        Column(name="num_samples", type="bigint", doc="samples in all", min=0),
    ),
)
SHARDS = Table(
    name="written_shards",
    doc="Written shards: the lines of the release's manifest.",
    key=("shard_id",),
    columns=(
        _SHARD_ID,
        Column(name="name", type="string", doc="path in the release"),
        Column(name="num_samples", type="int", doc="samples in it", min=0),
        Column(name="num_bytes", type="bigint", doc="size of the tar", unit="bytes", min=0),
        Column(name="sha256", type="string", doc=_SHA256),
        Column(name="index", type="string", doc="path of its member index in the release"),
        Column(name="index_sha256", type="string", doc=_SHA256),
        Column(
            name="weight",
            type="double",
            doc="sum of its samples' weights, each to 2^-20: what an epoch of the release's policy"
            " shows of it on average",
            min=0,
        ),
    ),
)
RELEASE_STATISTICS = Table(
    name="release_statistics",
    doc="Counts over the samples of a release.",
    key=("kind", "value"),
    layout="single",
    columns=(
        Column(name="kind", type="string", doc="licence, num_labels, source or suffix"),
        Column(
            name="value",
            type="string",
            doc="the value, empty for unknown; `(other)` beyond the 256 commonest of a shard",
        ),
        Column(name="num_images", type="bigint", doc="different images", min=0),
        Column(name="num_samples", type="bigint", doc="images with their copies", min=0),
        Column(name="num_bytes", type="bigint", doc="of the samples' images", unit="bytes", min=0),
    ),
)
SHARD_INDEX = Table(
    name="shard_index",
    doc="Members of one shard, beside it as `<shard>.index.parquet`; rows in tar order.",
    key=("key",),
    is_unique=False,
    layout="single",
    columns=(
        Column(name="key", type="string", doc="key of the sample"),
        Column(name="suffix", type="string", doc="jpg, png or webp"),
        Column(
            name="offset", type="bigint", doc="of the image's data in the tar", unit="bytes", min=0
        ),
        Column(name="size", type="bigint", doc="of the image's data", unit="bytes", min=0),
        _LABEL_IDS,
        Column(name="weight", type="float", doc="expected copies of the image an epoch", min=0),
    ),
)

DATASET = (
    LABEL_MAP,
    DROPPED_LABELS,
    TRAINING_IMAGES,
    EXCLUDED_IMAGES,
    SAMPLES,
    RESAMPLED_OUT,
    LABEL_FREQUENCIES,
    RESAMPLING_REPORT,
    SAMPLING_POLICY,
    SHARD_ASSIGNMENTS,
    SHARD_PLAN,
    SHARDS,
    RELEASE_STATISTICS,
    SHARD_INDEX,
)
