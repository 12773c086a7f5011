"""What users like, in words: one short text for the first 5, 10, 20, 40, ... interactions of each user.

    history ─prefixes─▶ facts ─writer─▶ texts ─encode─▶ whitened vectors

A text of a whole history would tell a model the items that it is trained and tested to find. A snapshot tells of a
prefix alone, and whoever stands at position t may read the last snapshot whose prefix ends at or before t. Everything
in a text comes from the user's own prefix and from the items' metadata; no count over users, which knows the future.

`artifacts/user_texts/<dataset>-<fingerprint>/texts.parquet` holds user_id, size and text; vectors of texts are cached
row by row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from msmrec.artifacts import InputError, build_once, fingerprint
from msmrec.columns import GENRES, RATING, TEXT, TITLE, TRAIN, USER_ID, VAL, YEAR
from msmrec.data.batches import flat_rows
from msmrec.data.prepare import Dataset
from msmrec.text.encoder import TextEncoder
from msmrec.text.item_text import whiten
from msmrec.text.vector_cache import encode_cached

FORMAT = 1  # raise when the same histories come to give other facts

MIN_RATED = 3  # items of a genre from which on its mean rating is told
MIN_RECENT = 5  # items in the latest quarter from which on a change is told
MIN_CHANGE = 0.1  # of a genre's share
BEST = 3  # titles of best-rated items that are told: a text is to stay short


class Snapshots(NamedTuple):
    """Prefixes of histories, user by user, short to long."""

    user_id: np.ndarray  # (S,) int64
    size: np.ndarray  # (S,) int64 items of the prefix
    offsets: np.ndarray  # (U + 2,) int64: user u has snapshots offsets[u] to offsets[u + 1]


def snapshots(length: np.ndarray, first: int) -> Snapshots:
    """Prefixes of `first`, 2 `first`, 4 `first`, ... items, as far as a history reaches.

    Args:
        length: (U + 1,) items of each history; user 0 is unused.
    """
    doublings = max(1, int(np.ceil(np.log2(max(int(length.max(initial=0)), first) / first))) + 1)
    sizes = first * 2 ** np.arange(doublings)
    user, doubling = np.nonzero(sizes <= length[:, None])
    count = np.bincount(user, minlength=len(length))
    return Snapshots(user, sizes[doubling], np.concatenate([[0], np.cumsum(count)]))


@dataclass(frozen=True)
class Preferences:
    """Facts about one prefix."""

    size: int
    mean_rating: float
    genres: list[tuple[str, float]]
    """Up to three, with their share of the items, largest first."""
    liked: list[tuple[str, float]]
    """Up to two genres of enough items, with their mean rating, highest first."""
    decades: list[int]
    """Up to two, e.g. 1990, by their share."""
    best: list[str]
    """Titles of up to BEST items rated best, the latest first among equals."""
    latest: list[str]
    """Titles of the last two items, the latest first."""
    more: str
    """The genre whose share rose most in the latest quarter of the items; '' where none rose much."""
    less: str
    """The one whose share fell most."""


@dataclass
class Template:
    """Preference texts by a fixed wording, short because encoding tens of thousands of them is what takes time.

    Genres stand in the order of their share and rating; the numbers would cost an encoder tokens and tell it little.

    Attributes:
        noun: what the items are.
        max_title_words: a longer title is cut; what stands in parentheses is left out.
    """

    noun: str = "films"
    max_title_words: int = 5

    def write(self, facts: Sequence[Preferences]) -> list[str]:
        """One text of at most about 60 words for each; what is not known is not mentioned."""
        return [self._text(one) for one in facts]

    def _text(self, facts: Preferences) -> str:
        sentences = [f"{facts.size} {self.noun}, average rating {facts.mean_rating:.1f}"]
        if facts.genres:
            sentences.append("Mostly " + ", ".join(genre for genre, _ in facts.genres))
        if facts.liked:
            sentences.append("Rates highest " + ", ".join(genre for genre, _ in facts.liked))
        if facts.decades:
            sentences.append("From the " + " and ".join(f"{decade}s" for decade in facts.decades))
        sentences.append("Favourites: " + "; ".join(map(self._short, facts.best)))
        sentences.append("Latest: " + "; ".join(map(self._short, facts.latest)))
        changes = [f"more {facts.more}"] * bool(facts.more) + [f"less {facts.less}"] * bool(facts.less)
        if changes:
            sentences.append("Lately " + ", ".join(changes))
        return ". ".join(sentences) + "."

    def _short(self, title: str) -> str:
        name = title.split(" (")[0]  # without year and other names: what they say, decades say in fewer tokens
        return " ".join(name.split()[: self.max_title_words]).rstrip(" ,.:;")


def preferences(
    item_id: np.ndarray, rating: np.ndarray, start: np.ndarray, prefixes: Snapshots, items: pl.DataFrame
) -> list[Preferences]:
    """Facts of every snapshot, from sums over prefixes.

    Args:
        item_id, rating: (T,) of all users' rows, one user after the other, each in time order.
        start: (U + 1,) first row of each user.
        prefixes: the snapshots.
        items: `title`, `year` (or null) and `genres` of item 1, 2, ...
    """
    first, size = start[prefixes.user_id], prefixes.size
    end, recent = first + size, first + size - size // 4

    def share(has: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        total = np.concatenate([[0.0], np.cumsum(has[item_id - 1])])
        mean: np.ndarray = (total[high] - total[low]) / np.maximum(high - low, 1)
        return mean

    def rated(has: np.ndarray) -> np.ndarray:  # mean rating of the items that have it; what few have is no candidate
        weight = has[item_id - 1]
        total, count = (np.concatenate([[0.0], np.cumsum(x)]) for x in (weight * rating.astype(np.float64), weight))
        number = count[end] - count[first]
        return np.where(number >= MIN_RATED, (total[end] - total[first]) / np.maximum(number, 1), -1.0)

    names = sorted(items[GENRES].explode().drop_nulls().unique().to_list())
    has_genre = [items[GENRES].list.contains(name).to_numpy().astype(np.float64) for name in names]
    shares = _columns([share(has, first, end) for has in has_genre], len(size))
    means = _columns([rated(has) for has in has_genre], len(size))
    change = _columns([share(has, recent, end) - share(has, first, recent) for has in has_genre], len(size))
    change *= (size // 4 >= MIN_RECENT)[:, None]
    decade = (items[YEAR].fill_null(-1) // 10 * 10).to_numpy()
    decades = sorted({int(d) for d in decade if d >= 0}, reverse=True)
    decade_shares = _columns([share((decade == d).astype(np.float64), first, end) for d in decades], len(size))
    ratings = np.concatenate([[0.0], np.cumsum(rating, dtype=np.float64)])
    mean = (ratings[end] - ratings[first]) / size

    titles = items[TITLE].to_list()
    best = _best(rating, first, size)
    top_genres, top_means, top_decades = _largest(shares, 3), _largest(means, 2), _largest(decade_shares, 2)
    most, least = _largest(change, 1), _largest(-change, 1)
    facts = []
    for s, (f, n) in enumerate(zip(first.tolist(), size.tolist(), strict=True)):
        latest = range(f + n - 1, f + n - 1 - min(n, 2), -1)
        facts.append(
            Preferences(
                n,
                float(mean[s]),
                [(names[g], float(shares[s, g])) for g in top_genres[s] if shares[s, g] > 0],
                [(names[g], float(means[s, g])) for g in top_means[s] if means[s, g] >= 0],
                [decades[d] for d in top_decades[s] if decade_shares[s, d] > 0],
                [titles[item_id[row] - 1] for row in best[s] if row >= 0],
                [titles[item_id[row] - 1] for row in latest],
                next((names[g] for g in most[s] if change[s, g] >= MIN_CHANGE), ""),
                next((names[g] for g in least[s] if change[s, g] <= -MIN_CHANGE), ""),
            )
        )
    return facts


def _columns(columns: list[np.ndarray], rows: int) -> np.ndarray:
    """(rows, len(columns)), also where there is no column."""
    return np.stack(columns, 1) if columns else np.zeros((rows, 0))


def _largest(values: np.ndarray, k: int) -> np.ndarray:
    """(S, k) columns of the largest values, the first column first among equals; rounded, so that sums may differ."""
    return np.argsort(-values.round(9), axis=1, kind="stable")[:, :k]


def _best(rating: np.ndarray, first: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(S, BEST) rows of the highest ratings of each prefix, the latest first among equals; -1 where there are fewer."""
    snapshot, row = flat_rows(first, first + size)
    ordered = row[np.lexsort((-row, -rating[row], snapshot))]
    place = (np.cumsum(size) - size)[:, None] + np.arange(BEST)
    return np.where(np.arange(BEST) < size[:, None], ordered[np.minimum(place, max(len(ordered) - 1, 0))], -1)


