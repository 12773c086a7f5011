"""Prints runs' test metrics by popularity of the target and activity of the user, over their seeds."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from msmrec.evaluation.slices import compare_slices


def main(args: Sequence[str]) -> None:
    """Prints the table; what `compare` would warn of goes to stderr."""
    parser = argparse.ArgumentParser(prog="msmrec slices", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", nargs="+", type=Path, help="run folder of a ranking model")
    table, warnings = compare_slices(parser.parse_args(args).run)
    for warning in warnings:
        print(f"msmrec: warning: {warning}", file=sys.stderr)
    print(table)
