"""The modality analysis of a run (MSMRec paper, sections 5.1 and 5.4): tables, kept as Parquet in RUN/analysis/."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import polars as pl

from msmrec.analysis import drift, groups, maps, people, removal
from msmrec.analysis.gate import gated, read_gate
from msmrec.analysis.measured import measure
from msmrec.artifacts import InputError, atomic_file, write_json
from msmrec.run_folder import OpenRun

FOLDER = "analysis"


@dataclass
class Analysis:
    """What the gate of a run does. Intervals are of 95%, by bootstrap over users; p is Holm's, table by table."""

    users: pl.DataFrame
    """user_id, raw_user_id, group, popular_share, num_items, entropy (0 to 1), a column for each modality (weight at
    the end of the history)"""
    items: pl.DataFrame
    """item_id, raw_item_id, title, count, a column for each modality (mean weight where the item stands)"""
    leanings: pl.DataFrame
    """in hindsight: user_id, raw_user_id, modality, lift (over the mean user's weight), change (second half - first)"""
    groups: pl.DataFrame
    """group, modality, users, mean, low, high"""
    group_tests: pl.DataFrame
    """modality, group_a, group_b, difference, low, high, p"""
    positions: pl.DataFrame
    """position (0 to 19, twentieths of the history), modality, mean, low, high"""
    drift: pl.DataFrame
    """modality, first, second, difference, low, high, p"""
    drift_items: pl.DataFrame
    """modality, half, item_id, title, lift"""
    devoted: pl.DataFrame
    """modality, rank, user_id, raw_user_id, weight, titles (list)"""
    removal: pl.DataFrame
    """modality, metric, full, without, difference, low, high, p"""
    map_scores: pl.DataFrame
    """modality, stage, items, silhouette, chance_silhouette, neighbour_purity, chance_purity"""
    map_points: pl.DataFrame
    """item_id, title, modality, stage, method, x, y, genre"""


def analyse(
    run: OpenRun,
    popular_above: float | None = None,
    methods: Sequence[str] = (),
    map_items: int = 600,
    neighbours: int = 10,
    resamples: int = 10_000,
    seed: int = 0,
) -> Analysis:
    """Computes all tables of a run and writes them into its folder.

    Args:
        run: of MSMRec.
        popular_above: lambda, the share of all training interactions from which an item is popular; None: 2 / N.
        methods: of the maps, any of tsne and umap; they take the longest.
        map_items: items of a map, drawn at random.
        neighbours: k of the neighbour purity.
        resamples: of the users. seed: of the resampling and the maps.

    Raises:
        InputError: a model without a gate, a lambda that makes no or all items popular, or UMAP is not installed.
    """
    model, dataset = gated(run), run.data.dataset
    popular = groups.popular_items(dataset, popular_above)
    gate = read_gate(model, dataset)
    share = groups.popular_shares(gate, popular)
    group = groups.equal_width_groups(share)
    m = len(gate.names)
    removed = removal.removals(run, model, gate)
    of_groups, of_places, of_halves, of_removals = measure(
        [groups.group_means(gate, group), drift.positions(gate), drift.halves(gate), removed],
        [(len(groups.large_groups(group)), m), (drift.STEPS, m), (2, m), (m + 2, len(removal.METRICS))],
        resamples,
        seed,
    )
    group_table, group_tests = groups.group_tables(gate, group, of_groups)
    made = Analysis(
        users=people.user_table(gate, dataset, share, group),
        items=people.item_table(gate, dataset),
        leanings=people.leanings(gate, dataset),
        groups=group_table,
        group_tests=group_tests,
        positions=drift.position_table(gate, of_places),
        drift=drift.drift_table(gate, of_halves),
        drift_items=drift.drift_items(gate, dataset),
        devoted=people.devoted(gate, dataset),
        removal=removal.removal_table(gate, of_removals),
        map_scores=maps.map_scores(model, dataset, gate.names, neighbours, seed=seed),
        map_points=maps.map_points(model, dataset, gate.names, methods, map_items, seed),
    )
    settings: dict[str, Any] = {
        "popular_above": 2 / dataset.num_items if popular_above is None else popular_above,
        "popular_items": int(popular.sum()),
        "neighbours": neighbours,
        "resamples": resamples,
        "seed": seed,
    }
    for table in fields(made):
        with atomic_file(run.folder / FOLDER / f"{table.name}.parquet") as path:
            getattr(made, table.name).write_parquet(path)
    write_json(run.folder / FOLDER / "settings.json", settings)  # last: an analysis cut short is none
    return made


def read_analysis(run: Path) -> Analysis | None:
    """The tables of a run's folder, or None where it has not been analysed.

    Raises:
        InputError: a table is missing or broken.
    """
    folder = run / FOLDER
    if not (folder / "settings.json").is_file():
        return None
    tables = {}
    for table in fields(Analysis):
        path = folder / f"{table.name}.parquet"
        try:
            tables[table.name] = pl.read_parquet(path)
        except (OSError, pl.exceptions.PolarsError):
            raise InputError(f"{path}: missing or broken; run python -m msmrec analyse {run} again") from None
    return Analysis(**tables)
