"""One table over runs and seeds: means, intervals over users, paired tests against a baseline.

    python -m msmrec compare runs/sasrec_ml1m runs/msmrec_ml1m --baseline sasrec_ml1m

Numbers are those of metrics.json; intervals and tests are made from per_user.parquet and predictions.parquet.
"""

import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from msmrec.artifacts import InputError
from msmrec.evaluation.comparable_runs import Group, doubts, group_runs, refuse_different_tests
from msmrec.evaluation.statistics import Array, bootstrap, holm, interval, paired_p
from msmrec.evaluation.user_results import FROM_PREDICTIONS, UserResults, refuse_different_users, statistic
from msmrec.run_folder import Run, find_runs

LOWER_IS_BETTER = ("log_loss", "ece", "alignment", "uniformity", "calibration", "gini")
NEITHER = ("click_rate", "cold_users", "head_share", "cold_share")  # they describe, and more is not better or worse
LEVEL = 0.05


@dataclass
class Cell:
    """One metric of one row."""

    mean: float
    """over seeds"""
    sd: float | None
    """over seeds; None for one seed"""
    interval: tuple[float, float] | None = None
    """95%, over users"""
    difference: float | None = None
    """to the baseline's mean"""
    p: float | None = None
    """of the difference, corrected"""
    best: bool = False
    near_best: bool = False
    """not shown to differ from the best"""


@dataclass
class Row:
    """One config: a cell a metric, None where the run has no such number."""

    name: str
    seeds: int
    cells: list[Cell | None]
    gap: str = ""
    """why the row has no numbers"""
    x: float | None = None
    line: str = ""


@dataclass
class Comparison:
    """The table, before it is written in some format."""

    metrics: list[str]
    rows: list[Row]
    baseline: str | None
    notes: list[str] = field(default_factory=list)
    """what was done, to stand under the table"""
    warnings: list[str] = field(default_factory=list)


def compare(
    paths: Sequence[Path],
    metrics: Sequence[str] = (),
    baseline: str | None = None,
    x: str | None = None,
    resamples: int = 10_000,
    seed: int = 0,
    names: Literal["config", "folder"] = "config",
) -> Comparison:
    """Compares the runs in and below `paths`.

    Args:
        paths: run folders, or folders above them.
        metrics: by default the headline of the runs' models.
        baseline: name of the row that the others are tested against.
        x: a key of config.yaml; runs that differ in its number are rows of their own, in its order.
        resamples: of the users. seed: of the resampling.
        names: whether a row is called by its config, or by the folder above seed=N.

    Raises:
        InputError: no runs, or runs that are not comparable; an unknown metric or baseline.
    """
    runs = find_runs(paths)
    finished = [run for run in runs if run.metrics is not None]
    metrics = list(dict.fromkeys(metrics)) or _headline(runs)
    refuse_different_tests(finished)
    groups, warnings = group_runs(finished, x, names)
    if x:
        groups.sort(key=lambda group: (group.line, group.x))
    known = dict.fromkeys(name for run in finished for name in run.record["test"])
    if finished and (unknown := [metric for metric in metrics if metric not in known]):
        raise InputError(f"no run has the metric {unknown[0]}; metrics.json has {', '.join(known)}")
    shown = [group.name for group in groups]
    if baseline is not None and baseline not in shown:
        raise InputError(
            f"--baseline {baseline} is no row of the table; rows: {', '.join(shown) or 'none is finished'}"
        )
    rows = [Row(g.name, len(g.runs), [_cell(g, m) for m in metrics], "", g.x, g.line) for g in groups]
    table = Comparison(metrics, rows, baseline, [], [*warnings, *doubts(groups, x)])
    if groups:
        _infer(table, groups, resamples, seed)
        table.notes.insert(0, _protocol(groups[0].runs[0]))
    for run in dict.fromkeys(run.folder for run in runs if run.metrics is None):
        begun = (run / "checkpoints" / "last.ckpt").exists()
        why = "unfinished: no metrics.json" if begun else "unfinished: no metrics.json, no epoch done"
        name = next(r.name for r in runs if r.folder == run)
        table.rows.append(Row(name, 0, [None] * len(metrics), why))
        table.warnings.append(f"{run}: {why}")
    return table


