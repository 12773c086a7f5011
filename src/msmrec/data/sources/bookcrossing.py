"""Book-Crossing (Ziegler et al. 2005): ratings of books, 0 to 10, from the dump's own three files.

BX-Book-Ratings.csv   "User-ID";"ISBN";"Book-Rating"       0 is an implicit rating: the user has the book
BX-Books.csv          "ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher";three addresses of covers
BX-Users.csv          "User-ID";"Location";"Age"           Age may be NULL without quotes

Latin-1, CRLF. Fields hold quotes, escaped or not, and entities, so no CSV parser reads them all; a field ends at `";"`.

The dump has no times. File order stands in for time, and inside a user it is the order of the ISBNs: whoever learns
sequences from it learns to count. So there is a shuffled order too, as ReLLa shuffles each user's ratings.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from msmrec.artifacts import InputError, file_digest, fingerprint
from msmrec.columns import (
    AGE,
    AUTHOR,
    COUNTRY,
    LINE,
    PERIOD,
    PUBLISHER,
    RATING,
    RAW_ITEM_ID,
    RAW_USER_ID,
    TIMESTAMP,
    TITLE,
    YEAR,
)  # fmt: skip
from msmrec.data.interactions import RawData
from msmrec.data.plain_text import plain
from msmrec.data.sources.base import FileColumns, Source
from msmrec.data.sources.border import Border, interactions

FORMAT = 1  # raise when the same files come to be read otherwise
RATINGS, BOOKS, USERS = "BX-Book-Ratings.csv", "BX-Books.csv", "BX-Users.csv"
_YEARS = (1400, 2005)  # the dump was made in 2004; 2005 was announced
_AGES = (5, 100)
_BANDS = {17: "under 18", 24: "18-24", 34: "25-34", 44: "35-44", 49: "45-49", 55: "50-55", 200: "56 or older"}
_COUNTRIES = {  # other words for the countries that most users are from
    "united states": "usa", "united states of america": "usa", "u.s.a.": "usa", "us": "usa", "america": "usa",
    "uk": "united kingdom", "u.k.": "united kingdom", "england": "united kingdom", "scotland": "united kingdom",
    "wales": "united kingdom", "deutschland": "germany", "nz": "new zealand", "españa": "spain", "italia": "italy",
}  # fmt: skip
_NOWHERE = ["", "n/a", "na", "unknown", "universe", "far away...", "-", "."]


class BookCrossing(Source):
    """The Book-Crossing dump.

    Args:
        order: what stands in for time: the file's order, or one drawn once (seed 0) for all ratings.
        max_bad_share: share of a file's rows that may be unreadable; they are left out and counted.
    """

    def __init__(self, order: Literal["file", "shuffled"] = "file", max_bad_share: float = 0.01) -> None:
        self.order, self.max_bad_share = order, max_bad_share

    @property
    def name(self) -> str:
        """The dataset, and its order where that is not the file's."""
        return "book-crossing" + "-shuffled" * (self.order == "shuffled")

    @property
    def file_columns(self) -> FileColumns:
        """The dump's; it has no times, but a request may."""
        return FileColumns("User-ID", "ISBN", separator=";")

    def _folder(self, root: Path) -> Path:
        folder = next((f for f in (root / "book-crossing", root) if (f / RATINGS).is_file()), root / "book-crossing")
        missing = [name for name in (RATINGS, BOOKS, USERS) if not (folder / name).is_file()]
        if missing:
            raise InputError(
                f"{folder}: no {', '.join(missing)}; put {RATINGS}, {BOOKS} and {USERS} of BX-CSV-Dump.zip there, or"
                " name the folder that holds book-crossing/ by --data.root or MSMREC_DATA"
            )
        return folder

    def fingerprint(self, root: Path) -> str:
        """Depends on the content of the files and on the order."""
        folder = self._folder(root)
        return fingerprint(FORMAT, self.order, *(file_digest(folder / name) for name in (RATINGS, BOOKS, USERS)))

    def read(self, root: Path) -> RawData:
        """Reads the three files.

        Raises:
            InputError: a file is missing, or too many of its rows cannot be read.
        """
        folder = self._folder(root)
        border = Border(folder / RATINGS, self.max_bad_share)
        ratings = _read_ratings(border)
        if self.order == "shuffled":
            place = np.random.default_rng(0).permutation(len(ratings))
            ratings = ratings.with_columns(pl.Series(TIMESTAMP, place))
        books = _read_books(Border(folder / BOOKS, self.max_bad_share))
        users = _read_users(Border(folder / USERS, self.max_bad_share))
        return RawData(ratings, books, users, str(border.path), border.refused)


