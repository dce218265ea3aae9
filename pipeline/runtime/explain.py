"""Common failures as one clear sentence each: what happened, where, what to do.

Errors that come out of a Spark task are recognised by what their message carries, since only text
crosses the JVM; so nothing here imports Spark, and the trainer's jobs use it as well.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.files.storage import StorageError
from pipeline.runtime.errors import UserError
from pipeline.runtime.logs import redact

USER_ERROR_EXIT = 2
"""Exit code for what a user can fix; a bug keeps its traceback and exits 1."""

_OUR_PACKAGES = ("pipeline", "jobs", "schemas")
_ONLY_IN_FULL = ("torch", "torchvision", "timm", "transformers", "sentence_transformers")
"""Modules that `make dist-env` leaves out."""
_MAX_SENTENCE = 2000


def explain(error: BaseException) -> str | None:
    """One sentence for a failure that a user can fix.

    Args:
        error: what was caught; its causes and contexts are looked at too.

    Returns:
        the sentence, secrets removed, or None when this is a bug of ours that needs its traceback.
    """
    for link in _chain(error):
        for rule in (_of_user, _of_system, _of_schema, _of_spark):
            sentence = rule(link)
            if sentence:
                return redact(_shorten(sentence))
    return None


def exit_code_of(main: Callable[[], object]) -> int:
    """Run a command line's body and turn its outcome into an exit code.

    Args:
        main: the body.

    Returns:
        0 when it ended, 2 for a failure that one sentence on stderr explains, 130 when interrupted.
        Anything else is raised, traceback and all. PIPELINE_DEBUG=1 shows the traceback always.
    """
    try:
        main()
    except KeyboardInterrupt:
        sys.stderr.write("error: Interrupted; what was published before stays as it was.\n")
        return 130
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            raise
        if os.environ.get("PIPELINE_DEBUG"):
            traceback.print_exc()
        sys.stderr.write(f"error: {sentence}\n")
        return USER_ERROR_EXIT
    return 0


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, then what caused it, each once."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _of_user(error: BaseException) -> str | None:
    """Our own messages, which already say what, where and what to do."""
    if isinstance(error, UserError):
        return str(error)
    if type(error).__module__.startswith("pydantic"):
        return _of_validation(error)
    if isinstance(error, ValueError) and _raised_by_us(error):
        return str(error)
    return None


def _of_validation(error: BaseException) -> str | None:
    """pydantic's report as one line: every breach, where and what was found."""
    details = getattr(error, "errors", None)
    if not callable(details):
        return None
    breaches = []
    for item in details():
        where = ".".join(map(str, item["loc"])) or "value"
        breaches.append(f"{where}: {item['msg']} (found {item.get('input')!r:.80})")
    title = getattr(error, "title", "parameters")
    return f"{title}: {'; '.join(breaches)}. Fix the preset or the --set option."


