"""One table over runs and seeds: means, intervals over test users, paired tests.

Reads metrics.json, config.yaml, per_user.parquet and predictions.parquet of each run and changes nothing in them. What
makes runs less comparable goes to stderr, a line each.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from msmrec.artifacts import InputError, atomic_file
from msmrec.evaluation.compare import compare
from msmrec.evaluation.comparison_plot import plot
from msmrec.evaluation.comparison_table import render


def main(args: Sequence[str]) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="msmrec compare", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", nargs="+", type=Path, help="run folder, or a folder that holds runs")
    parser.add_argument("--metrics", default="", help="such as hit_rate@10,ndcg@10 (default: the models' headline)")
    parser.add_argument("--baseline", help="row that the others are tested against")
    parser.add_argument(
        "--format", choices=["markdown", "latex", "csv"], default="markdown", help="(default: markdown)"
    )
    parser.add_argument("--out", type=Path, help="file to write the table to, instead of printing it")
    parser.add_argument("--plot", type=Path, help=".png or .svg file to write: bars, or lines over --x")
    parser.add_argument("--page", type=Path, help=".html file to write: table, plots, slices, training curves, cost")
    parser.add_argument("--x", help="number of the config to compare over, such as model.init_args.retriever.k")
    parser.add_argument(
        "--names", choices=["config", "folder"], default="config", help="what a row is called (default: config)"
    )
    parser.add_argument("--resamples", type=int, default=10_000, help="bootstrap resamples (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the resampling (default: 0)")
    given = parser.parse_args(args)
    if given.resamples < 100:
        raise InputError(f"--resamples {given.resamples}: an interval needs at least 100")
    metrics = [name.strip() for name in given.metrics.split(",") if name.strip()]
    table = compare(given.run, metrics, given.baseline, given.x, given.resamples, given.seed, given.names)
    for warning in table.warnings:
        print(f"msmrec: warning: {warning}", file=sys.stderr)
    if given.plot:
        plot(table, given.plot, given.x)
    if given.page:
        from msmrec.report.compare_page import write_comparison  # plots are an extra

        write_comparison(table, given.run, given.page, given.x, given.names)
    text = render(table, given.format) + "\n"
    if given.out:
        with atomic_file(given.out) as path:
            path.write_text(text)
    else:
        print(text, end="")
