"""Prompts: golden text, tokens that equal the text's, cutting, and what a template may say."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from msmrec.artifacts import InputError
from msmrec.columns import TEST
from msmrec.data.interactions import RawData
from msmrec.data.prepare import Dataset, SplitProtocol, prepare
from msmrec.data.samples import sample_rows
from msmrec.data.sources.base import Source
from msmrec.retrieval.history import in_time, recent_history
from msmrec.retrieval.prompts import MOVIE_TEMPLATE, Prompts, PromptTemplate, PromptTokens


class ThreeFilms(Source):
    """One user of whom much is known, one of whom nothing is."""

    name = "three-films"

    def fingerprint(self, root: Path) -> str:
        return "1"

    def read(self, root: Path) -> RawData:
        rows = [(1, 10, 4.0, 1), (1, 11, 2.0, 2), (1, 12, 5.0, 3), (2, 12, 1.0, 4)]
        names = ["raw_user_id", "raw_item_id", "rating", "timestamp"]
        interactions = pl.DataFrame(rows, schema=names, orient="row").cast({"rating": pl.Float32})
        titles = ["Heat (1995)", 'Say "Hi" {now} (1999)', "Amélie (2001)"]
        items = pl.DataFrame({"raw_item_id": [10, 11, 12], "title": titles})
        users = pl.DataFrame(
            {
                "raw_user_id": [1, 2],
                "gender": ["female", None],
                "age": ["25-34", "18-24"],
                "occupation": ["lawyer", "x"],
            }
        )
        return RawData(interactions, items, users, "nowhere")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    protocol = SplitProtocol(min_user_count=0, min_item_count=0, split="global_time")
    folder = tmp_path_factory.mktemp("films")
    return prepare(ThreeFilms(), folder, folder, protocol)


def in_bytes(texts: list[str]) -> list[list[int]]:
    return [list(text.encode()) for text in texts]


def test_golden(films: Dataset) -> None:
    prompts = Prompts(films, MOVIE_TEMPLATE)
    rows = np.array([2, 3])
    first, second = prompts.texts(rows, in_time(recent_history(films, rows, 3)))
    assert first == (
        "The user is female, 25-34, lawyer.\n"
        "The user rated these movies:\n"
        "Heat (1995) (4 stars)\n"
        'Say "Hi" {now} (1999) (2 stars)\n'
        "Liked means rated above 3 stars. Will the user like the movie Amélie (2001)? Answer Yes or No.\n"
    )
    assert second == (
        "Nothing is known of the user but these ratings.\n"
        "The user has rated nothing yet.\n"
        "Liked means rated above 3 stars. Will the user like the movie Amélie (2001)? Answer Yes or No.\n"
    )
    latest_first = next(prompts.texts(rows[:1], recent_history(films, rows[:1], 3)))
    assert latest_first.index("Say") < latest_first.index("Heat")  # the order is the caller's


def test_tokens_are_those_of_the_text(tiny_clicks: Dataset) -> None:
    prompts = Prompts(tiny_clicks, PromptTemplate(entry="{soft}{rating} {title}"), soft_token="\x01")
    rows = sample_rows(tiny_clicks, TEST)
    history = in_time(recent_history(tiny_clicks, rows, 6))
    made = PromptTokens(prompts, in_bytes, [2], [3, 3], soft_id=1, max_tokens=2000)(rows, history)
    start = np.cumsum(made.length) - made.length
    for k, text in enumerate(prompts.texts(rows, history)):
        here = slice(start[k], start[k] + made.length[k])
        ids = made.input_ids[here]
        assert ids[0] == 2 and ids[-2:].tolist() == [3, 3] and bytes(ids[1:-2].astype(np.uint8)).decode() == text
        soft = made.soft_item[here]
        assert (soft > 0).tolist() == (ids == 1).tolist()
        assert soft[soft > 0].tolist() == tiny_clicks.item_id[history[k][history[k] >= 0]].tolist()


def test_of_a_long_prompt_the_oldest_ratings_go_first(tiny_clicks: Dataset) -> None:
    prompts = Prompts(tiny_clicks, PromptTemplate())
    rows = sample_rows(tiny_clicks, TEST)[:40]
    best_first = recent_history(tiny_clicks, rows, 6)
    whole = PromptTokens(prompts, in_bytes, [], [], None, 4000)
    limit = int(whole.sizes(rows, best_first).length.min()) - 1
    cut = PromptTokens(prompts, in_bytes, [], [], None, limit)
    assert (cut.sizes(rows, best_first).length <= limit).all()
    for history in (best_first, in_time(best_first)):
        made = cut(rows, history)
        start = np.cumsum(made.length) - made.length
        for k, text in enumerate(prompts.texts(rows, history)):
            left = bytes(made.input_ids[start[k] : start[k] + made.length[k]].astype(np.uint8)).decode()
            kept = [r for r in history[k] if r >= 0 and prompts.entries[prompts.line[r]] in left]
            assert text != left and set(kept) == set(sorted(r for r in history[k] if r >= 0)[-len(kept) :])
            assert left.startswith(prompts.heads[0]) and left.endswith(text[text.index("Liked") :])
    with pytest.raises(InputError, match="profile and question take up to"):
        PromptTokens(prompts, in_bytes, [], [], None, 20)


def test_a_template_may_name_only_columns(films: Dataset) -> None:
    with pytest.raises(InputError, match=r"prompt.entry names \{director\}, which is no column; there are: rating"):
        _ = Prompts(films, PromptTemplate(entry="{director}")).entries
    with pytest.raises(InputError, match=r"prompt\.profile"):
        _ = Prompts(films, PromptTemplate(profile="{city}")).heads


def test_what_is_missing_of_an_item_is_unknown(tiny_clicks: Dataset) -> None:
    prompts = Prompts(tiny_clicks, PromptTemplate(question="{title} of {year}?"))
    first = pl.col("item_id") == 1
    items = tiny_clicks.items.with_columns(
        pl.when(~first).then("year").alias("year"), pl.when(~first).then("title").alias("title")
    )
    prompts.dataset = SimpleNamespace(items=items)  # type: ignore[assignment]
    assert prompts.tails[1] == "unknown of unknown?\n"
    assert prompts.tails[2] == f"{items['title'][1]} of {items['year'][1]}?\n"
