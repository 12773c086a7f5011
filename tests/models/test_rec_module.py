"""The evaluation of ranking models against brute force, and what their record says of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from msmrec.columns import SPLIT, TEST, VAL
from msmrec.data.batches import EvalLoader
from msmrec.data.catalogue import catalogue_of
from msmrec.data.datamodule import RecDataModule
from msmrec.data.prepare import SplitProtocol, prepare
from msmrec.data.sources.simulated import Simulated
from msmrec.models.popularity import Popularity
from msmrec.models.rec_module import RecModule

TINY = Simulated(num_users=120, num_items=60, mean_interactions=14, num_modalities=3, num_aspects=4)


class Given(RecModule):
    """Scores that are given; a list is as long as the catalogue."""

    list_length = 1000

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = table

    def scores(self, batch: Any) -> torch.Tensor:
        return self.table[batch.user_id]


def test_ranks_and_lists_are_of_unseen_items(tiny_root: Path, cache: Path) -> None:
    protocol = SplitProtocol(split="user_ratio", ratios=(0.4, 0.2, 0.4), hidden_items=0.3)
    data = prepare(TINY, tiny_root, cache, protocol)
    table = torch.from_numpy(np.random.default_rng(0).standard_normal((data.num_users + 1, data.num_items + 1)))
    table[:, 0] = 9  # the padding is no item
    model, cold = Given(table), set(data.items.filter(tier="cold")["item_id"])
    model._catalogue = catalogue_of(data, torch.device("cpu"))
    several = 0
    for batch in EvalLoader(data, TEST, 10, 16, torch.device("cpu")):
        for user, *found in zip(*(column.tolist() for column in model.evaluate(batch)), strict=True):
            ends = data.ends[:, user]
            seen, targets = data.item_id[data.offsets[user] : ends[VAL]], data.item_id[ends[VAL] : ends[TEST]].tolist()
            order = sorted({*range(1, data.num_items + 1)} - set(seen), key=lambda i: -table[user, i])
            cold_order = [i for i in order if i in cold]
            ranks, count, cold_ranks, cold_list_ranks, cold_count, top = found
            padding = [0] * (len(ranks) - len(targets))
            assert ranks == [order.index(i) if i else data.num_items + 1 for i in targets + padding]
            assert cold_ranks == [order.index(i) if i in cold else data.num_items + 1 for i in targets + padding]
            assert cold_list_ranks == [cold_order.index(i) if i in cold else len(cold) + 1 for i in targets + padding]
            assert (count, cold_count) == (len(targets), len(cold & set(targets)))
            assert top == order + [0] * len(seen)
            several += cold_count > 1
    assert several > 5


def test_users_without_history_are_counted(tiny_root: Path, cache: Path) -> None:
    protocol = SplitProtocol(split="global_time", ratios=(0.2, 0.4, 0.4))
    data = RecDataModule(TINY, str(tiny_root), str(cache), protocol)
    part, user = data.dataset.column(SPLIT), data.dataset.user_id
    counted = Popularity(data.num_items).protocol(data)["users_without_history"]
    for name, split in (("val", VAL), ("test", TEST)):
        targets = set(user[part == split].tolist())
        new = targets - set(user[part < split].tolist())
        assert new and counted[name] == len(new)
        batches = EvalLoader(data.dataset, split, 10, 16, torch.device("cpu"))
        assert sorted(np.concatenate([batch.user_id for batch in batches])) == sorted(targets - new)


@pytest.mark.parametrize(
    ("lowest", "ratios", "words"),
    [
        (None, (0.6, 0.2, 0.2), "the whole history"),
        (4.0, (0.6, 0.0, 0.4), "the whole history"),
        (4.0, (0.6, 0.2, 0.2), "the whole history, but in the test without the validation's ratings below 4"),
    ],
)
def test_what_is_not_recommended_again_is_said(
    lowest: float | None, ratios: tuple[float, float, float], words: str, tiny_root: Path, cache: Path
) -> None:
    protocol = SplitProtocol(split="user_ratio", ratios=ratios, min_target_rating=lowest)
    data = RecDataModule(TINY, str(tiny_root), str(cache), protocol)
    assert Popularity(data.num_items).protocol(data)["seen_filter"] == words
