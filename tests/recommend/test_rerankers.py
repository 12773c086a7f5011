"""Both rerankers keep the candidates; the model's answers are mended and counted; features against a plain loop."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.llm.proxy import FaultProxy

from msmrec.artifacts import InputError
from msmrec.columns import COUNT, GENRES, RATING, TAGS, YEAR
from msmrec.data.prepare import Dataset
from msmrec.llm.client import Reply
from msmrec.llm.server import OpenAIServer
from msmrec.recommend.feature_rerank import FeatureReranker
from msmrec.recommend.llm_rerank import LLMReranker
from msmrec.recommend.profiles import NOBODY, profiles, written

CANNED_ONLY = pytest.mark.parametrize("proxy", [False], indirect=True)


def candidates_of(dataset: Dataset, users: np.ndarray, count: int = 8) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    items = np.stack([generator.permutation(dataset.num_items)[:count] + 1 for _ in users])
    items[-1, 5:] = 0  # a user with few
    return items, -np.sort(-generator.random((len(users), count)), axis=1)


@pytest.fixture
def films(tiny: Dataset) -> Dataset:
    """The tiny world with genres and tags."""
    made = Dataset(tiny.folder)
    numbers = range(1, made.num_items + 1)
    genres = pl.Series([[g for g, k in (("Drama", 2), ("War", 3), ("Noir", 5)) if n % k == 0] for n in numbers])
    tags = pl.Series([[f"tag{n % 20}", "seen"] if n % 4 else [] for n in numbers])
    made.items = made.items.with_columns(genres.alias(GENRES), tags.alias(TAGS))
    return made


# -- profiles ---------------------------------------------------------------------------------------------------------


def test_a_profile_counts_the_training_part_alone(films: Dataset) -> None:
    tiny, users = films, np.array([3, 7, 3])
    made = profiles(tiny, users)
    assert made[0] == made[2] != made[1]
    start, end = tiny.offsets[3], tiny.ends[0][3]
    rating, item = tiny.column(RATING)[start:end], tiny.item_id[start:end]
    assert made[0].ratings == end - start and made[0].mean_rating == pytest.approx(rating.mean())
    order = np.lexsort((-np.arange(len(rating)), -rating))[:5]
    titles = tiny.items["title"].to_list()
    assert made[0].top_items == [(titles[item[k] - 1], rating[k]) for k in order]
    genres = pl.Series([g for i in item for g in tiny.items[GENRES][int(i) - 1]]).value_counts(sort=True)
    assert made[0].genres[0][1] == pytest.approx(genres["count"][0] / len(item))
    tags = pl.Series([t for i in item for t in tiny.items[TAGS][int(i) - 1]]).value_counts()
    tags = tags.sort("count", tags.columns[0], descending=[True, False])
    assert made[0].tags == tags[tags.columns[0]][:15].to_list() and made[0].tags[0] == "seen"
    lines = str(made[0]).split("\n")
    assert lines[0].startswith(f"Ratings: {end - start}, average") and lines[-1].startswith("Taste: ")


@CANNED_ONLY
def test_a_model_may_write_the_taste(proxy: FaultProxy, tiny: Dataset, tmp_path: Path) -> None:
    proxy.content = "Likes  quiet\nfilms."
    proxy.faults = lambda number, body: "canned" if number != 2 else "400:no"
    made = [*profiles(tiny, np.array([3, 7])), NOBODY]
    told, failed = written(made, OpenAIServer("m", proxy.url, in_flight=1), tmp_path)
    assert told[0].taste == "Likes quiet films." and told[1] == made[1] and told[2] is NOBODY and failed == 1
    assert str(made[0]) in proxy.seen[0]["messages"][1]["content"] and "response_format" not in proxy.seen[0]


# -- a language model -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "order", "happened"),
    [
        ({"ids": [9, 5]}, [9, 5, 7, 3], []),
        ({"ids": [5, 4, 9]}, [5, 9, 7, 3], ["repaired: id not among the candidates"]),
        ({"ids": [5, 5, 9]}, [5, 9, 7, 3], ["repaired: repeated id"]),
        ({"ids": ["9", "x", 3]}, [9, 3, 5, 7], ["repaired: id not among the candidates"]),
        (
            {"ids": [float("nan"), 9.0, float("inf"), "²", " 3"]},
            [9, 3, 5, 7],
            ["repaired: id not among the candidates"],
        ),
        ({"ids": [3]}, [3, 5, 7, 9], ["repaired: short list"]),
        ({"ids": []}, [5, 7, 9, 3], ["repaired: short list"]),
    ],
)
def test_answers_are_mended_from_the_first_stage(
    content: dict[str, Any], order: list[int], happened: list[str]
) -> None:
    reranker = LLMReranker(OpenAIServer("m"), count=2)
    assert reranker.read(Reply("", content), [5, 7, 9, 3]) == (order, {}, happened)


def test_an_answer_of_no_use_leaves_the_order() -> None:
    reranker = LLMReranker(OpenAIServer("m"))
    order, why, happened = reranker.read(Reply("", None, "server: refused (BadRequestError: x)"), [5, 7])
    assert (order, why, happened) == ([5, 7], {}, ["fell back: server: refused"])
    assert reranker.read(Reply("x", None, "answer: no JSON object"), [5])[2] == ["fell back: answer: no JSON object"]
    with pytest.raises(InputError, match="at least 1"):
        LLMReranker(OpenAIServer("m"), count=0)


@CANNED_ONLY
@pytest.mark.parametrize("explain", [False, True])
def test_every_user_keeps_the_candidates(proxy: FaultProxy, tiny: Dataset, tmp_path: Path, explain: bool) -> None:
    users = np.arange(1, 13)
    items, scores = candidates_of(tiny, users)
    proxy.content = json.dumps({"ids": [int(items[5, 3]), 10_000], "reasons": ["quiet", "none"]})
    proxy.faults = lambda number, body: "500" if number in (3, 6, 10) else "prose" if number < 3 else "canned"
    model = OpenAIServer("m", proxy.url, in_flight=1, max_retries=0, max_failures=50)
    result = LLMReranker(model, explain, count=3).rerank(tiny, users, items, scores, tmp_path)
    np.testing.assert_array_equal(np.sort(result.items, 1), np.sort(items, 1))
    assert (result.items[-1, 5:] == 0).all() and len(result.reasons) == len(users)
    assert sum(n for what, n in result.counts.items() if what.startswith("fell back: server")) == 3
    assert result.counts["fell back: answer: no JSON object"] == 1
    assert result.counts["repaired: id not among the candidates"] == len(users) - 4
    schema = next(b for b in proxy.seen if "response_format" in b)["response_format"]["json_schema"]["schema"]
    assert schema["required"] == (["ids", "reasons"] if explain else ["ids"])
    shown = proxy.seen[0]["messages"][1]["content"]
    first = int(items[0, 0])
    assert f"{first} | {tiny.items['title'][first - 1]} | " in shown and "Profile:\nRatings: " in shown
    if explain:
        assert {int(items[5, 3]): "quiet"} in result.reasons


def test_a_real_server_that_speaks_prose_costs_nothing_but_the_order(
    server: str, prose_model: Path, tiny: Dataset, tmp_path: Path
) -> None:
    users = np.array([1, 2])
    items, scores = candidates_of(tiny, users)
    result = LLMReranker(OpenAIServer(str(prose_model), server)).rerank(tiny, users, items, scores, tmp_path)
    np.testing.assert_array_equal(result.items, items)
    assert result.counts == {"fell back: answer: no JSON object": 2}


# -- features ---------------------------------------------------------------------------------------------------------


def test_features_against_a_plain_loop(films: Dataset, tmp_path: Path) -> None:
    tiny = films
    users = np.array([2, 5, 9, 11])
    items, scores = candidates_of(tiny, users)
    made = FeatureReranker(1.0, 0.5, 0.25, 0.3, 0.4, interest=0.7).rerank(tiny, users, items, scores, tmp_path)
    genres, years, tags = (tiny.items[name].to_list() for name in (GENRES, YEAR, TAGS))

    def standard(values: np.ndarray) -> np.ndarray:
        return (values - values.mean()) / values.std() if values.std() > 1e-9 else values * 0

    for row, user in enumerate(users):
        start, end = tiny.offsets[user], tiny.ends[0][user]
        rows = range(start, end)
        rating = tiny.column(RATING)
        mean = np.mean([rating[k] for k in rows])

        def taste(has: Any, rows: range = rows, rating: np.ndarray = rating, mean: float = mean) -> float:
            return sum(rating[k] - mean + 0.7 for k in rows if has(int(tiny.item_id[k]) - 1)) / len(rows)

        mine = [int(i) for i in items[row] if i]
        of_genres = [
            sum(taste(lambda i, g=g: g in genres[i]) for g in genres[c - 1]) / max(len(genres[c - 1]), 1) for c in mine
        ]
        of_tags = [
            sum(taste(lambda i, t=t: t in tags[i]) for t in tags[c - 1]) / max(len(tags[c - 1]), 1) for c in mine
        ]
        of_decade = [taste(lambda i, c=c: years[i] // 10 == years[c - 1] // 10) for c in mine]
        popular = [np.log1p(tiny.items[COUNT][c - 1]) for c in mine]
        total = standard(scores[row, : len(mine)]) + 0.5 * standard(np.array(of_genres))
        total += 0.25 * standard(np.array(of_decade)) + 0.4 * standard(np.array(popular))
        total += 0.3 * standard(np.array(of_tags))
        expected = [mine[k] for k in np.argsort(-total, kind="stable")]
        assert made.items[row].tolist() == expected + [0] * (items.shape[1] - len(mine))


def test_without_weights_the_first_stage_stays(tiny: Dataset, tmp_path: Path) -> None:
    users = np.array([2, 5, 9])
    items, scores = candidates_of(tiny, users)
    plain = FeatureReranker(1.0, 0.0, 0.0, 0.0, 0.0)
    np.testing.assert_array_equal(plain.rerank(tiny, users, items, scores, tmp_path).items, items)
    assert plain.fingerprint != FeatureReranker().fingerprint
