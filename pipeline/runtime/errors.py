"""Errors that a user can fix, and checks that raise them early.

Nothing here imports Spark: the trainer's jobs use it on machines without Java.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

MIN_PYTHON = (3, 11)


class UserError(ValueError):
    """Something that the person who runs the program can fix; the message says how."""


class JavaError(UserError):
    """No Java that Spark can run on."""


class PackagingError(UserError):
    """The project's own code cannot be shipped to the executors."""


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> None:
    """Refuse an interpreter that is too old.

    Args:
        version: (major, minor, ...), by default the running interpreter's.

    Raises:
        UserError: older than 3.11.
    """
    if tuple(version[:2]) < MIN_PYTHON:
        found = ".".join(map(str, version[:3]))
        raise UserError(
            f"Python {found} at {sys.executable} is too old, 3.11 or newer is needed: install it "
            "and run `make` again, or name it with `make PYTHON=/path/to/python3.11`."
        )


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
