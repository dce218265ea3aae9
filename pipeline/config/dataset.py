"""Parameters of the label map, resampling and shards."""

from __future__ import annotations

import datetime
from typing import Literal

from pydantic import Field

from pipeline.config.base import Params

Policy = Literal["inverse_sqrt", "repeat_factor", "natural", "uniform", "cap"]
PAPER = """@inproceedings{beal2022billion,
  title={Billion-Scale Pretraining with Vision Transformers for Multi-Task Visual Representations},
  author={Beal, Josh and Wu, Hao-Yu and Park, Dong Huk and Zhai, Andrew and Kislyuk, Dmitry},
  booktitle={IEEE/CVF Winter Conference on Applications of Computer Vision (WACV)},
  year={2022}
}"""


class FreezeLabelsParams(Params):
    """Parameters of `freeze_labels` (SPEC M4)."""

    min_images_per_label: int = Field(1, ge=1)
    """Clusters that fewer images carry are dropped."""


class ResampleImagesParams(Params):
    """Parameters of `resample_images` (paper section 4.6; SPEC R1)."""

    policy: Policy = "inverse_sqrt"
    """How often an image is shown; see `pipeline.kernels.resampling`."""
    threshold: float | None = Field(None, gt=0, le=1)
    """Frequency t of `repeat_factor`; of `inverse_sqrt` None solves for `target_size`."""
    target_size: int | None = Field(None, ge=1)
    """Samples of an epoch; None keeps the number of unique images."""
    cap: int | None = Field(None, ge=1)
    """Images a label of the policy `cap`."""
    max_copies: int = Field(20, ge=1)
    """Most copies of an image, so that one mislabelled rare label cannot fill a shard."""
    materialised: bool = True
    """True writes the copies into the shards; False writes each image once with its weight."""
    seed: int = 0


class AssignShardsParams(Params):
    """Parameters of `assign_shards` (SPEC W2)."""

    samples_per_shard: int = Field(10_000, ge=1)
    """Mean samples of a shard."""
    seed: int = 0


class WriteReleaseParams(Params):
    """Parameters of `write_release` (SPEC W1-W5).

    How images are read changes nothing that is written and is no part of the release's version: a
    run that timed out goes on with more patience where it stopped. What the release says about
    itself is written into it, so another title is another release, whose shards are written again.
    """

    title: str = Field("Weakly labelled images", pattern=r"^[^\r\n]+$")
    """Name of the dataset, one line, as data card and Croissant metadata give it."""
    description: str = ""
    """What the images are and where they are from; stands before the counts."""
    licence: str | None = None
    """URL or SPDX name of the licence of the whole; None names the licences that samples state."""
    creator: str | None = None
    """Organisation or person who publishes it."""
    url: str | None = None
    """Web page of the dataset."""
    citation: str = PAPER
    """BibTeX of the publication that describes it; default: the paper that the method is from."""
    release_version: str = Field("1.0.0", pattern=r"^\d+\.\d+\.\d+$")
    """Semantic version for people; the manifest's hash is the exact one."""
    date_published: datetime.date | None = None
    """ISO date; never taken from a clock. Croissant recommends one."""

    read_seconds: float = Field(60.0, gt=0, exclude=True)
    """Time-out of reading one image from its uri."""
    read_retries: int = Field(3, ge=0, exclude=True)
    """Further tries after a failed read."""
    read_threads: int = Field(16, ge=1, exclude=True)
    """Images read at once by a task, where they stand in files."""
