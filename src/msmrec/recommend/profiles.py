"""What is told of a user to whoever orders their candidates: facts counted in the training part, and a taste in words.

profiles(dataset, users)  ->  [Profile]        asked of a language model by `written`, which adds its own words
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from msmrec.columns import RATING, TAGS, TITLE, TRAIN
from msmrec.data.batches import flat_rows
from msmrec.data.prepare import Dataset
from msmrec.llm.answers import Answers
from msmrec.llm.client import ChatModel, Request
from msmrec.text.user_text import Preferences, Snapshots, Template, preferences
from msmrec.text.writer import read_prompt

TOP_ITEMS, TOP_TAGS = 5, 15
TASTE_WORDS = 50  # that a model is asked for: a taste in a sentence or two


@dataclass(frozen=True)
class Profile:
    """One user, as the published pipeline tells it: genres, top items, tags, mean rating, taste."""

    ratings: int
    mean_rating: float
    genres: list[tuple[str, float]]  # up to three, with their share
    top_items: list[tuple[str, float]]  # titles and ratings, the best rated first, the latest first among equals
    tags: list[str]  # most frequent on the user's items
    taste: str  # in a sentence or two

    def __str__(self) -> str:
        """A line for each fact that there is."""
        lines = [f"Ratings: {self.ratings}, average {self.mean_rating:.1f}"]
        if self.genres:
            lines.append("Genres: " + ", ".join(f"{name} {share:.0%}" for name, share in self.genres))
        if self.top_items:
            lines.append("Top items: " + "; ".join(f"{title}: {rating:g}" for title, rating in self.top_items))
        if self.tags:
            lines.append("Tags: " + ", ".join(self.tags))
        return "\n".join([*lines, f"Taste: {self.taste}"] if self.taste else lines)


NOBODY = Profile(0, 0.0, [], [], [], "")


def facts(dataset: Dataset, users: np.ndarray) -> dict[int, Preferences]:
    """Facts of the training part of each user who has any, by user_id.

    Args:
        dataset: whose training rows stand first among each user's, as in every split in time.
        users: (U,) user_id.
    """
    start = dataset.offsets[:-1]
    trained = (dataset.ends[TRAIN] - start)[users]
    known = users[trained > 0].astype(np.int64)
    whole = Snapshots(known, trained[trained > 0], np.zeros(0, np.int64))
    found = preferences(dataset.item_id, dataset.column(RATING), start, whole, dataset.items)
    return dict(zip(known.tolist(), found, strict=True))


def profiles(dataset: Dataset, users: np.ndarray) -> list[Profile]:
    """Profiles from the training part alone, in the order of `users`; a user without a rating there is NOBODY."""
    found = facts(dataset, users)
    taste = Template().write(list(found.values()))
    words = dict(zip(found, taste, strict=True))
    top, tags = _top_items(dataset, users), _top_tags(dataset, users)
    return [
        Profile(f.size, f.mean_rating, f.genres, top[u], tags.get(u, []), words[u]) if (f := found.get(u)) else NOBODY
        for u in users.tolist()
    ]


def _training_rows(dataset: Dataset, users: np.ndarray) -> pl.DataFrame:
    """user, item and rating of the users' training rows, in time order inside a user."""
    owner, row = flat_rows(dataset.offsets[users], dataset.ends[TRAIN][users])
    columns = {"user": users[owner], "item": dataset.item_id[row], "rating": dataset.column(RATING)[row]}
    return pl.DataFrame(columns).with_row_index("place")


def _top_items(dataset: Dataset, users: np.ndarray) -> dict[int, list[tuple[str, float]]]:
    rows = _training_rows(dataset, np.unique(users)).sort("user", "rating", "place", descending=[False, True, True])
    best = rows.group_by("user", maintain_order=True).head(TOP_ITEMS)
    best = best.with_columns(title=dataset.items[TITLE].gather(best["item"].cast(pl.Int64) - 1))
    result: dict[int, list[tuple[str, float]]] = {int(user): [] for user in users}
    for user, title, rating in best.select("user", "title", "rating").iter_rows():
        result[user].append((title, rating))
    return result


def _top_tags(dataset: Dataset, users: np.ndarray) -> dict[int, list[str]]:
    if TAGS not in dataset.items.columns:
        return {}
    tags = dataset.items.select(TAGS).with_row_index("item", offset=1).explode(TAGS).drop_nulls()
    rows = _training_rows(dataset, np.unique(users)).select("user", pl.col("item").cast(pl.UInt32))
    counted = (
        rows.join(tags, on="item")
        .group_by("user", TAGS)
        .len()
        .sort("user", "len", TAGS, descending=[False, True, False])
    )
    top = counted.group_by("user", maintain_order=True).agg(pl.col(TAGS).head(TOP_TAGS))
    return dict(top.iter_rows())


def written(made: Sequence[Profile], model: ChatModel, cache: Path) -> tuple[list[Profile], int]:
    """The profiles with a taste in a language model's words.

    Args:
        made: by `profiles`.
        model: who writes.
        cache: holds its answers, so that nobody is asked twice.

    Returns:
        The profiles, and how many kept the counted taste because the model's answer was of no use.
    """
    system, user = read_prompt("profile", {"facts", "max_words"})
    told = [profile for profile in made if profile.ratings]

    def requests() -> Iterator[Request]:
        for profile in told:
            words = {"facts": str(profile), "max_words": str(TASTE_WORDS)}
            parts = [("system", system), ("user", user)]
            yield Request(
                [{"role": role, "content": part.substitute(words)} for role, part in parts], None, 2 * TASTE_WORDS
            )

    with Answers(cache / "answers.sqlite") as answers:
        texts = [" ".join(reply.text.split()) for reply in model.ask(requests(), answers)]
    new = iter([replace(profile, taste=text or profile.taste) for profile, text in zip(told, texts, strict=True)])
    return [next(new) if profile.ratings else profile for profile in made], texts.count("")
