"""What a text claims, as terms that can be looked up: names, numbers, years and other words; and what it states.

Everything is string work on whole columns. Text is compared without case, accents and endings: 'robbed' is 'robs',
'November' is 'Nov', 'two' is '2'. A name of several words is the pairs of its neighbouring words, in any order, so that
'Yimou Zhang' is 'Zhang Yimou' and 'Francis Coppola' is found in 'Francis Ford Coppola', while 'Will Travolta' is not
found in a text that names Will Smith and John Travolta. Scripts written without spaces are read sign by sign.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

import polars as pl

from msmrec.text.titles import YEAR

KINDS = ("names", "numbers", "years", "words")

_LONGEST_NAME = 8  # words; a text in capitals is not one name
_BLOCK_CHARS = 4_000_000  # of text at a time: memory stays flat whatever the table's size
_TITLES = r"(?:\p{Lu}|Mr|Mrs|Ms|Dr|St|Jr|Sr|Prof|Lt|Col|Gen|Capt|Sgt|Maj|Rev|vs|No|Vol)\."
_SIGN = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_CORE = rf"{_SIGN}|[\p{{L}}\p{{M}}]+(?:['’][\p{{L}}\p{{M}}]+)*|\d(?:[\d,.]*\d)?"
_GAP = rf"(?:[^\p{{L}}\p{{M}}\d]|{_TITLES})*"
_MARKUP = r"</?[A-Za-z!][^<>]{0,200}>|&#?\w{2,8};"
_ENDING = re.compile(r"^(.{3,}?)(?:ations?|ingly|edly|ings?|ers?|ors?|ies|ied|ed|es|ly|s|e|y)$")
_DOUBLED = re.compile(r"(.)\1$")
_SAME = dict(
    zip("two three four five six seven eight nine ten eleven twelve".split(), map(str, range(2, 13)), strict=True)
) | {
    month: month[:3]
    for month in "january february march april june july august september october november december".split()
}
_STOP_WORDS = frozenset(
    """a about above after again against all almost along already also although always am among an and another any are
    around as at away back be became because become becomes been before behind being between both but by can cannot
    could did do does doing done down due during each either else even ever every few finally first for from further
    had has have having he hence her here hers herself him himself his how however i if in instead into is it its
    itself just later least less like made make makes many me meanwhile might more most much must my near neither
    never no nor not now of off often on once one only onto or other others our out over own per perhaps quite rather
    same she should since so some soon still such than that the their theirs them then there these they this those
    though through throughout thus to together too toward towards under until up upon us very via was we well were what
    when where whether which while who whom whose why with within without would yet you your
    film films movie movies starring star stars starred written plays played st nd rd th""".split()
)

_PERSON_WORD = r"(?:\p{Lu}[\p{L}'’-]*\p{L}|\p{Lu}\.|(?:Jr|Sr|St|Dr)\.)"
_PARTICLE = r"(?:(?:de|la|le|du|da|di|del|der|den|van|von|el|al|bin|ten|ter|y)\s+){0,2}"
_PERSON = rf"{_PERSON_WORD}(?:\s+{_PARTICLE}{_PERSON_WORD}){{1,4}}"
_PEOPLE = rf"{_PERSON}(?:(?:\s*,\s*(?:and\s+|&\s+)?|\s+(?:and|&)\s+){_PERSON})*"
_STATED = {
    "director": [rf"(?i:\bdirected\s+by|\bdirectors?):?\s+{_PEOPLE}"],
    "cast": [
        rf"(?i:\b(?:co-)?starring|\bstars|\bstarred|\b(?:played|portrayed)\s+by):?\s+{_PEOPLE}",
        rf"{_PERSON}\s+(?:(?:plays|played|portrays|portrayed|stars|starred|co-stars)\b|as\s+\p{{Lu}})",
    ],
}
_LEAD = r"^(?i:directed\s+by|directors?|(?:co-)?starring|stars|starred|(?:played|portrayed)\s+by):?\s+"
_TAIL = r"\s+(?:(?:plays|played|portrays|portrayed|stars|starred|co-stars)|as\s+\p{Lu})$"
_KIND_OF_FILM = "film|movie|picture|feature|comedy|drama|thriller|western|musical|documentary|romance|horror|adventure"
_RELEASED = (
    rf"\({YEAR}\)|(?i:\breleased?\b|\bpremiered\b)[^.!?;()]{{0,60}}?\b{YEAR}\b"
    rf"|\b(?i:an?)\s+{YEAR}\s+(?:[\w-]+\s+){{0,5}}?(?i:{_KIND_OF_FILM})\b"
)


def claims(texts: pl.Series) -> pl.DataFrame:
    """What each text claims, each claim once.

    A name is two or more capitalised words on end, or one that does not open a sentence; stop words are in no name.

    Returns:
        row (UInt32, position in `texts`), kind (one of KINDS), claim, term. A name of n > 1 words has n - 1 rows, its
        pairs; every other claim has one.
    """
    return _in_blocks(texts, _claims)


def terms(texts: pl.Series) -> pl.DataFrame:
    """What claims are looked up in: row, term; all words, numbers and pairs of capitalised neighbours, each once."""
    return _in_blocks(texts, _terms)


def stated_years(texts: pl.Series) -> pl.DataFrame:
    """Years of release that texts state: '(1995)', 'released in 1995', 'a 1995 American film'. row, year (Int32)."""
    found = _matches(_clean(texts), _RELEASED)
    return found.select("row", year=pl.col("match").str.extract(f"({YEAR})").cast(pl.Int32)).unique(maintain_order=True)


def stated_people(texts: pl.Series, kind: str) -> pl.DataFrame:
    """People that texts state as `kind`: 'director' ('directed by X'), 'cast' ('starring X, Y', 'X plays', 'X as Z').

    Only names of two or more words: 'Directed by Michael Mann, Heat is ...' states one director.

    Returns:
        row, name (as written).
    """
    clean = _clean(texts)
    found = pl.concat(_matches(clean, pattern) for pattern in _STATED[kind])  # 'Big Fish stars Al Po' matches both
    names = found.select("row", pl.col("match").str.replace(_LEAD, "").str.replace(_TAIL, "").str.extract_all(_PERSON))
    return names.explode("match").drop_nulls().rename({"match": "name"}).unique(maintain_order=True)


def name_words(names: pl.Series) -> pl.DataFrame:
    """The comparable words of each name, in order and without initials: row, word."""
    tokens = _tokens(names)
    return tokens.filter(~pl.col("stop")).select("row", pl.col("stem").alias("word"))


def pair(word: str, run: str, distance: int = 1) -> pl.Expr:
    """The two words (columns' names) at a distance within a run, in alphabetical order; null where a run begins."""
    other = pl.when(pl.col(run) == pl.col(run).shift(distance)).then(pl.col(word).shift(distance))
    both = pl.concat_str(pl.min_horizontal(word, other), pl.max_horizontal(word, other), separator=" ")
    return pl.when(other.is_not_null()).then(both)


def _in_blocks(texts: pl.Series, read: Callable[[pl.Series], pl.DataFrame]) -> pl.DataFrame:
    texts = texts.fill_null("")
    block = texts.str.len_chars().cast(pl.UInt64).cum_sum() // _BLOCK_CHARS
    starts = [*block.rle_id().arg_unique().to_list(), len(texts)] if len(texts) else [0, 0]
    parts = [
        read(texts[start:end]).with_columns(pl.col("row") + pl.lit(start, pl.UInt32)) for start, end in pairwise(starts)
    ]
    return pl.concat(parts)


def _clean(texts: pl.Series) -> pl.Series:
    """Without markup and accents; the case is kept, it tells names."""
    plain = texts.fill_null("").str.replace_all(_MARKUP, " ").str.normalize("NFKD")
    return plain.str.replace_all(r"[\u0300-\u036f]", "")


def _matches(texts: pl.Series, pattern: str) -> pl.DataFrame:
    found = pl.DataFrame({"row": pl.int_range(len(texts), dtype=pl.UInt32, eager=True), "match": texts})
    return found.with_columns(pl.col("match").str.extract_all(pattern)).explode("match").drop_nulls()


def _tokens(texts: pl.Series) -> pl.DataFrame:
    """row, stem, number, stop, named (may be part of a name), breaks (follows a break), opens (starts a sentence)."""
    found = _matches(_clean(texts), f"{_GAP}(?:{_CORE})")
    seen = found.select(pl.col("match").unique())  # the same words come again and again: each is read once
    seen = seen.with_columns(
        gap=pl.col("match").str.extract(rf"^({_GAP})").str.replace_all(_TITLES, ""),
        word=pl.col("match").str.extract(rf"({_CORE})$"),
    )
    word = pl.col("word")
    stop = word.str.to_lowercase().is_in(list(_STOP_WORDS)) | word.str.contains(r"^[\p{Latin}\p{Greek}\p{Cyrillic}]$")
    seen = seen.select(
        "match",
        stem=pl.Series(map(stem, seen["word"]), dtype=pl.String),
        number=word.str.contains(r"^\d"),
        stop=stop,
        named=word.str.contains(r"^\p{Lu}") & ~stop,
        breaks=pl.col("gap").str.contains(r"[^\s'’*_-]"),
        opens=pl.col("gap").str.contains(r"[.!?…\n]"),
    )
    first = pl.col("row").ne_missing(pl.col("row").shift(1))
    found = found.join(seen, on="match", how="left", maintain_order="left").drop("match")
    return found.with_columns(pl.col("breaks") | first, pl.col("opens") | first)


@lru_cache(200_000)
def stem(word: str) -> str:
    """The comparable form of one word or number."""
    if word[0].isdigit():
        return word.replace(",", "")
    word = re.sub(r"['’](?:s|d|m|t|ll|re|ve)?$", "", word.lower()).replace("'", "").replace("’", "")
    if word in _SAME:
        return _SAME[word]
    return _DOUBLED.sub(r"\1", _ENDING.sub(r"\1", word))


def _runs(tokens: pl.DataFrame) -> pl.DataFrame:
    """Tokens with `run`, the number of the run of capitalised words that each is in, and `size`, that run's words."""
    begins = ~(pl.col("named") & pl.col("named").shift(1, fill_value=False)) | pl.col("breaks")
    place = pl.int_range(pl.len()).over("run")
    tokens = tokens.with_columns(run=begins.cum_sum()).with_columns(run=(place % _LONGEST_NAME == 0).cum_sum())
    return tokens.with_columns(size=pl.len().over("run"))


def _claims(texts: pl.Series) -> pl.DataFrame:
    tokens = _runs(_tokens(texts))
    is_year = pl.col("number") & pl.col("stem").str.contains(f"^{YEAR}$")
    tokens = tokens.filter(~pl.col("stop")).with_columns(
        kind=pl.when(is_year)
        .then(pl.lit("years"))
        .when("number")
        .then(pl.lit("numbers"))
        .when(pl.col("named") & ((pl.col("size") > 1) | ~pl.col("opens")))
        .then(pl.lit("names"))
        .otherwise(pl.lit("words")),
    )
    single = tokens.filter((pl.col("kind") != "names") | (pl.col("size") == 1))
    longer = tokens.filter((pl.col("kind") == "names") & (pl.col("size") > 1))
    names = longer.group_by("run", maintain_order=True).agg(claim=pl.col("stem").str.join(" "))
    longer = longer.with_columns(term=pair("stem", "run")).join(names, on="run").drop_nulls("term")
    return pl.concat(
        [
            single.select("row", "kind", claim="stem", term="stem"),
            longer.select("row", "kind", "claim", "term"),
        ]
    ).unique(maintain_order=True)


def _terms(texts: pl.Series) -> pl.DataFrame:
    tokens = _runs(_tokens(texts)).filter(~pl.col("stop"))
    pairs = [tokens.select("row", term=pair("stem", "run", distance)).drop_nulls() for distance in (1, 2)]
    return pl.concat([tokens.select("row", term="stem"), *pairs]).unique(maintain_order=True)
