"""Log events with fields, which the job's formatter prints as key=value."""

from __future__ import annotations

import logging


def event(logger: logging.Logger, name: str, level: int = logging.INFO, **fields: object) -> None:
    """Log one event.

    Args:
        logger: the module's logger.
        name: what happened, one word.
        level: a logging level.
        **fields: what belongs to it, in the order to print.
    """
    logger.log(level, name, extra={"fields": fields})
