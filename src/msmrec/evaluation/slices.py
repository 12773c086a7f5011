"""Where a model is good and where not: its test metrics by popularity of the target and by activity of the user."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from msmrec.artifacts import InputError
from msmrec.columns import ITEM_ID, SPLIT, TEST, TIER, TRAIN, USER_ID
from msmrec.data.prepare import Dataset

METRICS = ("hit_rate@10", "ndcg@10")
COLD = ("cold_recall@10", "cold_ndcg@10")  # of targets without any training rating, among all items


def dataset_of(record: dict[str, Any], config: dict[str, Any]) -> Dataset:
    """The dataset that a run was made on, from the cache.

    Args:
        record: metrics.json. config: config.yaml.

    Raises:
        InputError: it is not there; MSMREC_CACHE may name another cache.
    """
    info, cache = record["dataset"], Path(config["data"].get("cache") or os.environ.get("MSMREC_CACHE", "artifacts"))
    return Dataset(cache / "datasets" / f"{info['name']}-{info['fingerprint']}")


def users_of_slices(run: Path, dataset: Dataset, variant: str | None = None) -> pl.DataFrame:
    """A run's per-user results, once for each slice that a user belongs to.

    Users are cut by the tier of their (first) test item (head 10%, mid 40%, tail 50% of the items by training ratings,
    cold without any) and into thirds by the length of their training history. "cold user" are the tenth with the
    fewest training ratings, "cold target" the users who have test items without any: of those items alone, recall@10
    in place of the hit rate. Of a run that compares variants, `variant` says whose results.

    Returns:
        slice, user_id, hit_rate@10, ndcg@10; the slice "all" first.

    Raises:
        InputError: no user is in any slice.
    """
    rows = pl.read_parquet(dataset.folder / "interactions.parquet", columns=[USER_ID, ITEM_ID, SPLIT])
    target = rows.filter(pl.col(SPLIT) == TEST).unique(USER_ID, keep="first", maintain_order=True)
    target = target.join(dataset.items.select(ITEM_ID, TIER), on=ITEM_ID)
    activity = rows.filter(pl.col(SPLIT) == TRAIN).group_by(USER_ID).agg(pl.len().alias("activity"))
    users = pl.read_parquet(run / "per_user.parquet")
    users = users if variant is None else users.filter(pl.col("variant") == variant)
    users = users.join(target, on=USER_ID).join(activity, on=USER_ID)
    if not len(users):
        raise InputError(f"{run}: none of its users has both training ratings and a test item to slice by")
    fewest, low, high = (users["activity"].quantile(share) for share in (0.1, 1 / 3, 2 / 3))
    assert fewest is not None and low is not None and high is not None
    third = (
        pl.when(pl.col("activity") <= low)
        .then(pl.lit(f"user: up to {low:.0f} ratings"))
        .when(pl.col("activity") <= high)
        .then(pl.lit(f"user: up to {high:.0f} ratings"))
        .otherwise(pl.lit(f"user: over {high:.0f} ratings"))
    )
    parts = [
        users.with_columns(pl.lit("all").alias("slice")),
        users.with_columns((pl.lit("target: ") + pl.col(TIER)).alias("slice")).sort(TIER),
        users.with_columns(third.alias("slice")).sort("activity"),
        users.filter(pl.col("activity") <= fewest).with_columns(
            pl.lit(f"cold user: up to {fewest:.0f} ratings").alias("slice")
        ),
    ]
    if COLD[0] in users.columns:
        cold = users.drop_nulls(COLD[0]).with_columns(pl.lit("cold target").alias("slice"))
        parts.append(cold.with_columns(pl.col(old).alias(new) for old, new in zip(COLD, METRICS, strict=True)))
    return pl.concat(part.select("slice", USER_ID, *METRICS) for part in parts)


def slices(run: Path, dataset: Dataset, variant: str | None = None) -> pl.DataFrame:
    """Means of `users_of_slices`: slice, users, hit_rate@10, ndcg@10."""
    rows = users_of_slices(run, dataset, variant)
    return rows.group_by("slice", maintain_order=True).agg(
        pl.len().alias("users"), *(pl.col(m).mean() for m in METRICS)
    )


def compare_slices(runs: Sequence[Path]) -> str:
    """A Markdown table of `slices` for several runs; runs of one config (seeds) are averaged into one column.

    A run that compares variants has a column for each.

    Raises:
        InputError: a run is not finished, or the runs are on different datasets.
    """
    tables: dict[str, list[pl.DataFrame]] = {}
    fingerprints = set()
    for run in runs:
        if not (run / "metrics.json").is_file():
            raise InputError(f"{run}: no metrics.json; the run is not finished")
        record = json.loads((run / "metrics.json").read_text())
        if METRICS[0] not in pl.read_parquet_schema(run / "per_user.parquet"):
            raise InputError(f"{run}: not a ranking run, so it has no {METRICS[0]} to slice")
        config = yaml.safe_load((run / "config.yaml").read_text())
        fingerprints.add(record["dataset"]["fingerprint"])
        if len(fingerprints) > 1:
            raise InputError(f"{run} is on another dataset than the runs before it; compare runs on one dataset")
        dataset = dataset_of(record, config)
        columns = pl.read_parquet_schema(run / "per_user.parquet")
        if "variant" not in columns:
            tables.setdefault(record["config"], []).append(slices(run, dataset))
            continue
        variants = pl.read_parquet(run / "per_user.parquet", columns=["variant"])["variant"]
        for name in variants.unique(maintain_order=True):
            tables.setdefault(f"{record['config']}: {name}", []).append(slices(run, dataset, name))
    names = list(tables)
    lines = ["| slice | users | " + " | ".join(f"{name} HR@10 / NDCG@10" for name in names) + " |"]
    lines.append("|---|---|" + "---|" * len(names))
    first = next(iter(tables.values()))[0]
    for row, (name, users) in enumerate(first.select("slice", "users").iter_rows()):
        cells = []
        for config_name in names:
            means = [sum(t[m][row] for t in tables[config_name]) / len(tables[config_name]) for m in METRICS]
            cells.append(" / ".join(f"{value:.4f}" for value in means))
        lines.append(f"| {name} | {users:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
