"""Channels, order and window of a prompt's history, each against the function that makes it."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from msmrec.artifacts import InputError
from msmrec.columns import RATING, TEST, TRAIN
from msmrec.data.prepare import Dataset
from msmrec.data.samples import sample_rows
from msmrec.retrieval import retriever as module
from msmrec.retrieval.history import history_start, recent_history, relevant_history, rerank
from msmrec.retrieval.learned_reranker import fit, rerank_learned
from msmrec.retrieval.retriever import Retriever


def test_each_channel(tiny_clicks: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 7)
    data: Any = SimpleNamespace(dataset=tiny_clicks, label_above=3.0)
    space = np.random.default_rng(0).standard_normal((tiny_clicks.num_items + 1, 8)).astype(np.float32)
    vectors: Any = SimpleNamespace(spaces=lambda data, aligned: [space])
    rows = sample_rows(tiny_clicks, TEST)
    made = {name: Retriever(name, vectors, 4, alpha=0.8, beta=0.5) for name in (*module.NEED_VECTORS, "recent", "none")}
    for retriever in made.values():
        retriever.build(data)
    relevant = relevant_history(tiny_clicks, [space], rows, 4)
    train = sample_rows(tiny_clicks, TRAIN)
    liked = tiny_clicks.column(RATING)[train] > 3
    learned = fit(tiny_clicks, relevant_history(tiny_clicks, [space], train, 4), train, liked)
    expected = {
        "none": np.full((len(rows), 1), -1),
        "recent": recent_history(tiny_clicks, rows, 4),
        "relevant": relevant.rows,
        "reranked": rerank(tiny_clicks, relevant.rows, rows, 0.8, 0.5),
        "learned": rerank_learned(tiny_clicks, learned, relevant, rows),
    }
    for name, retriever in made.items():
        np.testing.assert_array_equal(retriever.choose(data, rows), expected[name], err_msg=name)


def test_order_and_groups(tiny_clicks: Dataset) -> None:
    chosen = np.array([[7, 9, 8], [5, 3, -1]])
    in_time, by_rank = [[7, 8, 9], [-1, 3, 5]], [[8, 9, 7], [-1, 3, 5]]
    for order, other, expected, asked in (("time", "rank", in_time, by_rank), ("rank", "time", by_rank, in_time)):
        retriever = Retriever("recent", order=order)  # type: ignore[arg-type]
        assert retriever.arrange(chosen).tolist() == expected
        assert retriever.arrange(chosen, other).tolist() == asked  # type: ignore[arg-type]
    data: Any = SimpleNamespace(dataset=tiny_clicks)
    rows = sample_rows(tiny_clicks, TEST)
    assert Retriever("recent", k=3).groups(data, rows).tolist() == list(range(len(rows)))
    group, start = Retriever("recent", k=3, window=4).groups(data, rows), history_start(tiny_clicks, rows, 3, 4)
    np.testing.assert_array_equal(group[:, None] == group, start[:, None] == start)
    assert group.max() + 1 == len(set(start)) < len(rows)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "channels reranked needs retriever.vectors"),
        ({"channels": "recent", "k": 0}, r"retriever\.k 0: at least 1"),
        ({"channels": "recent", "window": 0}, r"retriever\.window 0: at least 1"),
        ({"channels": "recent", "window": 2, "order": "rank"}, r"retriever\.window 2: .* and order: time"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Retriever(**options)
