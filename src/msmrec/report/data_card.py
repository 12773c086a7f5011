"""The data card: what a run was trained and tested on."""

from itertools import pairwise

import numpy as np
import polars as pl

from msmrec.columns import COUNT, GENRES, ITEM_ID, RATING, SPLIT, TEST, TIER, TIMESTAMP, TRAIN
from msmrec.data.sources.border import YEAR_1995
from msmrec.metrics.beyond_accuracy import TIERS
from msmrec.report.figures import axis, bars, histogram, line, number, table_of
from msmrec.report.page import Block, Figure, Missing, Prose, Row, Table
from msmrec.report.run_files import RunFiles


def data_card(run: RunFiles) -> list[Block]:
    """Counts, sparsity, lengths, popularity, tiers, ratings and times."""
    info, protocol = run.record["dataset"], run.record["protocol"]
    cells = info["num_users"] * info["num_items"]
    facts = [
        ["users", number(info["num_users"])],
        ["items", number(info["num_items"])],
        ["interactions", number(info["num_interactions"])],
        ["density", f"{info['num_interactions'] / cells:.3%}"],
        ["training / validation / test", " / ".join(number(info[f"num_{part}"]) for part in ("train", "val", "test"))],
        ["rows in the file", number(info.get("rows_in_file"))],
        *([f"left out: {what}", number(count)] for what, count in (info.get("rows_left_out") or {}).items()),
        ["fingerprint", info["fingerprint"]],
    ]
    kept = {key: value for key, value in protocol.items() if not isinstance(value, dict) and value is not None}
    rules = Table("Protocol", ["", ""], [[key.replace("_", " "), number(v, 3)] for key, v in kept.items()], folded=True)
    blocks: list[Block] = [Table(f"{info['name']}", ["", ""], facts, frozenset({1})), rules]
    try:
        return blocks + _from_interactions(run)
    except Missing as missing:  # the record alone still says how large the data is
        return [*blocks, Prose(f"No curves of lengths, popularity, ratings and times: {missing}")]


def _from_interactions(run: RunFiles) -> list[Block]:
    dataset = run.dataset
    rows = pl.read_parquet(dataset.folder / "interactions.parquet")
    length = dataset.train_lengths[dataset.train_lengths > 0]
    count = np.sort(dataset.items[COUNT].to_numpy())[::-1]
    return [
        _tiers(dataset.items, rows),
        Row([_lengths(length), _popularity(count, dataset.items), *_ratings(rows), *_times(rows)]),
        *_genres(dataset.items),
    ]


def _lengths(length: np.ndarray) -> Figure:
    edges = np.unique(np.round(np.geomspace(max(length.min(), 1), length.max() + 1, 28)))
    edges = edges if len(edges) > 1 else np.array([edges[0], edges[0] + 1])
    mean, (low, median, high) = length.mean(), np.quantile(length, [0.1, 0.5, 0.9])
    note = f"Median {median:,.0f}, mean {mean:,.1f}; a tenth has up to {low:,.0f}, a tenth {high:,.0f} or more."
    return histogram(
        edges,
        np.histogram(length, edges)[0],
        "Length of training histories",
        axis("training ratings of a user (logarithmic)", type="log"),
        "users",
        f"Histogram of the training ratings of {len(length):,} users",
        note,
        [f"{a:.0f} to {b - 1:.0f}" for a, b in pairwise(edges)],
    )


