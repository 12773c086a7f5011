"""Writes the modality texts of a config's items and prints their coverage."""

from collections.abc import Sequence

import polars as pl

from msmrec.artifacts import InputError
from msmrec.cli import build
from msmrec.columns import MODALITY, TEXT
from msmrec.data.datamodule import RecDataModule
from msmrec.text.item_text import ItemText, how_described


def main(args: Sequence[str]) -> None:
    """Takes the arguments of train.py, and two of its own.

    --dry-run prints what would be asked and what it would cost, and stops; --retry asks again for the items that an
    earlier run described without the language model, because the server failed.
    """
    flags = {"--dry-run", "--retry"} & set(args)
    data, text = texts_of([arg for arg in args if arg not in flags])
    if "--dry-run" in flags:
        print(text.plan(data.dataset, data.root, data.cache))
        return
    texts = text.texts(data.dataset, data.root, data.cache, retry="--retry" in flags)
    share = texts.group_by(MODALITY, maintain_order=True).agg(present=(pl.col(TEXT) != "").mean())
    for name, present in share.iter_rows():
        print(f"{name:12} {present:6.1%} of {data.num_items:,} items")
    for what, items in how_described(texts).iter_rows():
        print(f"{items:,} items: {what}")


def texts_of(args: Sequence[str]) -> tuple[RecDataModule, ItemText]:
    """The data and the texts that a config's model reads.

    Raises:
        InputError: it reads none.
    """
    cli = build(args, save=False)
    if not hasattr(cli.model, "text"):
        raise InputError(f"{type(cli.model).__name__} reads no texts; name a config whose model has `text`")
    return cli.datamodule, cli.model.text
