"""Parameters of selection, concreteness, interests, clusters and labels."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.config.base import Params


class CalibrateThresholdParams(Params):
    """Parameters of `calibrate_threshold`."""

    target_precision: float = Field(0.9, gt=0, lt=1)
    """Precision that the kept annotations must reach."""
    confidence: float = Field(0.95, gt=0, lt=1)
    """One-sided confidence of the bound that must reach it."""
    per_term: bool = False
    """A threshold a term where its sample allows, else one for all."""
    min_sample: int = Field(50, ge=1)
    """Judged annotations a term needs for a threshold of its own."""


class SelectAnnotationsParams(Params):
    """Parameters of `select_annotations` (paper section 3.2.1, annotation selection)."""

    language: str = "en"
    """Language kept."""
    aliases: Literal["merge", "drop"] = "merge"
    """`merge` gives an alias's score to its canonical term, the best score wins; `drop` is the
    paper's literal reading."""
    min_confidence: float = Field(0.5, ge=0, le=1)
    """Score below which an annotation is dropped, unless `calibrate_threshold` gave one."""


class SampleConcretenessParams(Params):
    """Parameters of `sample_concreteness` (SPEC C1-C3)."""

    min_confidence: float = Field(0.8, ge=0, le=1)
    """The HIGH-confidence threshold: positives score above it."""
    max_positives: int = Field(1000, ge=2)
    """Positives a term, the lowest by hash of (seed, term, image)."""
    pool_size: int = Field(100_000, ge=10)
    """Images that serve all terms as negatives."""
    oversampling: float = Field(1.3, ge=1.05)
    """Rows of a popular term that enter the shuffle, as a multiple of `max_positives`."""
    seed: int = 0


class ScoreConcretenessParams(Params):
    """Parameters of `score_concreteness` (paper section 3.2.1; SPEC C1-C5)."""

    method: Literal["mlp", "ridge"] = "mlp"
    """`mlp` is the paper's and the reference; `ridge` is a closed form for sweeps."""
    min_positives: int = Field(20, ge=2)
    """Terms with fewer are not scored."""
    max_components: int = Field(256, ge=0)
    """Principal components kept of embeddings that are wider, by the pool's covariance; 0 keeps all
    columns (A)."""
    hidden: int = Field(64, ge=1)
    """Units of the one hidden layer (A)."""
    epochs: int = Field(20, ge=1)
    """Passes over the training part where support is high, at most (A)."""
    fold_epochs: int = Field(8, ge=1)
    """Passes of cross-validated probes, which have no rows to spare for early stopping (A)."""
    patience: int = Field(2, ge=0)
    """Early stopping: epochs without a better validation loss after which a probe stops; 0 trains
    all epochs. Only terms with `folds_below` positives or more stop early."""
    min_improvement: float = Field(0.001, ge=0)
    """By how much (nats an example) a validation loss must be lower to count as better."""
    validation_share: float = Field(0.05, gt=0, lt=1)
    """Share of the training part that early stopping watches."""
    learning_rate: float = Field(0.15, gt=0)
    """Of Adam (A)."""
    fold_learning_rate: float = Field(0.05, gt=0)
    """Of cross-validated probes (A)."""
    epsilon: float = Field(0.1, gt=0)
    """Of Adam. Far above its usual 1e-8: steps then follow the size of the gradient, as those of
    momentum do, and weights that no example speaks for stay where they are (A)."""
    ridge_alpha: float = Field(100.0, gt=0)
    """Penalty of the ridge probe (A)."""
    batch_size: int = Field(400, ge=1)
    """Most examples of a gradient step (A)."""
    min_batch_size: int = Field(64, ge=1)
    """Fewest examples of a gradient step, at low support (A)."""
    batches_per_epoch: int = Field(4, ge=1)
    """Gradient steps an epoch that are wanted at low support (A)."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Of the one-sided Wilson bound."""
    weight_decay: float = Field(1e-4, ge=0)
    """L2 penalty (A)."""
    test_share: float = Field(0.2, gt=0, lt=1)
    """Held-out share of each class."""
    folds_below: int = Field(400, ge=0)
    """Terms with fewer positives are cross-validated, so that each positive is tested."""
    num_folds: int = Field(5, ge=2)
    """Folds of cross-validation."""
    num_repeats: int = Field(3, ge=1)
    """Most rounds of cross-validation, each with other folds, negatives and starting weights; the
    score is their mean."""
    max_repeated_rows: int = Field(2000, ge=0)
    """Rounds are added while the positives of all folds of all rounds stay within this: three at
    `num_folds` 5 up to 133 positives, two up to 200, then one."""
    probes_per_batch: int = Field(4, ge=1)
    """Probes of fp32 trained side by side, twice as many of bf16; does not change scores."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the matrix products."""
    device: str = "cpu"
    """Torch device of every worker."""
    seed: int = 0


