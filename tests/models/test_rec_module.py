"""What a ranking model's record says of its evaluation."""

from pathlib import Path

import numpy as np
import pytest
import torch

from msmrec.columns import SPLIT, TEST, VAL
from msmrec.data.batches import EvalLoader
from msmrec.data.datamodule import RecDataModule
from msmrec.data.prepare import SplitProtocol
from msmrec.data.sources.simulated import Simulated
from msmrec.models.popularity import Popularity

TINY = Simulated(num_users=120, num_items=60, mean_interactions=14, num_modalities=3, num_aspects=4)


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
