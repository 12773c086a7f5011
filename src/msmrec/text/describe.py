"""Texts of every modality of every item, from the item's retrieved documents.

A generator decides what is written; `Extractive` only copies. A modality for which nothing was found is the empty
string: missing, and nothing is made up in its place.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, Protocol

import polars as pl

from msmrec.artifacts import InputError
from msmrec.text.knowledge import TEXT_FIELDS, KnowledgeBase
from msmrec.text.modalities import MOVIE_MODALITIES, Modality, check_schema

ITEM_DOC_ID = "item"
"""The doc_id under which an item's own metadata counts as a document."""

Document = Mapping[str, str]

_SENTENCE_END = re.compile(r"(?<=[.!?\u2026])[\"'\u201d\u2019)]*\s+(?=[\"'\u201c\u2018(\[]?[A-Z0-9\u00c0-\u00de])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Lt|Col|Gen|Capt|Sgt|Maj|Rev|Hon|Gov|Sen|Mt|Ft|No|Nos|vs|etc|ca|approx|"
    r"Co|Corp|Inc|Ltd|Bros|Vol|Pt|feat|lit|ed|dir|U\.S|U\.K|D\.C|L\.A|a\.k\.a)|\b[A-Z])\.$"
)
LIST_SEPARATOR = re.compile(r"\s*\|\s*|,\s+")
_NO_PROSE = re.compile(r"^(?:no (?:overview|plot)\b|abstract not found|add a plot|n/a\b)|: \[['\"]", re.IGNORECASE)
_YEAR = re.compile(r"\b(?:18|19|20)\d\d\b")
_WORD = re.compile(r"\w+")


class Description(NamedTuple):
    """What a generator says about one modality: the text ('' = nothing found) and the documents it rests on."""

    text: str
    doc_ids: list[str]


class Generator(Protocol):
    """Writes the modality texts of one item from its documents."""

    def generate(
        self, item: Mapping[str, Any], documents: Sequence[Document], schema: Sequence[Modality]
    ) -> list[Description]:
        """Describe one item.

        Args:
            item: the item's row (`item_id`, `title`, `year`, `genres`, ...).
            documents: the item's own metadata first (doc_id 'item'), then the retrieved documents; absent fields are
                absent keys.
            schema: the modalities to describe.

        Returns:
            One description a modality, in the schema's order.
        """
        ...


def describe(
    items: pl.DataFrame,
    knowledge: KnowledgeBase,
    found: pl.DataFrame,
    schema: Sequence[Modality] = MOVIE_MODALITIES,
    generator: Generator | None = None,
    progress: bool = False,
) -> pl.DataFrame:
    """Texts of every item and modality.

    Args:
        items: one row an item, with `item_id`, `title`, `year` and `genres`.
        knowledge: the documents.
        found: which of them belong to which item, as `KnowledgeBase.retrieve` returns it.
        schema: the modalities.
        generator: what writes the texts; `Extractive()` when not given.
        progress: show a progress bar.

    Returns:
        Columns `item_id` (Int32), `modality`, `text`, `doc_ids` (List[str]); every item x every modality, in the
        order of `items` and `schema`.
    """
    from tqdm import tqdm

    check_schema(schema)
    generator = generator or Extractive()
    rows = knowledge.documents.filter(pl.col("doc_id").is_in(found["doc_id"].unique().to_list()))
    documents = {
        row["doc_id"]: {key: value for key, value in row.items() if value} for row in rows.iter_rows(named=True)
    }
    of_item: dict[int, list[str]] = {}
    for item_id, doc_id in found.select("item_id", "doc_id").iter_rows():
        of_item.setdefault(item_id, []).append(doc_id)
    texts: list[str] = []
    doc_ids: list[list[str]] = []
    for item in tqdm(items.iter_rows(named=True), total=len(items), desc="describe", disable=not progress):
        retrieved = [documents[doc_id] for doc_id in of_item.get(item["item_id"], [])]
        for description in generator.generate(item, [item_document(item), *retrieved], schema):
            texts.append(description.text)
            doc_ids.append(description.doc_ids)
    return pl.DataFrame(
        {
            "item_id": items["item_id"].cast(pl.Int32).gather([i for i in range(len(items)) for _ in schema]),
            "modality": [modality.name for modality in schema] * len(items),
            "text": pl.Series(texts, dtype=pl.String),
            "doc_ids": pl.Series(doc_ids, dtype=pl.List(pl.String)),
        }
    )


def item_document(item: Mapping[str, Any]) -> dict[str, str]:
    """An item's own metadata as a document."""
    fields = {"doc_id": ITEM_DOC_ID, "title": item["title"], "genres": ", ".join(item.get("genres") or [])}
    if item.get("year") is not None:
        fields["year"] = str(item["year"])
    return {key: value for key, value in fields.items() if value}


