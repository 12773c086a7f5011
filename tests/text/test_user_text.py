"""Preference texts: which prefixes, hand-worked facts, plain Python over the same histories, and no look ahead."""

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from msmrec.artifacts import InputError
from msmrec.columns import TRAIN, VAL
from msmrec.data.prepare import Dataset
from msmrec.text.encoder import TfidfSvdEncoder
from msmrec.text.item_text import whiten
from msmrec.text.user_text import Preferences, Template, UserText, preferences, snapshots
from msmrec.text.vector_cache import encode_cached

ITEMS = pl.DataFrame(
    {
        "title": ["Alpha (1991)", "Beta, The (La Beta) (1985)", "Gamma", "Delta: A Tale of Two Small Towns", "Epsilon"],
        "year": [1991, 1985, 1999, 2001, None],
        "genres": [["Drama"], ["Comedy", "Drama"], ["Comedy"], ["War"], []],
    }
)


def test_snapshots_by_hand() -> None:
    made = snapshots(np.array([0, 4, 5, 9, 10, 43]), first=5)
    assert made.user_id.tolist() == [2, 3, 4, 4, 5, 5, 5, 5]
    assert made.size.tolist() == [5, 5, 5, 10, 5, 10, 20, 40]
    assert made.offsets.tolist() == [0, 0, 0, 1, 2, 4, 8]
    assert snapshots(np.array([0, 3]), first=5).offsets.tolist() == [0, 0, 0]
    assert snapshots(np.array([0, 3]), first=1).size.tolist() == [1, 2]
    with pytest.raises(InputError, match="at least one"):
        UserText(first=0)


def test_facts_and_text_by_hand() -> None:
    # user 1 has one row, which no snapshot reads; user 2: drama 3 of 5 (4, 4, 1), comedy 3 of 5 (4, 3, 5), war 1
    item = np.array([5, 1, 2, 3, 4, 2, 1])
    rating = np.array([1, 4, 4, 3, 2, 5, 1], np.float32)
    made = snapshots(np.array([0, 1, 5]), first=5)
    (facts,) = preferences(item, rating, np.array([0, 0, 1]), made, ITEMS)
    assert facts == Preferences(
        size=5,
        mean_rating=pytest.approx(3.6),
        genres=[("Comedy", pytest.approx(0.6)), ("Drama", pytest.approx(0.6)), ("War", pytest.approx(0.2))],
        liked=[("Drama", pytest.approx(13 / 3)), ("Comedy", pytest.approx(4.0))],
        decades=[1990, 1980],
        best=["Beta, The (La Beta) (1985)", "Beta, The (La Beta) (1985)", "Alpha (1991)"],  # 5; then 4, latest first
        latest=["Beta, The (La Beta) (1985)", "Delta: A Tale of Two Small Towns"],
        more="",
        less="",
    )
    assert Template().write([facts]) == [
        "5 films, average rating 3.6. Mostly Comedy, Drama, War. Rates highest Drama, Comedy. From the 1990s and "
        "1980s. Favourites: Beta, The; Beta, The; Alpha. Latest: Beta, The; Delta: A Tale of Two."
    ]


def test_what_changed_lately() -> None:
    item = np.array([1] * 12 + [2] * 3 + [3] * 5)  # drama 15 of 15, then 0 of 5; comedy 3 of 15, then 5 of 5
    (facts,) = preferences(item, np.ones(20, np.float32), np.array([0, 0]), snapshots(np.array([0, 20]), 20), ITEMS)
    assert (facts.more, facts.less) == ("Comedy", "Drama")
    assert Template().write([facts])[0].endswith("Lately more Comedy, less Drama.")


def test_a_catalogue_without_genres_and_years_has_texts_too() -> None:
    items = ITEMS.with_columns(pl.lit(None, pl.Int32).alias("year"), pl.lit([], pl.List(pl.String)).alias("genres"))
    item, rating = np.array([1, 3]), np.array([5, 2], np.float32)
    facts = preferences(item, rating, np.array([0, 0]), snapshots(np.array([0, 2]), 1), items)
    assert Template("books").write(facts) == [
        "1 books, average rating 5.0. Favourites: Alpha. Latest: Alpha.",
        "2 books, average rating 3.5. Favourites: Alpha; Gamma. Latest: Gamma; Alpha.",
    ]


