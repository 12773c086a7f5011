"""The page for several runs side by side: the table of msmrec.evaluation.compare, slices, curves, cost, differences."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from msmrec.artifacts import InputError
from msmrec.evaluation.comparable_runs import Group, group_runs
from msmrec.evaluation.compare import LOWER_IS_BETTER, Comparison
from msmrec.evaluation.slices import METRICS, mean_slices
from msmrec.report.figures import axis, dots, line, number, p_value, span
from msmrec.report.page import Block, Figure, Missing, Page, Prose, Row, Table, write_page
from msmrec.report.results import UNITS
from msmrec.report.run_files import RunFiles
from msmrec.report.training import curve, curve_axis, shown_curves
from msmrec.run_folder import Run, find_runs


def write_comparison(
    table: Comparison, paths: Sequence[Path], path: Path, x: str | None, names: Literal["config", "folder"]
) -> Page:
    """Writes one page for several runs.

    Args:
        table: of these runs. path: the HTML file. paths, x, names: as `compare` was given them.

    Raises:
        InputError: jinja2 or bokeh is not installed, or `path` is no .html file.
    """
    if path.suffix != ".html":
        raise InputError(f"--page {path}: name an .html file")
    runs = find_runs(paths)
    groups, _ = group_runs([run for run in runs if run.metrics is not None], x, names)
    rows = [group.name for group in groups]
    best = [
        (metric.replace("_", " "), number(cell.mean), row.name)
        for k, metric in enumerate(table.metrics[:4])
        for row in table.rows
        if (cell := row.cells[k]) and cell.best
    ]
    title = " · ".join(rows[:4]) + (f" and {len(rows) - 4} more" if len(rows) > 4 else "") or "No finished run"
    page = Page(title, table.notes[0] if table.notes else "", [(f"best {m}", v, n) for m, v, n in best], [])
    page.add("Results", lambda: _results(table))
    page.add("Slices", lambda: _slices(groups))
    page.add("Training curves", lambda: _curves(groups))
    page.add("Speed and memory", lambda: _speed(groups))
    page.add("Where the configurations differ", lambda: _differences(groups))
    page.add("Runs", lambda: _runs(groups, runs, path))
    write_page(page, path)
    return page


def _results(table: Comparison) -> list[Block]:
    if not any(cell for row in table.rows for cell in row.cells):
        raise Missing("None of the runs is finished.")
    rows, columns = _rows(table)
    best = frozenset(k for k, cells in enumerate(rows) if cells[3].endswith("best"))
    notes = [note.replace("Bold: best.", "“best” marks the best of a metric.") for note in table.notes[1:]]
    return [
        *(Prose(f"Take care: {warning}.") for warning in table.warnings),
        Table(
            "Test results; marked: the best of a metric", columns, rows, frozenset(range(2, len(columns))), marked=best
        ),
        *map(Prose, notes),
        Row(_dots(table)),
    ]


def _rows(table: Comparison) -> tuple[list[list[str]], list[str]]:
    """A row for each metric and config, and what the columns are called."""
    tested = table.baseline is not None
    columns = ["metric", "config", "seeds", "mean ± sd", "95% interval", *(["difference", "p"] if tested else [])]
    rows = []
    for k, metric in enumerate(table.metrics):
        for row in table.rows:
            cell = row.cells[k]
            cells = [metric.replace("_", " ") + UNITS.get(metric, ""), row.name, str(row.seeds) if row.seeds else ""]
            if cell is None:
                rows.append([*cells, row.gap or "not measured", *[""] * (len(columns) - 4)])
                continue
            mean = number(cell.mean) + (f" ± {cell.sd:.4f}" if cell.sd is not None else "")
            cells += [
                mean + (" best" if cell.best else " †" if cell.near_best else ""),
                span(*cell.interval) if cell.interval else "",
            ]
            cells += (
                [f"{cell.difference:+.4f}" if cell.difference is not None else "", p_value(cell.p)] if tested else []
            )
            rows.append(cells)
    return rows, columns


def _dots(table: Comparison) -> list[Figure]:
    """A figure for each metric."""
    figures = []
    for k, metric in enumerate(table.metrics):
        held = [(row, cell) for row in table.rows if (cell := row.cells[k])]
        if not held:
            continue
        ends = [cell.interval or (None, None) for _, cell in held]
        series = [(metric, [cell.mean for _, cell in held], [a for a, _ in ends], [b for _, b in ends])]
        figures.append(
            dots(
                metric.replace("_", " "),
                [row.name for row, _ in held],
                series,
                axis(metric.replace("_", " ") + UNITS.get(metric, "")),
                f"{metric} of each config, with intervals",
                "Lower is better." if metric.partition("@")[0] in LOWER_IS_BETTER else "",
                "config",
            )
        )
    return figures


def _slices(groups: Sequence[Group]) -> list[Block]:
    def has_metrics(run: Run) -> bool:
        return set(METRICS) <= set(RunFiles(run.folder).per_user.columns)

    ranked = [replace(group, runs=[run for run in group.runs if has_metrics(run)]) for group in groups]
    ranked = [group for group in ranked if group.runs]
    if not ranked:
        raise Missing("None of the runs has hit rate and NDCG by user to slice.")
    sliced, means = mean_slices(ranked, RunFiles(ranked[0].runs[0].folder).dataset)
    names, users = sliced["slice"].to_list(), sliced["users"].to_list()
    nothing: list[None] = [None] * len(names)
    short = {"hit_rate@10": "HR@10", "ndcg@10": "NDCG@10"}
    figures = [
        dots(
            f"{short[m]} by slice",
            names,
            [(name, mean[:, k].tolist(), nothing, nothing) for name, mean in means.items()],
            axis(f"{short[m]}, mean over the slice's users", zero=True),
            f"{m} of each config in slices of the users",
            table=False,
        )
        for k, m in enumerate(METRICS)
    ]
    columns = ["slice", "users", *(f"{name}: {short[m]}" for name in means for m in METRICS)]
    rows = [
        [s, number(users[k]), *(number(value) for mean in means.values() for value in mean[k].tolist())]
        for k, s in enumerate(names)
    ]
    return [
        Prose("Means over seeds."),
        Row(figures),
        Table("Slices of the test users", columns, rows, frozenset(range(1, len(columns)))),
    ]


def _curves(groups: Sequence[Group]) -> list[Block]:
    """A plot a metric: a colour a config, a line a seed."""
    lines: dict[str, list[dict[str, object]]] = {}
    rows: dict[str, list[list[str]]] = {}
    for k, group in enumerate(groups):
        named = set()
        for run in group.runs:
            try:
                logged = RunFiles(run.folder).curves
            except Missing:
                continue
            for metric in shown_curves(logged):
                points = curve(logged, metric)
                mark = line(
                    points["step"].to_list(), points["value"].to_list(), "" if metric in named else group.name, k, False
                )
                named.add(metric)
                lines.setdefault(metric, []).append(mark)
                last = points.row(-1)
                rows.setdefault(metric, []).append([run.name, number(last[0]), number(float(last[1]))])
    if not lines:
        raise Missing("None of the runs has csv/metrics.csv.")
    figures = [
        Figure(
            metric,
            marks,
            axis("optimiser step"),
            curve_axis(metric),
            f"{metric} of every run over steps",
            Table(f"{metric} at the end", ["run", "step", metric], rows[metric], frozenset({1, 2})),
            height=300,
        )
        for metric, marks in lines.items()
    ]
    return [Prose("A colour a config, a line a seed."), Row(figures)]


def _speed(groups: Sequence[Group]) -> list[Block]:
    rows = []
    for group in groups:
        for run in group.runs:
            t = run.record.get("train") or {}
            rows.append(
                [
                    run.name,
                    number(t.get("parameters")),
                    number(t.get("epochs")),
                    number(t.get("seconds_per_epoch"), 2),
                    number(t.get("seconds"), 1),
                    number(t.get("tokens_per_second")),
                    number(t.get("peak_memory_mb")),
                    str(t.get("device", "")),
                    number(t.get("threads")),
                    str(t.get("precision", "")),
                ]
            )
    columns = [
        "run",
        "parameters",
        "epochs",
        "an epoch (s)",
        "whole run (s)",
        "positions / s",
        "peak memory (MB)",
        "device",
        "threads",
        "precision",
    ]
    return [
        Table(
            "What the runs took, each on its own machine and beside its own neighbours",
            columns,
            rows,
            frozenset({1, 2, 3, 4, 5, 6, 8}),
        )
    ]


def _differences(groups: Sequence[Group]) -> list[Block]:
    settings = [group.runs[0].settings for group in groups]
    keys = dict.fromkeys(key for each in settings for key in each)
    rows = []
    for key in keys:
        values = ["" if each.get(key) is None else str(each[key]) for each in settings]
        if len(set(values)) > 1:
            rows.append([key.replace("init_args.", ""), *values])
    if not rows:
        raise Missing("Model and data of the configs are the same.")
    return [
        Table(
            "Keys of model and data that are not the same everywhere; empty: not there",
            ["key", *(g.name for g in groups)],
            rows,
        )
    ]


def _runs(groups: Sequence[Group], runs: Sequence[Run], path: Path) -> list[Block]:
    rows = [
        [
            run.name,
            group.name,
            number(run.record.get("seed")),
            run.record.get("git_commit") or "unknown",
            os.path.relpath(run.folder, path.parent),
        ]
        for group in groups
        for run in group.runs
    ]
    rows += [
        [run.name, "unfinished", "", "", os.path.relpath(run.folder, path.parent)]
        for run in runs
        if run.metrics is None
    ]
    return [Table("Runs on this page", ["run", "row", "seed", "commit", "folder from here"], rows)]
