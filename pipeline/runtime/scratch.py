"""Spark's scratch below a local root: one folder a process, so that two runs do not share one.

A process holds a lock on its folder while it lives, which the kernel drops whatever ends it. So the
next run can tell what a killed one left from what a living one needs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from pipeline.files.storage import Storage

SCRATCH = "_scratch"
_LOCK = ".lock"


@contextlib.contextmanager
def scratch_folder(storage: Storage) -> Iterator[str | None]:
    """A folder of this process, removed at the end; folders of dead processes are removed first.

    Args:
        storage: root of the run.

    Yields:
        path of the folder, None where the root is not local: Spark has its own there.
    """
    if not storage.is_local:
        yield None
        return
    home = Path(storage.path(SCRATCH))
    home.mkdir(parents=True, exist_ok=True)
    for lock in home.glob(f"*{_LOCK}"):
        _clear(lock, wait=False)
    lock, handle = _locked(home)
    folder = lock.with_suffix("")
    folder.mkdir()
    try:
        yield str(folder)
    finally:
        os.close(handle)
        _clear(lock, wait=True)
        with contextlib.suppress(OSError):  # others are at work in it
            home.rmdir()


def _locked(home: Path) -> tuple[Path, int]:
    """A new lock file, and the handle that holds it."""
    while True:
        home.mkdir(parents=True, exist_ok=True)  # the last process out removes it
        lock = home / f"{uuid.uuid4().hex}{_LOCK}"
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            continue
        fcntl.flock(handle, fcntl.LOCK_EX)
        if lock.exists():  # else another process took it for a dead one's
            return lock, handle
        os.close(handle)


def _clear(lock: Path, wait: bool) -> None:
    """Remove a lock and its folder, unless a living process holds it."""
    try:
        handle = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return
    else:
        shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
        lock.unlink(missing_ok=True)
    finally:
        os.close(handle)
