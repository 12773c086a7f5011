"""The section on modalities, from the tables of msmrec.analysis: how the gate weighs them, and what each is worth."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from msmrec.analysis.analyse import Analysis, read_analysis
from msmrec.analysis.groups import GROUPS
from msmrec.columns import MODALITY, RAW_USER_ID
from msmrec.report.figures import axis, band, dots, histogram, line, number, p_value, shorten, span
from msmrec.report.maps import maps
from msmrec.report.page import Block, Figure, Group, Missing, Prose, Row, Table


def modalities(folder: Path) -> list[Block]:
    """Everything that the analysis found.

    Args:
        folder: the run's.
    """
    found = read_analysis(folder)
    if found is None:
        raise Missing(
            f"The run has no modality analysis: python -m msmrec analyse {folder} makes it, for runs of MSMRec."
        )
    parts = {
        "Groups of users": _groups,
        "Users": _users,
        "Along the history": _positions,
        "First half and second half": _drift,
        "The most devoted users": _devoted,
        "Without a modality": _removal,
        "Maps of the items": maps,
    }
    return [Group(title, blocks) for title, make in parts.items() if (blocks := make(found))]


def _series(name: str, table: pl.DataFrame, value: str) -> tuple[str, list[Any], list[Any], list[Any]]:
    """Values of a table and their intervals as `dots` takes them."""
    return name, table[value].to_list(), table["low"].to_list(), table["high"].to_list()


def _groups(found: Analysis) -> list[Block]:
    table = found.groups
    if not len(table):
        return []
    groups = [g for g in GROUPS if g in table["group"]]
    names = table[MODALITY].unique(maintain_order=True).to_list()
    series = []
    for group in groups:
        part = pl.DataFrame({MODALITY: names}).join(
            table.filter(pl.col("group") == group), on=MODALITY, how="left", maintain_order="left"
        )
        series.append(_series(group.capitalize(), part, "mean"))
    many = dict(table.select("group", "users").unique().iter_rows())
    note = "; ".join(f"{group.capitalize()}: {many[group]:,} users" for group in groups)
    note += ". Groups by the share of popular films in the history, in bins of equal width. 95% intervals over users."
    chance = 1 / len(names)
    figure = dots(
        "Gate weights of groups of users",
        names,
        series,
        axis("mean weight of the modality"),
        "Mean gate weight of each modality in groups of users, with intervals",
        note + f" Dashed: even weights, {chance:.3f}.",
        "modality",
        rule=chance,
    )
    rows = [
        [m, f"{a} − {b}", f"{d:+.4f}", span(lo, hi), p_value(p)]
        for m, a, b, d, lo, hi, p in found.group_tests.select(
            MODALITY, "group_a", "group_b", "difference", "low", "high", "p"
        ).iter_rows()
    ]
    marked = frozenset(k for k, p in enumerate(found.group_tests["p"]) if p is not None and p < 0.05)
    tests = Table(
        "Differences between groups (p corrected by Holm's method); marked: p < 0.05",
        ["modality", "groups", "difference", "95% interval", "p"],
        rows,
        frozenset({2, 3, 4}),
        marked=marked,
    )
    return [figure, tests]


def _users(found: Analysis) -> list[Block]:
    figures = []
    for column, title, unit in (
        ("popular_share", "Share of popular films", "share of the history"),
        ("entropy", "How evenly users attend", "entropy of the weights (1: evenly)"),
    ):
        values = found.users[column].drop_nulls().drop_nans().to_numpy()
        if not len(values):
            continue
        edges = np.linspace(
            min(values.min(), 0 if column == "popular_share" else values.min()), values.max() + 1e-9, 31
        )
        names = [f"{a:.3f} to {b:.3f}" for a, b in pairwise(edges)]
        figures.append(
            histogram(
                edges,
                np.histogram(values, edges)[0],
                title,
                axis(unit),
                "users",
                f"Histogram over {len(values):,} users: {title.lower()}",
                names=names,
            )
        )
    return [Row(figures)] if figures else []


def _positions(found: Analysis) -> list[Block]:
    figures, table = [], found.positions
    if not len(table):
        return []
    low, high = table.select(pl.col("low").min(), pl.col("high").max()).row(0)
    margin = 0.04 * (high - low)
    for (name,), part in table.group_by(MODALITY, maintain_order=True):
        part = part.sort("position")
        at = [(p + 0.5) / 20 for p in part["position"]]
        marks = [
            band(at, part["low"].to_list(), part["high"].to_list()),
            line(at, part["mean"].to_list(), "", markers=False),
        ]
        rows = [
            [f"{p / 20:.0%} to {(p + 1) / 20:.0%}", number(m), span(a, b)]
            for p, m, a, b in part.select("position", "mean", "low", "high").iter_rows()
        ]
        figures.append(
            Figure(
                str(name),
                marks,
                axis("place in the history", percent=True),
                axis("weight", range=[low - margin, high + margin]),
                f"Mean gate weight of {name} along the history",
                Table(str(name), ["place", "weight", "95% interval"], rows, frozenset({1, 2})),
                height=210,
            )
        )
    intro = Prose(
        "Mean weight of the user's gate over twentieths of the history, all on one scale; bands: 95% intervals."
    )
    return [intro, Row(figures)] if figures else []


def _drift(found: Analysis) -> list[Block]:
    if not len(found.drift):
        return []
    names = found.drift[MODALITY].to_list()
    figure = dots(
        "Second half of the history less the first",
        names,
        [_series("change", found.drift, "difference")],
        axis("change of the mean weight"),
        "Change of each modality's mean weight from the first to the second half of histories",
        "95% intervals over users.",
        "modality",
        rule=0.0,
        table=Table(
            "Halves of the history",
            ["modality", "first", "second", "change", "95% interval", "p"],
            [
                [m, number(a), number(b), f"{d:+.4f}", span(lo, hi), p_value(p)]
                for m, a, b, d, lo, hi, p in found.drift.select(
                    MODALITY, "first", "second", "difference", "low", "high", "p"
                ).iter_rows()
            ],
            frozenset(range(1, 6)),
        ),
    )
    blocks: list[Block] = [figure]
    rows = []
    for (name,), part in found.drift_items.group_by(MODALITY, maintain_order=True):
        halves = {
            half[0]: ", ".join(shorten(t, 40) for t in titles["title"].head(4))
            for half, titles in part.group_by("half", maintain_order=True)
        }
        rows.append([str(name), *(halves.get(half, "") for half in ("first", "second"))])
    if rows:
        blocks.append(
            Table("Films that go with it, by lift", ["modality", "first half", "second half"], rows, folded=True)
        )
    return blocks


def _devoted(found: Analysis) -> list[Block]:
    best = found.devoted.sort("rank", maintain_order=True).group_by(MODALITY, maintain_order=True).head(3)
    best = best.sort(MODALITY, maintain_order=True)
    rows = [
        [
            m,
            str(user),
            number(weight, 3),
            ", ".join(shorten(t, 44) for t in titles[:4]),
        ]
        for m, user, weight, titles in best.select(MODALITY, RAW_USER_ID, "weight", "titles").iter_rows()
    ]
    return (
        [
            Table(
                "Three users a modality, with films of theirs",
                ["modality", "user", "weight", "films"],
                rows,
                frozenset({2}),
            )
        ]
        if rows
        else []
    )


def _removal(found: Analysis) -> list[Block]:
    blocks: list[Figure] = []
    for (metric,), part in found.removal.group_by("metric", maintain_order=True):
        names = part[MODALITY].to_list()
        rows = [
            [m, number(a), number(b), f"{d:+.4f}", span(lo, hi), p_value(p)]
            for m, a, b, d, lo, hi, p in part.select(
                MODALITY, "full", "without", "difference", "low", "high", "p"
            ).iter_rows()
        ]
        table = Table(
            f"Without a modality: {metric}",
            ["modality", "with all", "without it", "change", "95% interval", "p"],
            rows,
            frozenset(range(1, 6)),
        )
        blocks.append(
            dots(
                f"Change of {metric} without a modality",
                names,
                [_series("change", part, "difference")],
                axis(f"change of {metric}"),
                f"Change of {metric} when each modality is removed from the trained model",
                "",
                "modality",
                rule=0.0,
                table=table,
            )
        )
    intro = Prose(
        "Each modality taken from the trained model in turn; left of the line: worse without it. 95% intervals over"
        " users, who are the same with and without."
    )
    return [intro, Row(blocks)] if blocks else []
