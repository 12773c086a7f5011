"""Whether the measure of faithfulness tells a text's own evidence from another item's."""

import numpy as np
import polars as pl

from msmrec.text.faithfulness import Evidence, faithfulness


def separation(texts: pl.DataFrame, evidence: Evidence) -> pl.DataFrame:
    """Whether `support` measures anything: the same texts against their own item's evidence and another item's.

    Returns:
        modality, texts (with a claim), own, other (mean support), auc: the probability that a text scores higher on its
        own evidence than a text does on another item's, ties counting half. One row a modality, then 'all'.
    """
    items = np.random.default_rng(0).permutation(texts["item_id"].unique().sort().to_numpy())
    another = pl.DataFrame({"item_id": items, "other": np.roll(items, 1)})
    shifted = texts.join(another, on="item_id", maintain_order="left").with_columns(item_id="other")
    own, other = (faithfulness(rows, evidence).select("modality", "support").drop_nulls() for rows in (texts, shifted))
    both = pl.concat([own.with_columns(true=pl.lit(True)), other.with_columns(true=pl.lit(False))])
    both = pl.concat([both, both.with_columns(modality=pl.lit("all"))])
    both = both.with_columns(rank=pl.col("support").rank("average").over("modality"))
    many = pl.col("true").sum().cast(pl.Float64)
    found = both.group_by("modality").agg(
        pl.col("true").sum().alias("texts"),
        pl.col("support").filter("true").mean().alias("own"),
        pl.col("support").filter(~pl.col("true")).mean().alias("other"),
        auc=(pl.col("rank").filter("true").sum() - many * (many + 1) / 2) / (many * many),
    )
    order = pl.DataFrame({"modality": [*texts["modality"].unique(maintain_order=True), "all"]})
    return order.join(found, on="modality", maintain_order="left")
