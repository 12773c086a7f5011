"""The section on modality texts: how far they rest on what is known about their items, and what they look like."""

import polars as pl

from msmrec.columns import COUNT, ITEM_ID, MODALITY, TEXT, TITLE
from msmrec.report.figures import number, shorten, table_of
from msmrec.report.page import Block, Missing, Prose, Table
from msmrec.report.run_files import RunFiles
from msmrec.run_folder import OpenRun
from msmrec.text.faithfulness import Evidence, summarise
from msmrec.text.item_text import ItemText, how_described

EXAMPLES = 2  # items whose texts are shown


def texts(run: RunFiles, opened: OpenRun | None, why_closed: str) -> list[Block]:
    """Coverage, support of claims and contradictions by modality, and some items' texts."""
    if not run.reads_texts:
        raise Missing("The run's model reads no modality texts.")
    if opened is None:
        raise Missing(why_closed)
    data = opened.data
    text = opened.model.text
    assert isinstance(text, ItemText)
    made = text.texts(data.dataset, data.root, data.cache)
    summary = summarise(made, Evidence.of(data.dataset.items, text.documents(data.dataset, data.root, data.cache)))
    words = {
        "texts": "texts",
        "coverage": "of the items",
        "length": "words",
        "diversity": "diversity",
        "claims": "claims a text",
        "name_support": "names",
        "number_support": "numbers",
        "year_support": "years",
        "word_support": "words",
        "support": "all, weighted",
        "contradictions": "contradictions in 100 texts",
    }
    names = ["modality", *(words.get(name, name) for name in summary.columns[1:])]
    about = (
        "Shares of a text's names, numbers, years and words that its item's documents hold, averaged over texts; the"
        " last but one weighs rare words more. Diversity: mean cosine distance of two items' texts."
    )
    blocks: list[Block] = [Prose(about), table_of(summary, "Texts by modality", names, 3)]
    odd = how_described(made)
    if len(odd):
        blocks.append(table_of(odd, "Items described otherwise than asked", ["what", "items"]))
    told = made.filter(pl.col(TEXT) != "")
    popular = data.dataset.items.sort(COUNT, descending=True).join(told, on=ITEM_ID, how="semi", maintain_order="left")
    for item, title in popular.head(EXAMPLES).select(ITEM_ID, TITLE).iter_rows():
        rows = [
            [name, shorten(said, 400)]
            for name, said in told.filter(pl.col(ITEM_ID) == item).select(MODALITY, TEXT).iter_rows()
        ]
        blocks.append(
            Table(f"The texts of {title} ({number(len(rows))} modalities)", ["modality", "text"], rows, folded=True)
        )
    return blocks