class UserText:
    """How users get preference vectors: at which points of a history, and who writes.

    Args:
        first: interactions of the first snapshot; each next one has twice as many.
        writer: writes the texts from the facts; `Template` has a fixed wording.
    """

    def __init__(self, first: int = 5, writer: Template | None = None) -> None:
        if first < 1:
            raise InputError(f"user_text.first {first}: a snapshot has at least one interaction")
        self.first = first
        self.writer = writer or Template()

    def snapshots(self, dataset: Dataset) -> Snapshots:
        """All snapshots that a model may read: test items are in none, validation items in those for testing alone."""
        return snapshots(dataset.ends[VAL] - dataset.offsets[:-1], self.first)

    def texts(self, dataset: Dataset, cache: Path) -> pl.DataFrame:
        """user_id, size, text of all snapshots, in their order; made once and kept."""
        key = fingerprint(FORMAT, dataset.info["fingerprint"], self.first, repr(self.writer))

        def build(folder: Path) -> None:
            made = self.snapshots(dataset)
            rating, start = dataset.column(RATING), dataset.offsets[:-1]
            texts = self.writer.write(preferences(dataset.item_id, rating, start, made, dataset.items))
            table = {USER_ID: made.user_id, "size": made.size, TEXT: pl.Series(texts, dtype=pl.String)}
            pl.DataFrame(table).write_parquet(folder / "texts.parquet")

        folder = build_once(cache / "user_texts" / f"{dataset.info['name']}-{key}", build)
        return pl.read_parquet(folder / "texts.parquet")

    def vectors(self, dataset: Dataset, cache: Path, encoder: TextEncoder, dim: int) -> np.ndarray:
        """(S, dim) float32 whitened vectors of the snapshots; centre and axes are those of the training part's."""
        table = self.texts(dataset, cache)
        raw = encode_cached(encoder, table[TEXT].to_list(), cache / "vectors")
        trained = (dataset.ends[TRAIN] - dataset.offsets[:-1])[table[USER_ID].to_numpy()]
        return whiten(raw, dim, table["size"].to_numpy() <= trained)