def _headline(runs: Sequence[Run]) -> list[str]:
    """What the runs' models print of themselves."""
    found: dict[str, None] = {}
    for path in dict.fromkeys(run.config.get("model.class_path") for run in runs):
        try:
            model: Any = pkgutil.resolve_name(str(path))
        except (ImportError, AttributeError, ValueError):
            continue
        found |= dict.fromkeys(model.headline)
    in_any = {name for run in runs if run.metrics is not None for name in run.metrics["test"]}
    chosen = [name for name in found if name in in_any or not in_any]
    if not chosen:
        raise InputError(f"{runs[0].folder}: its config.yaml names no known model; choose metrics by --metrics")
    return chosen


def _cell(group: Group, metric: str) -> Cell | None:
    values = [run.record["test"].get(metric) for run in group.runs]
    if any(value is None for value in values):
        return None
    return Cell(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None)


def _infer(table: Comparison, groups: Sequence[Group], resamples: int, seed: int) -> None:
    """Adds intervals, differences, p values and marks to the cells, and notes to the table."""
    baseline: list[Cell | None] = next((row.cells for row in table.rows if row.name == table.baseline), [])
    for row in table.rows:
        for cell, base in zip(row.cells, baseline, strict=False):
            if cell and base and row.name != table.baseline:
                cell.difference = cell.mean - base.mean
    draws, users = _bootstrap(table, groups, resamples, seed)
    for (k, column), values in draws.items():
        cell = table.rows[k].cells[column]
        assert cell
        low, high = interval(values).tolist()
        cell.interval = low, high
    tests = _test_against_baseline(table, draws)
    best = _mark_best(table, draws)
    table.notes += _notes(table, users if draws else 0, resamples, tests, best)


def _bootstrap(
    table: Comparison, groups: Sequence[Group], resamples: int, seed: int
) -> tuple[dict[tuple[int, int], Array], int]:
    """(resamples,) values of the cells that results by user give, by row and column; and the number of users.

    Raises:
        InputError: rows of other users, or results by user that do not give the cell's own mean.
    """
    tested = [
        [UserResults(run) for run in group.runs]
        if all((run.folder / "per_user.parquet").is_file() for run in group.runs)
        else []
        for group in groups
    ]
    everyone = [results for seeds in tested for results in seeds]
    refuse_different_users(everyone)
    covered, statistics = {}, {}
    for column, metric in enumerate(table.metrics):
        rows = [k for k, seeds in enumerate(tested) if seeds and table.rows[k].cells[column]]
        rows = [k for k in rows if all(results.has(metric) for results in tested[k])]
        if not rows:
            continue
        made = statistic(metric, [tested[k] for k in rows])
        whole = made.at(np.ones((1, len(everyone[0].users))))[0]
        for k, value in zip(rows, whole, strict=True):
            cell = table.rows[k].cells[column]
            if cell and not np.isclose(value, cell.mean, rtol=1e-4, atol=1e-4, equal_nan=True):
                raise InputError(
                    f"{groups[k].runs[0].folder}: its per-user results give {metric} {value:.4f}, its metrics.json"
                    f" {cell.mean:.4f}, on average over {len(groups[k].runs)} seeds; one of the files is not the test's"
                )
        covered[column], statistics[column] = rows, made
    if not statistics:
        return {}, 0
    users = len(everyone[0].users)
    drawn = bootstrap(list(statistics.values()), users, resamples, seed)
    draws = {
        (k, column): values[:, place]
        for column, values in zip(statistics, drawn, strict=True)
        for place, k in enumerate(covered[column])
        if np.isfinite(values[:, place]).all()  # so few users have the metric that a resample may draw none of them
    }
    return draws, users


