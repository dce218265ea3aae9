"""The funnel: terms, labels and images after each step (SPEC M2), as rows and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FunnelStep:
    """What one step leaves.

    Attributes:
        name: of the step.
        num_classes: distinct terms, clusters or labels in use.
        kind: what the classes are: ``terms``, ``clusters`` or ``labels``.
        num_images: images with at least one of them (samples, after resampling).
        num_given: classes over all images, repeats across images counted.
    """

    name: str
    num_classes: int
    kind: str
    num_images: int
    num_given: int

    @property
    def per_image(self) -> float:
        """Classes an image."""
        return self.num_given / self.num_images if self.num_images else 0.0


COLUMNS = ("step", "classes", "", "images", "an image")


def funnel_rows(steps: Sequence[FunnelStep]) -> list[tuple[str, str, str, str, str]]:
    """The funnel as text cells under ``COLUMNS``."""
    return [
        (s.name, f"{s.num_classes:,}", s.kind, f"{s.num_images:,}", f"{s.per_image:.2f}")
        for s in steps
    ]


def to_csv(steps: Sequence[FunnelStep]) -> str:
    """The funnel as CSV."""
    lines = ["step,num_classes,kind,num_images,per_image"]
    lines += [f"{s.name},{s.num_classes},{s.kind},{s.num_images},{s.per_image:.4f}" for s in steps]
    return "\n".join(lines) + "\n"
