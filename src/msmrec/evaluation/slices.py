"""Where a model is good and where not: its test metrics by popularity of the target and by activity of the user."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from msmrec.artifacts import InputError
from msmrec.columns import ITEM_ID, SPLIT, TEST, TIER, USER_ID
from msmrec.data.prepare import Dataset, read_parquet
from msmrec.evaluation.comparable_runs import Group, group_runs, refuse_different_tests
from msmrec.markdown import markdown
from msmrec.run_folder import dataset_of, find_runs

METRICS = ("hit_rate@10", "ndcg@10")
COLD = ("cold_recall@10", "cold_ndcg@10")  # of targets without any training rating, among all items


def users_of_slices(users: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    """A run's per-user results, once for each slice that a user belongs to.

    Users are cut by the tier of their (first) test item (head 10%, mid 40%, tail 50% of the items by training ratings,
    cold without any) and into thirds by the length of their training history. "cold user" are the tenth with the
    fewest training ratings, "cold target" the users who have test items without any: of those items alone, recall@10
    in place of the hit rate.

    Args:
        users: see `Run.per_user`. dataset: the run's.

    Returns:
        slice, user_id, hit_rate@10, ndcg@10; the slice "all" first.

    Raises:
        InputError: no user is in any slice.
    """
    rows = read_parquet(dataset.folder / "interactions.parquet", columns=[USER_ID, ITEM_ID, SPLIT])
    target = rows.filter(pl.col(SPLIT) == TEST).unique(USER_ID, keep="first", maintain_order=True)
    target = target.join(dataset.items.select(ITEM_ID, TIER), on=ITEM_ID)
    users = users.join(target, on=USER_ID)
    # 0 where all of the history is in the validation part
    users = users.with_columns(pl.Series("activity", dataset.train_lengths[users[USER_ID].to_numpy()]))
    if not len(users):
        raise InputError("none of the run's users has a test item to slice by")
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
        cold = users.drop_nulls(COLD[0]).with_columns(pl.lit("cold target (recall@10)").alias("slice"))
        parts.append(cold.with_columns(pl.col(old).alias(new) for old, new in zip(COLD, METRICS, strict=True)))
    return pl.concat(part.select("slice", USER_ID, *METRICS) for part in parts)


def slices(users: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    """Means of `users_of_slices`: slice, users, hit_rate@10, ndcg@10."""
    rows = users_of_slices(users, dataset)
    return rows.group_by("slice", maintain_order=True).agg(
        pl.len().alias("users"), *(pl.col(m).mean() for m in METRICS)
    )


def mean_slices(groups: Sequence[Group], dataset: Dataset) -> tuple[pl.DataFrame, dict[str, np.ndarray]]:
    """`slices` of each row of a comparison, averaged over its seeds.

    Returns:
        slice, users; for each row, by its name, (S, 2) means of METRICS.
    """
    tables = {group.name: [slices(run.per_user(), dataset) for run in group.runs] for group in groups}
    means = {name: np.mean([table.select(METRICS).to_numpy() for table in made], 0) for name, made in tables.items()}
    return next(iter(tables.values()))[0].select("slice", "users"), means


def compare_slices(paths: Sequence[Path]) -> tuple[str, list[str]]:
    """A Markdown table of `slices`, with a column for each row of `compare`: seeds are averaged, variants apart.

    Args:
        paths: run folders, or folders above them.

    Returns:
        the table, and warnings.

    Raises:
        InputError: a run is not finished, or the runs are not comparable.
    """
    runs = find_runs(paths)
    for run in runs:
        if run.metrics is None:
            raise InputError(f"{run.folder}: no metrics.json; the run is not finished")
        results = run.folder / "per_user.parquet"  # models that rank nothing for users leave none
        if not results.is_file() or METRICS[0] not in read_parquet(results).columns:
            raise InputError(f"{run.folder}: not a ranking run, so it has no {METRICS[0]} to slice")
    refuse_different_tests(runs)
    groups, warnings = group_runs(runs)
    sliced, means = mean_slices(groups, dataset_of(runs[0].folder))
    lines = [
        [name, f"{users:,}", *(" / ".join(f"{value:.4f}" for value in mean[row]) for mean in means.values())]
        for row, (name, users) in enumerate(sliced.iter_rows())
    ]
    return markdown(["slice", "users", *(f"{name} HR@10 / NDCG@10" for name in means)], lines), warnings
