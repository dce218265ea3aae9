"""Log lines as key=value, with secrets removed.

One event a line: ``time=... level=info logger=pipeline.runtime.job event=published table=images``.
Values with blanks or quotes are quoted. Fields come from ``extra={"fields": {...}}`` through
`event`, so that a message never has to be parsed.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from typing import TextIO

_SECRET_NAME = re.compile(
    r"SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|CONNECTION_STRING|(API|ACCESS|ACCOUNT|PRIVATE)_?KEY",
    re.I,
)
_ASSIGNMENT = re.compile(
    r"""(?ix)
    (["']?[\w.\-]*(?:secret|token(?!s)|password|passwd|credential|api[_\-.]?key|access[_\-.]?key)[\w.\-]*["']?
     \s*[=:]\s*)
    ("[^"]*"|'[^']*'|[^\s,;&}]+)
    """
)
_KEY_ID = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b")
_URL_LOGIN = re.compile(r"(\w+://)[^/\s:@]+:[^/\s@]+@")
_MIN_SECRET = 6
"""Shorter values are not searched for in messages: they would blank out ordinary words."""
HIDDEN = "***"


def secret_values() -> list[str]:
    """Values of environment variables whose names say that they are secret, longest first."""
    values = {
        value
        for name, value in os.environ.items()
        if _SECRET_NAME.search(name) and len(value) >= _MIN_SECRET
    }
    return sorted(values, key=len, reverse=True)


def redact(text: str) -> str:
    """The text without secrets.

    Args:
        text: anything that is about to be shown, logged or written to a manifest.

    Returns:
        the text with values of secret environment variables, ``secret=...`` assignments, access key
        ids and logins in URLs replaced by ``***``.

    Source: SPEC-dataset Y4.
    """
    for value in secret_values():
        text = text.replace(value, HIDDEN)
    text = _ASSIGNMENT.sub(lambda found: found.group(1) + HIDDEN, text)
    text = _KEY_ID.sub(HIDDEN, text)
    return _URL_LOGIN.sub(rf"\g<1>{HIDDEN}@", text)


def format_value(value: object) -> str:
    """One value of a key=value line: bare when it is one plain word, JSON-quoted otherwise."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    if text and not re.search(r'[\s"=]', text):
        return text
    return json.dumps(text, ensure_ascii=False)


def key_values(fields: dict[str, object]) -> str:
    """``a=1 b="two words"`` in the order of the mapping."""
    return " ".join(f"{name}={format_value(value)}" for name, value in fields.items())


class KeyValueFormatter(logging.Formatter):
    """A record as one key=value line, time in UTC, secrets removed."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, object] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        extra = getattr(record, "fields", None)
        if isinstance(extra, dict):
            fields |= {"event": record.getMessage(), **extra}
        else:
            fields["message"] = record.getMessage()
        line = key_values(fields)
        if record.exc_info:
            line = f"{line} exception={json.dumps(self.formatException(record.exc_info))}"
        return redact(line)


def event(logger: logging.Logger, name: str, level: int = logging.INFO, **fields: object) -> None:
    """Log one event with its fields.

    Args:
        logger: the module's logger.
        name: what happened, one word: ``published``, ``skipped``.
        level: a logging level.
        **fields: what belongs to it, printed in this order.
    """
    logger.log(level, name, extra={"fields": fields})


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what standard error is now: a live progress view takes it over while it is up."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        raise AttributeError(f"standard error is fixed, {value!r} cannot be set")


def setup_logging(level: int | str = logging.INFO, stream: TextIO | None = None) -> None:
    """Send the project's logs to stderr as key=value lines; keep libraries at warnings.

    Args:
        level: level of the project's loggers; the environment's PIPELINE_LOG wins.
        stream: where to, standard error by default.
    """
    handler = logging.StreamHandler(stream) if stream else _StderrHandler()
    handler.setFormatter(KeyValueFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    wanted = os.environ.get("PIPELINE_LOG") or level
    for package in ("pipeline", "jobs", "schemas", "__main__"):
        logging.getLogger(package).setLevel(wanted)
    for noisy in ("py4j", "fsspec", "PIL", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
