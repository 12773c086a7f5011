"""Descriptions spoiled on purpose: what a model loses is what it had from them (MSMRec, section 7.3)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from msmrec.artifacts import InputError
from msmrec.columns import ITEM_ID, MODALITY, TEXT

ROW = "row"


@dataclass
class TextNoise:
    """Spoils all texts of some items.

    Attributes:
        kind: swap gives an item the texts of another spoiled one; truncate keeps the first `strength` of the words;
            corrupt replaces about `strength` of the words by words drawn from all texts.
        share: of the items, drawn at random.
        strength: see kind; nothing to swap.
        seed: of the draws.
    """

    kind: Literal["swap", "truncate", "corrupt"]
    share: float
    strength: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.share <= 1 and 0 <= self.strength <= 1):
            raise InputError(f"noise: share ({self.share}) and strength ({self.strength}) must lie between 0 and 1")

    def __call__(self, texts: pl.DataFrame) -> pl.DataFrame:
        """The same table with other texts; missing texts stay missing unless swapped.

        Args:
            texts: item_id, modality, text, ...; every item has every modality.
        """
        generator = np.random.default_rng(self.seed)
        items = texts[ITEM_ID].unique(maintain_order=True)
        chosen = generator.choice(items.to_numpy(), round(self.share * len(items)), replace=False)
        if self.kind == "swap":
            donor = pl.DataFrame({ITEM_ID: chosen, "donor": np.roll(chosen, 1)}, schema_overrides=_ids(texts))
            given = texts.select(pl.col(ITEM_ID).alias("donor"), MODALITY, pl.exclude(ITEM_ID, MODALITY))
            swapped = texts.select(ITEM_ID, MODALITY).join(donor, ITEM_ID, maintain_order="left")
            swapped = swapped.join(given, ["donor", MODALITY], maintain_order="left").drop("donor")
            rest = texts.filter(~pl.col(ITEM_ID).is_in(chosen.tolist()))
            whole = pl.concat([rest, swapped.select(texts.columns)])
            return texts.select(ITEM_ID, MODALITY).join(whole, [ITEM_ID, MODALITY], maintain_order="left")
        words = texts.select(ITEM_ID, pl.col(TEXT).str.split(" ")).with_row_index(ROW).explode(TEXT)
        spoiled = words[ITEM_ID].is_in(chosen.tolist())
        if self.kind == "truncate":
            place = pl.int_range(pl.len()).over(ROW)
            words = words.filter(~spoiled | (place < (pl.len().over(ROW) * self.strength).ceil()))
        else:
            pool = words[TEXT].filter(words[TEXT] != "")
            drawn = pool.sample(len(words), with_replacement=True, seed=self.seed) if len(pool) else words[TEXT]
            hit = spoiled & pl.Series(generator.random(len(words)) < self.strength) & (words[TEXT] != "")
            words = words.with_columns(pl.when(hit).then(drawn).otherwise(TEXT).alias(TEXT))
        joined = words.group_by(ROW).agg(pl.col(TEXT).str.join(" "))
        rows = texts.with_row_index(ROW).select(ROW)  # a text of which no word is left is empty
        return texts.with_columns(rows.join(joined, on=ROW, how="left", maintain_order="left")[TEXT].fill_null(""))


def _ids(texts: pl.DataFrame) -> dict[str, pl.DataType]:
    return {ITEM_ID: texts.schema[ITEM_ID], "donor": texts.schema[ITEM_ID]}
