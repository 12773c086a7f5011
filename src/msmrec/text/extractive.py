"""Modality texts copied from an item's documents: nothing is written that they do not say."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tqdm import tqdm

from msmrec.artifacts import InputError
from msmrec.columns import DOC_ID, TITLE
from msmrec.text.describe import Description, Document, Generator, ItemDocuments
from msmrec.text.knowledge import TEXT_FIELDS
from msmrec.text.modalities import Modality

_CLOSING = r"[\"'\u201d\u2019)\u00bb\u300d\u300f\uff09]*"
_SENTENCE_END = re.compile(  # the stops of Chinese, Japanese, Hindi and Arabic (the second kind) may lack the space
    rf"(?:(?<=[.!?\u2026]){_CLOSING}\s+|(?<=[\u3002\uff01\uff1f\u0964\u061f]){_CLOSING}\s*)"
    r"(?=[\"'\u201c\u2018(\[\u00ab\u201e\u00bf\u00a1\u300c\u300e\uff08]?([^\W_]))"  # its case is looked at afterwards
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Lt|Col|Gen|Capt|Sgt|Maj|Rev|Hon|Gov|Sen|Mt|Ft|No|Nos|vs|etc|ca|approx|"
    r"Co|Corp|Inc|Ltd|Bros|Vol|Pt|feat|lit|ed|dir|U\.S|U\.K|D\.C|L\.A|a\.k\.a))\.$"
)
_INITIAL = re.compile(r"\b([^\W\d_])\.$")
# Scripts written without spaces, as in claims.py: Japanese, Han, Thai and Lao, Burmese, Khmer
_SIGNS = (
    r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
)
_SIGN = re.compile(rf"[{_SIGNS}]")
_SIGN_OR_WORD = re.compile(rf"[{_SIGNS}][^\w\s]*|[^\s{_SIGNS}]+")  # a sign with the marks and stops behind it
LIST_SEPARATOR = re.compile(r"\s*\|\s*|,\s+")
_NO_PROSE = re.compile(r"^(?:no (?:overview|plot)\b|abstract not found|add a plot|n/a\b)|: \[['\"]", re.IGNORECASE)
_YEAR = re.compile(r"\b(?:18|19|20)\d\d\b")
_DATE = re.compile(
    r"(?:[\d\s./-]|\b(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|"
    r"oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\b|(?<=\d)(?:st|nd|rd|th)\b)+"
)
_WORD = re.compile(r"\w+")
_WRITTEN = re.compile(r"\S+")


@dataclass
class Extractive(Generator):
    """Modality texts copied from the documents: sentences chosen by the schema's cues, and labelled fields.

    A sentence is used for one modality only, order is kept, and a sentence that says what another has said is left out.

    Attributes:
        max_words: most words of one text (signs, in scripts without spaces); whole sentences and list entries are
            dropped to keep it.
        max_values: most entries of a list field ('Starring: ...').
        near_identical: share of common words (Jaccard) from which two sentences count as the same.
    """

    max_words: int = 60
    max_values: int = 6
    near_identical: float = 0.7

    def __post_init__(self) -> None:
        if self.max_words < 1 or self.max_values < 1:
            raise InputError(f"max_words and max_values must be positive, not {self.max_words} and {self.max_values}")

    @property
    def fingerprint(self) -> str:
        """See `Generator.fingerprint`."""
        return repr(self)

    def write(
        self, evidence: Iterable[ItemDocuments], schema: Sequence[Modality], cache: Path, total: int | None = None
    ) -> Iterator[list[Description]]:
        """See `Generator.write`."""
        for _, documents in tqdm(evidence, total=total, desc="describe", unit="item"):
            yield self.generate(documents, schema)

    def generate(self, documents: Sequence[Document], schema: Sequence[Modality]) -> list[Description]:
        """Descriptions of the one item that the documents belong to."""
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
                        sentence = _first_words(sentence, self.max_words)  # better its start than nothing
                    if owner is None or owner.closed or not owner.room_for(sentence):
                        if owner is not None:
                            owner.closed = True  # a later, shorter sentence would not follow on
                        rest.append((sentence, document[DOC_ID]))
                    elif self._is_new(sentence, said):
                        owner.add(sentence, document[DOC_ID])
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
                whole = document.get(name, "")
                for value in [whole] if name == TITLE else LIST_SEPARATOR.split(whole):  # a title's commas are its own
                    key = re.sub(r"\s*\(.*?\)", "", value).casefold()
                    year = _YEAR.search(value) if name != TITLE else None
                    # '22 Nov 1995' and '1995-11-22' are one date. A year in brackets counts as one too, which drops
                    # writers '(from the 1923 play)' of two films of MovieLens; texts that results rest on have it so.
                    if year and (_DATE.fullmatch(key) or not _YEAR.search(key)):
                        key = year.group()
                    if key and (name != "genres" or name in modality.fields or key in wanted):
                        values.setdefault(key, (value, document[DOC_ID]))
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
        return self.words + len(_word_ends(part)) <= self.max_words

    def add(self, part: str, *doc_ids: str) -> bool:
        """Append a part, or refuse it where it does not fit whole."""
        if not self.room_for(part):
            return False
        self.words += len(_word_ends(part))
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
        before = text[max(start, end.start() - 12) : end.start()]
        initial = _INITIAL.search(before)
        if not (end[1].islower() or _ABBREVIATION.search(before) or (initial and initial[1].isupper())):
            sentences.append(text[start : end.end()])
            start = end.end()
    sentences.append(text[start:])
    return [" ".join(sentence.split()) for sentence in sentences if sentence.strip()]


def _word_ends(text: str) -> list[int]:
    """Where the words of a text end; where most of it is signs of scripts without spaces, each sign is a word."""
    by_sign = len(_SIGN.findall(text)) > len(text) / 2
    return [word.end() for word in (_SIGN_OR_WORD if by_sign else _WRITTEN).finditer(text)]


def _first_words(sentence: str, count: int) -> str:
    ends = _word_ends(sentence)
    return sentence[: ends[count - 1]] if len(ends) > count else sentence
