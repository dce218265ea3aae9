"""Parameters of pretraining. The defaults are the paper's ViT-B/16 recipe.

What decides the trained weights stands in ``model``, ``data``, ``optimizer``, ``schedule``,
``loss``, ``precision`` and ``seed``; ``run`` only says how a machine carries it out, so a run may
be resumed with other values there.
"""

from __future__ import annotations

import itertools
from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.config.base import Params


class ModelParams(Params):
    """An encoder of timm with one linear head, a logit per label."""

    name: str = "vit_base_patch16_224"
    """timm model name: vit_base_patch16_224, vit_base_patch32_224, resnext101_32x8d
    (Source: paper section 3.4), vit_so400m_patch14_siglip_224, resnetv2_50x1_bit, ..."""
    image_size: int = Field(224, ge=8, le=4096)
    """Side of the square input in pixels."""
    patch_size: int | None = Field(None, ge=1)
    """Patch side in pixels, vision transformers only; None keeps the named model's."""
    width: int | None = Field(None, ge=1)
    """Token width, vision transformers only; None keeps the named model's."""
    depth: int | None = Field(None, ge=1)
    """Number of blocks, vision transformers only; None keeps the named model's."""
    heads: int | None = Field(None, ge=1)
    """Attention heads, vision transformers only; None keeps the named model's."""
    mlp_width: int | None = Field(None, ge=1)
    """Hidden width of the MLPs, vision transformers only, given together with `width`; None keeps
    the named model's ratio to the token width."""
    drop_path: float = Field(0.0, ge=0, lt=1)
    """Stochastic depth rate of the last block, growing linearly from 0 at the first."""
    channels_last: bool = False
    """Keep images and weights in NHWC memory order; pays for convolutions on accelerators
    (Source: paper A.1, for ResNeXt)."""
    sync_batch_norm: bool = False
    """Batch statistics over all processes in place of each its own (SPEC A16); for models with
    batch norm, several processes and CUDA."""

    @property
    def is_vision_transformer(self) -> bool:
        """Whether the shape fields apply."""
        return self.name.startswith("vit_")

    @model_validator(mode="after")
    def _shape_belongs_to_transformers(self) -> Self:
        fields = ("patch_size", "width", "depth", "heads", "mlp_width")
        given = [name for name in fields if getattr(self, name) is not None]
        if given and not self.is_vision_transformer:
            raise ValueError(f"model {self.name}: {', '.join(given)} exist only for vit_* models.")
        if self.mlp_width is not None and self.width is None:
            raise ValueError(f"model.mlp_width = {self.mlp_width} needs model.width beside it.")
        return self


class DataParams(Params):
    """How the release is read: batches, order, crop."""

    global_batch: int = Field(8192, ge=1)
    """Images a step over all processes; does not change with the number of processes
    (Source: paper A.1)."""
    virtual_ranks: int = Field(64, ge=1)
    """Fixed readers R the epoch is cut into; the number of processes divides it. The images of a
    step depend on R, never on the hardware."""
    lanes: int = Field(8, ge=1)
    """Ranges G per virtual rank, read in turn by the steps; the number of workers divides it.
    Steps per epoch are a multiple of G."""
    window: int = Field(4096, ge=1)
    """Samples that are shuffled among each other inside a range."""
    chunk: int = Field(1024, ge=1)
    """Neighbouring samples of a shard that move together when the epoch is shuffled; a chunk is
    what storage reads in one place."""
    sampling: Literal["natural", "policy"] = "natural"
    """natural: each sample of the release once an epoch. policy: by the release's weights, copies
    drawn anew each epoch; refused when the release holds its copies already."""
    holdout_share: float = Field(0.0, ge=0, lt=1)
    """Share of the release's images that training never shows and evaluation scores, chosen by
    hash of the image's key: the same images in every run, and all copies of an image together."""
    subset_share: float = Field(1.0, gt=0, le=1)
    """Share of the other images that training shows, by another hash of the key: a larger share
    shows a superset. Below 1 for the effect of the corpus's size (Source: SPEC D6)."""
    crop_min_area: float = Field(0.08, gt=0, le=1)
    """Least share of the picture's area in a random crop (Source: paper A.1, Inception crop; the
    range is our choice)."""
    crop_max_aspect: float = Field(4 / 3, ge=1)
    """Widest aspect ratio of a crop; the narrowest is its inverse."""
    horizontal_flip: bool = False
    """Mirror half of the crops left to right (Source: BiT section 3.2; paper A.1 has the
    Inception crop alone). Where a label reads left to right (text, hands) it destroys it."""
    eval_crop: float = Field(0.875, gt=0, le=1)
    """Evaluation resizes the short side to image_size / eval_crop and takes the middle square;
    stored with the export (timm's crop_pct)."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Subtracted from RGB in [0, 1]."""
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """RGB in [0, 1] is divided by this after the mean is off."""
    decode_margin: float | None = Field(None, ge=1)
    """JPEGs are decoded at 1/2, 1/4 or 1/8 of their size where the crop's sides then still are this
    many times image_size; None decodes all at full size. It pays for photos of several megapixels
    only: `make bench BENCH=loader` measures speed and the change of the pixels."""
    max_pixels: int = Field(89_478_485, ge=1)
    """Pictures whose header announces more pixels are not decoded, and count as corrupt."""
    max_corrupt_rate: float = Field(0.01, ge=0, le=1)
    """The run stops when, over the last `corrupt_window` steps, more than this share of the
    images could not be read."""
    corrupt_window: int = Field(100, ge=1)
    """Steps over which `max_corrupt_rate` is judged."""

    @property
    def shows_all(self) -> bool:
        """Whether no image of the release is kept from training."""
        return self.holdout_share == 0 and self.subset_share == 1

    @model_validator(mode="after")
    def _virtual_ranks_divide_the_batch(self) -> Self:
        if self.global_batch % self.virtual_ranks:
            raise ValueError(
                f"data.global_batch = {self.global_batch} is not a multiple of "
                f"data.virtual_ranks = {self.virtual_ranks}."
            )
        return self