def world(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, pl.DataFrame]:
    """(T,) items and ratings, (U + 1,) lengths, items; random."""
    random = np.random.default_rng(seed)
    names = np.array(["Action", "Comedy", "Drama", "War", "Western"])
    items = pl.DataFrame(
        {
            "title": [f"Title number {i} of the long catalogue ({i})" for i in range(1, 41)],
            "year": random.integers(1950, 2003, 40),
            "genres": [names[random.random(5) < 0.4].tolist() for _ in range(40)],
        }
    )
    length = np.array([0, 3, 7, 25, 41, 90])
    total = length.sum()
    return random.integers(1, 41, total), random.integers(1, 6, total).astype(np.float32), length, items


def test_facts_against_plain_python() -> None:
    item, rating, length, items = world()
    start = np.concatenate([[0], np.cumsum(length)[:-1]])
    made = snapshots(length, 5)
    titles, genres, years = items["title"].to_list(), items["genres"].to_list(), items["year"].to_list()
    facts = preferences(item, rating, start, made, items)
    assert len(facts) == 13
    for user, size, fact in zip(made.user_id, made.size, facts, strict=True):
        rows = [(int(item[r]) - 1, float(rating[r])) for r in range(start[user], start[user] + size)]
        count = Counter(genre for i, _ in rows for genre in genres[i])
        assert [g for g, _ in fact.genres] == sorted(count, key=lambda g: (-count[g], g))[:3]
        mean = {g: np.mean([r for i, r in rows if g in genres[i]]) for g in count if count[g] >= 3}
        assert [g for g, _ in fact.liked] == sorted(mean, key=lambda g: (-round(mean[g], 9), g))[:2]
        decade = Counter(years[i] // 10 * 10 for i, _ in rows)
        assert fact.decades == sorted(decade, key=lambda d: (-decade[d], -d))[:2]
        ranked = sorted(range(size), key=lambda p: (-rows[p][1], -p))
        assert fact.best == [titles[rows[p][0]] for p in ranked[:3]]
        assert fact.latest == [titles[rows[-1][0]], titles[rows[-2][0]]]
        assert fact.mean_rating == pytest.approx(np.mean([r for _, r in rows]))
    assert any(fact.more for fact in facts) and any(fact.less for fact in facts)
    assert max(len(text.split()) for text in Template().write(facts)) <= 60


@pytest.mark.parametrize("seed", range(3))
def test_what_comes_after_a_prefix_is_not_in_its_text(seed: int) -> None:
    item, rating, length, items = world(seed)
    start = np.concatenate([[0], np.cumsum(length)[:-1]])
    made = snapshots(length, 5)
    before = preferences(item, rating, start, made, items)
    cut = start[5] + 20  # user 5 does something else after 20 items
    item[cut:], rating[cut:] = item[cut:] % 40 + 1, 6 - rating[cut:]
    after = preferences(item, rating, start, made, items)
    same = (made.user_id < 5) | (made.size <= 20)
    assert [f for f, s in zip(before, same, strict=True) if s] == [f for f, s in zip(after, same, strict=True) if s]
    assert all(f != g for f, g, s in zip(before, after, same, strict=True) if not s)


def test_test_items_are_in_no_snapshot_and_axes_come_from_training(tiny: Dataset, cache: Path) -> None:
    text, encoder = UserText(first=2), TfidfSvdEncoder(16)
    table = text.texts(tiny, cache)
    user, size = table["user_id"].to_numpy(), table["size"].to_numpy()
    start = tiny.offsets[:-1][user]
    assert (start + size <= tiny.ends[VAL][user]).all()
    trained = start + size <= tiny.ends[TRAIN][user]
    assert 0 < (~trained).sum() < trained.sum()  # some prefixes end with the validation item: for testing alone
    vectors = text.vectors(tiny, cache, encoder, 8)
    np.testing.assert_allclose(vectors[trained].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose((vectors[trained] ** 2).sum(1).mean(), 1, rtol=1e-5)
    raw = encode_cached(encoder, table["text"].to_list(), cache / "vectors")
    np.testing.assert_allclose(vectors[trained], whiten(raw[trained], 8), atol=1e-4)
