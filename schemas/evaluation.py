"""Tables that a user brings to evaluate a model on; Parquet files, not read by the chain."""

from schemas.contract import Column, Table

LABELLED_PAIRS = Table(
    name="labelled_pairs",
    doc="Pairs of images with a judgement, for `evaluate.pairs`. None may be among what was "
    "trained on (SPEC-training D3).",
    key=("image_id_a", "image_id_b"),
    columns=(
        Column(name="image_id_a", type="string", doc="the query: its pairs are resampled together"),
        Column(name="image_id_b", type="string", doc="the image it is compared with"),
        Column(name="is_near_duplicate", type="boolean", doc="whether people call them one image"),
    ),
)
EVALUATION = (LABELLED_PAIRS,)
"""All of them."""
