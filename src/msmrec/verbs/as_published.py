"""Prints click models' test metrics as RALLRec's published code would have scored them, beside the true ones."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from msmrec.evaluation.as_published import table


def main(args: Sequence[str]) -> None:
    """Prints the table of each run."""
    parser = argparse.ArgumentParser(prog="msmrec as_published", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", nargs="+", type=Path, help="run folder of a click model")
    for run in parser.parse_args(args).run:
        print(run, table(run), sep="\n")
