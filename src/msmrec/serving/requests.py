"""What is asked for: files of users, of histories or of pairs, with raw ids, made into ids and histories of them."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from msmrec.artifacts import InputError, first_line
from msmrec.columns import ITEM_ID, RAW_ITEM_ID, RAW_USER_ID, TIMESTAMP, USER_ID
from msmrec.data.interactions import as_text
from msmrec.data.prepare import Dataset
from msmrec.data.sources.base import FileColumns
from msmrec.data.sources.border import seconds, unscaled
from msmrec.serving.rank import Histories, dataset_histories

USERS = (RAW_USER_ID, USER_ID, "user")  # names of a column of raw user ids, beside that of the run's own source
ITEMS = (RAW_ITEM_ID, ITEM_ID, "item")
STDIN = Path("standard input")  # what is given as - on the command line, under the name that messages call it


class Requests(NamedTuple):
    """Users to serve, what they have seen, and what was left out of the file."""

    raw_user_ids: pl.Series  # (S,) as the file or the dataset writes them
    histories: Histories  # of the same S users
    without_history: pl.Series  # raw ids of users of whose items none is known
    notes: list[str]  # a line for each kind of row that was not used


class Pairs(NamedTuple):
    """Users and items to answer for, and what was left out of the file."""

    raw: pl.DataFrame  # raw_user_id, raw_item_id as the dataset writes them; S rows in the order of the file
    user: np.ndarray  # (S,) user_id
    item: np.ndarray  # (S,) item_id
    notes: list[str]  # a line for each kind of row that was not used


def file_or_stdin(text: str) -> Path:
    """What a command line names: a file that must be there, or - for CSV on standard input.

    Raises:
        InputError: no such file.
    """
    path = STDIN if text == "-" else Path(text)
    if path is not STDIN and not path.is_file():
        raise InputError(f"{path}: no such file")
    return path


def read_users(path: Path, dataset: Dataset, columns: FileColumns, before: int | None) -> Requests:
    """Users of the dataset, from a file with a column of raw ids (or .txt: an id a line).

    Args:
        path: see `read_table`, or .txt. columns: what the run's source calls them. before: see `dataset_histories`.

    Raises:
        InputError: no readable file, no such column, or no known user in it.
    """
    if path.suffix == ".txt":
        raw = _ids(pl.Series(RAW_USER_ID, _lines(path)))
    else:
        raw = _ids(_column(read_table(path, columns), (columns.user, *USERS), path))
    raw = raw.filter(raw != "")
    if raw.is_empty():
        raise InputError(f"{path}: no user in it; give a raw user id a row")
    notes = []
    if again := len(raw) - raw.n_unique():
        notes.append(f"{path}: {again:,} rows name a user again; each is served once")
    raw = raw.unique(maintain_order=True)
    known = dataset.users.select(RAW_USER_ID, USER_ID).with_columns(key=_ids(dataset.users[RAW_USER_ID]))
    found = pl.DataFrame({"key": raw}).join(known, on="key", how="left", maintain_order="left")
    unknown = found.filter(pl.col(USER_ID).is_null())["key"]
    if len(unknown) == len(found):
        raise InputError(f"{path}: none of its {len(found):,} users is in {dataset.info['name']}, such as {raw[0]}")
    if len(unknown):
        notes.append(f"{path}: {len(unknown):,} users are not in {dataset.info['name']}: {_some(unknown)}")
    found = found.drop_nulls(USER_ID)
    histories = dataset_histories(dataset, found[USER_ID].to_numpy().astype(np.int64), before)
    some = histories.end > histories.start
    kept = Histories(histories.items, *(column[some] for column in histories[1:]))
    return Requests(
        found[RAW_USER_ID].filter(pl.Series(some)), kept, found[RAW_USER_ID].filter(pl.Series(~some)), notes
    )


def read_histories(path: Path, items: pl.DataFrame, columns: FileColumns) -> Requests:
    """New users, from a file of what they have seen: raw user id, raw item id and, where there is one, a time.

    Columns are called as in the source, so that a file that was trained on is one, or raw_user_id and so on. Times are
    seconds or milliseconds since 1970, or dates; none are read where the source has none.

    Rows of a user are put in the order of their times, and of equal times, or without any, in the file's. Of an item
    that a user has twice the later row counts. Ratings may stand beside and are not read: models rank by what was seen.

    Raises:
        InputError: no readable file, or a column or a value is missing.
    """
    table = read_table(path, columns)
    frame = _users_and_items(table, columns, path).rename({"item": "key"})
    clock = next((name for name in (columns.timestamp, TIMESTAMP) if name in table.columns), None)
    if columns.timestamp and clock:
        time = seconds(_column(table, [clock], path), path).cast(pl.Float64, strict=False)
        bad = (time.is_null() | time.is_finite().not_()).arg_true()
        if len(bad):
            raise InputError(
                f"{path}: no number and no date as {clock} in data row {bad[0] + 1} ({len(bad):,} such rows)"
            )
        frame = frame.with_columns(time=time).with_columns(unscaled(pl.col("time")))
    users = frame["user"].unique(maintain_order=True)
    notes, known = [], items.select(ITEM_ID).with_columns(key=_ids(items[RAW_ITEM_ID]))
    frame = frame.join(known, on="key", how="left", maintain_order="left")
    unknown = frame.filter(pl.col(ITEM_ID).is_null())["key"]
    if len(unknown):
        names = unknown.unique(maintain_order=True)
        notes.append(f"{path}: {len(unknown):,} rows with {len(names):,} items that the model does not know are left"
                     f" out: {_some(names)}")  # fmt: skip
    frame = frame.drop_nulls(ITEM_ID)
    if "time" in frame.columns:
        frame = frame.sort("time", maintain_order=True)
    once = frame.unique(["user", ITEM_ID], keep="last", maintain_order=True)
    if again := len(frame) - len(once):
        notes.append(f"{path}: {again:,} rows have an item that the same user has again later; the last one counts")
    number = pl.DataFrame({"user": users, "row": np.arange(len(users))})
    once = once.join(number, on="user", how="left", maintain_order="left").sort("row", maintain_order=True)
    count = np.bincount(once["row"].to_numpy(), minlength=len(users))
    end, some = np.cumsum(count), count > 0
    histories = Histories(
        once[ITEM_ID].to_numpy().astype(np.int64), np.zeros(int(some.sum()), np.int64), (end - count)[some], end[some]
    )
    return Requests(users.filter(pl.Series(some)), histories, users.filter(pl.Series(~some)), notes)


def read_pairs(path: Path, dataset: Dataset, columns: FileColumns) -> Pairs:
    """Pairs of a user and an item of the dataset, a row each; columns as in `read_histories`.

    Raises:
        InputError: no readable file, a column or a value is missing, or no pair is known.
    """
    frame, notes = _users_and_items(read_table(path, columns), columns, path), []
    given, name = len(frame), dataset.info["name"]
    for what, table, raw, number in (
        ("user", dataset.users, RAW_USER_ID, USER_ID),
        ("item", dataset.items, RAW_ITEM_ID, ITEM_ID),
    ):
        known = table.select(raw, number).with_columns(_ids(table[raw]).alias(what))
        frame = frame.join(known, on=what, how="left", maintain_order="left")
        unknown = frame.filter(pl.col(number).is_null())[what]
        if len(unknown):
            names = unknown.unique(maintain_order=True)
            notes.append(f"{path}: {len(unknown):,} rows with {len(names):,} {what}s that are not in {name} get no"
                         f" probability: {_some(names)}")  # fmt: skip
    frame = frame.drop_nulls([USER_ID, ITEM_ID])
    if frame.is_empty():
        raise InputError(f"{path}: none of its {given:,} pairs is of a user and an item of {name}; {notes[0]}")
    user, item = (frame[number].to_numpy().astype(np.int64) for number in (USER_ID, ITEM_ID))
    return Pairs(frame.select(RAW_USER_ID, RAW_ITEM_ID), user, item, notes)


def read_table(path: Path, columns: FileColumns) -> pl.DataFrame:
    """A table by the ending of its name, CSV from STDIN; text columns stay text.

    Args:
        path: .csv, .csv.gz, .tsv, .parquet, .jsonl or STDIN. columns: CSV that has one of them under its separator has
            that separator, other CSV commas.

    Raises:
        InputError: another ending, or it cannot be read.
    """
    ending = ".csv" if path is STDIN or path.name.endswith(".csv.gz") else path.suffix
    try:
        match ending:
            case ".parquet":
                return pl.read_parquet(path)
            case ".tsv":
                return pl.read_csv(path, separator="\t", infer_schema=False)
            case ".csv":
                file = sys.stdin.buffer.read() if path is STDIN else path
                header = pl.read_csv(
                    file, separator=columns.separator, n_rows=1, infer_schema=False, truncate_ragged_lines=True
                ).columns
                separator = columns.separator if {columns.user, columns.item} & set(header) else ","
                return pl.read_csv(file, separator=separator, infer_schema=False)
            case ".jsonl" | ".ndjson":
                return pl.read_ndjson(path, infer_schema_length=None)
    except pl.exceptions.NoDataError:
        raise InputError(f"{path}: the file is empty") from None
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as {ending[1:]} ({first_line(error)[:160]})") from None
    raise InputError(f"{path}: give a .csv, .tsv, .parquet or .jsonl file")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from None


def _users_and_items(table: pl.DataFrame, columns: FileColumns, path: Path) -> pl.DataFrame:
    """`user` and `item`, raw ids as text, of each row.

    Raises:
        InputError: there is no row, or a column or a value is missing.
    """
    user, item = _column(table, (columns.user, *USERS), path), _column(table, (columns.item, *ITEMS), path)
    frame = pl.DataFrame({"user": _ids(user), "item": _ids(item)})
    if frame.is_empty():
        raise InputError(f"{path}: no row in it; give a raw user id and a raw item id a row")
    empty = ((frame["user"] == "") | (frame["item"] == "")).arg_true()
    if len(empty):
        raise InputError(f"{path}: a user or an item is missing in data row {empty[0] + 1} ({len(empty):,} such rows)")
    return frame


def _column(table: pl.DataFrame, names: Sequence[str], path: Path) -> pl.Series:
    for name in (names := tuple(dict.fromkeys(names))):
        if name in table.columns:
            if table[name].dtype.is_nested():
                raise InputError(f"{path}: column {name} holds lists; give a row for each item")
            return table[name]
    raise InputError(f"{path}: no column {' or '.join(names)}; it has {', '.join(table.columns) or 'none'}")


def _ids(raw: pl.Series) -> pl.Series:
    """Ids as text: what the file has as 1 and the dataset as "1" is one id. A missing one is empty."""
    return as_text(raw).fill_null("").str.strip_chars()


def _some(ids: pl.Series) -> str:
    return ", ".join(str(value) for value in ids.head(5).to_list()) + (", ..." if len(ids) > 5 else "")
