"""python -m msmrec VERB: the steps before and beside a training.

    prepare   --config C   writes the dataset folder of a config and prints its counts
    describe  --config C   writes the modality texts of its items and prints their coverage; --dry-run prints what a
                           language model would be asked and what that would cost, --retry asks again where it failed
    embed     --config C   encodes those texts and prints the shape of the vectors
    slices    RUN [RUN ..] prints the runs' test metrics by popularity of the target and activity of the user
    demo                   trains SASRec and MSMRec on a generated dataset and shows what the gate learned

prepare, describe and embed take the same overrides as train.py and do only what is not done yet.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from msmrec.artifacts import InputError
from msmrec.columns import MODALITY, TEXT

if TYPE_CHECKING:  # verbs import what they need, so that --help is quick
    from msmrec.data.datamodule import RecDataModule
    from msmrec.text.item_text import ItemText


def prepare(args: Sequence[str]) -> None:
    """Writes the dataset folder."""
    from msmrec.cli import build

    dataset = build([*args, "--trainer.logger", "false"], save=False).datamodule.dataset
    print(json.dumps(dataset.info, indent=2))
    print(dataset.folder)


def describe(args: Sequence[str]) -> None:
    """Writes the modality texts.

    --dry-run prints what would be asked and what it would cost, and stops; --retry asks again for the items that an
    earlier run described without the language model, because the server failed.
    """
    from msmrec.text.item_text import how_described

    flags = {"--dry-run", "--retry"} & set(args)
    data, text = _text_of([arg for arg in args if arg not in flags])
    if "--dry-run" in flags:
        print(text.plan(data.dataset, data.root, data.cache))
        return
    texts = text.texts(data.dataset, data.root, data.cache, retry="--retry" in flags)
    share = texts.group_by(MODALITY, maintain_order=True).agg(present=(pl.col(TEXT) != "").mean())
    for name, present in share.iter_rows():
        print(f"{name:12} {present:6.1%} of {data.num_items:,} items")
    for what, items in how_described(texts).iter_rows():
        print(f"{items:,} items: {what}")


def embed(args: Sequence[str]) -> None:
    """Encodes the modality texts."""
    data, text = _text_of(args)
    made = text.vectors(data.dataset, data.root, data.cache)
    print(f"{made.vectors.shape} vectors for {', '.join(made.names)}; {made.present[1:].mean():.1%} present")


def _text_of(args: Sequence[str]) -> "tuple[RecDataModule, ItemText]":
    from msmrec.cli import build

    cli = build([*args, "--trainer.logger", "false"], save=False)
    if not hasattr(cli.model, "text"):
        raise InputError(f"{type(cli.model).__name__} reads no texts; name a config whose model has `text`")
    return cli.datamodule, cli.model.text


def slices(args: Sequence[str]) -> None:
    """Prints the table."""
    from msmrec.evaluation.slices import compare_slices

    if not args:
        raise InputError("slices needs at least one run folder")
    print(compare_slices([Path(arg) for arg in args]))


def demo(args: Sequence[str]) -> None:
    """Trains both models on the generated dataset."""
    from msmrec.demo import run

    run(args)


def main() -> None:
    """Finds the verb."""
    from msmrec.cli import main as guarded

    verbs = {"prepare": prepare, "describe": describe, "embed": embed, "slices": slices, "demo": demo}
    if len(sys.argv) < 2 or sys.argv[1] not in verbs:
        print(__doc__)
        sys.exit(0 if sys.argv[1:] in ([], ["--help"], ["-h"]) else 2)
    guarded(lambda: verbs[sys.argv[1]](sys.argv[2:]))


if __name__ == "__main__":
    main()
