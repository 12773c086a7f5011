"""Interactions, the table that everything starts from: validated once, here, and trusted afterwards."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
import polars as pl

from msmrec.artifacts import InputError
from msmrec.columns import (
    GENRES,
    ITEM_ID,
    LINE,
    MILLISECONDS,
    RATING,
    RAW_ITEM_ID,
    RAW_USER_ID,
    TIMESTAMP,
    TITLE,
    USER_ID,
    YEAR,
)

Duplicates = Literal["error", "first", "last", "mean"]


class RawData(NamedTuple):
    """What a source yields: the dataset as its files say it, nothing filtered or encoded."""

    # raw_user_id, raw_item_id, rating (f32), timestamp (i64), in file order; perhaps MILLISECONDS and LINE
    interactions: pl.DataFrame
    items: pl.DataFrame  # raw_item_id, title, year (null if unknown), genres (list, may be empty), ...
    users: pl.DataFrame  # raw_user_id and what else is known; may be empty
    origin: str  # the file to name when a row of `interactions` is wrong
    refused: Mapping[str, int] = MappingProxyType({})  # rows that the source left out, by kind


def validate(
    raw: RawData, duplicates: Duplicates = "error", min_rating: float | None = None
) -> tuple[pl.DataFrame, np.ndarray, np.ndarray]:
    """Checks the interactions and returns them, in file order, less the duplicates that the rule drops.

    Rows rated below `min_rating` go before anything is checked or counted, and only the number of a wrong row has them.
    Of a pair that stands more than once, "first" and "last" keep one row by time (ties by file order), "mean" the last
    with the mean of the ratings. How many rows went is printed.

    Returns:
        The T rows that stay, and (T,) int64 users and items of them as `_dense` numbers them.

    Raises:
        InputError: a null, a rating that is not finite, a time before 1970, or (rule "error") a pair that stands twice;
            or no row at all.
    """
    frame = raw.interactions
    if frame.is_empty():
        raise InputError(f"{raw.origin}: no interactions in it")
    kept = None
    if min_rating is not None:
        kept = frame.select((pl.col(RATING) >= min_rating).fill_null(True)).to_series()  # no rating at all is an error
        frame = frame.filter(kept)
    if frame.is_empty():
        best = float(raw.interactions[RATING].to_numpy().max())
        raise InputError(
            f"{raw.origin}: none of {len(raw.interactions):,} ratings is {min_rating:g} (data.protocol.min_rating)"
            f" or more, the highest is {best:g}; lower it"
        )

    def numbered(row: int) -> str:
        """The row's line in the file, or else which of the file's rows it is."""
        if LINE in frame.columns:
            return f"line {frame[LINE][row]}"
        number = (row if kept is None else kept.arg_true()[row]) + 1
        return f"data row {number}{' (not counting those left out)' * bool(raw.refused)}"

    problems = {
        "a missing user id": pl.col(RAW_USER_ID).is_null(),
        "a missing item id": pl.col(RAW_ITEM_ID).is_null(),
        "a rating that is no finite number": pl.col(RATING).is_null() | ~pl.col(RATING).is_finite(),
        "a timestamp that is missing or before 1970": pl.col(TIMESTAMP).is_null() | (pl.col(TIMESTAMP) < 0),
    }
    for what, expression in problems.items():
        bad = frame.select(expression.arg_true().alias("row"))["row"]
        if len(bad):
            raise InputError(f"{raw.origin}: {what} in {numbered(bad[0])} ({len(bad):,} such rows); mend the file")
    pair = [RAW_USER_ID, RAW_ITEM_ID]
    user, item = _dense(frame[RAW_USER_ID]), _dense(frame[RAW_ITEM_ID])
    # two integers in one: 10x faster than a two-column unique
    code = pl.Series("code", user * (item.max() + 1) + item)
    again = len(code) - code.n_unique()
    if not again:
        return frame, user, item
    if duplicates == "error":
        where = int(code.is_first_distinct().not_().arg_true()[0])
        values = frame.row(where, named=True)
        raise InputError(
            f"{raw.origin}: {numbered(where)} rates item {values[pair[1]]} by user {values[pair[0]]} again"
            f" ({again:,} such rows); remove them or set data.protocol.duplicates to first, last or mean"
        )
    print(f"{raw.origin}: {again:,} rows rate an item again; kept the {duplicates}", flush=True)
    if duplicates == "mean":
        frame = frame.with_columns(code).with_columns(pl.col(RATING).mean().over("code")).drop("code")
    order = np.argsort(_time(frame, frame[TIMESTAMP].to_numpy()), kind="stable")
    in_time = code.gather(order)
    stays = in_time.is_first_distinct() if duplicates == "first" else in_time.is_last_distinct()
    rows = np.sort(order[stays.to_numpy()])
    return frame[rows], user[rows], item[rows]


def as_text(ids: pl.Series) -> pl.Series:
    """Ids as text. 38.0 becomes 38: programs whose whole numbers cannot be missing write them as fractions."""
    whole = ids.cast(pl.Int64, strict=False) if ids.dtype.is_float() else ids
    return (whole if (whole == ids).all() else ids).cast(pl.String)


def _time(frame: pl.DataFrame, seconds: np.ndarray) -> np.ndarray:
    """(T,) int64 what decides the order: the rows' seconds, or milliseconds where they are known."""
    return seconds * 1000 + frame[MILLISECONDS].to_numpy() if MILLISECONDS in frame.columns else seconds


