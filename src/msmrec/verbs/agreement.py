"""How far people who filled in sheets of texts agree (Krippendorff's alpha), and what they think of the texts."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from msmrec.markdown import frame_markdown
from msmrec.text.raters import agreement, mean_ratings, read_key, read_ratings


def main(args: Sequence[str]) -> None:
    """Prints the raters' agreement and their mean ratings."""
    parser = argparse.ArgumentParser(prog="msmrec agreement", description=__doc__, allow_abbrev=False)
    parser.add_argument("sheet", nargs="+", type=Path, help="filled sheet: one a rater, or with a column 'rater'")
    parser.add_argument("--key", required=True, type=Path, help="the sheet's key file, as faithfulness wrote it")
    given = parser.parse_args(args)
    ratings = read_ratings(given.sheet, read_key(given.key))
    print(frame_markdown(agreement(ratings)), frame_markdown(mean_ratings(ratings)), sep="\n\n")
