"""Groups, drift, positions, leanings and what was planted, against hand-worked tables."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from msmrec.analysis import drift, groups
from msmrec.analysis.gate import Gate
from msmrec.analysis.measured import measure
from msmrec.analysis.people import devoted, item_table, leanings, user_table
from msmrec.analysis.planted import found_drift, found_groups, rank_correlations, within_user_correlation
from msmrec.artifacts import InputError
from msmrec.data.prepare import Dataset


def gate_of(histories: list[list[int]], users: np.ndarray, halves: np.ndarray | None = None, seed: int = 0) -> Gate:
    """Two modalities; weights along the histories are random."""
    rng = np.random.default_rng(seed)
    items = np.concatenate(histories).astype(np.int32)
    first = rng.random((2, len(items), 1), np.float32)
    items_gate, after = np.concatenate([first, 1 - first], 2)
    weights = users.astype(np.float32)
    return Gate(
        ["plot", "sound"], np.arange(1, len(histories) + 1), np.cumsum([0, *(len(h) for h in histories)]),
        np.arange(len(items)), items, items_gate, after, weights, weights,
        (np.stack([weights, weights]) if halves is None else halves).astype(np.float32),
    )  # fmt: skip


def two(share: np.ndarray) -> np.ndarray:
    return np.stack([share, 1 - share], -1)


def test_groups_are_bins_of_equal_width_of_the_popular_share(tiny: Dataset) -> None:
    count = tiny.items["count"].to_numpy()
    order = np.argsort(-count, kind="stable") + 1  # item ids, most popular first
    limit = float((count[order[2] - 1] / count.sum() + count[order[3] - 1] / count.sum()) / 2)
    popular = groups.popular_items(tiny, limit)
    assert count[order[2] - 1] > count[order[3] - 1] and set(np.flatnonzero(popular)) == set(order[:3])
    in_, out = int(order[0]), int(order[-1])
    histories = [[in_] * 9 + [out], [in_] * 7 + [out] * 3, [in_] * 4 + [out] * 6, [out] * 10, [in_] * 5 + [out] * 5]
    share = groups.popular_shares(gate_of(histories, np.ones((5, 2))), popular)
    assert share.tolist() == [0.9, 0.7, 0.4, 0.0, 0.5]
    # from .9 to 0 in steps of .3: down to .6 Blockbuster, down to .3 Diverse
    assert groups.equal_width_groups(share).tolist() == [0, 0, 1, 2, 1]
    assert groups.equal_width_groups(np.full(3, 0.2)).tolist() == [1, 1, 1]
    for above, why in ((0.9, "no item"), (0.0, "every item")):
        with pytest.raises(InputError, match=why):
            groups.popular_items(tiny, above)
    assert set(np.flatnonzero(groups.popular_items(tiny, None)[1:])) == set(
        np.flatnonzero(count / count.sum() > 2 / tiny.num_items)
    )


def test_group_means_intervals_and_tests() -> None:
    rng = np.random.default_rng(1)
    group = np.repeat([0, 1, 2], [40, 5, 60])
    plot = np.where(group == 0, 0.7, 0.5) + rng.normal(0, 0.02, 105)
    gate = gate_of([[1, 2]] * 105, two(plot))
    (measured,) = measure([groups.group_means(gate, group)], [(2, 2)], 1000, 0)
    table, tests = groups.group_tables(gate, group, measured)
    assert table["users"].to_list() == [40, 40, 5, 5, 60, 60]
    np.testing.assert_allclose(table["mean"][::2], [plot[group == g].mean() for g in range(3)], rtol=1e-5)
    few = table.filter(pl.col("group") == "Diverse")
    assert few["low"].null_count() == 2 and few["high"].null_count() == 2  # five users have no interval
    error = plot[group == 0].std() / 40**0.5
    blockbuster = table.row(0, named=True)
    assert blockbuster["mean"] - blockbuster["low"] == pytest.approx(1.96 * error, rel=0.2)
    assert tests["group_a"].to_list() == ["Blockbuster"] * 2 and tests["group_b"].to_list() == ["Niche"] * 2
    assert tests["difference"][0] == pytest.approx(plot[group == 0].mean() - plot[group == 2].mean(), rel=1e-4)
    assert tests["p"].to_list() == pytest.approx([4 / 1001] * 2)  # the least p of 1,000 resamples, for each of two


def test_users_without_texts_are_in_no_mean_but_in_the_table(tiny: Dataset) -> None:
    weights = two(np.full(tiny.num_users, 0.25))
    weights[:60] = 0
    gate = gate_of([[1, 2]] * tiny.num_users, weights)
    group = np.zeros(tiny.num_users, np.int64)
    (measured,) = measure([groups.group_means(gate, group)], [(1, 2)], 100, 0)
    assert measured.value[0] == pytest.approx([0.25, 0.75])
    table = user_table(gate, tiny, np.zeros(tiny.num_users), group)
    assert table["entropy"].null_count() == 60
    assert table["entropy"][-1] == pytest.approx(-(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75)), abs=1e-6)


def test_drift_is_the_second_half_less_the_first() -> None:
    rng = np.random.default_rng(2)
    first = 0.5 + rng.normal(0, 0.05, 50)
    change = rng.normal(0.1, 0.01, 50)
    halves = np.stack([two(first), two(first + change)])
    halves[0, 7] = 0  # a user without texts in one half counts in neither
    gate = gate_of([[1, 2, 3]] * 50, two(first), halves)
    (measured,) = measure([drift.halves(gate)], [(2, 2)], 1000, 0)
    table = drift.drift_table(gate, measured)
    kept = np.delete(np.arange(50), 7)
    assert table["first"][0] == pytest.approx(first[kept].mean(), abs=1e-6)
    assert table["difference"].to_list() == pytest.approx([change[kept].mean(), -change[kept].mean()], abs=1e-6)
    # paired: the interval is that of the changes, which vary far less than users do
    assert table["high"][0] - table["low"][0] == pytest.approx(2 * 1.96 * change[kept].std() / 49**0.5, rel=0.2)


def test_positions_are_twentieths() -> None:
    gate = gate_of([list(range(1, 41)), [1, 2, 3]], two(np.ones(2)))
    table = drift.position_table(gate, measure([drift.positions(gate)], [(20, 2)], 100, 0)[0])
    # after 2, 4, ..., 40 of the first user's items; the second's three items serve 6, 7 and 7 of the twentieths
    place = [-(-3 * (p + 1) // 20) - 1 for p in range(20)]
    assert [place.count(k) for k in range(3)] == [6, 7, 7]
    expected = (gate.after[1:40:2, 0] + gate.after[40:, 0][place]) / 2
    np.testing.assert_allclose(table.filter(pl.col("modality") == "plot")["mean"], expected, rtol=1e-6)
    assert table["position"].to_list() == [p for p in range(20) for _ in range(2)]


def test_items_of_a_drift_stand_out_against_the_trend(tiny: Dataset) -> None:
    # All users see 1 first and 2 last; the two who turn to plot also see 3 last and 4 first, others 3 first and 4 last.
    turned, others = [[1, 4, 4, 3, 3, 2]] * 2, [[1, 3, 3, 4, 4, 2]] * 18
    change = np.concatenate([np.full(2, 0.2), np.zeros(18)])
    halves = np.stack([two(np.full(20, 0.5)), two(0.5 + change)])
    table = drift.drift_items(gate_of(turned + others, two(np.full(20, 0.5)), halves), tiny, top=1)
    plot = {row["half"]: row for row in table.filter(pl.col("modality") == "plot").iter_rows(named=True)}
    assert plot["second"]["item_id"] == 3 and plot["second"]["title"] == tiny.items["title"][2]
    # four of 3 by the two users in their second half; the trend, 4 of 40, would have .4
    assert plot["second"]["lift"] == pytest.approx((4 + 5) / (4 * 4 / 40 + 5))
    sound = table.filter(pl.col("modality") == "sound", pl.col("half") == "first")  # whose sound fell
    assert sound["item_id"].to_list() == [4]


def test_users_without_a_half_turn_nowhere(tiny: Dataset) -> None:
    """Twenty users rise, the last one most; of twenty others nothing is known, who stand between rising and falling."""
    halves = np.zeros((2, 40, 2))
    halves[:, :20] = two(np.full(20, 0.3)), two(0.31 + np.arange(20) / 100)
    histories = [[3, 4, 1, 2]] * 2 + [[1, 2, 3, 4]] * 18 + [[5]] * 20
    table = drift.drift_items(gate_of(histories, two(np.full(40, 0.5)), halves), tiny, top=2)
    first = table.filter(pl.col("modality") == "plot", pl.col("half") == "first")
    assert first["item_id"].to_list() == [3, 4]  # of the two who rise least


def test_leanings_are_relative_to_the_mean_user(tiny: Dataset) -> None:
    weights = two(np.array([0.1, 0.2, 0.6]))
    halves = np.stack([weights, weights + np.array([0.05, -0.05])])
    halves[0, 2] = 0
    table = leanings(gate_of([[1, 2]] * 3, weights, halves), tiny)
    assert table["lift"].to_list() == pytest.approx([0.1 / 0.3, 0.9 / 0.7, 0.2 / 0.3, 0.8 / 0.7, 2.0, 0.4 / 0.7])
    assert table["change"].to_list()[:4] == pytest.approx([0.05, -0.05] * 2) and table["change"].null_count() == 2


def test_items_and_devoted_users(tiny: Dataset) -> None:
    gate = gate_of([[1, 2, 1], [3, 2]], two(np.array([0.2, 0.9])))
    table = item_table(gate, tiny)
    assert table["item_id"].to_list() == [1, 2, 3] and table["count"].to_list() == [2, 2, 1]
    assert table["plot"][0] == pytest.approx((gate.items[0, 0] + gate.items[2, 0]) / 2)
    best = devoted(gate, tiny)
    plot = best.filter(pl.col("modality") == "plot")
    assert plot["user_id"].to_list() == [2, 1] and plot["rank"].to_list() == [1, 2]
    ratings = tiny.column("rating")[gate.rows]
    order = sorted((3, 4), key=lambda place: (-ratings[place], -gate.items[place, 0]))
    assert plot["titles"][0].to_list() == [tiny.items["title"][int(gate.item_id[place]) - 1] for place in order]


def planted(rows: list[tuple[int, str, float, float]]) -> pl.DataFrame:
    table = pl.DataFrame(rows, ["raw_user_id", "modality", "start", "end"], orient="row")
    return table.with_columns(mean=(pl.col("start") + pl.col("end")) / 2)


def test_found_by_hand() -> None:
    truth = planted([(1, "a", 0.9, 0.7), (1, "b", 0.1, 0.3), (2, "a", 0.9, 0.1), (2, "b", 0.1, 0.9),
                     (3, "a", 0.0, 0.6), (3, "b", 1.0, 0.4)])  # fmt: skip
    learned = pl.DataFrame(
        {
            "raw_user_id": [1, 1, 2, 2, 3, 3],
            "modality": ["a", "b"] * 3,
            "lift": [1.2, 0.8, 0.9, 1.1, 1.3, 0.7],
            "change": [0.1, -0.1, -0.2, 0.2, None, None],
        }
    )
    assert found_groups(learned, truth, 0.7) == (2, 0.5)  # 1 rightly a, 3 wrongly a; 2 gives both the same
    assert found_drift(learned, truth, 0.5) == (2, 0.5)  # 2 rightly; of 3 there is nothing to tell
    assert found_drift(learned, truth, 0.1) == (3, pytest.approx(1 / 3))  # 1 moved the other way


def test_rank_correlations_by_hand() -> None:
    planted = pl.DataFrame(
        {"raw_user_id": [1, 1, 2, 2, 3, 3], "modality": ["a", "b"] * 3, "mean": [0.9, 0.1, 0.6, 0.4, 0.2, 0.8]}
    )
    learned = pl.DataFrame({"raw_user_id": [3, 2, 1], "a": [0.1, 0.5, 0.7], "b": [0.5, 0.6, 0.55]})
    found = rank_correlations(learned, planted)
    assert found["a"] == pytest.approx(1.0)  # the same order
    assert found["b"] == pytest.approx(-0.5)  # ranks 1, 3, 2 of users 3, 2, 1 against 3, 2, 1
    # inside users: 1 agrees (a over b), 2 does not, 3 agrees
    assert within_user_correlation(learned, planted) == pytest.approx(1 / 3)


def test_equal_weights_share_a_rank() -> None:
    names, rng = ["a", "b", "c", "d"], np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(4), (2, 30))
    weights[weights < 0.2] = 0  # as a gate with top_k leaves it
    weights[0, 0] = 0.25  # nothing to order
    rows = [(user, name, weights[1, user, k]) for user in range(30) for k, name in enumerate(names)]
    planted = pl.DataFrame(rows, ["raw_user_id", "modality", "mean"], orient="row")
    learned = pl.DataFrame({"raw_user_id": np.arange(30)} | {name: weights[0, :, k] for k, name in enumerate(names)})
    expected = [spearmanr(a, b).statistic for a, b in zip(weights[0, 1:], weights[1, 1:], strict=True)]
    assert within_user_correlation(learned, planted) == pytest.approx(np.mean(expected))
