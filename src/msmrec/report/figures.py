"""Plots as page.js draws them with BokehJS: marks (lines, points, intervals, bars, cells) on two axes.

Colours are names of the page's theme, so that a plot follows the reader's light or dark; series differ by marker and
dash too. All text is drawn on a canvas or escaped, whatever a title holds.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from msmrec.report.page import Figure, Table

Mark = dict[str, Any]
Series = tuple[str, Sequence[Any], Sequence[Any], Sequence[Any]]
"""name, means, lows, highs"""


def shorten(text: str, length: int = 42) -> str:
    """At most `length` characters."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def number(value: Any, digits: int = 4) -> str:
    """A cell of a table: '' for what was not measured, thousands separated, fractions with `digits`."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return f"{int(value):,}"
    return f"{value:,.{digits}f}" if isinstance(value, float) else str(value)


def p_value(p: float | None) -> str:
    """A p value as papers print it."""
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def span(low: float | None, high: float | None, digits: int = 4) -> str:
    """An interval in a table."""
    return "" if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"


def table_of(frame: pl.DataFrame, caption: str, names: Sequence[str], digits: int = 4, folded: bool = False) -> Table:
    """A polars table as the page shows it."""
    numeric = frozenset(k for k, kind in enumerate(frame.dtypes) if kind.is_numeric())
    rows = [[number(value, digits) for value in row] for row in frame.iter_rows()]
    return Table(caption, list(names), rows, numeric, folded)


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with its title and unit; `more`: type (log), range, labels, ticks, percent, time."""
    return {"title": title, **more}


def labels_axis(labels: Sequence[str], length: int = 30) -> dict[str, Any]:
    """A vertical axis that names rows at 0, 1, ..., the first on top."""
    return {"title": "", "labels": [shorten(label, length) for label in labels]}


def line(x: Sequence[Any], y: Sequence[Any], name: str, k: int = 0, markers: bool = True) -> Mark:
    """One series over x."""
    return {"kind": "line", "x": list(x), "y": list(y), "name": name, "series": k, "markers": markers}


def band(x: Sequence[float], low: Sequence[float], high: Sequence[float], k: int = 0) -> Mark:
    """The area between two lines."""
    return {"kind": "band", "x": list(x), "low": list(low), "high": list(high), "series": k}


def points(
    x: Sequence[Any],
    y: Sequence[Any],
    name: str,
    k: int,
    hover: Sequence[str] | str,
    size: float,
    alpha: float,
) -> Mark:
    """Points of one series; `hover` is a text a point, or '#' and the name of a shared list of them."""
    return {
        "kind": "points",
        "x": list(x),
        "y": list(y),
        "name": name,
        "series": k,
        "size": size,
        "alpha": alpha,
        "hover": hover if isinstance(hover, str) else list(hover),
    }


def intervals(
    labels: Sequence[str],
    mean: Sequence[float | None],
    low: Sequence[float | None],
    high: Sequence[float | None],
    name: str,
    k: int = 0,
    shift: float = 0.0,
    hover: Sequence[str] | None = None,
) -> Mark:
    """Points with intervals in the rows of `labels_axis`; `shift` sets series apart. Rows without a mean stay empty."""
    known = [i for i, m in enumerate(mean) if m is not None]
    words = hover or [
        f"{label}\n{name} {number(m)}" + (f" ({span(a, b)})" if a is not None else "")
        for label, m, a, b in zip(labels, mean, low, high, strict=True)
    ]
    return {
        "kind": "intervals",
        "x": [mean[i] for i in known],
        "y": [i + shift for i in known],
        "name": name,
        "series": k,
        "low": [mean[i] if low[i] is None else low[i] for i in known],
        "high": [mean[i] if high[i] is None else high[i] for i in known],
        "hover": [words[i] for i in known],
    }


def dots(
    title: str,
    labels: Sequence[str],
    series: Sequence[Series],
    x: dict[str, Any],
    alt: str,
    note: str = "",
    header: str = "",
    rule: float | None = None,
    table: Table | bool = True,
) -> Figure:
    """A row a label, a point with its interval a series.

    Args:
        header: what the labels are, for the table. rule: where a vertical line stands, such as 0 or chance.
        table: in place of one of the series; False for none, where the page has one of several figures.
    """
    step = 0.62 / max(len(series), 1)
    marks: list[Mark] = [] if rule is None else [{"kind": "rule", "at": rule}]
    for k, (name, mean, low, high) in enumerate(series):
        marks.append(intervals(labels, mean, low, high, name, k, (k - (len(series) - 1) / 2) * step))
    if table is True:
        columns = [header, *(part for name, *_ in series for part in (name, "95% interval"))]
        rows = [
            [label, *(part for _, m, a, b in series for part in (number(m[i]), span(a[i], b[i])))]
            for i, label in enumerate(labels)
        ]
        table = Table(title, columns, rows, frozenset(range(1, len(columns))))
    height = 95 + 30 * (len(series) > 1) + max(26, 16 * len(series) + 10) * len(labels)
    return Figure(title, marks, x, labels_axis(labels), alt, table or None, note, height)


def bars(left: Sequence[float], right: Sequence[float], top: Sequence[float], hover: Sequence[str]) -> Mark:
    """Bars from 0 to `top` over the spans from `left` to `right`."""
    spans = {"left": list(left), "right": list(right), "top": list(top)}
    return {"kind": "bars", **spans, "series": 0, "name": "", "hover": list(hover)}


def histogram(
    edges: np.ndarray,
    counts: np.ndarray,
    title: str,
    x: dict[str, Any],
    y: str,
    alt: str,
    note: str = "",
    names: Sequence[str] | None = None,
) -> Figure:
    """Bars of given heights over the spans between `edges` (n + 1)."""
    low, high = edges[:-1], edges[1:]
    names = names or [f"{number(float(a), 0)} to {number(float(b), 0)}" for a, b in zip(low, high, strict=True)]
    hover = [f"{n}: {number(int(c))}" for n, c in zip(names, counts, strict=True)]
    mark = bars(low.tolist(), high.tolist(), counts.tolist(), hover)
    table = Table(
        title, [x["title"], y], [[n, number(int(c))] for n, c in zip(names, counts, strict=True)], frozenset({1})
    )
    return Figure(title, [mark], x, axis(y, zero=True), alt, table, note, height=270)


def cells(
    rows: Sequence[str],
    columns: Sequence[str],
    values: np.ndarray,
    title: str,
    alt: str,
    header: str,
) -> Figure:
    """A heat map (R, C) with its numbers written in the cells."""
    where = [(r, c) for r in range(len(rows)) for c in range(len(columns))]
    mark = {
        "kind": "cells",
        "x": [c for _, c in where],
        "y": [r for r, _ in where],
        "name": "",
        "value": [round(float(values[r, c]), 4) for r, c in where],
        "label": [f"{values[r, c]:.2f}".removeprefix("0") for r, c in where],
        "hover": [f"{rows[r]}\n{columns[c]} {values[r, c]:.3f}" for r, c in where],
    }
    table = Table(
        title,
        [header, *columns],
        [[r, *(number(float(v)) for v in row)] for r, row in zip(rows, values, strict=True)],
        frozenset(range(1, len(columns) + 1)),
    )
    height = 90 + 24 * len(rows)
    x = {"title": "", "columns": list(columns)}
    return Figure(title, [mark], x, labels_axis(rows, 44), alt, table, height=height)
