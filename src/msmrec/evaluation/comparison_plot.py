"""A comparison as a plot: bars with intervals, or lines over a number of the config."""

from pathlib import Path
from typing import Any

from msmrec.artifacts import InputError, atomic_file
from msmrec.evaluation.compare import Cell, Comparison, Row


def plot(table: Comparison, path: Path, x: str | None = None) -> None:
    """Writes a PNG or SVG: a panel a metric; intervals are those of the table, or else ± the deviation over seeds.

    Args:
        table: rows without numbers are left out. path: ends in .png or .svg. x: the key whose number is the x axis.

    Raises:
        InputError: matplotlib is not installed, the path has another ending, or no row has a number.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("--plot needs matplotlib: pip install 'msmrec[plot]'") from None
    if path.suffix not in (".png", ".svg"):
        raise InputError(f"--plot {path}: name a .png or .svg file")
    if not any(cell for row in table.rows for cell in row.cells):
        raise InputError(f"--plot {path}: no finished run to draw")
    rows = [row for row in table.rows if not row.gap]
    height = 3.4 if x else 1.2 + 0.36 * len(rows)
    figure = Figure(figsize=(1.6 * (not x) + 3.4 * len(table.metrics), height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(table.metrics), squeeze=False, sharey=not x)[0]
    for column, (metric, axes) in enumerate(zip(table.metrics, panels, strict=True)):
        cells = [(row, cell) for row in rows if (cell := row.cells[column])]
        (_lines if x else _bars)(axes, cells, rows)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(metric, fontsize=10)
        axes.tick_params(labelsize=9)
        if x:
            axes.set_xlabel(x.removeprefix("model.init_args."), fontsize=9)
    if x and len({row.line for row in rows}) > 1:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=150)


def _ends(cell: Cell) -> tuple[float, float]:
    spread = cell.sd or 0.0
    return cell.interval or (cell.mean - spread, cell.mean + spread)


def _errors(cells: list[Cell]) -> list[list[float]]:
    ends = [_ends(cell) for cell in cells]
    below = [cell.mean - low for cell, (low, _) in zip(cells, ends, strict=True)]
    return [below, [high - cell.mean for cell, (_, high) in zip(cells, ends, strict=True)]]


def _bars(axes: Any, cells: list[tuple[Row, Cell]], rows: list[Row]) -> None:
    """Horizontal, so that names can be read, and from zero; the number beside each bar shows what its length cannot."""
    place = {row.name: k for k, row in enumerate(rows)}
    means = [cell.mean for _, cell in cells]
    colours = ["#3b6ea5" if cell.best else "#9db7d3" for _, cell in cells]
    errors = _errors([cell for _, cell in cells])
    axes.barh([place[row.name] for row, _ in cells], means, xerr=errors, color=colours, height=0.65, capsize=3)
    for row, cell in cells:
        end = max(0.0, _ends(cell)[1])
        axes.annotate(
            f"{cell.mean:.4f}", (end, place[row.name]), (4, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.margins(x=0.22)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)  # the first row on top


def _lines(axes: Any, cells: list[tuple[Row, Cell]], rows: list[Row]) -> None:
    """A line for each config."""
    for line in dict.fromkeys(row.line for row in rows):
        points = [(row.x, cell) for row, cell in cells if row.line == line]
        means = [cell.mean for _, cell in points]
        errors = _errors([cell for _, cell in points])
        at = [x for x, _ in points]
        axes.errorbar(at, means, errors, marker="o", markersize=4, capsize=3, elinewidth=1, alpha=0.75, label=line)
