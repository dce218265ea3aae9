"""Reading whole small files from wherever they are: time-out, retries, a size limit."""

from __future__ import annotations

import errno
import functools
import os
import queue
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar, cast

from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem

from pipeline.files.storage import ALLOWED_PROTOCOLS, Storage, filesystem_of, refuse_login

Item = TypeVar("Item")
Content = bytes | memoryview

_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError)
"""Errors that another try does not cure."""
_FIRST_PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class FetchPolicy:
    """How to read.

    Attributes:
        seconds: time-out of one try.
        retries: further tries after a failed one; the pause before each doubles from 0.1 s.
        threads: files read at once.
    """

    seconds: float = 60.0
    retries: int = 3
    threads: int = 16

    @property
    def longest_seconds(self) -> float:
        """Time after which a read has come or failed."""
        pauses = _FIRST_PAUSE_SECONDS * ((1 << self.retries) - 1)
        return self.seconds * (self.retries + 1) + pauses


def fetch(uri: str, max_bytes: int, policy: FetchPolicy) -> bytes:
    """Content of a file, at most ``max_bytes + 1`` bytes of it.

    One byte more than allowed tells a file that is too long, whatever its length.

    Args:
        uri: a local path, or a URI whose protocol the storage layer allows.
        max_bytes: limit.
        policy: see there.

    Raises:
        ValueError: a protocol that is not allowed.
        TimeoutError: no answer within the time-out, at every try; local files have no time-out.
        OSError: it cannot be read, after all tries.
    """
    return _try(lambda: _read(uri, max_bytes + 1), uri, is_local(uri), policy)


def fetch_range(storage: Storage, name: str, offset: int, size: int, policy: FetchPolicy) -> bytes:
    """``size`` bytes of a file below a root from ``offset`` on, or less where it ends before.

    Args:
        storage: root.
        name: of the file.
        offset: of the first byte.
        size: in bytes.
        policy: see there.

    Raises:
        TimeoutError: as :func:`fetch`.
        OSError: as :func:`fetch`.
    """
    return _try(lambda: storage.read_range(name, offset, size), name, storage.is_local, policy)


def fetch_file(storage: Storage, name: str, policy: FetchPolicy) -> bytes:
    """Whole content of a file below a root.

    Args:
        storage: root.
        name: of the file.
        policy: see there.

    Raises:
        TimeoutError: as :func:`fetch`.
        OSError: as :func:`fetch`.
    """
    return _try(lambda: storage.read_bytes(name), name, storage.is_local, policy)


def _try(read: Callable[[], bytes], what: str, is_near: bool, policy: FetchPolicy) -> bytes:
    """Result of the first try that succeeds."""
    pause = _FIRST_PAUSE_SECONDS
    for tries_left in range(policy.retries, -1, -1):
        try:
            if is_near:  # a thread of its own costs more than such a read
                return read()
            return _within(policy.seconds, read, what)
        except _FINAL:
            raise
        except Exception:  # clients of object stores have errors of their own
            if tries_left == 0:
                raise
        time.sleep(pause)
        pause *= 2
    raise AssertionError("unreachable")


def fetch_in_order(
    items: Iterable[Item],
    at_hand: Callable[[Item], Content | None],
    read: Callable[[Item], Content],
    threads: int,
) -> Generator[tuple[Item, Content | Exception]]:
    """Read for items in parallel, deliver in their order; holds two results a thread at most.

    Args:
        items: consumed as room allows.
        at_hand: content that need not be read, None where it must be.
        read: called in threads; what it raises is delivered in place of the content.
        threads: calls at once.

    Yields:
        each item with its content or its error.
    """
    waiting: deque[tuple[Item, Future[Content]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="fetch") as pool:
        try:
            for item in items:
                content = at_hand(item)
                if content is not None:
                    while waiting:
                        yield _outcome(*waiting.popleft())
                    yield item, content
                    continue
                waiting.append((item, pool.submit(read, item)))
                if len(waiting) >= 2 * threads:
                    yield _outcome(*waiting.popleft())
            while waiting:
                yield _outcome(*waiting.popleft())
        finally:
            for _, future in waiting:
                future.cancel()


def is_local(uri: str) -> bool:
    """Whether a uri is a path of this machine."""
    return "://" not in uri or uri.startswith(("file://", "local://"))


def _outcome(item: Item, future: Future[Content]) -> tuple[Item, Content | Exception]:
    try:
        return item, future.result()
    except Exception as error:  # any client library's errors; told to the user with the key
        return item, error


def _within(seconds: float, read: Callable[[], bytes], uri: str) -> bytes:
    """Result of a call that may hang: a thread of its own is left behind when it does."""
    answer: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            answer.put(read())
        except BaseException as error:  # handed to the caller, who raises it
            answer.put(error)

    threading.Thread(target=run, daemon=True, name="fetch-try").start()
    try:
        result = answer.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"{uri}: no answer within {seconds:g} s") from None
    if isinstance(result, TimeoutError):
        raise TimeoutError(f"{uri}: no answer within {seconds:g} s") from result
    if isinstance(result, BaseException):
        raise result
    return result


def _read(uri: str, size: int, seconds: float | None = None) -> bytes:
    if is_local(uri):
        return _read_local(uri.removeprefix("file://").removeprefix("local://"), size)
    protocol = uri.partition("://")[0]
    if protocol not in ALLOWED_PROTOCOLS or "::" in uri:
        raise ValueError(f"{uri}: protocol {protocol!r}, expected {sorted(ALLOWED_PROTOCOLS)}.")
    refuse_login(uri)
    root = "/".join(uri.split("/", 3)[:3])
    fs = _filesystem(root.replace("s3a://", "s3://", 1))
    path = fs._strip_protocol(uri.replace("s3a://", "s3://", 1))
    # So that a client does not go on with what is given up here.
    limit = {"timeout": seconds} if isinstance(fs, AsyncFileSystem) else {}
    try:
        return cast(bytes, fs.cat_file(path, start=0, end=size, **limit))
    except OSError as error:
        # S3 has no range of an empty object.
        if error.errno != errno.EINVAL or fs.size(path):
            raise
        return b""


def _read_local(path: str, size: int) -> bytes:
    # Opening a named pipe without O_NONBLOCK waits for somebody who writes.
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(opened).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(mode):
            raise ValueError(f"{path}: not a regular file")
        with open(opened, "rb", closefd=False) as file:
            return file.read(size)
    finally:
        os.close(opened)


@functools.cache
def _filesystem(root: str) -> AbstractFileSystem:
    return filesystem_of(root)[0]