def _test_against_baseline(table: Comparison, draws: dict[tuple[int, int], Array]) -> int:
    """Fills in p; returns how many tests were corrected for together: all of the table."""
    base = next((k for k, row in enumerate(table.rows) if row.name == table.baseline), None)
    keys = [(k, column) for k, column in draws if base is not None and k != base and (base, column) in draws]
    raw = [paired_p(draws[k, column] - draws[base, column]) for k, column in keys if base is not None]
    for (k, column), p in zip(keys, holm(raw).tolist(), strict=True):
        cell = table.rows[k].cells[column]
        assert cell
        cell.p = p
    return len(keys)


def _mark_best(table: Comparison, draws: dict[tuple[int, int], Array]) -> int:
    """Marks each metric's best row and those not shown to differ from it; returns the number of tests."""
    keys = []
    for column, metric in enumerate(table.metrics):
        cells = {k: cell for k, row in enumerate(table.rows) if (cell := row.cells[column]) and not np.isnan(cell.mean)}
        name = metric.partition("@")[0]
        if len(cells) < 2 or name in NEITHER or name.endswith("_undefined"):
            continue
        worth = {k: -cell.mean if name in LOWER_IS_BETTER else cell.mean for k, cell in cells.items()}
        best = max(worth, key=worth.__getitem__)
        for k, cell in cells.items():
            cell.best = worth[k] == worth[best]
        others = [k for k, cell in cells.items() if not cell.best]
        keys += [(k, best, column) for k in others if (k, column) in draws and (best, column) in draws]
    p = holm([paired_p(draws[k, column] - draws[best, column]) for k, best, column in keys]).tolist()
    for (k, _, column), value in zip(keys, p, strict=True):
        cell = table.rows[k].cells[column]
        assert cell
        cell.near_best = value >= LEVEL
    return len(keys)


def _protocol(run: Run) -> str:
    """What all rows were tested on."""
    data, protocol = run.record["dataset"], run.record["protocol"]
    parts = [f"{data['name']} {data['fingerprint']}"]
    parts += [
        f"{data[key]:,} {key.removeprefix('num_')}"
        for key in ("num_users", "num_items", "num_interactions")
        if key in data
    ]
    parts += [f"split {protocol['split']}"] if "split" in protocol else []
    parts += [
        f"{key} {protocol[key]}"
        for key in ("candidates", "seen_filter", "label", "hidden_items", "unrated_items")
        if protocol.get(key)
    ]
    return f"Test part of {', '.join(parts)}."


def _notes(table: Comparison, users: int, resamples: int, tests: int, best: int) -> list[str]:
    notes = ["Mean ± standard deviation over seeds." if any(row.seeds > 1 for row in table.rows) else "One seed a row."]
    if users:
        notes.append(
            f"[a, b]: 95% percentile interval of {resamples:,} bootstrap resamples of the {users:,} test users, drawn"
            f" jointly for all rows, each user's results averaged over seeds first. Intervals and tests speak of other"
            f" users, not of other seeds."
        )
    sampled = []
    for column, metric in enumerate(table.metrics):
        cells = {row.name: cell for row in table.rows if (cell := row.cells[column])}
        without = [name for name, cell in cells.items() if not cell.interval]
        if without:
            rows = f" of {', '.join(without)}" if len(without) < len(cells) else ""
            notes.append(f"{metric}{rows}: seeds only, no interval and no test (no results by user to make them from).")
        sampled += [metric] if metric in FROM_PREDICTIONS and len(without) < len(cells) else []
    if sampled:
        notes.append(f"{', '.join(sampled)}: over all samples of the drawn users, from predictions.parquet.")
    if tests:
        least = min(1.0, tests * 2 / (resamples + 1))
        notes.append(
            f"Δ: difference to {table.baseline}; p: two-sided paired bootstrap over users, Holm-corrected over the"
            f" table's {tests} tests ({resamples:,} resamples show no p below {least:.4f} for the clearest of them)."
        )
    if best:
        notes.append(
            f"Bold: best. †: not shown to differ from the best at 5% (paired bootstrap, Holm over {best} tests)."
        )
    elif any(cell.best for row in table.rows for cell in row.cells if cell):
        notes.append("Bold: best.")
    return notes