def _popularity(count: np.ndarray, items: pl.DataFrame) -> Figure:
    rank = np.unique(np.round(np.geomspace(1, len(count), min(len(count), 120))).astype(int))
    shown = np.maximum(count[rank - 1], 0.5)  # a logarithm has no zero: items without ratings lie at one half
    share = np.cumsum(count) / max(count.sum(), 1)
    tenth = share[max(len(count) // 10 - 1, 0)]
    table = Table(
        "Popularity",
        ["rank", "training ratings", "share of all ratings up to here"],
        [[number(int(r)), number(int(count[r - 1])), f"{share[r - 1]:.1%}"] for r in rank],
        frozenset({0, 1, 2}),
    )
    note = f"The most popular tenth of the items holds {tenth:.0%} of the training ratings."
    note += f" {int((count == 0).sum()):,} items have none and lie at one half." if (count == 0).any() else ""
    return Figure(
        "Popularity of items",
        [line(rank.tolist(), shown.tolist(), "", markers=False)],
        axis("rank of the item (logarithmic)", type="log"),
        axis("training ratings (logarithmic)", type="log"),
        f"Training ratings of {len(items):,} items by rank",
        table,
        note,
        height=270,
    )


def _ratings(rows: pl.DataFrame) -> list[Figure]:
    values = rows[RATING].value_counts().sort(RATING)
    if len(values) < 2:
        return []
    at = values[RATING].to_numpy().astype(float)
    half = float(np.diff(at).min()) * 0.45 if len(at) <= 25 else 0.0
    if half:
        names, many = [f"{a:g}" for a in at], values["count"].to_list()
        shares = [f"{c / sum(many):.1%}" for c in many]
        hover = [f"{n}: {c:,} ({share})" for n, c, share in zip(names, many, shares, strict=True)]
        cells = [[n, number(c), share] for n, c, share in zip(names, many, shares, strict=True)]
        return [
            Figure(
                "Ratings",
                [bars((at - half).tolist(), (at + half).tolist(), many, hover)],
                axis("rating (stars)" if at.max() <= 5 else "rating", ticks=at.tolist() if len(at) <= 10 else None),
                axis("ratings", zero=True),
                f"How often each of {len(at)} ratings was given",
                Table("Ratings", ["rating", "ratings", "share"], cells, frozenset({0, 1, 2})),
                f"{at.min():g} to {at.max():g}, mean {rows[RATING].to_numpy().mean():.2f}.",
                height=270,
            )
        ]
    edges = np.linspace(at.min(), at.max(), 30)
    counts = np.histogram(rows[RATING].to_numpy(), edges)[0]
    return [histogram(edges, counts, "Ratings", axis("rating"), "ratings", "Histogram of the ratings")]


def _times(rows: pl.DataFrame) -> list[Figure]:
    seconds = rows[TIMESTAMP].to_numpy()
    if seconds.min() == seconds.max() or seconds.max() < YEAR_1995:  # file order stands in for time, or nothing does
        return []
    edges = np.linspace(seconds.min(), seconds.max(), 61)
    days = [str(np.datetime64(int(edge), "s").astype("datetime64[D]")) for edge in edges]
    figure = histogram(
        edges * 1000,
        np.histogram(seconds, edges)[0],
        "Ratings over time",
        axis("date", time=True),
        "ratings",
        f"Ratings from {days[0]} to {days[-1]} in sixty equal spans",
        f"{days[0]} to {days[-1]}.",
        [f"{a} to {b}" for a, b in pairwise(days)],
    )
    return [figure]


def _tiers(items: pl.DataFrame, rows: pl.DataFrame) -> Table:
    joined = rows.select(ITEM_ID, SPLIT).join(items.select(ITEM_ID, TIER), on=ITEM_ID)
    parts = (
        joined.group_by(TIER)
        .agg(train=(pl.col(SPLIT) == TRAIN).sum(), test=(pl.col(SPLIT) == TEST).sum())
        .join(items.group_by(TIER).len("items"), on=TIER, how="full", coalesce=True)
    )
    held = {row[TIER]: row for row in parts.fill_null(0).iter_rows(named=True)}
    totals = {key: max(int(parts[key].sum() or 0), 1) for key in ("items", "train", "test")}
    lines = [
        [
            tier,
            number(held[tier]["items"]),
            *(f"{held[tier][key] / totals[key]:.1%}" for key in ("items", "train", "test")),
        ]
        for tier in TIERS
        if tier in held
    ]
    columns = ["tier", "items", "of the items", "of the training ratings", "of the test ratings"]
    return Table(
        "Tiers by popularity: head 10%, mid 40%, tail 50%; cold has no training rating",
        columns,
        lines,
        frozenset(range(1, 5)),
    )


def _genres(items: pl.DataFrame) -> list[Block]:
    if GENRES not in items.columns or not items[GENRES].list.len().sum():
        return []
    each = items.select(ITEM_ID, COUNT, GENRES).explode(GENRES).drop_nulls(GENRES)
    found = (
        each.group_by(GENRES)
        .agg(items=pl.len(), ratings=pl.col(COUNT).sum())
        .sort("items", GENRES, descending=[True, False])
    )
    return [
        table_of(
            found.head(40),
            f"Genres or categories ({len(found)}; an item may have several)",
            ["", "items", "training ratings"],
            folded=True,
        )
    ]
