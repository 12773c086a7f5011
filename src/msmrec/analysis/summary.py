"""The main tables of an analysis in short Markdown."""

import polars as pl

from msmrec.analysis.analyse import Analysis
from msmrec.analysis.groups import GROUPS
from msmrec.analysis.planted import CLEAR, found_drift, found_groups
from msmrec.columns import MODALITY
from msmrec.markdown import frame_markdown


def summary(made: Analysis) -> str:
    """Groups, their tests, drift, removals and map scores; weights in percent."""
    groups = made.groups.pivot("group", index=MODALITY, values="mean")
    sizes = dict(made.groups.select("group", "users").unique().iter_rows())
    sized = {name: f"{name} ({sizes[name]:,} users)" for name in GROUPS if name in sizes}
    ends = made.group_tests.filter(pl.col("group_a") == GROUPS[0], pl.col("group_b") == GROUPS[-1])
    parts = [
        "Weights (%) at the end of the history, by share of popular items",
        _table(groups.select(MODALITY, pl.col(*sized).name.map(sized.__getitem__)), 2, 100),
        f"{GROUPS[0]} less {GROUPS[-1]}"
        if len(ends)
        else f"{GROUPS[0]} or {GROUPS[-1]} has too few users to be tested",
        _table(ends.drop("group_a", "group_b"), 3, 100) if len(ends) else "",
        "First and second half of the history, in hindsight",
        _table(made.drift, 3, 100),
        "Test metrics without a modality",
        _table(made.removal, 4),
        "Genres in the vectors, before and after the experts",
        _table(made.map_scores, 3) if len(made.map_scores) else "(the items have no genres)",
    ]
    return "\n\n".join(part for part in parts if part)


def found(made: Analysis, truth: pl.DataFrame) -> str:
    """What was planted and what the analysis finds of it.

    Args:
        truth: the simulator's truth.parquet.
    """
    rows = []
    for clear in (CLEAR, 0.4, 0.25, 0.0):
        rows += [("ruling modality, weight", clear, *found_groups(made.leanings, truth, clear))]
        least = clear or 0.01  # a user whose weights stay has no direction
        rows += [("drift, change of weight", least, *found_drift(made.leanings, truth, least))]
    table = pl.DataFrame(rows, ["planted", "at least", "users", "found"], orient="row").sort("planted", "at least")
    return "What was planted, and for which share of the users it is found\n\n" + _table(table, 3)


def _table(table: pl.DataFrame, digits: int, scale: float = 1) -> str:
    """In Markdown: fractions, all but p, times `scale` and with so many digits."""
    fractions = [name for name, kind in table.schema.items() if kind.is_float() and name != "p"]
    scaled = table.with_columns(pl.col(name) * scale for name in fractions)
    return frame_markdown(scaled, dict.fromkeys(fractions, digits))
