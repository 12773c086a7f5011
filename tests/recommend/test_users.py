"""User vectors by hand, and against a plain loop; nothing of the test part is in them."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from msmrec.columns import TEST, TRAIN
from msmrec.data.prepare import Dataset, write_json
from msmrec.media.features import Features
from msmrec.recommend.users import user_vectors

FEATURES = Features(
    np.array([[0, 0], [1, 0], [0, 1], [1, 1], [0, 0]], np.float32), np.array([False, True, True, True, False])
)


@pytest.fixture
def five_users(tmp_path: Path) -> Dataset:
    """User 1 likes items 1 and 2, 2 nothing, 3 only item 4, which has no vector; 4 rated that alone; 5 is tested."""
    rows = [
        (1, 1, 5.0, 0, TRAIN), (1, 3, 3.0, 5, TRAIN), (1, 2, 4.0, 10, TRAIN), (1, 3, 5.0, 20, TEST),
        (2, 1, 2.0, 7, TRAIN), (2, 3, 3.0, 7, TRAIN),
        (3, 4, 5.0, 1, TRAIN), (3, 2, 1.0, 2, TRAIN),
        (4, 4, 5.0, 1, TRAIN),
        (5, 1, 5.0, 3, TRAIN), (5, 2, 5.0, 4, TEST),
    ]  # fmt: skip
    names = ["user_id", "item_id", "rating", "timestamp", "split"]
    types = [pl.Int32, pl.Int32, pl.Float32, pl.Int64, pl.Int8]
    table = pl.DataFrame(rows, dict(zip(names, types, strict=True)), orient="row")
    table.write_parquet(tmp_path / "interactions.parquet")
    write_json(tmp_path / "dataset.json", {"num_users": 5, "num_items": 4})
    return Dataset(tmp_path)


def test_average_by_hand(five_users: Dataset) -> None:
    vectors, counts = user_vectors("average", five_users, FEATURES)
    expected = [[0, 0], [0.5, 0.5], [1, 0.5], [0, 1], [0, 0], [1, 0]]
    assert vectors.tolist() == expected
    assert counts == {"nothing rated 4 or more: all ratings": 2, "no vector": 1}  # users 2 and 3; user 4


def test_temporal_by_hand(five_users: Dataset) -> None:
    vectors, _ = user_vectors("temporal", five_users, FEATURES)
    # user 1: times 0 and 10 lie one standard deviation before and after their mean
    before, after = 1 / (1 + np.e), 1 / (1 + 1 / np.e)
    assert vectors[1].tolist() == pytest.approx([before, after])  # which sum to 1
    assert vectors[2].tolist() == [1, 0.5]  # one time: as average
    step, _ = user_vectors("temporal", five_users, FEATURES, rate=1000)
    assert step[1].tolist() == pytest.approx([0, 1])


def test_random_depends_on_the_seed_alone(five_users: Dataset) -> None:
    vectors, counts = user_vectors("random", five_users, FEATURES, seed=3)
    assert not vectors[0].any() and vectors[1:].any(1).all() and not counts
    assert np.array_equal(vectors, user_vectors("random", five_users, FEATURES, seed=3).vectors)
    assert not np.array_equal(vectors, user_vectors("random", five_users, FEATURES, seed=4).vectors)


@pytest.mark.parametrize("kind", ["average", "temporal"])
def test_against_a_loop_over_users(tiny: Dataset, kind: str) -> None:
    rng = np.random.default_rng(0)
    present = rng.random(tiny.num_items + 1) < 0.8
    present[0] = False
    features = Features(rng.standard_normal((tiny.num_items + 1, 7), np.float32) * present[:, None], present)
    found = user_vectors(kind, tiny, features, liked=4, rate=2.0).vectors  # type: ignore[arg-type]
    rows = pl.read_parquet(tiny.folder / "interactions.parquet").filter(pl.col("split") == TRAIN)
    for user in range(1, tiny.num_users + 1):
        mine = [row for row in rows.filter(user_id=user).iter_rows(named=True) if present[row["item_id"]]]
        mine = [row for row in mine if row["rating"] >= 4] or mine
        time = np.array([row["timestamp"] for row in mine], float)
        weight = np.ones(len(mine))
        if kind == "temporal" and time.std() > 0:
            weight = 1 / (1 + np.exp(-2.0 * (time - time.mean()) / time.std()))
        expected = weight @ features.vectors[[row["item_id"] for row in mine]] / weight.sum()
        assert found[user] == pytest.approx(expected, abs=1e-5)
