"""The whole configuration of a run: one section a stage."""

from __future__ import annotations

from pydantic import Field

from pipeline.config.ablations import AblationParams
from pipeline.config.base import Params
from pipeline.config.dataset import (
    AssignShardsParams,
    FreezeLabelsParams,
    ResampleImagesParams,
    WriteReleaseParams,
)
from pipeline.config.evaluate import EvaluateParams
from pipeline.config.images import (
    DropNearDuplicatesParams,
    FingerprintImagesParams,
    NearDuplicateParams,
)
from pipeline.config.ingest import (
    EmbedImagesParams,
    EmbedTextsParams,
    IngestParams,
    PredictAnnotationsParams,
)
from pipeline.config.inputs import Inputs
from pipeline.config.labels import (
    CalibrateThresholdParams,
    ClassifyImagesParams,
    ClassifyTermsParams,
    ClusterTermsParams,
    CompareVariantsParams,
    LabelImagesParams,
    SampleConcretenessParams,
    ScoreConcretenessParams,
    SelectAnnotationsParams,
    SelectVisualTermsParams,
    SweepConcretenessParams,
)
from pipeline.config.report import ReportParams
from pipeline.config.runtime import RuntimeParams
from pipeline.config.train import TrainParams


class RunConfig(Params):
    """Configuration of a run. Sections named like a stage hold its parameters."""

    root: str = "build/run"
    """Where everything is written: a folder or a URI."""
    inputs: Inputs = Inputs()
    runtime: RuntimeParams = Field(default_factory=RuntimeParams)

    ingest: IngestParams = Field(default_factory=IngestParams)
    predict_annotations: PredictAnnotationsParams = Field(default_factory=PredictAnnotationsParams)
    embed_images: EmbedImagesParams = Field(default_factory=EmbedImagesParams)
    embed_terms: EmbedTextsParams = Field(default_factory=EmbedTextsParams)
    embed_image_texts: EmbedTextsParams = Field(default_factory=EmbedTextsParams)

    calibrate_threshold: CalibrateThresholdParams = Field(default_factory=CalibrateThresholdParams)
    select_annotations: SelectAnnotationsParams = Field(default_factory=SelectAnnotationsParams)
    sample_concreteness: SampleConcretenessParams = Field(default_factory=SampleConcretenessParams)
    score_concreteness: ScoreConcretenessParams = Field(default_factory=ScoreConcretenessParams)
    select_visual_terms: SelectVisualTermsParams = Field(default_factory=SelectVisualTermsParams)
    sweep_concreteness: SweepConcretenessParams = Field(default_factory=SweepConcretenessParams)
    classify_terms: ClassifyTermsParams = Field(default_factory=ClassifyTermsParams)
    classify_images: ClassifyImagesParams = Field(default_factory=ClassifyImagesParams)
    cluster_terms: ClusterTermsParams = Field(default_factory=ClusterTermsParams)
    label_images: LabelImagesParams = Field(default_factory=LabelImagesParams)
    compare_variants: CompareVariantsParams = Field(default_factory=CompareVariantsParams)

    fingerprint_images: FingerprintImagesParams = Field(default_factory=FingerprintImagesParams)
    near_duplicates: NearDuplicateParams = Field(default_factory=NearDuplicateParams)
    drop_near_duplicates: DropNearDuplicatesParams = Field(default_factory=DropNearDuplicatesParams)

    freeze_labels: FreezeLabelsParams = Field(default_factory=FreezeLabelsParams)
    resample_images: ResampleImagesParams = Field(default_factory=ResampleImagesParams)
    assign_shards: AssignShardsParams = Field(default_factory=AssignShardsParams)
    write_release: WriteReleaseParams = Field(default_factory=WriteReleaseParams)

    report: ReportParams = Field(default_factory=ReportParams)
    train: TrainParams = Field(default_factory=TrainParams)
    evaluate: EvaluateParams = Field(default_factory=EvaluateParams)
    ablations: AblationParams = Field(default_factory=AblationParams)
