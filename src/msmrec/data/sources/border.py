"""The border: rows of a raw file are let in, left out or noted here, counted by kind, and the user is told once.

A row that cannot be read is left out as long as such rows are few. Above the limit the file is probably not what it is
taken for, and reading stops.
"""

import time
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from msmrec.artifacts import InputError
from msmrec.columns import LINE, MILLISECONDS, RATING, RAW_ITEM_ID, RAW_USER_ID, TIMESTAMP

_SHOWN = 3  # lines named of each kind
_DAY_OR_MONTH_FIRST = r"^\s*\d{1,2}[/.-]\d{1,2}[/.-]\d{4}"
YEAR_1995 = 788_918_400  # nobody rated anything on line before; the first public web shops opened in 1995


class Border:
    """What is wrong with the rows of one file.

    Args:
        path: the file.
        max_bad_share: share of rows that may be left out.
    """

    def __init__(self, path: Path, max_bad_share: float) -> None:
        self.path, self.max_bad_share = path, max_bad_share
        self.refused: dict[str, int] = {}  # rows left out, by kind
        self.noted: dict[str, int] = {}  # rows kept that look wrong, by kind
        self._lines: dict[str, list[int]] = {}

    def refuse(self, kind: str, lines: Iterable[int]) -> None:
        """Counts rows that are left out."""
        self._count(self.refused, kind, lines)

    def note(self, kind: str, lines: Iterable[int]) -> None:
        """Counts rows that are kept, less the value that is wrong where the kind says so."""
        self._count(self.noted, kind, lines)

    def _count(self, counts: dict[str, int], kind: str, lines: Iterable[int]) -> None:
        found = list(lines)
        if found:
            counts[kind] = counts.get(kind, 0) + len(found)
            shown = self._lines.setdefault(kind, [])
            shown += found[: _SHOWN - len(shown)]

    def check(self, rows: int) -> None:
        """Stops where too many of the rows so far were left out.

        Raises:
            InputError: more than `max_bad_share` of `rows`.
        """
        bad = sum(self.refused.values())
        if bad > self.max_bad_share * rows:
            raise InputError(
                f"{self.path}: {bad:,} of {rows:,} rows cannot be read, more than max_bad_share"
                f" {self.max_bad_share:g} allows: {self._told(self.refused)}; mend the file or raise the limit"
            )

    def close(self, rows: int) -> None:
        """Says what was left out and noted, in one line, if anything was; see `check` for what it raises."""
        self.check(rows)
        parts = [f"left out {self._told(self.refused)}"] if self.refused else []
        parts += [f"noted {self._told(self.noted)}"] if self.noted else []
        if parts:
            print(f"{self.path}: of {rows:,} rows {'; '.join(parts)}", flush=True)

    def _told(self, counts: dict[str, int]) -> str:
        told = []
        for kind, count in counts.items():
            lines = self._lines[kind]
            where = f"line{'s' * (count > 1)} {', '.join(map(str, lines))}{', ...' * (count > len(lines))}"
            told.append(f"{count:,} with {kind} ({where})")
        return ", ".join(told)


def interactions(
    frame: pl.DataFrame, border: Border, scale: tuple[float, float] | None = None, clock: bool = True
) -> pl.DataFrame:
    """The interactions of a raw file in the right types; rows that are none are left out and counted.

    Args:
        frame: raw_user_id, raw_item_id, rating and timestamp as the file has them (numbers may be strings), LINE.
        border: counts.
        scale: least and greatest rating; None for any finite number.
        clock: whether times are times: seconds since 1970, or milliseconds where 1e11 and more, which are divided.

    Returns:
        raw_user_id, raw_item_id, rating (f32), timestamp (i64, s), milliseconds (i16), LINE, in the order of `frame`.
    """
    low, high = scale or (-float("inf"), float("inf"))
    rating, when = pl.col(RATING), pl.col(TIMESTAMP)
    frame = frame.with_columns(
        rating.cast(pl.Float64, strict=False),
        when.cast(pl.Float64, strict=False) if frame[TIMESTAMP].dtype == pl.String else when,
    )
    if clock:
        frame = frame.with_columns(unscaled(when).alias(TIMESTAMP))
    kinds = {
        "no user": _blank(frame, RAW_USER_ID),
        "no item": _blank(frame, RAW_ITEM_ID),
        "a rating that is no number": rating.is_null() | ~rating.is_finite(),
        f"a rating outside {low:g} to {high:g}": (rating < low) | (rating > high),
        "a time that is missing or before 1970": when.is_null() | (when < 0),
        "a time beyond milliseconds": when > 1e15,
    }
    for kind, wrong in kinds.items():
        bad = frame.filter(wrong)
        if len(bad):
            border.refuse(kind, bad[LINE])
            frame = frame.filter(~wrong)
    if clock:
        border.note("a time before 1995", frame.filter(when < YEAR_1995)[LINE])
        border.note("a time in the future", frame.filter(when > time.time() + 86_400)[LINE])
    seconds, line = when.floor().cast(pl.Int64), pl.col(LINE).cast(pl.UInt32)
    within = ((when - when.floor()) * 1000).round().clip(0, 999).cast(pl.Int16).alias(MILLISECONDS)
    return frame.select(RAW_USER_ID, RAW_ITEM_ID, rating.cast(pl.Float32), seconds, within, line)


def seconds(times: pl.Series, path: Path) -> pl.Series:
    """Dates, or texts of dates, as seconds since 1970, with their fractions; numbers as they are.

    Args:
        times: of the file at `path`.

    Raises:
        InputError: dates like 01/03/2023, which are of January or of March.
    """
    if times.dtype in (pl.Categorical, pl.Enum, pl.Binary, pl.Null):
        times = times.cast(pl.String, strict=False)
    if times.dtype == pl.String:
        if len(unclear := times.filter(times.str.contains(_DAY_OR_MONTH_FIRST))):
            raise InputError(
                f"{path}: {times.name} {unclear[0]}: is its day or its month first? write dates as YYYY-MM-DD"
            )
        numbers = times.cast(pl.Float64, strict=False)
        if numbers.null_count() == times.null_count():
            return numbers
        try:
            dates = times.str.to_datetime(strict=False, time_zone="UTC")
        except pl.exceptions.PolarsError:  # in no form that can be guessed
            return numbers
        epoch = dates.dt.epoch("ms") / 1000
        return numbers.to_frame("n").select(pl.coalesce("n", epoch).alias(times.name))[times.name]
    return times.cast(pl.Datetime("ms")).dt.epoch("ms") / 1000 if times.dtype.is_temporal() else times


def unscaled(when: pl.Expr) -> pl.Expr:
    """Seconds since 1970, from these or milliseconds: 1e11 and more."""
    return pl.when(when >= 1e11).then(when / 1000).otherwise(when)


def _blank(frame: pl.DataFrame, name: str) -> pl.Expr:
    missing = pl.col(name).is_null()
    return missing | (pl.col(name).str.strip_chars() == "") if frame[name].dtype == pl.String else missing
