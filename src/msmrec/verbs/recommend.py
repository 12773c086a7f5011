"""The best items that users have not seen.

Reads a finished run, or a folder that export wrote, and changes nothing in it. Other arguments go to the run's config,
such as --data.root DIR.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from msmrec.artifacts import InputError
from msmrec.columns import SPLITS
from msmrec.finished_run import open_run
from msmrec.metrics.beyond_accuracy import TIERS
from msmrec.serving.export import is_export, of_export
from msmrec.serving.rank import of_run
from msmrec.serving.recommend import checked, give, recommend
from msmrec.serving.requests import file_or_stdin, read_histories, read_users


def main(args: Sequence[str]) -> None:
    """Writes or prints the lists; what was left out goes to stderr, a line each."""
    parser = argparse.ArgumentParser(prog="msmrec recommend", description=__doc__, allow_abbrev=False)
    parser.add_argument("--run", required=True, type=Path, help="run folder, or an exported one")
    whom = parser.add_mutually_exclusive_group(required=True)
    whom.add_argument("--users", type=file_or_stdin, help="users of the dataset: a file with a column raw_user_id, or"
                      " .txt; - for CSV on standard input")  # fmt: skip
    whom.add_argument("--history", type=file_or_stdin, help="new users: a file of raw_user_id, raw_item_id and perhaps"
                      " timestamp, a row each, or with the columns of the run's data; - for CSV on standard"
                      " input")  # fmt: skip
    parser.add_argument("--k", type=int, default=10, help="items a user (default: 10)")
    parser.add_argument("--out", type=Path, help=".parquet, .csv or .jsonl file to write, instead of printing CSV")
    parser.add_argument("--split", choices=["val", "test"], help="rank as an evaluation of this part does, from the"
                        " history before it; by default the whole history is seen and read")  # fmt: skip
    parser.add_argument("--genre", action="append", default=[], help="items of this genre only; again for more of them")
    parser.add_argument("--year_from", type=int, help="items of this year and later only")
    parser.add_argument("--year_to", type=int, help="items of this year and earlier only")
    parser.add_argument("--tier", action="append", default=[], choices=TIERS, help="items of this tier only: cold ones,"
                        " which training had no rating of, are what a model that reads texts can add; again for more of"
                        " them")  # fmt: skip
    parser.add_argument(
        "--fallback", choices=["popular"], help="what users without a known item get (default: nothing)"
    )
    given, overrides = parser.parse_known_args(args)
    if given.out:
        checked(given.out)
    if is_export(given.run):
        if overrides:
            raise InputError(f"{' '.join(overrides)}: an export has no config; see python -m msmrec recommend --help")
        if given.users:
            raise InputError(f"{given.run} is an export, which knows no users: give what they have seen by --history")
        recommender = of_export(given.run)
    else:
        run = open_run(given.run, overrides)
        recommender = of_run(run)
    if given.history and given.split:
        raise InputError("--split is about the dataset's users: it goes with --users")
    if given.history:
        requests = read_histories(given.history, recommender.items, recommender.columns)
    else:
        requests = read_users(given.users, run.data.dataset, recommender.columns, SPLITS.get(given.split))
    allowed = recommender.allowed(given.genre, given.year_from, given.year_to, given.tier)
    table, notes = recommend(recommender, requests, given.k, allowed, given.fallback == "popular")
    give(table, notes, given.out, f"{len(table):,} rows for {table['raw_user_id'].n_unique():,} users")
