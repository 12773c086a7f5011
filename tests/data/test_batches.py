"""Batches against plain Python over the same histories."""

from pathlib import Path

import numpy as np
import pytest
import torch

from msmrec.artifacts import InputError
from msmrec.columns import TEST, VAL
from msmrec.data.batches import EvalLoader, Plan, TrainLoader, flat_rows, width_of
from msmrec.data.prepare import Dataset, SplitProtocol, prepare
from msmrec.data.samples import SampleLoader
from msmrec.data.sources.simulated import Simulated

TINY = Simulated(num_users=120, num_items=60, mean_interactions=14, num_modalities=3, num_aspects=4)

CPU = torch.device("cpu")


def parts(dataset: Dataset) -> dict[int, tuple[list[int], list[int], list[int]]]:
    """Each user's training, validation and test items."""
    histories = {}
    for user in range(1, dataset.num_users + 1):
        rows, part = slice(dataset.offsets[user], dataset.offsets[user + 1]), dataset.column("split")
        histories[user] = tuple(dataset.item_id[rows][part[rows] == p].tolist() for p in (0, 1, 2))
    return histories  # type: ignore[return-value]


def test_training_covers_each_users_latest_items_once_and_nothing_else(tiny: Dataset) -> None:
    loader = TrainLoader(tiny, max_seq_len=10, tokens_per_batch=100, device=CPU)
    histories, seen = parts(tiny), set()
    batches = list(loader)
    assert len(batches) == len(loader)
    for batch in batches:
        assert batch.item_seq.numel() <= 100
        real = batch.item_seq.nonzero(as_tuple=True)
        assert torch.equal(batch.row, real[0]) and torch.equal(batch.column, real[1])
        for row, user in enumerate(batch.user_id.tolist()):
            n = int(batch.seq_len[row])
            assert user not in seen
            seen.add(user)
            latest = histories[user][0][-11:]
            assert batch.start[row] == len(histories[user][0]) - len(latest)
            assert batch.item_seq[row, :n].tolist() == latest[:-1]
            assert batch.target_item[row, :n].tolist() == latest[1:]
            assert not batch.item_seq[row, n:].any() and not batch.target_item[row, n:].any()
    assert seen == {user for user, (train, _, _) in histories.items() if len(train) > 1}


def test_all_windows_use_every_training_item_as_a_target_once(tiny: Dataset) -> None:
    loader = TrainLoader(tiny, max_seq_len=4, tokens_per_batch=64, device=CPU, all_windows=True)
    histories = parts(tiny)
    found: dict[int, list[int]] = {}
    for batch in loader:
        for row, user in enumerate(batch.user_id.tolist()):
            window = slice(int(batch.start[row]), int(batch.start[row] + batch.seq_len[row]))
            assert batch.item_seq[row, : batch.seq_len[row]].tolist() == histories[user][0][window]
            found.setdefault(user, []).extend(batch.target_item[row][batch.target_item[row] > 0].tolist())
    for user, (train, _, _) in histories.items():
        assert sorted(found.get(user, [])) == sorted(train[1:])


def test_epochs_differ_and_repeat(tiny: Dataset) -> None:
    def order(epoch: int, seed: int = 0) -> list[int]:
        loader = TrainLoader(tiny, 10, 100, CPU, seed=seed)
        loader.set_epoch(epoch)
        return [user for batch in loader for user in batch.user_id.tolist()]

    assert order(0) == order(0) and order(0) != order(1) and order(0) != order(0, seed=1)


def test_widths_by_hand() -> None:
    length = np.array([1, 7, 8, 9, 15, 16, 17, 18, 31, 32, 33, 100, 127, 128, 129, 255, 1025])
    width = [1, 7, 8, 9, 15, 16, 18, 18, 32, 32, 36, 104, 128, 128, 144, 256, 1152]
    assert width_of(length).tolist() == width


def test_a_plan_has_few_shapes_that_stay_and_mixes_what_is_alike() -> None:
    length = np.minimum(np.random.default_rng(0).lognormal(4, 1, 3000).astype(int) + 1, 200)
    plan = Plan(length, tokens_per_batch=4096)
    epochs = [plan.batches(np.random.default_rng(epoch)) for epoch in range(3)]
    for batches in [*epochs, plan.batches(None)]:
        assert sorted(np.concatenate([rows for rows, _ in batches]).tolist()) == list(range(3000))
        for rows, width in batches:
            assert len(rows) * width <= 4096 and length[rows].max() <= width
            assert len(rows) == 4096 // width or rows is min(batches, key=lambda b: b[1])[0]  # the last is not full
        positions = sum(len(rows) * width for rows, width in batches)
        assert 1 - length.sum() / positions < 0.07
    shapes = [sorted((len(rows), width) for rows, width in batches) for batches in epochs]
    assert shapes[0] == shapes[1] == shapes[2] and len(set(shapes[0])) < 30 < len(shapes[0])
    met = [{tuple(sorted(rows.tolist())) for rows, _ in batches} for batches in epochs]
    assert len(met[0] & met[1]) <= 1  # nobody always meets the same
    assert [rows.tolist() for rows, _ in plan.batches(np.random.default_rng(0))] == [r.tolist() for r, _ in epochs[0]]
    ordered = np.concatenate([length[rows] for rows, _ in plan.batches(None)])
    assert ordered.tolist() == sorted(length.tolist(), reverse=True)


