"""Texts as one kind of item features."""

from pathlib import Path

import polars as pl

from msmrec.columns import GENRES, ITEM_ID, TEXT, TITLE
from msmrec.data.prepare import Dataset
from msmrec.media.features import Features, ItemFeatures
from msmrec.text.item_text import ItemText, all_told
from msmrec.text.vector_cache import encode_cached


class TextFeatures(ItemFeatures):
    """One vector an item, of its title, genres and everything that was found about it; D is the encoder's.

    Args:
        text: where texts come from, and the encoder.
    """

    def __init__(self, text: ItemText) -> None:
        self.text = text

    def vectors(self, dataset: Dataset, root: Path, cache: Path) -> Features:
        """See `ItemFeatures.vectors`; an item about which nothing was found still has its title."""
        joined = self.joined(dataset, root, cache)
        vectors = encode_cached(self.text.encoder, joined, cache / "vectors")
        # a text without a known word has a zero vector, which says nothing
        return Features(vectors, (vectors != 0).any(1))

    def joined(self, dataset: Dataset, root: Path, cache: Path) -> list[str]:
        """N + 1 texts, "" for the padding: "title. genre, genre. text text ...", texts in the schema's order."""
        found = all_told(self.text.texts(dataset, root, cache))
        named = dataset.items.select(ITEM_ID, TITLE, genres=pl.col(GENRES).list.join(", "))
        parts = named.join(found, on=ITEM_ID, how="left", maintain_order="left")
        whole = parts.select(
            pl.concat_str(
                pl.col(TITLE).fill_null(""),
                pl.when(pl.col("genres") != "").then("genres"),
                pl.col(TEXT),
                separator=". ",
                ignore_nulls=True,
            )
        ).to_series()
        return ["", *whole.to_list()]
