"""Parameters of evaluation."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.config.base import Params


class BandParams(Params):
    """Bands of labels by the training images they have."""

    head_min: int = Field(101, ge=2)
    """Head labels have at least so many images (Source: Liu et al. 2019, more than 100)."""
    tail_max: int = Field(19, ge=0)
    """Tail labels have at most so many (Source: Liu et al. 2019, fewer than 20)."""

    @model_validator(mode="after")
    def _bands_are_apart(self) -> Self:
        if self.tail_max >= self.head_min:
            raise ValueError(f"tail_max = {self.tail_max} is not below head_min = {self.head_min}.")
        return self


class FewShotParams(Params):
    """The closed-form probe."""

    shots: tuple[int, ...] = (1, 5, 10, 25, 100, 250, 500)
    """Images a class (Source: paper section 4.7); numbers that no class reaches are left out."""
    l2: tuple[float, ...] = tuple(2.0**i for i in range(-10, 20))
    """Penalties tried (Source: big_vision fewshot_lsr.py)."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the support sets (Source: SPEC D15)."""
    selection_share: float = Field(0.25, gt=0, lt=1)
    """Share of the queries that choose the penalty and are not scored."""


class LinearProbeParams(Params):
    """Logistic regression on all support images."""

    inverse_penalties: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0)
    """scikit-learn's C."""
    max_iterations: int = Field(200, ge=1)
    """Of L-BFGS."""


class ApproximateParams(Params):
    """The approximate index that is held against exact search."""

    num_lists: int = Field(64, ge=1)
    """Cells of the inverted file; at most one an image."""
    probes: tuple[int, ...] = (1, 4, 16)
    """Cells looked into."""


class SpeedParams(Params):
    """Throughput and latency."""

    max_batch: int = Field(64, ge=1)
    """Largest batch tried; give thousands on an accelerator."""
    seconds: float = Field(2.0, gt=0)
    """Each rate is measured so long."""


class TaggedSet(Params):
    """Images with one tag each: products, classes."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    """Name in the table of results."""
    path: str
    """A folder with one folder a tag, or a Parquet table of image_id, tag and bytes."""


class PairSet(Params):
    """Labelled pairs of images: a task that was held out of training."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    """Name in the table of results."""
    images: str
    """A folder of images or of folders of images (ids are paths below it), or a Parquet table of
    image_id and bytes."""
    pairs: str
    """A Parquet file of `labelled_pairs`: image_id_a, image_id_b, is_near_duplicate."""


class EvaluateParams(Params):
    """Evaluation of one exported model."""

    seed: int = 0
    """Of bootstrap draws, splits, and the random-weights encoder."""
    top_k: int = Field(5, ge=1)
    """k of precision@k and recall@k of labels."""
    retrieval_k: int = Field(20, ge=1)
    """k of average P@k (Source: paper section 4.1)."""
    bands: BandParams = BandParams()
    few_shot: FewShotParams = FewShotParams()
    linear_probe: LinearProbeParams = LinearProbeParams()
    approximate: ApproximateParams = ApproximateParams()
    speed: SpeedParams = SpeedParams()
    tagged: tuple[TaggedSet, ...] = ()
    """Tagged sets beside the release's held-out images."""
    pairs: tuple[PairSet, ...] = ()
    """Sets of labelled pairs that the cosine of the features is held against."""
    pair_precision: float = Field(0.95, gt=0, le=1)
    """Precision at which recall of near-duplicate pairs is read (Source: paper section 4.1.2)."""
    support_share: float = Field(0.5, gt=0, lt=1)
    """Share of a set's images, by hash of their ids, that probes are fitted to; the rest are
    queries."""
    resamples: int = Field(1000, ge=10)
    """Bootstrap resamples."""
    map_resamples: int = Field(200, ge=10)
    """Resamples for mean average precision, which cost a pass over all scores each."""
    batch: int = Field(64, ge=1)
    """Images through the encoder at once; the same on every process, the last one padded."""
    threads: int = Field(1, ge=1)
    """CPU threads a process; more processes are faster, and leave every bit as it is."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes CUDA when there is a device."""
