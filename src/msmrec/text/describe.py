"""Texts of every modality of every item, from the item's retrieved documents.

A generator decides what is written: `Extractive` (extractive.py) copies, `LLMWriter` (writer.py) asks a language
model. A modality for which nothing was found is the empty string: missing, and nothing is made up in its place.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from msmrec.columns import (
    DOC_ID,
    DOC_IDS,
    GENRES,
    ITEM_ID,
    MODALITY,
    NOTE,
    RAW_ITEM_ID,
    TEXT,
    TIER,
    TITLE,
    YEAR,
)  # fmt: skip
from msmrec.text.knowledge import KnowledgeBase
from msmrec.text.modalities import Modality, check_schema

ITEM_DOC_ID = "item"
"""The doc_id under which an item's own metadata counts as a document."""

_NOT_SAID = (RAW_ITEM_ID, TIER)  # an id says nothing; the tier is made from the ratings

BLOCK = 2_000  # items whose documents are in memory at once

Document = Mapping[str, str]


class ItemDocuments(NamedTuple):
    """What is known about one item."""

    item: Mapping[str, Any]  # its row: item_id, title, year, genres, ...
    documents: Sequence[Document]  # its own metadata first (doc_id 'item'), then the retrieved; no empty fields


class Description(NamedTuple):
    """What a generator says about one modality: the text ('' = nothing found) and the documents it rests on."""

    text: str
    doc_ids: list[str]
    note: str = ""  # how it came about, where that was not as asked: "extractive: answer: no JSON object", "repaired"


class Plan(NamedTuple):
    """What describing will ask for, before anything is sent."""

    requests: int
    known: int  # answered by an earlier run
    prompt_tokens: int  # of those that are not known; estimated
    completion_tokens: int  # at most, estimated
    dollars: float

    def __str__(self) -> str:
        cost = f"${self.dollars:,.2f} at most" if self.dollars else "no price given"
        return (
            f"{self.requests - self.known:,} requests to send, {self.known:,} answered before; about"
            f" {self.prompt_tokens:,} tokens in, {self.completion_tokens:,} out at most: {cost}"
        )


class Generator(ABC):
    """Writes the modality texts of items."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """All that the texts depend on, beside the evidence."""

    @abstractmethod
    def write(
        self, evidence: Iterable[ItemDocuments], schema: Sequence[Modality], cache: Path, total: int | None = None
    ) -> Iterator[list[Description]]:
        """Describe items, one after the other.

        Args:
            evidence: of the items, read as it is needed.
            schema: the modalities to describe.
            cache: where what was paid for is kept.
            total: how many items there are, for the progress bar.

        Yields:
            For each item in turn, one description a modality, in the schema's order.
        """

    def plan(self, evidence: Iterable[ItemDocuments], schema: Sequence[Modality], cache: Path) -> Plan | None:
        """What `write` would ask for and cost, for those that ask anybody; None for those that do not."""
        return None


def gather(items: pl.DataFrame, knowledge: KnowledgeBase, found: pl.DataFrame) -> Iterator[ItemDocuments]:
    """ItemDocuments of all items, a block of documents in memory at a time.

    Args:
        items: one row an item, with `item_id`, `title`, `year` and `genres`.
        knowledge: the documents.
        found: which of them belong to which item, as `KnowledgeBase.retrieve` returns it.
    """
    for block in items.iter_slices(BLOCK):
        mine = found.filter(pl.col(ITEM_ID).is_in(block[ITEM_ID].implode()))
        rows = knowledge.documents.filter(pl.col(DOC_ID).is_in(mine[DOC_ID].implode()))
        documents = {row[DOC_ID]: {key: value for key, value in row.items() if value} for row in rows.to_dicts()}
        of_item: dict[int, list[str]] = {}
        for item_id, doc_id in mine.select(ITEM_ID, DOC_ID).iter_rows():
            of_item.setdefault(item_id, []).append(doc_id)
        for item in block.iter_rows(named=True):
            retrieved = [documents[doc_id] for doc_id in of_item.get(item[ITEM_ID], [])]
            yield ItemDocuments(item, [item_document(item), *retrieved])


def describe(
    items: pl.DataFrame,
    knowledge: KnowledgeBase,
    found: pl.DataFrame,
    schema: Sequence[Modality],
    generator: Generator,
    cache: Path,
) -> Iterator[pl.DataFrame]:
    """Texts of every item and modality, a block of items at a time: memory does not grow with the catalogue.

    Args:
        items, knowledge, found: see `gather`.
        schema: the modalities.
        generator: what writes the texts.
        cache: see `Generator.write`.

    Yields:
        Columns `item_id` (Int32), `modality`, `text`, `doc_ids` (List[str]), `note`; every item x every modality, in
        the order of `items` and `schema`.
    """
    check_schema(schema)
    written = generator.write(gather(items, knowledge, found), schema, cache, len(items))
    for block in items.iter_slices(BLOCK):
        rows = [description for _ in range(len(block)) for description in next(written)]
        yield pl.DataFrame(
            {
                ITEM_ID: np.repeat(block[ITEM_ID].cast(pl.Int32).to_numpy(), len(schema)),
                MODALITY: [modality.name for modality in schema] * len(block),
                TEXT: pl.Series([row.text for row in rows], dtype=pl.String),
                DOC_IDS: pl.Series([row.doc_ids for row in rows], dtype=pl.List(pl.String)),
                NOTE: pl.Series([row.note for row in rows], dtype=pl.String),
            }
        )
    next(written, None)  # lets it end: closes its progress bar and its files


def item_document(item: Mapping[str, Any]) -> dict[str, str]:
    """An item's own metadata as a document: title, genres, year, and every other column of words or lists of words."""
    fields = {DOC_ID: ITEM_DOC_ID, TITLE: item[TITLE], GENRES: ", ".join(item.get(GENRES) or [])}
    if item.get(YEAR) is not None:
        fields[YEAR] = str(item[YEAR])
    for name, value in item.items():
        if name not in fields and name not in _NOT_SAID and isinstance(value, (str, list)):
            fields[name] = value if isinstance(value, str) else _joined([str(entry) for entry in value])
    return {key: value for key, value in fields.items() if value}


def _joined(entries: list[str]) -> str:
    """A list as one string that `LIST_SEPARATOR` takes apart again."""
    return (" | " if any("," in entry for entry in entries) else ", ").join(entries)
