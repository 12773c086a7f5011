"""Writes report.html into each run.

It holds everything that the run's files hold, the modality analysis where `msmrec analyse` made one, the gate at work
and the faithfulness of texts. Reads the run, its dataset in the cache, its texts; changes nothing else. Other arguments
override the config, such as --data.root DIR.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from msmrec.artifacts import InputError
from msmrec.finished_run import open_run
from msmrec.report.run_page import NAME, asks_the_model, write_report


def main(args: Sequence[str]) -> None:
    """Writes the pages; where a model cannot be opened, its page says why and does without."""
    parser = argparse.ArgumentParser(prog="msmrec report", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", nargs="+", type=Path, help="run folder")
    given, overrides = parser.parse_known_args(args)
    for run in given.run:
        opened, why = None, ""
        try:
            opened = open_run(run, overrides) if asks_the_model(run) else None
        except InputError as error:
            why = f"The model could not be asked: {error}."
        page = write_report(run, opened, why)
        print(run / NAME)
        for title, sentence in page.broken:
            print(f"msmrec: warning: {title}: {sentence}", file=sys.stderr)
