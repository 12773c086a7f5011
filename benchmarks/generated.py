"""Generated data of any size: a ratings file in ML-25M's layout, and a prepared dataset that never was a file."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl

from msmrec.columns import TEST, TRAIN, VAL
from msmrec.data.prepare import Dataset


def ratings_file(root: Path, rows: int) -> None:
    """Writes root/ml-25m/{ratings,movies}.csv with `rows` ratings (a small file has fewer), unless they are there.

    In a process of its own, whose memory is nobody's.
    """
    if not (root / "ml-25m" / f"rows={rows}").is_file():
        subprocess.run([sys.executable, __file__, str(root), str(rows)], check=True)


def write(root: Path, rows: int, items: int = 60_000, seed: int = 0) -> None:
    """Users have 154 ratings on average, as in ML-25M, log-normally; popularity falls with rank; no pair twice."""
    folder = root / "ml-25m"
    settings = folder / f"rows={rows}"
    folder.mkdir(parents=True, exist_ok=True)
    rng, items = np.random.default_rng(seed), min(items, max(rows // 100, 100))
    users = max(rows // 154, 1)
    count = np.exp(rng.normal(0, 1, users))
    count = np.clip(count / count.sum() * rows, 20, items // 4).astype(np.int64)
    written = 0
    with (folder / "ratings.csv").open("wb") as file:
        file.write(b"userId,movieId,rating,timestamp\n")
        for part in np.array_split(np.arange(users), max(1, rows // 2_000_000)):
            user = np.repeat(part, count[part] * 5 // 4)
            item = (items * rng.random(len(user)) ** 2.5).astype(np.int64)
            _, first = np.unique(user * items + item, return_index=True)  # sorted by user
            frame = pl.DataFrame({"u": user[first] + 1, "i": item[first] + 1})
            frame = frame.with_columns(
                r=pl.Series(rng.integers(1, 11, len(frame)) / 2),
                t=pl.Series(rng.integers(10**9, 1_570_000_000, len(frame))),
            )
            frame = frame.sort("u", "t").head(rows - written)
            frame.write_csv(file, include_header=False)
            written += len(frame)
    movies = pl.DataFrame({"movieId": np.arange(items) + 1}).with_columns(
        title=pl.format("Film {} (1999)", "movieId"), genres=pl.lit("Drama|War")
    )
    movies.write_csv(folder / "movies.csv")
    for old in folder.glob("rows=*"):
        old.unlink()
    settings.touch()


class Generated(Dataset):
    """A dataset in memory: `users` histories of `length` random items each, leave-one-out.

    Args:
        users: U. items: N. length: items of a history, all the same; at most N.
    """

    def __init__(self, users: int, items: int, length: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.num_users, self.num_items = users, items
        self.info = {"name": "generated", "num_users": users, "num_items": items, "fingerprint": "generated"}
        # Sorted draws with repetition, each moved on by its place: different items, none twice in a history.
        drawn = np.sort(((items - length + 1) * rng.random((users, length)) ** 2).astype(np.int32), axis=1)
        drawn += np.arange(1, length + 1, dtype=np.int32)
        self.__dict__["item_id"] = rng.permuted(drawn, axis=1).ravel()
        self.__dict__["user_id"] = np.repeat(np.arange(1, users + 1, dtype=np.int32), length)
        part = np.full((users, length), TRAIN, np.int8)
        part[:, -2], part[:, -1] = VAL, TEST
        self._columns = {"split": part.ravel(), "user_id": self.user_id, "item_id": self.item_id}

    def column(self, name: str) -> np.ndarray:
        """(T,) one column of the interactions."""
        return self._columns[name]


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
