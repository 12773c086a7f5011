"""Whether copied texts were copied: every labelled list and every sentence stands in a document that the text names."""

from collections.abc import Iterator, Sequence

import polars as pl

from msmrec.columns import DOC_ID, DOC_IDS, ITEM_ID, MODALITY, TEXT
from msmrec.text.extractive import LIST_SEPARATOR, split_sentences
from msmrec.text.modalities import Modality

_MIN_PIECE = 2  # words of a piece where documents' ends left two sentences unsplit


def not_verbatim(texts: pl.DataFrame, fields: pl.DataFrame, schema: Sequence[Modality]) -> pl.DataFrame:
    """What texts say that is not written in the documents they name, white space apart.

    A text opens with lists ('Directed by: A, B.'), whose entries must be entries of a field of these documents; what
    follows must be sentences of them, or the start of one.

    Args:
        texts: item_id, modality, text, doc_ids.
        fields: item_id, doc_id, field, value: the documents (`Evidence.fields`).
        schema: the modalities, for their labels.

    Returns:
        item_id, modality, part: one row a part that was not found; without rows where all was copied.
    """
    labels = {f"{label}: " for modality in schema for label in [*modality.fields.values(), "Genre"]}
    documents: dict[tuple[int, str], list[str]] = {}
    for item_id, doc_id, value in fields.select(ITEM_ID, DOC_ID, "value").iter_rows():
        documents.setdefault((item_id, doc_id), []).append(value)
    lost = [
        (item_id, modality, part)
        for item_id, modality, text, doc_ids in texts.select(ITEM_ID, MODALITY, TEXT, DOC_IDS).iter_rows()
        for part in _lost(text, [v for doc_id in doc_ids for v in documents.get((item_id, doc_id), [])], labels)
    ]
    schema_of = {ITEM_ID: pl.Int32, MODALITY: pl.String, "part": pl.String}
    return pl.DataFrame(lost, schema=schema_of, orient="row")


def _lost(text: str, values: list[str], labels: set[str]) -> Iterator[str]:
    """The parts of one text that are in none of its documents' values."""
    while label := next((label for label in labels if text.startswith(label)), ""):
        entries = {entry for value in values for entry in (value, *LIST_SEPARATOR.split(value)) if entry}
        rest = text.removeprefix(label)
        while fitting := [entry for entry in entries if rest.startswith((f"{entry}, ", f"{entry}."))]:
            entry = max(fitting, key=len)
            rest = rest.removeprefix(entry)
            if not rest.startswith(", "):
                break
            rest = rest.removeprefix(", ")
        if not rest.startswith("."):
            yield text
            return
        text = rest.removeprefix(".").lstrip()
    prose = [" ".join(value.split()) for value in values]
    for sentence in split_sentences(text):
        if not any(sentence in value for value in prose) and not _two_pieces(sentence.split(), prose):
            yield sentence


def _two_pieces(words: list[str], prose: list[str]) -> bool:
    """Whether a document's end without a full stop left two of its sentences as one."""
    return any(
        any(" ".join(words[:k]) in value for value in prose) and any(" ".join(words[k:]) in value for value in prose)
        for k in range(_MIN_PIECE, len(words) - _MIN_PIECE + 1)
    )