@dataclass
class Extractive:
    """Modality texts copied from the documents: sentences chosen by the schema's cues, and labelled fields.

    A sentence is used for one modality only, order is kept, and a sentence that says what another has said is left out.

    Attributes:
        max_words: most words of one text; whole sentences and list entries are dropped to keep it.
        max_values: most entries of a list field ('Starring: ...').
        near_identical: share of common words (Jaccard) from which two sentences count as the same.
    """

    max_words: int = 60
    max_values: int = 6
    near_identical: float = 0.7

    def __post_init__(self) -> None:
        if self.max_words < 1 or self.max_values < 1:
            raise InputError(f"max_words and max_values must be positive, not {self.max_words} and {self.max_values}")

    def generate(
        self, item: Mapping[str, Any], documents: Sequence[Document], schema: Sequence[Modality]
    ) -> list[Description]:
        """See `Generator.generate`."""
        drafts = [_Draft(self.max_words) for _ in schema]
        for draft, modality in zip(drafts, schema, strict=True):
            self._take_fields(draft, modality, documents)
        said: list[frozenset[str]] = []  # word sets of the sentences used so far, over all modalities
        rest: list[tuple[str, str]] = []  # (sentence, doc_id) that no modality has claimed as its prose
        for document in documents:
            for name in dict.fromkeys([*TEXT_FIELDS, *(field for modality in schema for field in modality.prose)]):
                owner = next((d for d, modality in zip(drafts, schema, strict=True) if name in modality.prose), None)
                for sentence in split_sentences(document.get(name, "")):
                    if _NO_PROSE.search(sentence):  # a placeholder, or a record printed as text
                        continue
                    if owner is not None and not owner.parts:
                        sentence = " ".join(sentence.split()[: self.max_words])  # better its start than nothing
                    if owner is None or owner.closed or not owner.room_for(sentence):
                        if owner is not None:
                            owner.closed = True  # a later, shorter sentence would not follow on
                        rest.append((sentence, document["doc_id"]))
                    elif self._is_new(sentence, said):
                        owner.add(sentence, document["doc_id"])
        patterns = [_cue_pattern("|".join(modality.cues)) for modality in schema]
        for sentence, doc_id in rest:
            lowered = sentence.lower()
            scores = [len({match.group() for match in cues.finditer(lowered)}) for cues in patterns]
            # the best cue first; a full modality passes the sentence on to the next best
            for position in sorted(range(len(schema)), key=lambda k: (-scores[k], drafts[k].words, k)):
                if scores[position] == 0:
                    break
                if not drafts[position].closed and drafts[position].room_for(sentence):
                    if self._is_new(sentence, said):
                        drafts[position].add(sentence, doc_id)
                    break
        return [draft.finish() for draft in drafts]

    def _take_fields(self, draft: "_Draft", modality: Modality, documents: Sequence[Document]) -> None:
        wanted = {genre.casefold() for genre in modality.genres}
        for name, label in [*modality.fields.items(), *([("genres", "Genre")] if wanted else [])]:
            values: dict[str, tuple[str, str]] = {}
            for document in documents:
                for value in LIST_SEPARATOR.split(document.get(name, "")):
                    year = _YEAR.search(value)  # '22 Nov 1995' and '1995-11-22' are one date
                    key = year.group() if year else re.sub(r"\s*\(.*?\)", "", value).casefold()
                    if key and (name != "genres" or name in modality.fields or key in wanted):
                        values.setdefault(key, (value, document["doc_id"]))
            for most in range(min(self.max_values, len(values)), 0, -1):
                chosen = list(values.values())[:most]
                if draft.add(f"{label}: {', '.join(value for value, _ in chosen)}.", *(doc for _, doc in chosen)):
                    break

    def _is_new(self, sentence: str, said: list[frozenset[str]]) -> bool:
        """Whether no sentence so far has the same words; remembers the sentence if so."""
        words = frozenset(_WORD.findall(sentence.casefold()))
        if not words or any(len(words & other) >= self.near_identical * len(words | other) for other in said):
            return False
        said.append(words)
        return True


@cache
def _cue_pattern(cues: str) -> re.Pattern[str]:
    """One pattern of all cues of a modality, at word starts; without any it matches nothing."""
    return re.compile(rf"\b(?:{cues})" if cues else r"(?!)")


class _Draft:
    """A text that is growing up to its limit."""

    def __init__(self, max_words: int) -> None:
        self.max_words = max_words
        self.words = 0
        self.closed = False
        self.parts: list[str] = []
        self.doc_ids: dict[str, None] = {}

    def room_for(self, part: str) -> bool:
        return self.words + len(part.split()) <= self.max_words

    def add(self, part: str, *doc_ids: str) -> bool:
        """Append a part, or refuse it where it does not fit whole."""
        if not self.room_for(part):
            return False
        self.words += len(part.split())
        self.parts.append(part)
        self.doc_ids.update(dict.fromkeys(doc_ids))
        return True

    def finish(self) -> Description:
        return Description(" ".join(self.parts), list(self.doc_ids))


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, verbatim but for white space; abbreviations and initials do not end one."""
    sentences: list[str] = []
    start = 0
    for end in _SENTENCE_END.finditer(text):
        if not _ABBREVIATION.search(text[max(start, end.start() - 12) : end.start()]):
            sentences.append(text[start : end.end()])
            start = end.end()
    sentences.append(text[start:])
    return [" ".join(sentence.split()) for sentence in sentences if sentence.strip()]
