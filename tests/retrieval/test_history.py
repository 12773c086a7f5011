"""Retrieval of histories and eq. 8 against loops that anyone can check."""

import numpy as np
import pytest
import torch

from msmrec.artifacts import InputError
from msmrec.columns import RATING, TEST, TRAIN, VAL
from msmrec.data.prepare import Dataset
from msmrec.data.samples import sample_rows
from msmrec.retrieval import history as module
from msmrec.retrieval.history import recent_history, relevant_history, rerank
from msmrec.retrieval.learned_reranker import fit, rerank_learned


def vectors(dataset: Dataset, seed: int = 0, dim: int = 8) -> np.ndarray:
    made = np.random.default_rng(seed).standard_normal((dataset.num_items + 1, dim)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def all_samples(dataset: Dataset) -> np.ndarray:
    return np.concatenate([sample_rows(dataset, split) for split in (TEST, TRAIN, VAL)])


@pytest.mark.parametrize("gram_items", [10, 20_000])  # products multiplied, and looked up
def test_relevant_is_brute_force(tiny_clicks: Dataset, gram_items: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRAM_ITEMS", gram_items)
    monkeypatch.setattr(module, "GRAM_SHARE", 0)
    monkeypatch.setattr(module, "CELLS", 5_000)  # many blocks
    space, rows = vectors(tiny_clicks), np.random.default_rng(1).permutation(all_samples(tiny_clicks))
    found = relevant_history(tiny_clicks, [space], rows, 7)
    for sample, row in enumerate(rows):
        first = tiny_clicks.offsets[tiny_clicks.user_id[row]]
        similarity = space[tiny_clicks.item_id[first:row]] @ space[tiny_clicks.item_id[row]]
        best = np.argsort(-similarity, kind="stable")[:7]
        got = found.rows[sample, : len(best)]
        np.testing.assert_allclose(similarity[got - first], similarity[best], atol=1e-5)
        np.testing.assert_allclose(found.similarity[sample, : len(best)], similarity[best], atol=1e-5)
        assert (found.rows[sample, len(best) :] == -1).all() and (got < row).all() and (got >= first).all()


def test_of_equally_near_ratings_the_later_comes_first(tiny_clicks: Dataset) -> None:
    rows = all_samples(tiny_clicks)
    same = np.ones((tiny_clicks.num_items + 1, 3), np.float32)
    np.testing.assert_array_equal(
        relevant_history(tiny_clicks, [same], rows, 4).rows, recent_history(tiny_clicks, rows, 4)
    )


def test_several_spaces_mix_their_softmaxes(tiny_clicks: Dataset) -> None:
    spaces, rows = [vectors(tiny_clicks, s) for s in (1, 2)], all_samples(tiny_clicks)[:200]
    found = relevant_history(tiny_clicks, spaces, rows, 3)
    for sample, row in enumerate(rows):
        first = tiny_clicks.offsets[tiny_clicks.user_id[row]]
        mixed = np.zeros(row - first)
        for space in spaces:
            product = np.exp(space[tiny_clicks.item_id[first:row]] @ space[tiny_clicks.item_id[row]])
            mixed += product / product.sum() / 2
        np.testing.assert_allclose(mixed[found.rows[sample] - first], np.sort(mixed)[::-1][:3], atol=1e-5)


def test_means_of_softmaxes_over_a_long_history_are_told_apart() -> None:
    """Of 3,000 ratings each has about 1/3000: a comparison to 1e-5 would tie them by the hundred."""
    count = 3_000
    generator = np.random.default_rng(0)
    spaces = [generator.standard_normal((count + 1, 8)).astype(np.float32) for _ in range(2)]
    spaces = [space / np.linalg.norm(space, axis=1, keepdims=True) for space in spaces]

    class One(Dataset):
        num_items, offsets = count, np.array([0, 0, count])
        user_id, item_id = np.ones(count, np.int32), np.arange(1, count + 1, dtype=np.int32)

        def __init__(self) -> None: ...

    found = relevant_history(One(), spaces, np.array([count - 1]), 500).rows[0]
    products = [np.exp(space[1:count].astype(np.float64) @ space[count]) for space in spaces]
    mixed = sum(product / product.sum() for product in products)
    assert (found == np.argsort(-mixed, kind="stable")[:500]).mean() > 0.95


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize(("alpha", "beta"), [(2 / 3, 1.0), (0.5, 1.0), (0.8, 0.5), (1.0, 1.0), (0.0, 1.0)])
def test_rerank_is_equation_8(tiny_clicks: Dataset, alpha: float, beta: float, count: int) -> None:
    rows = all_samples(tiny_clicks)
    relevant = relevant_history(tiny_clicks, [vectors(tiny_clicks)], rows, count).rows
    recent = recent_history(tiny_clicks, rows, count)
    merged = rerank(tiny_clicks, relevant, rows, alpha, beta)
    for sample in range(len(rows)):
        score: dict[int, float] = {}
        for channel, weight in ((relevant, alpha), (recent, 1 - alpha)):
            for place, row in enumerate(channel[sample].tolist(), 1):
                if row >= 0:
                    score[row] = score.get(row, 0.0) + weight / place**beta
        wanted = sorted(score.values(), reverse=True)[:count]
        got = [row for row in merged[sample].tolist() if row >= 0]
        assert len(set(got)) == len(got) == len(wanted)
        np.testing.assert_allclose([score[row] for row in got], wanted, atol=1e-6)


def test_a_user_without_history_has_none(tiny_clicks: Dataset) -> None:
    first = tiny_clicks.offsets[1:-1][:10]  # every user's first rating
    assert (relevant_history(tiny_clicks, [vectors(tiny_clicks)], first, 3).rows == -1).all()
    assert (recent_history(tiny_clicks, first, 3) == -1).all()


def test_bad_vectors_and_weights_are_refused(tiny_clicks: Dataset) -> None:
    rows, space = all_samples(tiny_clicks)[:5], vectors(tiny_clicks)
    with pytest.raises(InputError, match="catalogue of"):
        relevant_history(tiny_clicks, [space[:-1]], rows, 3)
    space[4, 2] = np.nan
    with pytest.raises(InputError, match="NaN or infinity for 1 items, first 4"):
        relevant_history(tiny_clicks, [space], rows, 3)
    with pytest.raises(InputError, match="alpha"):
        rerank(tiny_clicks, recent_history(tiny_clicks, rows, 3), rows, 1.5, 1.0)


def test_a_learned_reranker_finds_what_predicts(tiny_clicks: Dataset) -> None:
    # Planted: whether the target is liked follows from whether the rating just before it was high, and nothing else.
    rows = all_samples(tiny_clicks)
    relevant = relevant_history(tiny_clicks, [vectors(tiny_clicks)], rows, 5)
    label = tiny_clicks.column(RATING)[rows - 1] > 3
    with torch.inference_mode():  # as Lightning evaluates
        learned = fit(tiny_clicks, relevant, rows, label)
    chosen = rerank_learned(tiny_clicks, learned, relevant, rows)
    assert (chosen[:, 0] == rows - 1).mean() > 0.9 and (relevant.rows[:, 0] == rows - 1).mean() < 0.5
    ratings = tiny_clicks.column(RATING)
    assert (learned.middle - learned.reach, learned.middle + learned.reach) == (ratings.min(), ratings.max())
    for sample in range(len(rows)):
        got = chosen[sample][chosen[sample] >= 0].tolist()
        assert (
            len(set(got)) == len(got) == min(5, rows[sample] - tiny_clicks.offsets[tiny_clicks.user_id[rows[sample]]])
        )