def _raised_by_us(error: BaseException) -> bool:
    """Whether the innermost frame is in the project: a message written for the user."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and _is_ours(frames[-1].filename)


def _is_ours(filename: str) -> bool:
    return any(part in _OUR_PACKAGES for part in Path(filename).parts[:-1]) and not re.search(
        r"site-packages|lib.python3", filename
    )


def _of_system(error: BaseException) -> str | None:
    """What the operating system said no to."""
    if isinstance(error, ModuleNotFoundError):
        return _of_missing_module(error)
    if isinstance(error, MemoryError):
        return (
            "The machine ran out of memory: lower the cores, raise the memory with "
            "--set runtime.driver_memory, or use more buckets."
        )
    if not isinstance(error, OSError):
        return None
    if isinstance(error, StorageError):
        return _store_failed(str(error))
    where = error.filename if error.filename is not None else "a file"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _disk_full(where)
    if isinstance(error, FileNotFoundError):
        return f"{where} does not exist: check the path, or make it with the stage that writes it."
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return f"{where} may not be read or written by this user: check its owner and mode."
    if isinstance(error, IsADirectoryError | NotADirectoryError):
        return f"{where}: {error.strerror}; check that the path names what is expected."
    if error.errno in (errno.EIO, errno.ESTALE):
        return _disk_failed(where, error.strerror)
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "Too many files are open: raise the limit with `ulimit -n 4096` and run again."
    return None


def _of_missing_module(error: ModuleNotFoundError) -> str | None:
    if (error.name or "").split(".")[0] in _OUR_PACKAGES:
        return None
    return (
        f"The package of the module {error.name!r} is not installed in {sys.prefix}: run `make` "
        "targets, which keep .venv complete, or install requirements.lock."
    )


def _disk_failed(where: object, why: object) -> str:
    return f"{where} cannot be read or written ({why}): the disk or the mount has failed."


def _store_failed(what: str) -> str:
    return (
        f"The object store failed ({what}): run again when it answers; finished parts are kept, "
        "and what was published before is intact."
    )


def _disk_full(where: object) -> str:
    return (
        f"The disk is full (writing {where}): free some room, or move the root or Spark's scratch "
        "folder (--root, SPARK_LOCAL_DIRS), then run again; what was published before is intact."
    )


_SCHEMA_CLASSES = ("ArrowInvalid", "ArrowTypeError", "ArrowNotImplementedError", "ArrowKeyError")


def _of_schema(error: BaseException) -> str | None:
    """A file that does not parse, or does not hold the columns of its contract."""
    if type(error).__name__ not in _SCHEMA_CLASSES:
        return None
    return _of_arrow_text(str(error))


def _of_arrow_text(text: str) -> str | None:
    first = text.strip().splitlines()[0] if text.strip() else ""
    if re.search(r"not a parquet file|Parquet file size is|footer", text, re.I):
        return (
            f"A Parquet file cannot be read ({first}): it is cut short or not Parquet; replace it."
        )
    if re.search(r"No match for FieldRef|Field .* does not exist|No such column", text, re.I):
        return (
            f"A table lacks a column ({first}): compare its file with the contract in "
            "schemas/TABLES.md."
        )
    if re.search(r"cast|schema|type", text, re.I):
        return (
            f"A file's schema does not fit its contract ({first}): compare it with "
            "schemas/TABLES.md."
        )
    return None


_PYTHON_LINE = re.compile(r"^(?:[\w.]+\.)?(\w+(?:Error|Exception|ArrowInvalid)):\s*(.+)$", re.M)
_FRAME = re.compile(r'File "([^"]+)", line \d+')


def _of_spark(error: BaseException) -> str | None:
    """What a Spark exception's text says: task failures reach the driver as text only."""
    module = type(error).__module__
    if not module.startswith(("pyspark", "py4j")):
        return None
    text = str(error)
    if "No space left on device" in text or "Errno 28" in text or "Disk quota exceeded" in text:
        found = re.search(r"\[Errno \d+\] (?:No space left|Disk quota)[^:\n]*: '([^'\n]+)'", text)
        return _disk_full(found.group(1) if found else "in a Spark task")
    if "JAVA_GATEWAY_EXITED" in text:
        return "Java ended before Spark was up: run `java -version` and look at its messages above."
    if "UnsupportedClassVersionError" in text:
        return "This Java is too old for Spark 4: set JAVA_HOME to Java 17 or newer."
    if "ModuleNotFoundError: No module named" in text:
        return _of_missing_on_executor(text)
    if "PYTHON_VERSION_MISMATCH" in text:
        return (
            "The executors run another minor version of Python than the driver: set "
            "PYSPARK_PYTHON and PYSPARK_DRIVER_PYTHON to interpreters of one version."
        )
    missing = re.search(r"java\.io\.FileNotFoundException: (?:File )?(\S+)", text)
    if missing:
        return f"{missing.group(1)} does not exist: check the path, every executor must see it."
    if "OutOfMemoryError" in text:
        return (
            "Java ran out of memory: raise runtime.driver_memory (local) or runtime.worker_memory "
            "(cluster), or use more buckets."
        )
    if re.search(r"PATH_NOT_FOUND|FAILED_READ_FILE|CANNOT_READ_FILE|NOT_A_PARQUET", text):
        return (
            f"Spark cannot read a file ({_unread(text)}): check that it exists, is whole and "
            "readable."
        )
    if "UNRESOLVED_COLUMN" in text or "INCOMPATIBLE" in text.split("]")[0]:
        first = text.strip().splitlines()[0]
        return f"A table's schema does not fit ({first}): compare it with schemas/TABLES.md."
    return _of_task(text)


def _unread(text: str) -> str:
    """The file that Spark's message names, else the first line that says something."""
    named = re.search(
        r"(?:while reading file|not read footer for file:?) (\S+?)[.,]?(?:\s|$)", text
    )
    if named:
        return named.group(1)
    lines = [
        line for line in text.strip().splitlines() if "error occurred while calling" not in line
    ]
    return lines[0] if lines else "not named"


def _of_missing_on_executor(text: str) -> str:
    found = re.search(r"No module named '([^']+)'", text)
    name = found.group(1) if found else "?"
    if name.split(".")[0] in _OUR_PACKAGES:
        return (
            f"The executors cannot import {name!r}: pass the code with --py-files dist/app.zip "
            "(made by `make dist`)."
        )
    archive = "env-full" if name.split(".")[0] in _ONLY_IN_FULL else "env"
    return (
        f"The executors cannot import {name!r}: pass the packages with --archives dist/{archive}"
        f".tar.gz#env and PYSPARK_PYTHON=./env/bin/python (made by `make dist-{archive}`)."
    )


def _of_task(text: str) -> str | None:
    """A ValueError that our own code raised inside a task, or a file it could not read."""
    lines = list(_PYTHON_LINE.finditer(text))
    if not lines:
        return None
    kind, message = lines[-1].group(1), lines[-1].group(2)
    if kind in _SCHEMA_CLASSES:
        return _of_arrow_text(message)
    if kind == "FileNotFoundError":
        return f"A task could not find a file ({message}): every executor must see the root."
    if kind == "StorageError":
        return _store_failed(message)
    if kind == "OSError" and (failed := re.match(r"\[Errno 5\] [^:]+: '([^']+)'", message)):
        return _disk_failed(failed.group(1), "Input/output error")
    if kind == "PermissionError":
        return f"A task may not read or write a file ({message}): check its owner and mode."
    frames = _FRAME.findall(text[: lines[-1].start()])
    if kind in ("ValueError", "UserError") and frames and _is_ours(frames[-1]):
        return message
    return None


def _shorten(sentence: str) -> str:
    flat = " ".join(sentence.split())
    return flat if len(flat) <= _MAX_SENTENCE else f"{flat[:_MAX_SENTENCE]} ..."
