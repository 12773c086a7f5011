"""A comparison as Markdown, LaTeX (booktabs) or CSV."""

import csv
import io
import re
from collections.abc import Callable
from typing import Literal, NamedTuple

from msmrec.evaluation.compare import Cell, Comparison

Format = Literal["markdown", "latex", "csv"]


class Markup(NamedTuple):
    """How a format writes what numbers and names are written with."""

    text: Callable[[str], str]
    name: Callable[[str], str]
    bold: Callable[[str], str]
    plus_minus: str
    dagger: str
    delta: str
    minus: str


LATEX_SIGNS = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "†": r"$^\dagger$",
    "Δ": r"$\Delta$",
}


def escape_latex(text: str) -> str:
    """`text` as LaTeX prints it."""
    return re.sub("|".join(map(re.escape, LATEX_SIGNS)), lambda match: LATEX_SIGNS[match[0]], text)


def _escape_markdown(text: str) -> str:
    return text.replace("|", "\\|")


MARKDOWN = Markup(_escape_markdown, lambda s: f"`{_escape_markdown(s)}`", lambda s: f"**{s}**", " ± ", "†", "Δ", "-")
LATEX = Markup(
    escape_latex,
    lambda s: rf"\texttt{{{escape_latex(s)}}}",
    lambda s: rf"\textbf{{{s}}}",
    r" $\pm$ ",
    r"$^\dagger$",
    r"$\Delta$",
    "$-$",
)


def render(table: Comparison, form: Format) -> str:
    """The table in a format, with its notes under it (CSV has none)."""
    return {"markdown": _markdown, "latex": _latex, "csv": _csv}[form](table)


def _markdown(table: Comparison) -> str:
    head, *rows = _cells(table, MARKDOWN)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        [*(f"| {' | '.join(line)} |" for line in lines), "", *(f"{_escape_markdown(n)}  " for n in table.notes)]
    ).rstrip()


def _latex(table: Comparison) -> str:
    head, *rows = (" & ".join(row) + r" \\" for row in _cells(table, LATEX))
    columns = 2 + len(table.metrics) * (2 if table.baseline else 1)
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            rf"\begin{{tabular}}{{lr{'l' * (columns - 2)}}}",
            r"\toprule",
            head,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par{{\footnotesize {escape_latex(note)}}}" for note in table.notes),
        ]
    )


def _cells(table: Comparison, markup: Markup) -> list[list[str]]:
    """The header and the rows, as text."""
    head = ["config", "seeds"]
    for metric in table.metrics:
        head += [markup.text(metric)] + ([f"{markup.delta} {markup.text(metric)}"] if table.baseline else [])
    lines = [head]
    for row in table.rows:
        why = f" ({markup.text(row.gap)})" if row.gap else ""
        line = [markup.name(row.name) + why, str(row.seeds) if row.seeds else "-"]
        for cell in row.cells:
            line.append(_value(cell, markup) if cell else "-")
            if table.baseline:
                line.append(_difference(cell, markup) if cell and cell.difference is not None else "-")
        lines.append(line)
    return lines


def _value(cell: Cell, markup: Markup) -> str:
    mean = _number(cell.mean, markup)
    text = markup.bold(mean) if cell.best else mean + (markup.dagger if cell.near_best else "")
    text += f"{markup.plus_minus}{cell.sd:.4f}" if cell.sd is not None else ""
    return text + (f" [{', '.join(_number(end, markup) for end in cell.interval)}]" if cell.interval else "")


def _difference(cell: Cell, markup: Markup) -> str:
    assert cell.difference is not None
    sign = "+" if cell.difference >= 0 else ""
    p = "" if cell.p is None else markup.text(" (p < 0.001)" if cell.p < 0.001 else f" (p {cell.p:.3f})")
    return sign + _number(cell.difference, markup) + p


def _number(value: float, markup: Markup) -> str:
    return f"{value:.4f}".replace("-", markup.minus)


def _csv(table: Comparison) -> str:
    """A line a config, columns METRIC, METRIC_sd, METRIC_low, METRIC_high, METRIC_difference, METRIC_p; empty: none."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    fields = ("", "_sd", "_low", "_high", "_difference", "_p")
    writer.writerow(["config", "seeds", *(metric + f for metric in table.metrics for f in fields), "gap"])
    for row in table.rows:
        line: list[str] = []
        for cell in row.cells:
            low, high = cell.interval if cell and cell.interval else (None, None)
            numbers = (cell.mean, cell.sd, low, high, cell.difference, cell.p) if cell else (None,) * len(fields)
            line += ["" if number is None else f"{number:.6g}" for number in numbers]
        writer.writerow([row.name, row.seeds, *line, row.gap])
    return file.getvalue().rstrip("\n")
