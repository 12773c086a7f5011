"""A click model's probabilities that users like items.

Reads a finished run and changes nothing in it. A user's history is all that the dataset holds of that user. Other
arguments go to the run's config, such as --data.root DIR.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from msmrec.artifacts import InputError
from msmrec.columns import SPLITS
from msmrec.finished_run import open_run
from msmrec.serving.export import is_export
from msmrec.serving.recommend import checked, give
from msmrec.serving.requests import file_or_stdin, read_pairs
from msmrec.serving.score import click_model, score


def main(args: Sequence[str]) -> None:
    """Writes or prints the probabilities; what was left out goes to stderr, a line each."""
    parser = argparse.ArgumentParser(prog="msmrec score", description=__doc__, allow_abbrev=False)
    parser.add_argument("--run", required=True, type=Path, help="run folder of a click model")
    parser.add_argument("--pairs", required=True, type=file_or_stdin, help="file of raw_user_id and raw_item_id, a row"
                        " each, or with the columns of the run's data; - for CSV on standard input. Pairs that the"
                        " dataset does not know get no row in the answer")  # fmt: skip
    parser.add_argument("--out", type=Path, help=".parquet, .csv or .jsonl file to write, instead of printing CSV")
    parser.add_argument("--split", choices=["val", "test"], help="read the history before this part alone; by default"
                        " the whole history")  # fmt: skip
    given, overrides = parser.parse_known_args(args)
    if given.out:
        checked(given.out)
    if is_export(given.run):
        raise InputError(f"{given.run} is an export; score asks the run itself: give the folder that was exported")
    run = open_run(given.run, overrides)
    click_model(run)  # before a long file is read
    pairs = read_pairs(given.pairs, run.data.dataset, run.data.source.file_columns)
    table, notes = score(run, pairs, SPLITS.get(given.split))
    give(table, notes, given.out, f"{len(table):,} pairs")
