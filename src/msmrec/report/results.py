"""The sections on a run's test results: metrics with intervals, slices of the users, variants of two stages."""

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import polars as pl

from msmrec.columns import USER_ID
from msmrec.evaluation.compare import Cell
from msmrec.evaluation.slices import METRICS, users_of_slices
from msmrec.evaluation.statistics import Means, bootstrap, interval
from msmrec.recommend.two_stage import COLUMNS
from msmrec.report.figures import Series, axis, band, dots, line, number, points, span
from msmrec.report.page import Block, Figure, Missing, Prose, Row, Table
from msmrec.report.run_files import RESAMPLES, RunFiles

FEWEST = 20  # users that an interval is given for
UNITS = {"log_loss": " (nats)", "novelty@10": " (bits)"}


def headline(run: RunFiles) -> list[str]:
    """The metrics that say most of this run."""
    wanted = ("hit_rate@10", "ndcg@10", "auc", "log_loss", "user_auc", "accuracy", "ece", "recall@10", "alignment")
    repeated = _repeated(run.test)
    return [name for name in wanted if name in run.test and name not in repeated][:5]


def metrics(run: RunFiles) -> list[Block]:
    """Test and validation metrics."""
    if run.has_variants:
        raise Missing("The run compares variants: their metrics are in the table of variants.")
    cells, val = run.cells, run.record.get("val") or {}
    test = run.test
    same = _repeated(test)
    rows = [
        [name.replace("_", " ") + UNITS.get(name, ""), number(cell.mean), _interval(cell), number(val.get(name))]
        for name, cell in cells.items()
        if name not in same
    ]
    blocks: list[Block] = []
    if any(cell.interval for cell in cells.values()):
        many = len(run.per_user)
        blocks.append(
            Prose(
                f"Intervals: 95%, from {RESAMPLES:,} bootstrap resamples of the {many:,} test users. They speak of"
                " other users, not of other seeds."
            )
        )
    else:
        blocks.append(Prose("No intervals: the run has no results by user that these metrics are means of."))
    if same:
        blocks.append(Prose(f"Left out, as each user has one target: {', '.join(same)}, which equal hit rate and MRR."))
    blocks += [*_by_cutoff(cells, same)]
    blocks.append(
        Table("Test and validation", ["metric", "test", "95% interval", "validation"], rows, frozenset({1, 2, 3}))
    )
    if before := run.record["protocol"].get("before"):
        rows = [[key, number(value), number(test.get(key))] for key, value in before.items()]
        blocks.append(Table("Before and after training", ["", "before", "after"], rows, frozenset({1, 2})))
    return blocks


def _interval(cell: Cell) -> str:
    return span(*cell.interval) if cell.interval else ""


def _repeated(test: dict[str, float]) -> list[str]:
    """Metrics that say the same as another one, because each user has one target."""
    twins = {"recall": "hit_rate", "map": "mrr"}
    pairs = [(name, f"{twins[kind]}@{k}") for name in test for kind, _, k in [name.partition("@")] if kind in twins]
    return [a for a, _ in pairs] if pairs and all(test[a] == test.get(b) for a, b in pairs) else []


def _by_cutoff(cells: dict[str, Cell], same: Sequence[str]) -> list[Block]:
    """Ranking metrics over their cutoffs."""
    series: dict[str, list[tuple[int, Cell]]] = defaultdict(list)
    for name, cell in cells.items():
        if (found := re.fullmatch(r"(hit_rate|ndcg|mrr|recall|map)@(\d+)", name)) and name not in same:
            series[found[1]].append((int(found[2]), cell))
    if not series or max(map(len, series.values())) < 2:
        return []
    marks, rows = [], []
    for k, (name, found_at) in enumerate(series.items()):
        found_at.sort(key=lambda pair: pair[0])
        label = {"hit_rate": "hit rate", "ndcg": "NDCG", "mrr": "MRR", "map": "MAP"}.get(name, name)
        at, means = [c for c, _ in found_at], [cell.mean for _, cell in found_at]
        if all(cell.interval for _, cell in found_at):
            ends = [cell.interval for _, cell in found_at if cell.interval]
            marks.append(band(at, [low for low, _ in ends], [high for _, high in ends], k))
        marks.append(line(at, means, label, k))
        rows += [[label, str(c), number(cell.mean), _interval(cell)] for c, cell in found_at]
    table = Table("By cutoff", ["metric", "k", "test", "95% interval"], rows, frozenset({1, 2, 3}))
    ticks = sorted({c for found_at in series.values() for c, _ in found_at})
    return [
        Figure(
            "Test metrics by length of the list",
            marks,
            axis("items recommended, k (logarithmic)", type="log", ticks=ticks),
            axis("mean over test users", zero=True),
            "Ranking metrics rise with the length of the list",
            table,
            "Bands: 95% intervals over users.",
            320,
        )
    ]