class OptimizerParams(Params):
    """AdamW (vision transformers), LARS (ResNeXt) or SGD with momentum (BiT)."""

    name: Literal["adamw", "lars", "sgd"] = "adamw"
    """Which optimiser."""
    lr: float = Field(8e-4, gt=0)
    """Base learning rate (Source: paper A.1)."""
    lr_per_images: int | None = Field(None, ge=1)
    """When given, the peak rate is lr x global_batch / lr_per_images; else it is lr."""
    weight_decay: float = Field(0.05, ge=0)
    """Decoupled and multiplied by the rate (AdamW), or added to the gradient (LARS, SGD)
    (Source: paper A.1)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's averages."""
    eps: float = Field(1e-8, gt=0)
    """AdamW's denominator floor."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of LARS and SGD."""
    trust: float = Field(0.001, gt=0)
    """LARS's trust coefficient."""
    lr_inside_momentum: bool = True
    """LARS: rate enters the momentum buffer (You et al.) or multiplies it afterwards."""
    no_decay: tuple[str, ...] = ("pos_embed",)
    """Parameters left out of weight decay by the last part of their name; 1-D tensors always
    are."""
    clip_norm: float | None = Field(None, gt=0)
    """Gradients are scaled down to this L2 norm; None does not clip."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """When given, an average of the weights over the updates is kept, each update entering with
    1 - ema_decay; it is what the run exports. The papers keep none (SPEC B16)."""


class ScheduleParams(Params):
    """Learning rate as a function of the step: linear warm-up from 0, then a main phase."""

    warmup_steps: int = Field(10_000, ge=0)
    """Steps of linear warm-up (Source: paper A.1)."""
    warmup: Literal["extra", "inside"] = "extra"
    """extra: warm-up comes before the `epochs` or `steps`, which are the main phase (Source: paper
    A.1; SPEC A8). inside: it is the first part of them (BiT)."""
    length: Literal["epochs", "steps", "corpus_images", "corpus_epochs"] = "epochs"
    """What gives the length: `epochs`, `steps`, or the size of the release, with the images shown
    or the epochs linear in it."""
    epochs: float = Field(2.0, gt=0)
    """Passes over the release, when length = epochs (Source: paper A.1)."""
    steps: int = Field(0, ge=0)
    """Steps, when length = steps."""
    decay: Literal["linear", "cosine", "plateaus", "milestones", "rsqrt", "constant"] = "linear"
    """linear to 0 (paper's ViT), half a cosine to 0, equal plateaus (paper's ResNeXt), drops at
    `milestones` (BiT), inverse square root (SoViT), or none."""
    plateaus: int = Field(20, ge=1)
    """Number of equal plateaus; between two the rate is multiplied by `plateau_factor`."""
    plateau_factor: float = Field(0.5, gt=0, le=1)
    """Factor from one plateau to the next."""
    milestones: tuple[float, ...] = ()
    """Places where the rate drops, in the unit of `length`, counted from where that counts: the
    steps after a milestone have the lower rate."""
    milestone_factor: float = Field(0.1, gt=0, le=1)
    """Factor of each drop (Source: BiT section 3.2)."""
    timescale: int = Field(10_000, ge=1)
    """rsqrt: steps after warm-up at which the rate has fallen by the square root of 2."""
    cooldown_steps: int = Field(0, ge=0)
    """rsqrt: steps at the end over which the rate goes linearly to 0."""

    @model_validator(mode="after")
    def _fields_belong_together(self) -> Self:
        if self.length == "steps" and self.steps < 1:
            raise ValueError("schedule.length = steps needs schedule.steps >= 1.")
        if self.decay == "milestones":
            self._check_milestones()
        return self

    def _check_milestones(self) -> None:
        if self.length not in ("epochs", "steps"):
            raise ValueError(
                f"schedule.milestones have no unit with length = {self.length}; expected epochs "
                "or steps."
            )
        end = self.steps if self.length == "steps" else self.epochs
        places = [0.0, *self.milestones, float(end)]
        if len(places) < 3 or any(a >= b for a, b in itertools.pairwise(places)):
            raise ValueError(
                f"schedule.milestones = {list(self.milestones)}, expected at least one, rising, "
                f"between 0 and {end} {self.length}."
            )


class RunParams(Params):
    """How a machine carries the run out; no effect on what is learned, up to rounding."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes CUDA when there is a device."""
    micro_batch: int | None = Field(None, ge=1)
    """Images a process takes through the model at once; the rest of its share of the step is
    accumulated. None takes all at once."""
    workers: int = Field(8, ge=0)
    """Loader processes per training process; 0 reads in the training process."""
    prefetch: int = Field(2, ge=1)
    """Steps each loader process prepares ahead."""
    index_cache: int = Field(64, ge=1)
    """Shard indexes a loader process keeps in memory (about 1 MB each at 10,000 samples)."""
    read_seconds: float = Field(30.0, gt=0)
    """Time-out of one try to read from an object store."""
    read_retries: int = Field(3, ge=0)
    """Further tries after a failed one; the pause before each doubles from 0.1 s."""
    read_threads: int = Field(16, ge=1)
    """Images a loader process reads at once from an object store."""
    shard_cache: str | None = None
    """Local folder in which whole shards of an object store are kept, checked against the
    manifest's sha256; the processes of a machine share it. It pays where a machine's shards fit:
    a chunk of a shard is read a lane, so a small cache fetches shards again and again."""
    shard_cache_bytes: int = Field(200 * 2**30, ge=1)
    """Most bytes in `shard_cache`; the shards that were not used for longest are dropped."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of torch per training process; None leaves torch's choice (torchrun sets 1)."""
    checkpoint_every: int = Field(1000, ge=1)
    """Steps between checkpoints; one is always written at the end."""
    keep: int = Field(3, ge=1)
    """Newest checkpoints kept."""
    keep_best: bool = True
    """Keep the checkpoint with the least excess loss over the steps since the one before as
    well."""
    log_every: int = Field(50, ge=1)
    """Steps a line of the log covers."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """ddp: every process holds the whole model. fsdp: weights, gradients and optimiser state are
    cut over the processes, for models over about 400M parameters (SPEC B16). Checkpoints are the
    same."""
    compile: str | None = None
    """Backend of torch.compile, e.g. inductor; None does not compile."""
    activation_checkpointing: bool = False
    """Compute the activations of each block again in the backward pass instead of keeping them."""
    tensorboard: bool = True
    """Write TensorBoard files beside the JSON lines."""
    timeout_seconds: float = Field(600.0, gt=0)
    """A collective that waits longer fails the run."""


class TrainParams(Params):
    """One pretraining run over a release."""

    seed: int = 0
    """Start weights, order, crops."""
    start_from: str | None = None
    """Export of an earlier run whose weights this one starts from, position embedding resampled to
    `model.image_size`; its head is kept if the label map is the same, else it starts at zero."""
    model: ModelParams = ModelParams()
    """The encoder."""
    data: DataParams = DataParams()
    """Batches, order, crop."""
    loss: Literal["multilabel_softmax", "sigmoid_bce", "single_label_softmax"] = (
        "multilabel_softmax"
    )
    """multilabel_softmax is the paper's (section 3.4); the others are for comparison.
    single_label_softmax draws one label per image and epoch."""
    optimizer: OptimizerParams = OptimizerParams()
    """The update rule."""
    schedule: ScheduleParams = ScheduleParams()
    """Learning rate and length."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: fp32 on CPU; on CUDA bf16 where supported, else fp16 with a loss scaler
    (Source: paper A.1, mixed precision throughout)."""
    run: RunParams = RunParams()
    """How a machine carries it out."""

    def identity(self) -> dict[str, object]:
        """The values that decide what is learned; ``start_from`` only says where weights lie."""
        return self.model_dump(mode="json", exclude={"run", "start_from"})