def _lines(path: Path) -> pl.DataFrame:
    """`text` and `line` of every line but the header and empty ones."""
    text = path.read_bytes().decode("latin-1").split("\n")
    frame = pl.DataFrame({"text": text}).with_row_index(LINE, 1).with_columns(pl.col("text").str.strip_chars("\r "))
    return frame.filter((pl.col(LINE) > 1) & (pl.col("text") != ""))


def _fields(lines: pl.DataFrame, names: list[str], border: Border) -> pl.DataFrame:
    """The fields of lines as columns, and `line`; lines with more or fewer fields are refused."""
    text = pl.col("text").str.replace(";NULL$", ';""').str.strip_prefix('"').str.strip_suffix('"')
    frame = lines.select(text.str.split('";"'), LINE)
    count = pl.col("text").list.len()
    for kind, wrong in {"too few fields": count < len(names), "too many fields": count > len(names)}.items():
        border.refuse(kind, frame.filter(wrong)[LINE])
    split = pl.col("text").list.to_struct(fields=names)
    return frame.filter(count == len(names)).with_columns(split).unnest("text")


def _read_ratings(border: Border) -> pl.DataFrame:
    lines = _lines(border.path)
    frame = _fields(lines, [RAW_USER_ID, RAW_ITEM_ID, RATING], border).with_columns(
        pl.col(RAW_USER_ID).cast(pl.Int64, strict=False),
        _unescaped(RAW_ITEM_ID),
        pl.int_range(pl.len(), dtype=pl.Int64).alias(TIMESTAMP),
    )
    kept = interactions(frame, border, scale=(0, 10), clock=False)
    border.close(len(lines))
    return kept


def _unescaped(name: str) -> pl.Expr:
    r"""\" as " and \\ as \."""
    return pl.col(name).str.replace_all(r'\\(["\\])', "$1").str.strip_chars()


def _read_books(border: Border) -> pl.DataFrame:
    lines = _lines(border.path)
    frame = _fields(lines, [RAW_ITEM_ID, TITLE, AUTHOR, YEAR, PUBLISHER, "small", "medium", "large"], border)
    year = pl.col(YEAR).str.strip_chars().cast(pl.Int32, strict=False)
    known = year.is_between(*_YEARS)
    border.note("an implausible year, taken for unknown", frame.filter(~known.fill_null(False))[LINE])
    texts = [_plain(frame[name]) for name in (TITLE, AUTHOR, PUBLISHER)]
    border.close(len(lines))
    return frame.select(
        _unescaped(RAW_ITEM_ID),
        texts[0],
        pl.when(known).then(year).alias(YEAR),
        *texts[1:],
        pl.when(known).then(pl.format("{}s", year // 10 * 10)).alias(PERIOD),
    )


def _plain(column: pl.Series) -> pl.Series:
    """Texts without escapes, entities and mojibake; null where nothing is left."""
    frame = column.to_frame().select(_unescaped(column.name))
    odd = pl.col(column.name).str.contains(r"[&<\u{80}-\u{ff}]|  ")
    values = frame.filter(odd)[column.name].unique()
    frame = frame.with_columns(pl.col(column.name).replace(values, [plain(value) for value in values]))
    return frame.select(pl.when(pl.col(column.name) != "").then(pl.col(column.name)))[column.name]


def _read_users(border: Border) -> pl.DataFrame:
    lines = _lines(border.path)
    frame = _fields(lines, [RAW_USER_ID, "location", AGE], border)
    country = pl.col("location").str.to_lowercase().str.replace_all(r'[\\"`]', "").str.split(",").list.last()
    country = country.str.strip_chars().replace(_COUNTRIES)
    unknown = country.is_in(_NOWHERE)
    country = country.str.to_titlecase().replace("Usa", "USA")
    age = pl.col(AGE).cast(pl.Int32, strict=False)
    known = age.is_between(*_AGES)
    band = pl.lit(None, pl.String)
    for limit, name in reversed(_BANDS.items()):
        band = pl.when(age <= limit).then(pl.lit(name)).otherwise(band)
    border.note("an implausible age, taken for unknown", frame.filter(age.is_not_null() & ~known)[LINE])
    border.close(len(lines))
    return frame.select(
        pl.col(RAW_USER_ID).cast(pl.Int64, strict=False),
        pl.when(~unknown).then(country).alias(COUNTRY),
        pl.when(known).then(band).alias(AGE),
    )
