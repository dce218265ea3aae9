"""What a stage may see of an earlier run of its own: a way to spare work, never to change rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from pipeline.stages.stage import ArrowMap
SAME, NEW, GONE = 0, 1, 2
"""Change of a row since an earlier run; a row whose values changed is gone as it was, and new."""
CHANGE = "change"
"""Column that tells it."""


class EarlierRun(Protocol):
    """An earlier run of the same stage on the same root, whose inputs and outputs are still there.

    It spares work and never changes rows: what a stage writes must be what it would write without.
    """

    def input(self, table: str) -> DataFrame:
        """An input of that run."""
        ...

    def output(self, table: str) -> DataFrame:
        """An output of that run."""
        ...

    def has_same(self, table: str) -> bool:
        """Whether a small input has the same rows now."""
        ...

    def changes(
        self, table: str, columns: Sequence[str], fn: ArrowMap, ddl: str, among: str | None = None
    ) -> DataFrame:
        """Rows of an input now and then, compared without a shuffle: one task a file.

        Args:
            table: input.
            columns: that are compared and that ``fn`` sees, the key first; ``fn`` also sees int8
                ``change``: of a row now whether it was the same then, else of a row then ``GONE``.
            fn: from batches to batches, called once a file.
            ddl: of its result.
            among: an input of the same key; rows whose key it does not have (of its own time) are
                left out.
        """
        ...
