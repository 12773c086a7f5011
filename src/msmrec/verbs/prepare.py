"""Writes the dataset folder of a config and prints its counts."""

import json
from collections.abc import Sequence

from msmrec.cli import build


def main(args: Sequence[str]) -> None:
    """Takes the arguments of train.py."""
    dataset = build(args, save=False).datamodule.dataset
    print(json.dumps(dataset.info, indent=2))
    print(dataset.folder)