class SelectVisualTermsParams(Params):
    """Parameters of `select_visual_terms` (paper section 3.2.1, Figure 3)."""

    boundary: float = Field(0.65, ge=0, le=1)
    """Decision boundary: terms below it are not visual (A; choose it from `concreteness_sweep`)."""
    use_lower_bound: bool = False
    """Compare the Wilson bound instead of the point estimate."""
    keep_unscored: bool = False
    """Keep terms with too few positives to score."""
    restrict: bool = True
    """False keeps every selectable term: the paper's Table 2, first row."""


class SweepConcretenessParams(Params):
    """Parameters of `sweep_concreteness` (SPEC C6)."""

    boundaries: tuple[float, ...] = tuple(round(0.5 + 0.025 * i, 3) for i in range(21))
    """Boundaries to report."""


class ClassifyTermsParams(Params):
    """Parameters of `classify_terms` (SPEC L2)."""

    gamma: float | None = Field(1.0, gt=0)
    """Width of the Gaussian kernel exp(-gamma |x - y|^2) between embeddings; null is logistic
    regression: macro F1 on held-out seeds 0.04 lower (pipeline/DESIGN.md)."""
    regularisation: float = Field(3.0, gt=0)
    """Inverse of the ridge; with logistic regression its inverse strength C."""
    num_folds: int = Field(10, ge=2)
    """Folds of calibration and thresholds."""
    calibration: Literal["platt", "isotonic"] = "platt"
    """Map from decision values to probabilities; isotonic wants some thousand seeds."""
    max_iterations: int = Field(500, ge=1)
    """Iterations of the logistic regression's optimiser."""
    max_seeds: int = Field(10_000, ge=10)
    """Seeds that train the classifier, the lowest by hash: the kernel holds their square in memory
    three times, 2.4 GB."""
    fallback_best: bool = True
    """A term above no threshold takes its most probable interest instead of none."""
    min_fallback_probability: float = Field(0.05, ge=0, le=1)
    """Least probability of that interest."""
    seed: int = 0


class ClassifyImagesParams(Params):
    """Parameters of `classify_images` (SPEC L3)."""

    regularisation: float = Field(1.0, gt=0)
    """Inverse strength C of the logistic regression."""
    num_folds: int = Field(5, ge=2)
    """Folds of calibration and thresholds."""
    calibration: Literal["platt", "isotonic"] = "platt"
    """Map from decision values to probabilities; isotonic wants some thousand seeds."""
    max_iterations: int = Field(500, ge=1)
    """Iterations of the optimiser."""
    fallback_best: bool = True
    """An image above no threshold takes its most probable interest instead of none."""
    min_fallback_probability: float = Field(0.05, ge=0, le=1)
    """Least probability of that interest."""
    max_seeds: int = Field(100_000, ge=10)
    """Seed images that train the classifier, the lowest by hash."""
    seed: int = 0


class ClusterTermsParams(Params):
    """Parameters of `cluster_terms` (paper section 3.2.1; SPEC K2-K4)."""

    num_clusters: int | None = Field(None, ge=1)
    """Clusters in all, shared out by the interests' sizes; None follows `terms_per_cluster`."""
    terms_per_cluster: float = Field(6.4, ge=1)
    """Mean size: 218,879 terms to 34,000 clusters (paper Table 2)."""
    num_starts: int = Field(1, ge=1)
    """Starts of k-means; the least inertia wins."""
    num_candidates: int = Field(1, ge=1)
    """Candidates of each step of the k-means++ start (A): 3 end 0.8% lower and 9 end 1.4% lower in
    inertia; each costs 0.17 core-seconds more at 9,000 terms."""
    max_iterations: int = Field(100, ge=1)
    """Passes that move terms between clusters, at most; 30 to 50 are used at 9,000 terms, the last
    ones of a few clusters each."""
    weight_by_frequency: bool = False
    """Weight terms by their number of positives."""
    num_top_terms: int = Field(10, ge=1)
    """Terms listed in a cluster's row."""
    seed: int = 0


class LabelImagesParams(Params):
    """Parameters of `label_images` (paper section 3.2.1; SPEC M1)."""

    restrict_to_interests: bool = True
    """Remove clusters whose L1 interest is not one of the image's (paper Table 2, third row)."""


class Variant(Params):
    """One row of the comparison."""

    name: str
    """As the table shows it."""
    overrides: tuple[str, ...] = ()
    """What differs from the run's configuration: ``section.field=value``, as for ``--set``."""


class CompareVariantsParams(Params):
    """Parameters of `compare_variants` (paper Table 2; SPEC M2)."""

    variants: tuple[Variant, ...] = (
        Variant(
            name="annotation clustering",
            overrides=(
                "select_visual_terms.restrict=false",
                "label_images.restrict_to_interests=false",
            ),
        ),
        Variant(
            name="+ visual dictionary",
            overrides=(
                "select_visual_terms.restrict=true",
                "label_images.restrict_to_interests=false",
            ),
        ),
        Variant(
            name="+ L1 interest restriction",
            overrides=(
                "select_visual_terms.restrict=true",
                "label_images.restrict_to_interests=true",
            ),
        ),
    )
    """The paper's three, in its order and words; a preset may name others."""