def slices(run: RunFiles) -> list[Block]:
    """Hit rate and NDCG by activity of the user and popularity of the target."""
    if not set(METRICS) <= set(run.per_user.columns):
        raise Missing("The run's results by user hold no hit rate and NDCG to slice.")
    blocks: list[Block] = []
    users = run.per_user
    if run.has_variants:
        variant = max((name.split("/")[0] for name in run.test), key=lambda name: run.test.get(f"{name}/ndcg@10", 0.0))
        blocks.append(Prose(f"Of the variant with the highest NDCG@10 on the test part, {variant}."))
        users = users.filter(pl.col("variant") == variant)
    names, sizes, series = _means_of_slices(users_of_slices(users, run.dataset))
    columns = ["slice", "users", *(part for name, *_ in series for part in (name, "95% interval"))]
    body = [
        [name, number(sizes[k]), *(part for _, m, a, b in series for part in (number(m[k]), span(a[k], b[k])))]
        for k, name in enumerate(names)
    ]
    table = Table("Slices of the test users", columns, body, frozenset(range(1, len(columns))))
    note = "Targets by tier: head 10%, mid 40%, tail 50% of the items by training ratings. Users by training ratings."
    note += f" No interval below {FEWEST} users."
    figure = dots(
        "Where the model is good and where not",
        names,
        series,
        axis("mean over the slice's users", zero=True),
        "Hit rate and NDCG at 10 in slices of the users, with intervals",
        note,
        table=False,
    )
    return [*blocks, figure, table]


def _means_of_slices(rows: pl.DataFrame) -> tuple[list[str], list[int], list[Series]]:
    """Names and sizes of the slices, and a series for each metric, from what `users_of_slices` returns."""
    names = rows["slice"].unique(maintain_order=True).to_list()
    ids = rows[USER_ID].unique().sort()
    place = np.searchsorted(ids.to_numpy(), rows[USER_ID].to_numpy())
    column = rows["slice"].cast(pl.Enum(names)).to_physical().to_numpy()
    member = np.zeros((len(ids), len(names)))
    member[place, column] = 1
    statistics = []
    for metric in METRICS:
        values = np.zeros_like(member)
        values[place, column] = rows[metric].to_numpy()
        statistics.append(Means(values, member))
    sizes = member.sum(0).astype(int).tolist()
    with np.errstate(invalid="ignore"):  # a small slice may not be drawn at all; it gets no interval below
        drawn = bootstrap(statistics, len(ids), RESAMPLES)
    series: list[Series] = []
    for metric, statistic, draws in zip(METRICS, statistics, drawn, strict=True):
        mean = statistic.at(np.ones((1, len(ids))))[0].tolist()
        ends = [interval(draws[:, k]).tolist() if n >= FEWEST else (None, None) for k, n in enumerate(sizes)]
        short = metric.replace("hit_rate", "HR").replace("ndcg", "NDCG")
        series.append((short, mean, [low for low, _ in ends], [high for _, high in ends]))
    return names, sizes, series


