"""Validation, k-core and splits on tables of about ten rows."""

from collections import Counter

import numpy as np
import polars as pl
import pytest

from msmrec.artifacts import InputError
from msmrec.columns import TEST, TRAIN, VAL
from msmrec.data.interactions import RawData, encode, k_core, validate
from msmrec.data.prepare import SplitProtocol
from msmrec.data.splits import popularity_tiers, split


def raw(rows: list[tuple[object, object, float | None, int | None]]) -> RawData:
    frame = pl.DataFrame(
        rows,
        schema={"raw_user_id": pl.Int64, "raw_item_id": pl.Int64, "rating": pl.Float32, "timestamp": pl.Int64},
        orient="row",
    )
    items = pl.DataFrame({"raw_item_id": [10, 20], "title": ["Ten", None], "year": [1999, None]})
    return RawData(frame, items, pl.DataFrame(schema={"raw_user_id": pl.Int64}), "ratings.dat")


TEN = [
    (7, 10, 4.0, 30), (7, 20, 5.0, 10), (7, 30, 3.0, 30), (7, 40, 1.0, 20),
    (8, 20, 4.0, 5), (8, 10, 2.0, 5), (8, 30, 2.0, 5),
    (9, 10, 5.0, 99), (9, 50, 5.0, 98), (7, 50, 2.0, 40),
]  # fmt: skip


def test_encode_sorts_by_user_time_and_file_order() -> None:
    encoded = encode(raw(TEN))
    names = encoded.items["raw_item_id"].to_list()
    history = {
        user: [names[i - 1] for i in encoded.interactions.filter(pl.col("user_id") == n)["item_id"]]
        for n, user in enumerate(encoded.users["raw_user_id"], 1)
    }
    assert history == {7: [20, 40, 10, 30, 50], 8: [20, 10, 30], 9: [50, 10]}
    assert encoded.items.filter(pl.col("raw_item_id") == 10)["title"].item() == "Ten"
    # no title in the metadata, or no metadata at all: the raw id speaks for the item
    assert encoded.items.filter(pl.col("raw_item_id") == 20)["title"].item() == "20"
    assert encoded.items.filter(pl.col("raw_item_id") == 30)["genres"].to_list() == [[]]


def test_items_that_nobody_rated_stay_where_they_are_asked_for() -> None:
    listed = pl.DataFrame({"raw_item_id": [60, 10, None, 70, 60], "title": ["Sixty", "Ten", "None", None, "Again"]})
    source = raw(TEN)._replace(items=listed)
    without, items = encode(source).items, encode(source, unrated_items=True).items
    assert without["raw_item_id"].to_list() == [10, 20, 30, 40, 50]
    assert items["raw_item_id"].to_list() == [10, 20, 30, 40, 50, 60, 70]  # the ids of the others do not change
    assert items["item_id"].to_list() == [1, 2, 3, 4, 5, 6, 7]
    assert items["title"].to_list() == ["Ten", "20", "30", "40", "50", "Sixty", "70"]
    # 40 falls out of the core and is not listed; 10, which is, would stay
    assert encode(source, 0, 2, unrated_items=True).items["raw_item_id"].to_list() == [10, 20, 30, 50, 60, 70]
    few = raw([row for row in TEN if row[1] != 10 or row[0] == 7])._replace(items=listed)
    assert encode(few, 0, 2, unrated_items=True).items["raw_item_id"].to_list() == [20, 30, 50, 60, 10, 70]
    with pytest.raises(InputError, match=r"data\.protocol\.unrated_items: the source lists no items"):
        encode(source._replace(items=pl.DataFrame()), unrated_items=True)