def test_plans_of_one_long_sequence_of_few_and_of_nothing() -> None:
    assert [(rows.tolist(), width) for rows, width in Plan(np.array([50]), 10).batches(None)] == [([0], 50)]
    assert [width for _, width in Plan(np.array([5, 2]), 100).batches(None)] == [5]  # both fit
    nothing = Plan(np.zeros(0, np.int64), 10)
    assert nothing.batches(None) == [] and nothing.count(equal=False) == 0


@pytest.mark.parametrize("equal", [True, False])
def test_no_process_waits_for_a_batch(equal: bool) -> None:
    length = np.array([2] * 15 + [200] + [2] * 15)
    plans = [Plan(length, 16_384, rank, 8) for rank in range(8)]
    assert sum(plans[0].size) == 31
    for epoch in range(2):
        batches = [plan.batches(np.random.default_rng(epoch) if equal else None) for plan in plans]
        assert [len(mine) for mine in batches] == [1] * 8 == [plan.count(equal) for plan in plans]
        assert sorted(k for mine in batches for rows, _ in mine for k in rows.tolist()) == list(range(31))
        for mine in batches:
            for rows, width in mine:
                assert width == length[rows].max() and len(rows) <= 8
    assert all(Plan(np.full(8, 3), 16_384, rank, 8).count(equal) == 1 for rank in range(8))
    assert Plan(np.zeros(0, np.int64), 10, 0, 8).count(equal) == 0
    with pytest.raises(InputError, match="7 sequences cannot be shared by 8 processes: set"):
        Plan(np.full(7, 3), 16_384, 0, 8)


def test_processes_share_an_epoch_without_overlap(tiny: Dataset) -> None:
    users = [
        [u for batch in TrainLoader(tiny, 10, 100, CPU, rank=r, world_size=2) for u in batch.user_id.tolist()]
        for r in (0, 1)
    ]
    assert not set(users[0]) & set(users[1]) and len(users[0]) and len(users[1])
    both = [[u for b in EvalLoader(tiny, VAL, 10, 16, CPU, r, 2) for u in b.user_id.tolist()] for r in (0, 1)]
    assert sorted(both[0] + both[1]) == sorted(u for u, p in parts(tiny).items() if p[1])


@pytest.mark.parametrize("protocol", [SplitProtocol(), SplitProtocol(split="user_ratio", ratios=(0.8, 0.05, 0.15))])
def test_evaluation_histories_targets_and_seen_items(protocol: SplitProtocol, tiny_root: Path, cache: Path) -> None:
    """One target each, and several, of which some users have none."""
    dataset = prepare(TINY, tiny_root, cache, protocol)
    histories = parts(dataset)
    for split in (VAL, TEST):
        users = []
        for batch in EvalLoader(dataset, split, max_seq_len=6, batch_size=7, device=CPU):
            for row, user in enumerate(batch.user_id.tolist()):
                train, val, test = histories[user]
                before, target = (train, val) if split == VAL else (train + val, test)
                users.append(user)
                assert batch.item_seq[row, : int(batch.seq_len[row])].tolist() == before[-6:]
                assert int(batch.start[row]) == max(len(before) - 6, 0)
                assert [t for t in batch.target_item[row].tolist() if t] == target
                assert batch.seen_item[batch.seen_row == row].tolist() == before  # all of it, not the last six
        assert sorted(users) == [u for u, p in histories.items() if p[split]]


def test_hidden_items_are_only_targets_of_the_test(tiny_root: Path, cache: Path) -> None:
    dataset = prepare(TINY, tiny_root, cache, SplitProtocol(hidden_items=0.2))
    part, item = dataset.column("split"), dataset.item_id
    cold = set(dataset.items.filter(tier="cold")["item_id"])
    assert len(cold) >= 5 and not cold & set(item[part != TEST].tolist())
    assert cold & set(item[part == TEST].tolist())


def test_a_training_part_without_a_next_item_is_named(tiny_root: Path, cache: Path) -> None:
    with pytest.raises(InputError, match=r"no training row is left with data\.protocol\.hidden_items 1; lower it"):
        prepare(TINY, tiny_root, cache, SplitProtocol(hidden_items=1.0))
    single = prepare(TINY, tiny_root, cache, SplitProtocol(split="user_ratio", ratios=(0.01, 0.5, 0.49)))
    with pytest.raises(InputError, match="no user has two training rows") as caught:
        TrainLoader(single, 10, 100, CPU)
    assert str(single.folder) in str(caught.value) and "\n" not in str(caught.value)


def test_flat_rows_by_hand() -> None:
    owner, rows = flat_rows(np.array([3, 7, 7, 0]), np.array([5, 7, 10, 1]))
    np.testing.assert_array_equal(owner, [0, 0, 2, 2, 2, 3])
    np.testing.assert_array_equal(rows, [3, 4, 7, 8, 9, 0])
    assert [len(x) for x in flat_rows(np.zeros(0, np.int64), np.zeros(0, np.int64))] == [0, 0]


def test_users_or_samples_fewer_than_processes_are_refused_by_all(tiny: Dataset, tiny_clicks: Dataset) -> None:
    for rank in (0, 999):
        with pytest.raises(InputError, match=r"\d+ users to evaluate cannot be shared by 1000 processes"):
            EvalLoader(tiny, TEST, 10, 8, CPU, rank, 1000)
        with pytest.raises(InputError, match=r"\d+ samples cannot be shared by 1000 processes"):
            SampleLoader(tiny_clicks, TEST, 3, 10, 8, CPU, False, 0, rank, 1000)
