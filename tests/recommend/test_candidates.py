"""The nearest unseen items against brute force."""

import numpy as np
import pytest

from msmrec.columns import TEST, VAL
from msmrec.data.prepare import Dataset
from msmrec.media.features import Features
from msmrec.recommend.candidates import nearest_unseen


@pytest.mark.parametrize("split", [VAL, TEST])
@pytest.mark.parametrize("num_candidates", [10, 50])
def test_against_brute_force(tiny: Dataset, split: int, num_candidates: int) -> None:
    rng = np.random.default_rng(0)
    present = rng.random(tiny.num_items + 1) < 0.9
    present[0] = False
    features = Features(rng.standard_normal((tiny.num_items + 1, 8), np.float32), present)
    vectors = rng.standard_normal((tiny.num_users + 1, 8), np.float32)
    vectors[5] = 0
    users = rng.permutation(np.arange(1, tiny.num_users + 1))[:90]
    users[0] = 5
    found = nearest_unseen(tiny, features, vectors, users, split, num_candidates)
    counts = tiny.items["count"].to_numpy()
    for row, user in enumerate(users):
        seen = set(tiny.item_id[tiny.offsets[user] : tiny.ends[split - 1][user]].tolist())
        fresh = np.array([i for i in range(1, tiny.num_items + 1) if i not in seen and (present[i] or user == 5)])
        length = np.linalg.norm(features.vectors[fresh], axis=1) * max(np.linalg.norm(vectors[user]), 1e-9)
        score = features.vectors[fresh] @ vectors[user] / length
        order = np.argsort(-counts[fresh - 1] if user == 5 else -score, kind="stable")[:num_candidates]
        assert found.items[row, : len(order)].tolist() == fresh[order].tolist()
        assert found.scores[row, : len(order)] == pytest.approx(score[order], abs=1e-5)
        assert not found.items[row, len(order) :].any() and not found.scores[row, len(order) :].any()


def test_within(tiny: Dataset) -> None:
    rng = np.random.default_rng(1)
    features = Features(rng.standard_normal((tiny.num_items + 1, 8), np.float32), np.arange(tiny.num_items + 1) > 0)
    vectors = rng.standard_normal((tiny.num_users + 1, 8), np.float32)
    vectors[2] = 0
    some = np.arange(3, 15)  # of which some users have seen so many that less than ten are left
    users = np.arange(1, 20)
    every = nearest_unseen(tiny, features, vectors, users, TEST, 60).items
    found = nearest_unseen(tiny, features, vectors, users, TEST, 10, within=some).items
    for row, whole in zip(found, every, strict=True):
        assert [i for i in row if i] == [i for i in whole if i in some][:10]
