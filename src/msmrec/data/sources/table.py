"""A dataset of your own: a CSV or Parquet file of interactions, and optionally one of items and one of users."""

import csv
import gzip
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

import polars as pl
import polars.selectors as cs

from msmrec.artifacts import InputError, file_digest, fingerprint, first_line
from msmrec.columns import GENRES, LINE, RATING, RAW_ITEM_ID, RAW_USER_ID, TIMESTAMP, TITLE, YEAR
from msmrec.data.interactions import RawData, as_text
from msmrec.data.root import find
from msmrec.data.sources.base import FileColumns, Source
from msmrec.data.sources.border import Border, interactions, seconds

FORMAT = 4  # raise when the same files come to be read otherwise


class Table(Source):
    """Interactions in a table.

    A path is looked for under the data root, then here; .csv and .csv.gz (with a header) or .parquet. Ids are read as
    text. Times are seconds or milliseconds since 1970, or dates, the year first. Other columns of items and users are
    kept under their names: words and lists of words become fields of click models, and documents about the items.

    Args:
        interactions: the file.
        user: its column of users' ids; the file of users has the same one.
        item: its column of items' ids; the file of items has the same one.
        rating: its column of ratings; null where there is none: each counts 1.
        timestamp: its column of times; null where there is none: file order stands in for time.
        items: the file of items.
        title: its column of titles, where it has one.
        year: its column of years, where it has one.
        genres: its column of genres, where it has one.
        users: the file of users.
        separator: of the columns of CSV files, one ASCII character, or a tab as backslash t.
        list_separator: of the entries of `genres` in CSV files.
        scale: least and greatest rating; others are left out.
        dataset: its name in folders and tables; by default the file's.
        max_bad_share: share of a file's rows that may be unreadable; they are left out and counted.

    Raises:
        InputError: the separator is not one byte long, two meanings have one column, or `dataset` is a path.
    """

    def __init__(
        self,
        interactions: str,
        user: str = "user_id",
        item: str = "item_id",
        rating: str | None = "rating",
        timestamp: str | None = "timestamp",
        items: str | None = None,
        title: str = "title",
        year: str = "year",
        genres: str = "genres",
        users: str | None = None,
        separator: str = ",",
        list_separator: str = "|",
        scale: tuple[float, float] | None = None,
        dataset: str | None = None,
        max_bad_share: float = 0.01,
    ) -> None:
        separator = "\t" if separator == r"\t" else separator  # as a shell hands it on
        if len(separator.encode()) != 1:
            raise InputError(f"data.source separator {separator!r}: give one ASCII character, such as , or ; or a tab")
        named = [column for column in (user, item, rating, timestamp) if column]
        if len(set(named)) < len(named):
            raise InputError(f"data.source: user, item, rating and timestamp are columns {', '.join(named)}: one twice")
        if dataset is not None and not re.fullmatch(r"\w[\w. -]*", dataset):
            raise InputError(f"data.source dataset {dataset!r}: a name of letters, digits, dots and dashes, no path")
        self.interactions, self.items, self.users = interactions, items, users
        self.columns = {user: RAW_USER_ID, item: RAW_ITEM_ID}
        self.values = {column: name for column, name in ((rating, RATING), (timestamp, TIMESTAMP)) if column}
        self.described = {title: TITLE, year: YEAR, genres: GENRES}
        self.separator, self.list_separator = separator, list_separator
        self.scale, self.dataset, self.max_bad_share = scale, dataset, max_bad_share

    @property
    def name(self) -> str:
        """`dataset`, or the stem of the file of interactions."""
        return self.dataset or Path(self.interactions).name.split(".")[0]

    @property
    def file_columns(self) -> FileColumns:
        """As they were named."""
        user, item = self.columns
        time = next((column for column, name in self.values.items() if name == TIMESTAMP), None)
        return FileColumns(user, item, time, self.separator)

    def _find(self, name: str, root: Path) -> Path:
        return find(name, root)

    def fingerprint(self, root: Path) -> str:
        """Depends on the content of the files and on what the columns mean."""
        digests = [file_digest(self._find(n, root)) if n else None for n in (self.interactions, self.items, self.users)]
        meanings = [self.columns, self.values, self.described, self.separator, self.list_separator, self.scale]
        return fingerprint(FORMAT, *digests, *meanings)

    def read(self, root: Path) -> RawData:
        """Reads the files.

        Raises:
            InputError: a file or a column is missing, or too many rows cannot be read.
        """
        border = Border(self._find(self.interactions, root), self.max_bad_share)
        frame = self._read(border, {**self.columns, **self.values})
        rows, unread = len(frame), sum(border.refused.values())
        clock = TIMESTAMP in self.values.values()
        if RATING not in self.values.values():
            frame = frame.with_columns(pl.lit(1.0).alias(RATING))
        if not clock:
            frame = frame.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias(TIMESTAMP))
        kept = interactions(frame.with_columns(seconds(frame[TIMESTAMP], border.path)), border, self.scale, clock)
        border.close(rows + unread)
        items, users = self._items(root), self._side(self.users, RAW_USER_ID, root)
        for name, side, column in ((self.items, items, RAW_ITEM_ID), (self.users, users, RAW_USER_ID)):
            if len(side) and len(kept) and not side[column].is_in(kept[column].unique().implode()).any():
                raise InputError(
                    f"{name}: none of its {len(side):,} ids is in {border.path}: {side[column][0]!r} here,"
                    f" {kept[column][0]!r} there; mend the ids, or the column that data.source names"
                )
        return RawData(kept, items, users, str(border.path), border.refused)

    def _items(self, root: Path) -> pl.DataFrame:
        texts = {old for old, new in self.described.items() if new != YEAR} | {TITLE, GENRES}
        frame = _renamed(self._side(self.items, RAW_ITEM_ID, root, texts), self.described)
        return frame.with_columns(self._described(frame[name]) for name in (TITLE, YEAR, GENRES) if name in frame)

    def _described(self, column: pl.Series) -> pl.Series:
        """A column of titles, years or genres, as text, whole numbers and lists of text."""
        if column.dtype.is_nested() and (
            column.name != GENRES or getattr(column.dtype, "inner", pl.Struct).is_nested()
        ):
            raise InputError(
                f"{self.items}: the column of {column.name} holds {column.dtype}; give text, a number, or for genres"
                " lists of text, or name another column in data.source"
            )
        if column.name == TITLE:
            return column.cast(pl.String)
        if column.name == GENRES and column.dtype.is_nested():
            return column.cast(pl.List(pl.String))
        if column.name == GENRES:
            entries = column.cast(pl.String).fill_null("").str.split(self.list_separator)
            return entries.list.eval(pl.element().str.strip_chars().replace("", None).drop_nulls())
        if column.dtype in (pl.Date, pl.Datetime):
            return column.dt.year()
        column = column if column.dtype.is_numeric() else column.cast(pl.String)
        years = column.cast(pl.Float64, strict=False).cast(pl.Int32, strict=False)
        if column.dtype == pl.String and len(lost := column.filter(column.is_not_null() & years.is_null())):
            print(f"{self.items}: {len(lost):,} years are no numbers, such as {lost[0]!r}, and unknown", flush=True)
        return years

    def _side(self, name: str | None, id_column: str, root: Path, texts: Collection[str] = ()) -> pl.DataFrame:
        """Items or users; without a file, none. `texts`: columns that are text though they look like numbers."""
        if name is None:
            return pl.DataFrame(schema={id_column: pl.String})
        border = Border(self._find(name, root), self.max_bad_share)
        frame = self._read(border, {old: new for old, new in self.columns.items() if new == id_column})
        unread = sum(border.refused.values())
        border.refuse(f"no {id_column.removeprefix('raw_')}", frame.filter(pl.col(id_column).is_null())[LINE])
        again = frame[id_column].is_not_null() & frame[id_column].is_first_distinct().not_()
        border.note("an id that stands above already, of which the first counts", frame.filter(again)[LINE])
        border.close(len(frame) + unread)
        numbers = frame.drop(LINE).filter(pl.col(id_column).is_not_null())
        if border.path.suffix != ".parquet":  # as text so far
            numbers = numbers.with_columns(
                _typed(c) for c in numbers.drop(id_column, *texts, strict=False).iter_columns()
            )
        return numbers

    def _read(self, border: Border, names: dict[str, str]) -> pl.DataFrame:
        """A file with its columns renamed, ids as text, and `line`."""
        if border.path.suffix == ".parquet":
            try:
                frame = pl.read_parquet(border.path).with_row_index(LINE, 1)
            except pl.exceptions.PolarsError as error:
                raise InputError(f"{border.path}: not readable as Parquet ({first_line(error)})") from None
        else:
            frame = _read_csv(border, self.separator)
        if missing := [name for name in names if name not in frame.columns]:
            there = ", ".join(name for name in frame.columns if name != LINE)
            raise InputError(f"{border.path}: no column {missing[0]} (there are: {there}); mend data.source")
        if lists := [name for name in names if frame[name].dtype.is_nested()]:
            raise InputError(
                f"{border.path}: column {lists[0]} holds {frame[lists[0]].dtype}; give a row for each value"
            )
        words = cs.categorical() | cs.enum() | cs.binary() | cs.by_dtype(pl.Null)  # bytes: as old programs write text
        frame = _renamed(frame.with_columns((words & cs.by_name(*names)).cast(pl.String, strict=False)), names)
        return frame.with_columns(as_text(frame[new]) for new in names.values() if new in (RAW_USER_ID, RAW_ITEM_ID))