def _dense(ids: pl.Series) -> np.ndarray:
    """Small integers from 0, one for each id: numbers as they are, or their rank where they lie far apart; a category's
    number for words. (T,) int64."""
    if ids.dtype == pl.String:
        return ids.cast(pl.Categorical).to_physical().cast(pl.Int64).to_numpy()
    numbers = ids.to_numpy()
    lowest, highest = int(numbers.min()), int(numbers.max())
    if highest - lowest > 4 * len(ids) + 1_000_000:
        return ids.rank("dense").cast(pl.Int64).to_numpy()
    return numbers.astype(np.int64) - lowest


def k_core(
    user: np.ndarray,
    item: np.ndarray,
    min_user_count: int,
    min_item_count: int,
    max_user_count: int | None = None,
    max_item_count: int | None = None,
) -> np.ndarray:
    """Drops users and items with too few or too many interactions, again and again until none is left to drop.

    Args:
        user, item: (T,) integer codes from 0, one row an interaction.

    Returns:
        (T,) bool: rows that stay.
    """
    keep = np.ones(len(user), dtype=bool)
    most = len(user)
    users, items = np.bincount(user), np.bincount(item)
    while True:
        fits = (users >= min_user_count) & (users <= (max_user_count or most))
        known = (items >= min_item_count) & (items <= (max_item_count or most))
        gone = np.flatnonzero(keep & ~(fits[user] & known[item]))  # few after the first round
        if not len(gone):
            return keep
        keep[gone] = False
        users -= np.bincount(user[gone], minlength=len(users))
        items -= np.bincount(item[gone], minlength=len(items))
        if not keep.any():
            raise InputError(
                f"no interaction is left with min_user_count={min_user_count}, min_item_count={min_item_count},"
                f" max_user_count={max_user_count} and max_item_count={max_item_count}; widen them"
            )


class Encoded(NamedTuple):
    """Interactions with ids that count from 1, sorted by user and time, and what the ids stand for."""

    interactions: pl.DataFrame  # user_id, item_id (i32), rating, timestamp; by (user_id, timestamp, file order)
    items: pl.DataFrame  # item_id, raw_item_id, title, year, genres, ...: one row an item, by item_id
    users: pl.DataFrame  # user_id, raw_user_id, ...: one row a user, by user_id


