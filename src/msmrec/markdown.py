"""Tables in Markdown."""

from collections.abc import Iterable, Mapping, Sequence

import polars as pl


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts, without a newline at its end."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def frame_markdown(table: pl.DataFrame, digits: Mapping[str, int] | None = None) -> str:
    """A table of numbers and texts: '-' where nothing was measured, thousands separated.

    Args:
        digits: of a column's fractions; by default 3.
    """
    places = digits or {}

    def cell(name: str, value: object) -> str:
        if value is None:
            return "-"
        if isinstance(value, float):
            return f"{value:.{places.get(name, 3)}f}"
        return f"{value:,}" if isinstance(value, int) else str(value)

    rows = ([cell(name, value) for name, value in row.items()] for row in table.iter_rows(named=True))
    return markdown(table.columns, rows)