def _renamed(frame: pl.DataFrame, names: dict[str, str]) -> pl.DataFrame:
    """With the columns that are there renamed; a column that has a new name already, but is not named itself, goes."""
    there = {old: new for old, new in names.items() if old in frame.columns}
    return frame.drop(new for new in there.values() if new in frame.columns and new not in there).rename(there)


_TOO_MANY, _QUOTE, _NO_UTF8 = "too many fields", "a quote out of place", "letters that are not in UTF-8"


def _read_csv(border: Border, separator: str) -> pl.DataFrame:
    """All columns as text, null where empty; lines with too many fields are refused."""
    try:
        frame = pl.read_csv(border.path, separator=separator, infer_schema=False)
    except pl.exceptions.NoDataError:
        raise InputError(f"{border.path}: empty; put a header and rows there") from None
    except (pl.exceptions.PolarsError, UnicodeDecodeError, OSError):
        pass  # too many fields, a stray quote, no UTF-8, cut off: slower, but line by line
    else:  # Polars renames a second column of a name; nameless ones nobody can mean
        twice = [name for name in frame.columns if name and f"{name}_duplicated_0" in frame.columns]
        _check_header(frame.columns, twice, border)
        return frame.with_row_index(LINE, 2)
    try:
        return _by_line(border, separator)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{border.path}: cannot be unpacked ({error}); fetch it again") from None


