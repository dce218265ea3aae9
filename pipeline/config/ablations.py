"""Parameters of the ablations: arms that differ in one choice, and the findings they decide.

The defaults are the paper's findings. An arm is a set of overrides of the run's configuration, so
its data and its training come from configuration alone; arms that ask for the same training share
its runs, and all share the stages that lie before their differences.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from pipeline.config.base import Params
from pipeline.config.evaluate import EvaluateParams, TaggedSet


class Arm(Params):
    """One way to make the labels and to train."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    """Name in findings and tables."""
    about: str
    """What it is, in words."""
    overrides: tuple[str, ...] = ()
    """What differs from the base: ``section.field=value``, as for ``--set``."""


class Finding(Params):
    """A claim: the figures of some arms together exceed those of others."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    """Name in the table."""
    claim: str
    """The claim in words."""
    better: tuple[str, ...] = Field(min_length=1)
    """Arms whose figures are added up."""
    worse: tuple[str, ...] = Field(min_length=1)
    """Arms whose figures are taken off, as many. Two of each are a difference of gains."""
    paper: str = ""
    """What the paper reports, on its own data and measure."""

    @model_validator(mode="after")
    def _as_many_on_both_sides(self) -> Self:
        if len(self.better) != len(self.worse):
            raise ValueError(
                f"finding {self.name}: {len(self.better)} better and {len(self.worse)} worse arms, "
                "expected as many of each."
            )
        return self


_CLUSTERING = ("select_visual_terms.restrict=false", "label_images.restrict_to_interests=false")
_DICTIONARY = ("select_visual_terms.restrict=true", "label_images.restrict_to_interests=false")
_RESTRICTION = ("select_visual_terms.restrict=true", "label_images.restrict_to_interests=true")
_RESNET = (
    "train.model.patch_size=null",
    "train.model.width=null",
    "train.model.depth=null",
    "train.model.heads=null",
    "train.model.name=test_resnet",
)
_QUARTER = ("train.data.subset_share=0.25",)


def _arms() -> tuple[Arm, ...]:
    return (
        Arm(name="clustering", about="labels by clustering alone", overrides=_CLUSTERING),
        Arm(name="dictionary", about="with the visual dictionary", overrides=_DICTIONARY),
        Arm(name="restriction", about="with L1 restriction as well", overrides=_RESTRICTION),
        Arm(
            name="resampled",
            about="resampled by inverse square root",
            overrides=(*_RESTRICTION, "train.data.sampling=policy"),
        ),
        Arm(
            name="sigmoid_bce",
            about="binary cross-entropy in place of softmax",
            overrides=(*_RESTRICTION, "train.loss=sigmoid_bce"),
        ),
        Arm(
            name="quarter",
            about="a quarter of the images",
            overrides=(*_RESTRICTION, *_QUARTER),
        ),
        Arm(name="resnet", about="a ResNet", overrides=(*_RESTRICTION, *_RESNET)),
        Arm(
            name="resnet_quarter",
            about="a ResNet, a quarter of the images",
            overrides=(*_RESTRICTION, *_RESNET, *_QUARTER),
        ),
    )


def _findings() -> tuple[Finding, ...]:
    return (
        Finding(
            name="dictionary",
            claim="the visual dictionary helps",
            better=("dictionary",),
            worse=("clustering",),
            paper="+0.9 % (Table 2)",
        ),
        Finding(
            name="restriction",
            claim="restriction to the image's L1 interests helps",
            better=("restriction",),
            worse=("dictionary",),
            paper="+1.1 % (Table 2)",
        ),
        Finding(
            name="resampling",
            claim="inverse square root resampling helps",
            better=("resampled",),
            worse=("restriction",),
            paper="41.0 to 53.1 Visual Search P@1 (section 4.6)",
        ),
        Finding(
            name="softmax",
            claim="multi-label softmax is better than binary cross-entropy",
            better=("restriction",),
            worse=("sigmoid_bce",),
            paper="better, no figure (section 3.4)",
        ),
        Finding(
            name="more_data",
            claim="more images help the ViT more than the ResNet",
            better=("restriction", "resnet_quarter"),
            worse=("quarter", "resnet"),
            paper="ResNeXt 0.4 % ahead at 1 % of the images, ViT at all (Figure 4)",
        ),
    )


class AblationParams(Params):
    """Parameters of `run_ablations` (SPEC D4, D6, D7, D8, A5)."""

    base: tuple[str, ...] = ("resample_images.materialised=false",)
    """Overrides of every arm, before its own. Shards hold each image once, so that the same ones
    serve natural sampling and the policy."""
    arms: tuple[Arm, ...] = Field(default_factory=_arms)
    """What is trained."""
    findings: tuple[Finding, ...] = Field(default_factory=_findings)
    """What is decided."""
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=2)
    """Seeds of each arm's training, the same for all arms: differences are paired by seed."""
    is_same_images: bool = True
    """Train every arm on those images only that have a label in all of them (Source: SPEC D7)."""
    tagged: tuple[TaggedSet, ...] = ()
    """Sets of tagged images that no arm was trained on, each with a tag an image."""
    tags: str | None = None
    """A Parquet table of image_id and tag (``package://`` names a file of the project): the images
    in it that training holds out are a set as well, by the name ``held_out``."""
    tag_column: str = "tag"
    """Name of the column of tags in `tags`."""
    metric: str = "retrieval P@1"
    """Figure of each query that decides findings: ``<task> <metric>`` of an evaluation; the mean
    over the sets' queries."""
    evaluate: EvaluateParams = EvaluateParams()
    """How the sets are evaluated; its own sets are not looked at."""
    level: float = Field(0.95, gt=0, lt=1)
    """Of the intervals."""
    processes: int = Field(2, ge=1)
    """Trainings at once."""

    @model_validator(mode="after")
    def _arms_are_known(self) -> Self:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(f"ablations.arms: {names}, expected different names.")
        for finding in self.findings:
            unknown = sorted({*finding.better, *finding.worse} - set(names))
            if unknown:
                raise ValueError(
                    f"ablations.findings.{finding.name}: no arm {', '.join(unknown)}; there are "
                    f"{', '.join(names)}."
                )
        return self
