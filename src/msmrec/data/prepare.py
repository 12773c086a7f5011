"""From raw files to a dataset folder, and back: `prepare` writes it once, `Dataset` reads it.

    interactions.parquet   user_id, item_id, rating, timestamp, split; sorted by (user_id, timestamp, file order)
    items.parquet          item_id, raw_item_id, title, year, genres, count, tier, ...
    users.parquet          user_id, raw_user_id, ...
    dataset.json           name, counts, protocol, fingerprint

Columnar, so a reader loads only the columns it needs: 32M ratings are 128 MB as item ids.
"""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from msmrec.artifacts import InputError, build_once, fingerprint, first_line, write_json
from msmrec.columns import (
    COUNT,
    ITEM_ID,
    RATING,
    SPLIT,
    TEST,
    TIER,
    TIMESTAMP,
    TRAIN,
    USER_ID,
    VAL,
)  # fmt: skip
from msmrec.data.interactions import Duplicates, encode
from msmrec.data.sources.base import Source
from msmrec.data.splits import SplitName, popularity_tiers, split

FORMAT = 3  # raise when the files' content changes for the same inputs


@dataclass(frozen=True)
class SplitProtocol:
    """How raw interactions become training, validation and test parts."""

    min_user_count: int = 5
    """Users with fewer interactions are dropped (iterated with `min_item_count`: k-core)."""
    min_item_count: int = 5
    """Items with fewer interactions are dropped."""
    split: SplitName = "leave_one_out"
    """leave_one_out (last item test, the one before validation), user_ratio, user_random, or global_time."""
    ratios: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Shares of train, validation and test, for all but leave_one_out."""
    min_history: int = 0
    """Click prediction: rows whose user has at least as many earlier ones are samples; global_time counts these."""
    min_rating: float | None = None
    """Rows rated lower are dropped before anything is counted."""
    min_target_rating: float | None = None
    """Validation and test rows rated lower are dropped after the split: no targets, nor history of later parts."""
    duplicates: Duplicates = "error"
    """What to do when a user rates an item twice: refuse, or keep the first, the last, or the last with the mean."""
    hidden_items: float = 0.0
    """Share of items, drawn once, whose training and validation ratings are dropped: cold items with known truth."""
    max_user_count: int | None = None
    """Users with more interactions are dropped, in the same iteration as those with too few."""
    max_item_count: int | None = None
    """Items with more interactions are dropped."""
    unrated_items: bool = False
    """Whether items that the source lists and that no row is left of stay in the catalogue: text can rank them."""

    def described(self) -> dict[str, Any]:
        """The settings; fields added later only where set, so that fingerprints of existing datasets do not change."""
        late = ("min_target_rating", "max_user_count", "max_item_count", "unrated_items")
        unset = {key for key in late if getattr(self, key) is None or getattr(self, key) is False}
        return {key: value for key, value in asdict(self).items() if key not in unset}


def read_parquet(path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    """A table that a command of this project has written.

    Raises:
        InputError: it is gone, broken or another one.
    """
    try:
        return pl.read_parquet(path, columns=columns)
    except (pl.exceptions.PolarsError, FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"{path}: gone or broken ({first_line(error)[:160]}); remove it, and make it again") from None


class Dataset:
    """A prepared dataset folder, read column by column as asked.

    Args:
        folder: what `prepare` returned.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.info: dict[str, Any] = json.loads((folder / "dataset.json").read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"{folder}: no readable dataset.json ({error}); remove the folder") from None
        self.num_users: int = self.info["num_users"]
        self.num_items: int = self.info["num_items"]

    def column(self, name: str) -> np.ndarray:
        """(T,) one column of the interactions."""
        return read_parquet(self.folder / "interactions.parquet", columns=[name])[name].to_numpy(writable=True)

    @cached_property
    def item_id(self) -> np.ndarray:
        """(T,) int32 items, all users' rows one after the other, each in time order."""
        return self.column(ITEM_ID)

    @cached_property
    def offsets(self) -> np.ndarray:
        """(U + 2,) int64: user u has rows offsets[u] to offsets[u + 1]; row 0 is the unused user 0."""
        count = np.bincount(self.column(USER_ID), minlength=self.num_users + 1)
        return np.concatenate([[0], np.cumsum(count)])

    @cached_property
    def user_id(self) -> np.ndarray:
        """(T,) int32 users."""
        return self.column(USER_ID)

    @cached_property
    def ends(self) -> np.ndarray:
        """(3, U + 1) int64: where a user's training, validation and test rows end in the flat arrays."""
        part, user = self.column(SPLIT), self.column(USER_ID)
        counts = [np.bincount(user[part == p], minlength=self.num_users + 1) for p in (TRAIN, VAL, TEST)]
        return self.offsets[:-1] + np.cumsum(counts, axis=0)

    @property
    def train_lengths(self) -> np.ndarray:
        """(U + 1,) int64 training rows of each user."""
        lengths: np.ndarray = self.ends[TRAIN] - self.offsets[:-1]
        return lengths

    @cached_property
    def items(self) -> pl.DataFrame:
        """One row an item, ordered by item_id (row 0 is item 1)."""
        return read_parquet(self.folder / "items.parquet")

    @cached_property
    def users(self) -> pl.DataFrame:
        """One row a user, ordered by user_id."""
        return read_parquet(self.folder / "users.parquet")