def variants(run: RunFiles) -> list[Block]:
    """Accuracy and what lies beyond it, of each variant of a run of two stages."""
    if not run.has_variants:
        raise Missing("The run compares no variants; two-stage runs (TwoStage) do.")
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for key, value in run.test.items():
        name, metric = key.split("/", 1)
        found[name]["retrieval" if metric.startswith("retrieval_recall") else metric] = value
    shown = [metric for metric in COLUMNS if any(metric in row for row in found.values())]
    best = max((row["ndcg@10"] for row in found.values() if "ndcg@10" in row), default=None)
    table = Table(
        "Variants on the test part; marked: the highest NDCG@10",
        ["variant", *(COLUMNS[m] for m in shown)],
        [[name, *(number(row.get(metric)) for metric in shown)] for name, row in found.items()],
        frozenset(range(1, len(shown) + 1)),
        marked=frozenset(k for k, row in enumerate(found.values()) if row.get("ndcg@10") == best),
    )
    blocks: list[Block] = [table, _accuracy(found, run.per_user)]
    if beyond := _beyond(found):
        blocks.append(beyond)
    counts = run.record["protocol"].get("users") or {}
    happened = [[name, what, number(many)] for name, whats in counts.items() for what, many in whats.items()]
    if happened:
        blocks.append(
            Table("What happened to users", ["variant", "what", "users"], happened, frozenset({2}), folded=True)
        )
    return blocks


def _accuracy(found: dict[str, dict[str, float]], per_user: pl.DataFrame) -> Figure:
    """Recall and NDCG of each variant, with intervals over the users."""
    many = per_user[USER_ID].n_unique()
    series: list[Series] = []
    for metric in ("recall@10", "ndcg@10"):
        if metric not in per_user.columns:
            continue
        wide = per_user.pivot("variant", index=USER_ID, values=metric).sort(USER_ID)
        values = np.stack([wide[name].to_numpy().astype(float) for name in found], 1)
        there = ~np.isnan(values)
        (draws,) = bootstrap([Means(np.where(there, values, 0), there.astype(float))], many, RESAMPLES)
        low, high = interval(draws).tolist()
        series.append((COLUMNS[metric], [row.get(metric) for row in found.values()], low, high))
    return dots(
        "Accuracy of the variants",
        list(found),
        series,
        axis("mean over test users", zero=True),
        "Recall and NDCG at 10 of each variant, with intervals",
        f"95% intervals over {many:,} users, {RESAMPLES:,} bootstrap resamples.",
        "variant",
    )


def _beyond(found: dict[str, dict[str, float]]) -> Row | None:
    """NDCG against measures beyond accuracy: a point a variant."""
    axes = {
        "coverage@10": "catalogue coverage (share of the items)",
        "novelty@10": "novelty (bits)",
        "diversity@10": "diversity inside lists",
        "tail_fraction@10": "share of tail items",
    }
    figures = []
    for metric, title in axes.items():
        there = {name: row for name, row in found.items() if metric in row and "ndcg@10" in row}
        if len(there) < 2:
            continue
        kinds = {
            "first stage": [n for n in there if not n.endswith("reranked")],
            "re-ranked": [n for n in there if n.endswith("reranked")],
        }
        marks = [
            points(
                [there[n][metric] for n in held],
                [there[n]["ndcg@10"] for n in held],
                kind,
                k,
                [f"{n}\n{COLUMNS[metric]} {there[n][metric]:.4f}, NDCG@10 {there[n]['ndcg@10']:.4f}" for n in held],
                9,
                0.85,
            )
            for k, (kind, held) in enumerate(kinds.items())
            if held
        ]
        rows = [[n, number(row[metric]), number(row["ndcg@10"])] for n, row in there.items()]
        table = Table(title, ["variant", COLUMNS[metric], "NDCG@10"], rows, frozenset({1, 2}))
        figures.append(
            Figure(
                f"NDCG against {COLUMNS[metric]}",
                marks,
                axis(title),
                axis("NDCG@10", zero=True),
                f"NDCG at 10 against {title}, a point a variant",
                table,
                height=270,
            )
        )
    return Row(figures) if figures else None
