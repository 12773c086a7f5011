"""Click samples: counts of the published protocol, histories that end before the target, nothing lost or doubled."""

from pathlib import Path

import numpy as np
import pytest
import torch

from msmrec.artifacts import InputError
from msmrec.columns import RATING, SPLIT, TEST, TIMESTAMP, TRAIN, VAL
from msmrec.data.prepare import Dataset, SplitProtocol, prepare
from msmrec.data.samples import SampleLoader, sample_rows
from msmrec.data.sources.movielens import MovieLens
from msmrec.data.sources.simulated import Simulated

TINY = Simulated(num_users=120, num_items=60, mean_interactions=14, num_modalities=3, num_aspects=4)
CPU = torch.device("cpu")


def test_a_sample_sees_what_its_user_rated_before_it_and_nothing_else(tiny_clicks: Dataset) -> None:
    data = tiny_clicks
    item, rating, user = data.item_id, data.column(RATING), data.user_id
    for split in (TRAIN, VAL, TEST):
        rows = sample_rows(data, split)
        loader = SampleLoader(data, split, 3.0, 8, 50, CPU, shuffle=False)
        batches = list(loader)
        assert len(batches) == len(loader)
        label = torch.cat([b.label for b in batches])
        assert label.tolist() == (rating[rows] > 3).tolist()
        seen = 0
        for batch in batches:
            for k in range(len(batch.user_id)):
                row = rows[seen + k]
                start = max(data.offsets[user[row]], row - 8)
                length = int(batch.seq_len[k])
                assert batch.item_seq[k, :length].tolist() == item[start:row].tolist()
                assert batch.rating_seq[k, :length].tolist() == rating[start:row].tolist()
                assert not batch.item_seq[k, length:].any() and length >= 5
            seen += len(batch.user_id)
        assert seen == len(rows)
    time, part = data.column(TIMESTAMP), data.column(SPLIT)
    assert time[part == TRAIN].max() <= time[part == VAL].min() and time[part == VAL].max() <= time[part == TEST].min()


def test_a_training_part_without_samples_is_named(tiny_root: Path, cache: Path) -> None:
    protocol = SplitProtocol(min_user_count=0, min_item_count=0, split="user_ratio", min_history=500)
    data = prepare(TINY, tiny_root, cache, protocol)
    assert not len(sample_rows(data, TEST))
    with pytest.raises(InputError, match=r"no training row has data\.protocol\.min_history 500 earlier ones"):
        SampleLoader(data, TRAIN, 3.0, 8, 50, CPU, shuffle=True)


def test_shuffled_epochs_differ_and_processes_share_the_samples(tiny_clicks: Dataset) -> None:
    data = tiny_clicks

    def targets(loader: SampleLoader) -> list[int]:
        return torch.cat([b.target_item * 1000 + b.user_id for b in loader]).tolist()

    loader = SampleLoader(data, TRAIN, 3.0, 8, 32, CPU, shuffle=True)
    first = targets(loader)
    loader.set_epoch(1)
    assert sorted(first) == sorted(targets(loader)) and first != targets(loader)
    halves = [targets(SampleLoader(data, TEST, 3.0, 8, 32, CPU, False, rank=r, world_size=2)) for r in (0, 1)]
    assert sorted(halves[0] + halves[1]) == sorted(targets(SampleLoader(data, TEST, 3.0, 8, 32, CPU, False)))


def test_ml1m_has_the_published_counts(real_data: Path, cache: Path) -> None:
    protocol = SplitProtocol(min_user_count=0, min_item_count=0, split="global_time", min_history=5)
    data = prepare(MovieLens("ml-1m"), real_data, cache, protocol)
    assert [len(sample_rows(data, split)) for split in (TRAIN, VAL, TEST)] == [776_007, 97_000, 97_002]
    assert len(data.item_id) == 1_000_209 and np.isfinite(data.column(RATING)).all()
