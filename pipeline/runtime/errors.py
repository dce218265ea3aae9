"""Errors that a user can fix, and checks that raise them early.

Nothing here imports Spark: the trainer's jobs use it on machines without Java.
"""

from __future__ import annotations

import shutil
from pathlib import Path


class UserError(ValueError):
    """Something that the person who runs the program can fix; the message says how."""


class JavaError(UserError):
    """No Java that Spark can run on."""


class PackagingError(UserError):
    """The project's own code cannot be shipped to the executors."""


def check_disk(folder: str | Path, needed_bytes: int) -> None:
    """Refuse to start where the disk has less room than the work is known to take.

    Args:
        folder: where the bytes will go; need not exist yet.
        needed_bytes: room needed, in bytes.

    Raises:
        UserError: less is free.
    """
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed_bytes:
        raise UserError(
            f"The disk of {place} has {free / 1e9:.2f} GB free, {needed_bytes / 1e9:.2f} GB are "
            "needed: free some room or choose another folder with --root."
        )
