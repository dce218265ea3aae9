"""Conservation laws: for each stage, rows in = rows out + rows by reason (SPEC X2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipeline.runtime.manifest import LedgerLine, TableManifest
from pipeline.stages.stage import LedgerRule


def settle(
    rules: tuple[LedgerRule, ...],
    inputs: Mapping[str, TableManifest | None],
    outputs: Mapping[str, TableManifest],
    counts: Mapping[str, int],
    source_rows: Callable[[str], int],
) -> list[LedgerLine]:
    """Evaluate the rules on what was really written.

    Args:
        rules: of the stage.
        inputs: input table -> manifest; sources are not in it.
        outputs: output table -> manifest, as read back.
        counts: counts of the kernel.
        source_rows: evaluates a measure of a ``source_*`` table.

    Returns:
        one line a rule.
    """

    def measure(name: str) -> int:
        if name.startswith("#"):
            return counts.get(name[1:], 0)
        table, _, column = name.partition(".")
        if table.startswith("source_"):
            return source_rows(name)
        manifest = outputs.get(table) or inputs.get(table)
        if manifest is None:
            return 0
        return manifest.totals.get(column, 0) if column else manifest.num_rows

    lines = []
    for rule in rules:
        dropped: dict[str, int] = {}
        for table in rule.dropped:
            for reason, amount in outputs[table].reasons.items():
                dropped[reason] = dropped.get(reason, 0) + amount
        if rule.dropped_counts:
            for name, amount in counts.items():
                if name.startswith(rule.dropped_counts) and amount:
                    reason = name.removeprefix(rule.dropped_counts)
                    dropped[reason] = dropped.get(reason, 0) + amount
        lines.append(
            LedgerLine(
                unit=rule.unit,
                rows_in=sum(map(measure, rule.rows_in)),
                rows_out=sum(map(measure, rule.rows_out)),
                dropped=dict(sorted(dropped.items())),
            )
        )
    return lines


def mismatches(stage: str, lines: list[LedgerLine]) -> list[str]:
    """What does not add up, in words; empty when the ledger closes."""
    return [
        f"{stage}: {line.rows_in} {line.unit} in, {line.rows_out} out, "
        f"{sum(line.dropped.values())} dropped {line.dropped}: "
        f"{line.rows_in - line.rows_out - sum(line.dropped.values())} unaccounted for, expected 0"
        for line in lines
        if line.rows_in != line.rows_out + sum(line.dropped.values())
    ]