def _by_line(border: Border, separator: str) -> pl.DataFrame:
    opener = gzip.open if border.path.suffix == ".gz" else open
    # -sig: the mark that some programs put first is no part of the first column's name.
    with cast(IO[str], opener(border.path, "rt", encoding="utf-8-sig", errors="replace", newline="")) as file:
        lines = _rows(csv.reader(file, delimiter=separator, strict=True), border)
        _, header = next(lines, (0, list[str]()))
        border.check(1)  # the header itself
        header = [name or f"nameless {number}" for number, name in enumerate(header, 1)]
        _check_header(header, [name for name in header if header.count(name) > 1], border)
        rows: list[Sequence[str | int | None]] = []
        for line, row in lines:
            if len(row) > len(header):
                border.refuse(_TOO_MANY, [line])
            elif any("\ufffd" in value for value in row):
                border.refuse(_NO_UTF8, [line])
            elif row:
                rows.append([*(value or None for value in row), *[None] * (len(header) - len(row)), line])
    return pl.DataFrame(rows, schema={**{name: pl.String() for name in header}, LINE: pl.Int64()}, orient="row")


def _rows(reader: Any, border: Border) -> Iterator[tuple[int, list[str]]]:
    """Rows with the line on which they start. Of a quote that is not closed every line that it swallows is refused."""
    while True:
        line = reader.line_num + 1
        try:
            yield line, next(reader)
        except StopIteration:
            return
        except csv.Error:
            border.refuse(_QUOTE, range(line, reader.line_num + 1))


def _check_header(header: list[str], twice: list[str], border: Border) -> None:
    if "\ufffd" in "".join(header):  # what stands for bytes that are none of UTF-8's
        raise InputError(f"{border.path}, line 1: no text in UTF-8; save the table as CSV in UTF-8")
    if twice:
        raise InputError(f"{border.path}: two columns are called {twice[0]}; rename one")


def _typed(column: pl.Series) -> pl.Series:
    """Text as whole numbers where all of it is, so that it can be a field; other numbers, and nothing, stay text."""
    numbers = column.cast(pl.Int64, strict=False)
    return numbers if len(column) > numbers.null_count() == column.null_count() else column