def prepare(source: Source, root: Path, cache: Path, protocol: SplitProtocol) -> Dataset:
    """Returns the dataset of `source` under `protocol`, writing its folder under `cache` if it is not there yet."""
    key = fingerprint(FORMAT, source.name, source.fingerprint(root), protocol.described())

    def build(folder: Path) -> None:
        raw = source.read(root)
        interactions, items, users = encode(
            raw, protocol.min_user_count, protocol.min_item_count, protocol.duplicates,
            protocol.max_user_count, protocol.max_item_count, protocol.min_rating, protocol.unrated_items,
        )  # fmt: skip
        rows = _with_parts(interactions, len(items), protocol, source.name)
        part = rows[SPLIT].to_numpy()
        count = np.bincount(rows[ITEM_ID].to_numpy()[part == TRAIN], minlength=len(items) + 1)[1:]
        rows.write_parquet(folder / "interactions.parquet", compression="lz4")  # 3/4 of the time, 1.5 of the size
        items.with_columns(pl.Series(COUNT, count), pl.Series(TIER, popularity_tiers(count))).write_parquet(
            folder / "items.parquet"
        )
        users.write_parquet(folder / "users.parquet")
        write_json(
            folder / "dataset.json",
            {
                "name": source.name,
                "fingerprint": key,
                "num_users": len(users),
                "num_items": len(items),
                "num_interactions": len(rows),
                "num_train": int((part == TRAIN).sum()),
                "num_val": int((part == VAL).sum()),
                "num_test": int((part == TEST).sum()),
                "rows_in_file": len(raw.interactions),
                **({"rows_left_out": dict(raw.refused)} if raw.refused else {}),
                "protocol": protocol.described(),
            },
        )

    return Dataset(build_once(cache / "datasets" / f"{source.name}-{key}", build))


def _with_parts(interactions: pl.DataFrame, num_items: int, protocol: SplitProtocol, name: str) -> pl.DataFrame:
    """The interactions with the part that each is in, less those that the protocol keeps out of their part.

    Raises:
        InputError: no training row is left.
    """
    user = interactions[USER_ID].to_numpy()
    part = split(protocol.split, user, interactions[TIMESTAMP].to_numpy(), protocol.ratios, protocol.min_history)
    rows = interactions.with_columns(pl.Series(SPLIT, part))
    if protocol.split == "user_random":  # parts are stored one after the other inside a user, each in time order
        rows = rows[np.lexsort((part, user))]
    if protocol.hidden_items > 0:
        hidden = np.random.default_rng(0).random(num_items + 1) < protocol.hidden_items
        rows = rows.filter((pl.col(SPLIT) == TEST) | pl.Series(~hidden[rows[ITEM_ID].to_numpy()]))
        if not (rows[SPLIT] == TRAIN).any():
            raise InputError(
                f"{name}: no training row is left with data.protocol.hidden_items {protocol.hidden_items:g}; lower it"
            )
    if protocol.min_target_rating is not None:
        rows = rows.filter((pl.col(SPLIT) == TRAIN) | (pl.col(RATING) >= protocol.min_target_rating))
    return rows