def encode(
    raw: RawData,
    min_user_count: int = 0,
    min_item_count: int = 0,
    duplicates: Duplicates = "error",
    max_user_count: int | None = None,
    max_item_count: int | None = None,
    min_rating: float | None = None,
    unrated_items: bool = False,
) -> Encoded:
    """Validates, filters (`k_core`) and encodes. Ids follow the order in which `raw.items` / the ratings name them.

    Items that are rated but have no metadata get their raw id as title. Items of `raw.items` that no row is left of are
    left out, or with `unrated_items` come last.

    Raises:
        InputError: see `validate` and `k_core`; `unrated_items` of a source that lists no items.
    """
    frame, user, item = validate(raw, duplicates, min_rating)
    if min_user_count > 1 or min_item_count > 1 or max_user_count or max_item_count:
        keep = k_core(user, item, min_user_count, min_item_count, max_user_count, max_item_count)
        frame, user, item = frame.filter(pl.Series(keep)), user[keep], item[keep]
    user, first_of_user = _codes(user)
    item, first_of_item = _codes(item)
    users, items = frame[RAW_USER_ID].gather(first_of_user), frame[RAW_ITEM_ID].gather(first_of_item)
    if unrated_items:
        if RAW_ITEM_ID not in raw.items.columns or raw.items.is_empty():
            raise InputError("data.protocol.unrated_items: the source lists no items; give it a file of them")
        listed = raw.items[RAW_ITEM_ID].drop_nulls().unique(maintain_order=True)
        items = pl.concat([items, listed.filter(listed.is_in(items.implode()).not_())])
    # Stable, so that equal times keep the order of the file: about half of ML-1M's times are shared inside a user,
    # and another tie order changes a quarter of the test items.
    timestamp = frame[TIMESTAMP].to_numpy()
    order = _time_order(user, _time(frame, timestamp))
    interactions = pl.DataFrame(
        {
            USER_ID: user[order] + 1,
            ITEM_ID: item[order] + 1,
            RATING: frame[RATING].to_numpy()[order].astype(np.float32, copy=False),
            TIMESTAMP: timestamp[order],
        }
    )
    return Encoded(interactions, _numbered(items, raw.items, ITEM_ID), _numbered(users, raw.users, USER_ID))


def _codes(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes 0.. by first appearance, and the row where each code appears first.

    Args:
        ids: (T,) small integers from 0, as `_dense` makes them.

    Returns:
        (T,) int32 and (C,) int64.
    """
    first = np.full(int(ids.max()) + 1, len(ids))
    first[ids[::-1]] = np.arange(len(ids))[::-1]  # of several assignments to one place the last stays
    appearing = np.flatnonzero(first < len(ids))
    appearing = appearing[np.argsort(first[appearing])]
    codes = np.empty(len(first), np.int32)
    codes[appearing] = np.arange(len(appearing))
    return codes[ids], first[appearing]


def _time_order(user: np.ndarray, timestamp: np.ndarray) -> np.ndarray:
    """(T,) rows by (user, timestamp, row); users count from 0."""
    earliest = int(timestamp.min())
    span = int(timestamp.max()) - earliest + 1
    if (int(user.max()) + 1) * span < 2**63:  # both in one number: a third of the time
        return np.argsort(user * np.int64(span) + (timestamp - earliest), kind="stable")
    return np.lexsort((timestamp, user))


def _numbered(raw_ids: pl.Series, metadata: pl.DataFrame, id_column: str) -> pl.DataFrame:
    """One row for each of `raw_ids`, numbered from 1, with its metadata where there is some."""
    frame = pl.DataFrame({raw_ids.name: raw_ids}).with_columns(
        pl.int_range(1, len(raw_ids) + 1, dtype=pl.Int32).alias(id_column)
    )
    if raw_ids.name in metadata.columns:
        frame = frame.join(
            metadata.unique(raw_ids.name, keep="first", maintain_order=True), on=raw_ids.name, how="left"
        ).sort(id_column)
    if id_column == ITEM_ID:
        for column, default in (
            (TITLE, pl.lit(None, pl.String)),
            (YEAR, pl.lit(None, pl.Int32)),
            (GENRES, pl.lit(None, pl.List(pl.String))),
        ):
            if column not in frame.columns:
                frame = frame.with_columns(default.alias(column))
        frame = frame.with_columns(
            pl.col(TITLE).fill_null(pl.col(RAW_ITEM_ID)),
            pl.col(YEAR).cast(pl.Int32),
            pl.col(GENRES).fill_null(pl.lit([], pl.List(pl.String))),
        )
    return frame.select(id_column, pl.exclude(id_column))