@pytest.mark.parametrize("spread", [1, 10**12, "words"])
@pytest.mark.parametrize("times", [40, 2**62])
def test_encode_equals_a_sort_of_rows(spread: int | str, times: int) -> None:
    """Ids near each other, ids and times so far apart that they do not fit one number, and words."""
    rng = np.random.default_rng(0)
    pairs = rng.permutation(600)[:400]  # 20 users, 30 items, no pair twice
    user, item, time = pairs // 30, pairs % 30, rng.integers(0, 40, 400) * (times // 40)
    scale = 1 if spread == "words" else int(spread)
    frame = pl.DataFrame({"raw_user_id": (user - 9) * scale, "raw_item_id": item * scale, "rating": 1.0})
    frame = frame.with_columns(pl.col("rating").cast(pl.Float32), timestamp=pl.Series(time))
    if spread == "words":
        frame = frame.with_columns(pl.col("raw_user_id", "raw_item_id").cast(pl.String))
    encoded = encode(RawData(frame, pl.DataFrame(), pl.DataFrame(), "ratings.dat"), 17, 9)

    kept = frame.rows()
    for _ in range(100):  # the core by hand
        users, items = Counter(r[0] for r in kept), Counter(r[1] for r in kept)
        kept = [r for r in kept if users[r[0]] >= 17 and items[r[1]] >= 9]
    assert 0 < len(kept) < 400
    users_seen, items_seen = (list(dict.fromkeys(r[k] for r in kept)) for k in (0, 1))
    expected = sorted(kept, key=lambda r: (users_seen.index(r[0]), r[3]))
    assert encoded.users["raw_user_id"].to_list() == users_seen
    assert encoded.items["raw_item_id"].to_list() == items_seen
    found = encoded.interactions
    assert [users_seen[u - 1] for u in found["user_id"]] == [r[0] for r in expected]
    assert [items_seen[i - 1] for i in found["item_id"]] == [r[1] for r in expected]
    assert found["timestamp"].to_list() == [r[3] for r in expected]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ((None, 10, 4.0, 3), "missing user id in data row 11"),
        ((1, None, 4.0, 3), "missing item id in data row 11"),
        ((1, 10, float("nan"), 3), "rating that is no finite number in data row 11"),
        ((1, 10, 4.0, -3), "timestamp that is missing or before 1970 in data row 11"),
        ((8, 30, 1.0, 50), "data row 11 rates item 30 by user 8 again"),
    ],
)
def test_bad_rows_are_named(row: tuple[object, object, float, int], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        validate(raw([*TEN, row]))
    assert "ratings.dat" in str(caught.value) and "\n" not in str(caught.value)


def test_row_numbers_are_the_files_own() -> None:
    """Low ratings are no rows that count, but they stand in the file."""
    low = [(n, 60, 1.0, 0) for n in range(26)]
    for row, words in (((None, 10, 4.0, 3), "missing user id in"), ((8, 20, 3.0, 50), "again")):
        with pytest.raises(InputError, match=words) as caught:
            validate(raw([*low, *TEN, row]), min_rating=3)
        assert "data row 37 " in str(caught.value)
    validate(raw([*low, *TEN, (8, 20, 1.0, 50)]), min_rating=3)  # a pair that counts once
    kept = validate(raw([*low, *TEN]), min_rating=3)[0]
    assert kept.rows() == [row for row in TEN if row[2] >= 3]
    bad = raw([*TEN, (None, 10, 4.0, 3)])._replace(refused={"no item": 2})
    with pytest.raises(InputError, match=r"in data row 11 \(not counting those left out\) \(1 such rows\)"):
        validate(bad)


def test_a_rating_that_nobody_gives_is_named() -> None:
    with pytest.raises(InputError, match=r"none of 10 ratings is 9 \(data\.protocol\.min_rating\) or more, .* is 5;"):
        validate(raw(TEN), min_rating=9)
    with pytest.raises(InputError, match="no interactions in it"):
        validate(raw([]), min_rating=9)


def test_duplicates_can_keep_first_last_or_mean() -> None:
    twice = raw([*TEN, (8, 30, 1.0, 50), (8, 30, 3.0, 1)])  # the last one of the file is the first in time
    kept = {rule: validate(twice, rule)[0] for rule in ("first", "last", "mean")}  # type: ignore[arg-type]
    for rule, rating, time, row in (("first", 3.0, 1, 9), ("last", 1.0, 50, 9), ("mean", 2.0, 50, 9)):
        frame = kept[rule]
        assert len(frame) == 10 and frame.columns == twice.interactions.columns
        assert frame.row(row) == (8, 30, rating, time)
    tied = raw([(1, 10, 2.0, 5), (1, 20, 4.0, 5), (1, 10, 5.0, 5)])
    assert validate(tied, "first")[0]["rating"].to_list() == [2.0, 4.0]  # ties in time by file order
    assert validate(tied, "last")[0]["rating"].to_list() == [4.0, 5.0]
    assert validate(tied, "mean")[0]["rating"].to_list() == [4.0, 3.5]


def test_k_core_iterates() -> None:
    # item 3 has one rating; without it user 2 has one; without user 2 item 1 has one, and all falls
    user, item = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 0, 1, 1, 2])
    assert k_core(user, item, 2, 2).tolist() == [True, True, True, True, False, False]
    with pytest.raises(InputError, match="no interaction is left"):
        k_core(user, item, 3, 2)


def test_k_core_has_upper_bounds() -> None:
    user, item = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 2, 0, 1, 0])
    assert k_core(user, item, 0, 0, max_user_count=2).tolist() == [False, False, False, True, True, True]
    assert k_core(user, item, 0, 0, max_item_count=2).tolist() == [False, True, True, False, True, False]
    # without user 0, item 1 has one rating and falls, and then user 1 has one
    assert k_core(user, item, 1, 2, max_user_count=2).tolist() == [False, False, False, True, False, True]


