"""Trains one config: python train.py --config msmrec_ml1m.yaml; see --help."""

import sys

from msmrec.help_page import help_page


def train() -> None:
    """Imports what takes seconds, and trains."""
    from msmrec import cli

    cli.main(cli.train)


if __name__ == "__main__":
    if sys.argv[1:] in (["--help"], ["-h"]):
        print(help_page("train", train), end="")
    else:
        train()
