"""What the protocol's options do to a prepared dataset."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from msmrec.artifacts import InputError
from msmrec.columns import ITEM_ID, RATING, SPLIT, TEST, TIMESTAMP, TRAIN, USER_ID
from msmrec.data.prepare import Dataset, SplitProtocol, prepare
from msmrec.data.sources.simulated import Simulated

TINY = Simulated(num_users=120, num_items=60, mean_interactions=14, num_modalities=3, num_aspects=4)


def test_low_rated_test_rows_are_no_targets(tiny: Dataset, tiny_root: Path, cache: Path) -> None:
    plain = SplitProtocol(min_user_count=0, min_item_count=0, split="user_ratio", ratios=(0.7, 0.0, 0.3))
    every = prepare(TINY, tiny_root, cache, plain)
    liked = SplitProtocol(**{**plain.__dict__, "min_target_rating": 4.0})
    some = prepare(TINY, tiny_root, cache, liked)
    stays = (every.column(SPLIT) == TRAIN) | (every.column(RATING) >= 4)
    assert 0 < stays.sum() < len(stays)
    assert np.array_equal(some.item_id, every.item_id[stays])
    assert np.array_equal(some.user_id, every.user_id[stays])
    assert np.array_equal(some.items["count"], every.items["count"])  # the training part is the same
    assert some.info["num_train"] == every.info["num_train"] and some.info["num_val"] == 0
    assert some.info["num_test"] == (some.column(SPLIT) == TEST).sum() < every.info["num_test"]
    assert "min_target_rating" not in every.info["protocol"]  # and not in the fingerprint of older datasets


def test_random_parts_lie_one_after_the_other_in_time_order(tiny: Dataset, tiny_root: Path, cache: Path) -> None:
    mixed = prepare(TINY, tiny_root, cache, SplitProtocol(split="user_random"))
    rows = list(zip(*(mixed.column(name).tolist() for name in (USER_ID, SPLIT, TIMESTAMP)), strict=True))
    assert rows == sorted(rows)
    by_time = np.lexsort((mixed.column(TIMESTAMP), mixed.user_id))
    assert (np.diff(mixed.column(SPLIT)[by_time])[np.diff(mixed.user_id[by_time]) == 0] < 0).any()
    assert sorted(zip(mixed.user_id, mixed.item_id, strict=True)) == sorted(
        zip(tiny.user_id, tiny.column(ITEM_ID), strict=True)
    )


def test_a_folder_that_is_no_dataset_is_named(tmp_path: Path) -> None:
    for content in (None, "{"):
        if content:
            (tmp_path / "dataset.json").write_text(content)
        with pytest.raises(InputError, match=r"no readable dataset\.json .* remove the folder"):
            Dataset(tmp_path)


def test_a_broken_dataset_is_one_line(tiny: Dataset, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny.folder, tmp_path / "broken")
    for name in ("interactions.parquet", "items.parquet", "users.parquet"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-20])
    for read in (lambda: Dataset(folder).item_id, lambda: Dataset(folder).items, lambda: Dataset(folder).users):
        with pytest.raises(InputError, match=r"broken/\w+\.parquet: gone or broken .*; remove it, and make it again"):
            read()
    (folder / "dataset.json").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"no readable dataset\.json"):
        Dataset(folder)