def test_bounds_that_are_not_set_leave_datasets_as_they_were() -> None:
    assert list(SplitProtocol().described())[-1] == "hidden_items"
    assert SplitProtocol(max_user_count=9).described()["max_user_count"] == 9
    assert SplitProtocol(unrated_items=True).described()["unrated_items"] is True
    assert SplitProtocol(min_target_rating=0.0).described()["min_target_rating"] == 0


def test_leave_one_out() -> None:
    user, time = np.array([1, 1, 1, 1, 2, 2, 3, 3, 3]), np.arange(9)
    expected = [TRAIN, TRAIN, VAL, TEST, TRAIN, TRAIN, TRAIN, VAL, TEST]
    assert split("leave_one_out", user, time).tolist() == expected


def test_user_ratio() -> None:
    user, time = np.array([1] * 10 + [2] * 2), np.arange(12)
    part = split("user_ratio", user, time, (0.7, 0.1, 0.2))
    assert part.tolist() == [TRAIN] * 7 + [VAL] + [TEST] * 2 + [TRAIN, TEST]


def test_global_time_is_stable_and_keeps_the_order_inside_users() -> None:
    user = np.array([1, 1, 1, 1, 1, 2, 2, 2, 2, 2])
    time = np.array([1, 2, 3, 8, 9, 1, 2, 8, 8, 9])
    part = split("global_time", user, time, (0.6, 0.1, 0.3))
    assert part.tolist() == [TRAIN, TRAIN, TRAIN, TRAIN, TEST, TRAIN, TRAIN, VAL, TEST, TEST]


@pytest.mark.parametrize("name", ["user_ratio", "user_random", "global_time"])
def test_a_whole_share_is_not_rounded_down(name: str) -> None:
    """100 * 0.29 is 28.999999999999996."""
    for ratios in ((0.29, 0.29, 0.42), (0.42, 0.29, 0.29)):
        part = split(name, np.ones(100, int), np.arange(100), ratios)  # type: ignore[arg-type]
        assert np.bincount(part).tolist() == [round(100 * share) for share in ratios]


def test_split_refuses_bad_ratios() -> None:
    for ratios in ((0.8, 0.1, 0.2), (0.8, 0.1, 0.0), (1.1, -0.1, 0.0), (0.0, 0.5, 0.5)):
        with pytest.raises(InputError, match=r"^data\.protocol\.ratios .* sum to 1"):
            split("user_ratio", np.array([1]), np.array([1]), ratios)


def test_popularity_tiers() -> None:
    count = np.array([100, 50, 40, 30, 20, 9, 8, 7, 6, 5, 0])
    tiers = popularity_tiers(count).tolist()
    assert tiers == ["head"] + ["mid"] * 4 + ["tail"] * 5 + ["cold"]


def test_global_time_counts_only_rows_with_enough_history() -> None:
    user = np.repeat([1, 2], 6)
    time = np.array([1, 2, 3, 4, 5, 6, 4, 5, 6, 7, 8, 9])
    part = split("global_time", user, time, (0.5, 0.25, 0.25), min_history=2)
    # Samples by time: user 1 at 3, 4, 5, 6; user 2 at 6, 7, 8, 9; the first four train, the next two validate.
    assert part.tolist() == [TRAIN] * 6 + [TRAIN, TRAIN, VAL, VAL, TEST, TEST]


@pytest.mark.parametrize(
    ("ratios", "min_history", "words"),
    [
        ((0.8, 0.1, 0.1), 6, r"0 of 12 rows have data\.protocol\.min_history 6 earlier .* \(the most is 5\)"),
        ((0.2, 0.4, 0.4), 4, r"4 of 12 rows have .* data\.protocol\.ratios gives 0\.2 of them to training"),
    ],
)
def test_global_time_wants_a_training_sample(ratios: tuple[float, ...], min_history: int, words: str) -> None:
    user, time = np.repeat([1, 2], 6), np.tile(np.arange(6), 2)
    with pytest.raises(InputError, match=words) as caught:
        split("global_time", user, time, ratios, min_history)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_user_random_keeps_the_shares_of_each_user() -> None:
    user = np.repeat([1, 2, 3], [20, 3, 2])
    part = split("user_random", user, np.arange(25))
    assert [np.bincount(part[user == u], minlength=3).tolist() for u in (1, 2)] == [[16, 2, 2], [1, 1, 1]]
    assert (part[user == 3] == TRAIN).all()  # two rows are too few to share
    assert (np.diff(part[user == 1]) < 0).any()  # not the last ones
