"""Sizes that the learning tests and their fixtures share."""

STEPS = 60
"""Updates of a run: 3,840 images, about four seconds of one core."""
