"""What a document or an item is called: comparable forms of a title, and the year that goes with it.

Catalogues write one film as 'Haine, La (Hate) (1995)', 'La Haine' and 'La Haine (released as Hate) is a 1995 ...'.
Everything here is string work on one title at a time; comparing them is `msmrec.text.retrieve`'s.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

YEAR = r"(?:18[89]\d|19\d\d|20\d\d)"
_TITLE_YEAR = re.compile(rf"\s*\(({YEAR})(?:\s*[-\u2013]\s*(?:{YEAR})?)?\)\s*$")
_ANY_YEAR = re.compile(rf"\b({YEAR})\b")
_TRAILING_ARTICLE = re.compile(
    r"^(.*\S),\s+(the|an?|l[aeo]s?|l'|el|il|gli|i|une?|un[ao]?|d[aei][srn]?|den|det|det?|os?|as)\s*$", re.IGNORECASE
)
_LEADING_ARTICLE = re.compile(r"^(?:the|an?) (?=\S)")
_PARENTHESES = re.compile(r"\(([^()]*)\)")
_ALIAS_LABEL = re.compile(
    r"^(?:(?:also|originally|better|variously|sometimes|internationally)\s+)*"
    r"(?:a\.?\s?k\.?\s?a\.?|known(?: \w+){0,4}? as|released(?: \w+){0,5}? as|titled|original (?:\w+ )?title|"
    r"english(?: title)?|lit(?:erally|\.)?|marketed as|stylized as|[A-Z][a-z]+)\b\s*[:,]?\s*",
    re.IGNORECASE,
)
_ALIAS = re.compile(
    r"(?:also known(?: [\w ]{1,40})? as|a\.k\.a\.|released (?:[\w ]{1,50} )?as|under the (?:[\w ]{1,30})?title|"
    r"known (?:[\w ]{1,40} )?as)\s+[\"\u201c]?([A-Z0-9][^,;.()\"\u201d]{0,80})"
)
_LEAD = re.compile(r"^(.{1,240}?),?\s+(?:is|was|are|were)\s+(?:an?|the|one)\s", re.DOTALL)
_LABELLED = re.compile(rf"^(?:\w+: )?(.{{1,200}}? \({YEAR}\))", re.DOTALL)
_ROMAN = {"ii": "2", "iii": "3", "iv": "4", "vi": "6", "vii": "7", "viii": "8", "ix": "9"}
_SUBTITLE = re.compile(r"\s*(?::|\s[-\u2013\u2014])\s+")


@dataclass(frozen=True)
class Naming:
    """What something is called: `forms` as (normal form, weight in (0, 1]) and the years it may be from."""

    forms: tuple[tuple[str, float], ...]
    years: tuple[int, ...]


def fold(title: str) -> str:
    """The comparable form of one title: no case, accents, punctuation or leading article; '&' is 'and'.

    Roman numerals after the first word become digits, so that 'Halloween II' is 'Halloween 2'.
    """
    moved = _TRAILING_ARTICLE.match(title.strip())
    if moved:
        title = f"{moved[2]} {moved[1]}"
    text = unicodedata.normalize("NFKD", title.replace("&", " and ")).casefold()
    text = "".join(char for char in text if not unicodedata.combining(char))
    text = re.sub(r"['\u2019\u2018`.]", "", text)
    words = re.sub(r"[^\w]+|_", " ", text).split()
    words = words[:1] + [_ROMAN.get(word, word) for word in words[1:]]
    return _LEADING_ARTICLE.sub("", " ".join(words))


def years_in(text: str | None) -> tuple[int, ...]:
    """The plausible years that a short field such as '1999' or '18 Aug 2000' names."""
    return tuple(dict.fromkeys(int(year) for year in _ANY_YEAR.findall(text or "")))


def name_title(title: str, years: tuple[int, ...] = ()) -> Naming:
    """The forms of a catalogue title: the title, alternates in parentheses, and the part before a subtitle."""
    found = _TITLE_YEAR.search(title)
    if found:
        years = (*years, int(found[1]))
        title = title[: found.start()]
    main = _PARENTHESES.sub(" ", title).strip()
    # A word in parentheses may be part of the title: '(500) Days of Summer'.
    wholes = [main, title.replace("(", " ").replace(")", " ")]
    for inner in _PARENTHESES.findall(title):
        alternate = _ALIAS_LABEL.sub("", inner.strip())
        wholes += [inner, alternate]
        if alternate != inner.strip() and not _TRAILING_ARTICLE.match(alternate):
            wholes += re.split(r"\s*/\s*|,\s+", alternate)  # 'a.k.a. All I Wanna Do, The Hairy Bird'
    return _naming(wholes, years)


def name_text(text: str) -> Naming:
    """The forms of a document without a title, from how its text opens ('X (French: Y) is a 1992 film ...').

    A text that does not open that way has no forms and can be found by its words only.
    """
    lead = _LEAD.match(text)
    labelled = _LABELLED.match(text)
    if labelled and (lead is None or labelled.end() <= lead.end(1)):
        # 'Movie: Home Fries (1998), Genres: ...' and 'Hype! (1996) is a documentary'.
        naming = name_title(re.sub(r"^(?:Movie|Film|Title|Book): ", "", labelled[1]))
        if naming.forms:
            return naming
    if lead is None:
        return Naming((), ())
    head = lead[1]
    main = re.split(r",\s+(?=(?:also|released|known|originally|stylized|a\.k\.a))", _PARENTHESES.sub("", head))[0]
    wholes = [main]
    for inner in _PARENTHESES.findall(head):
        wholes += [_ALIAS_LABEL.sub("", part.strip(' "\u201c\u201d')) for part in re.split(r"[;,]", inner)]
    wholes += _ALIAS.findall(text[:400])
    opening = text[lead.end(1) : lead.end(1) + 160]
    sentence = re.split(r"(?<=[a-z)])\.\s", opening)[0]
    year = re.search(rf"\b(?:is|was|are|were)\s+(?:an?|the|one)\s.{{0,60}}?\b({YEAR})\b", sentence, re.DOTALL)
    year = year or re.search(rf"\b(?:released|premiered|first shown)\b[^.]{{0,80}}?\b({YEAR})\b", text[:600])
    return _naming(wholes, (int(year[1]),) if year else years_in(text[:300])[:3])


def name_document(document: Mapping[str, str | None]) -> Naming:
    """What a document is called, by its `title`, `year` and `released`, or else by how its text opens."""
    years = tuple(dict.fromkeys(years_in(document.get("year"))[:1] + years_in(document.get("released"))[:1]))
    if title := document.get("title"):
        return name_title(title, years)
    naming = name_text(document.get("text") or document.get("overview") or document.get("plot") or "")
    return Naming(naming.forms, tuple(dict.fromkeys(years + naming.years)))


def _naming(wholes: list[str], years: tuple[int, ...]) -> Naming:
    forms: dict[str, float] = {}
    for whole in wholes:
        if form := fold(whole):
            forms.setdefault(form, 1.0)
    for whole in wholes[:1]:
        before = _SUBTITLE.split(whole)[0]
        if (form := fold(before)) and before != whole:
            forms.setdefault(form, 0.85)
    return Naming(tuple(forms.items()), tuple(dict.fromkeys(years)))
