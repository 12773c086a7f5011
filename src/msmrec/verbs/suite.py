"""A paper's table: runs the lines of configs/suites/NAME.txt that are not finished and prints `compare`.

Other arguments are overrides of all its lines.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from msmrec.suite import suite


def main(args: Sequence[str]) -> None:
    """Runs a suite and prints its tables."""
    parser = argparse.ArgumentParser(prog="msmrec suite", description=__doc__, allow_abbrev=False)
    parser.add_argument("name", help="of a suite, or path of a file such as slurm/ablations.txt")
    parser.add_argument("--dry-run", action="store_true", help="print what would run and how long it takes, and stop")
    parser.add_argument("--datasets", default="", help="such as ml-100k,ml-1m (default: all of the suite)")
    parser.add_argument("--rows", default="", help="names or patterns, such as 'sasrec*,kar*' (default: all)")
    parser.add_argument("--seeds", default="0", help="such as 0,1,2 (default: 0)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs (default: runs)")
    given, more = parser.parse_known_args(args)
    suite(given.name, given.datasets, given.rows, given.seeds, given.runs, given.dry_run, more)
