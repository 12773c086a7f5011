"""What the protocol's options do to a prepared dataset."""

from pathlib import Path

import numpy as np

from msmrec.columns import RATING, SPLIT, TEST, TRAIN
from msmrec.data.prepare import Dataset, SplitProtocol, prepare
from msmrec.data.sources.simulated import Simulated


def test_low_rated_test_rows_are_no_targets(tiny: Dataset, tiny_root: Path, cache: Path) -> None:
    source = Simulated(num_users=120, num_items=60, mean_interactions=14, num_modalities=3, num_aspects=4)
    plain = SplitProtocol(min_user_count=0, min_item_count=0, split="user_ratio", ratios=(0.7, 0.0, 0.3))
    every = prepare(source, tiny_root, cache, plain)
    liked = SplitProtocol(**{**plain.__dict__, "min_target_rating": 4.0})
    some = prepare(source, tiny_root, cache, liked)
    stays = (every.column(SPLIT) == TRAIN) | (every.column(RATING) >= 4)
    assert 0 < stays.sum() < len(stays)
    assert np.array_equal(some.item_id, every.item_id[stays])
    assert np.array_equal(some.user_id, every.user_id[stays])
    assert np.array_equal(some.items["count"], every.items["count"])  # the training part is the same
    assert some.info["num_train"] == every.info["num_train"] and some.info["num_val"] == 0
    assert some.info["num_test"] == (some.column(SPLIT) == TEST).sum() < every.info["num_test"]
    assert "min_target_rating" not in every.info["protocol"]  # and not in the fingerprint of older datasets
