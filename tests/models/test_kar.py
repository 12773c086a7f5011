"""KAR: the adaptor against a loop, snapshots by hand, no look ahead, missing texts, cold items, golden losses."""

from collections.abc import Sequence
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from tests.models.test_sequence_models import MODALITIES, all_positions, tiny_text

from msmrec.columns import TEST, VAL
from msmrec.data.batches import EvalBatch, EvalLoader, TrainBatch, TrainLoader
from msmrec.data.prepare import Dataset
from msmrec.models.kar import ITEM, KAR, USER, HybridExpertAdaptor
from msmrec.text.encoder import TextEncoder, TfidfSvdEncoder
from msmrec.text.item_text import ItemText
from msmrec.text.user_text import UserText, snapshots

CPU = torch.device("cpu")


def kar(lengths: Sequence[int] = (0, 12, 12, 12), num_items: int = 40, first: int = 2, **options: Any) -> KAR:
    """A KAR with random vectors; items 0, 5 and a third of the others have no text, item 7 is cold."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    text = ItemText(["unused.jsonl"], MODALITIES, encoder=TfidfSvdEncoder(8), dim=8)
    options = {"max_seq_len": 12, "embedding_dim": 16, "expert_dim": 6} | options
    model = KAR(text, num_items, len(lengths) - 1, UserText(first), **options).eval()
    made = snapshots(np.array(lengths), first)
    items = random.normal(size=(num_items + 1, 8)) * (random.random((num_items + 1, 1)) > 0.33)
    items[[0, 5]] = 0
    count = np.ones(num_items)
    count[6] = 0
    model.load_knowledge(items.astype(np.float32), random.normal(size=(len(made.size), 8)), made.offsets, count)
    for down in model.adaptor.down:
        torch.nn.init.normal_(down, std=1.0)  # so that text matters at once
    return model


def test_adaptor_is_the_papers_formula() -> None:
    torch.manual_seed(0)
    adaptor = HybridExpertAdaptor(5, 4, 3, num_shared=2, num_own=(1, 3), dropout=0.0)
    for bias in (*adaptor.up_bias, *adaptor.down_bias):
        torch.nn.init.normal_(bias)
    text = torch.randn(6, 5)
    text[2] = 0
    for kind, own in ((ITEM, 1), (USER, 3)):
        out = adaptor(text, kind)
        for row in range(6):
            weights = torch.softmax(adaptor.gate[kind].weight @ text[row] + adaptor.gate[kind].bias, 0)
            assert len(weights) == 2 + own
            total = torch.zeros(4)
            for j, (group, e) in enumerate([(0, 0), (0, 1), *((1 + kind, e) for e in range(own))]):
                one = slice(3 * e, 3 * e + 3)  # columns of this expert in its group
                hidden = torch.relu(text[row] @ adaptor.up[group][:, one] + adaptor.up_bias[group][one])
                total += weights[j] * (hidden @ adaptor.down[group][one] + adaptor.down_bias[group][e])
            torch.testing.assert_close(out[row], total if row != 2 else torch.zeros(4))


def test_which_experts_learn_from_which_knowledge() -> None:
    adaptor = HybridExpertAdaptor(5, 4, 3, num_shared=2, num_own=(1, 3), dropout=0.0)
    adaptor(torch.randn(6, 5), USER).sum().backward()
    assert [part.grad is not None for part in adaptor.up] == [True, False, True]


def test_snapshots_by_hand() -> None:
    """User 1 has no snapshot, user 2 one (5 items), user 3 three (5, 10, 20), which are rows 2, 3 and 4."""
    model = kar(lengths=[0, 4, 7, 33], first=5)
    assert len(model.preferences) == 5 and not model.preferences[0].any()
    cases = {(1, 4): 0, (1, 50): 0, (2, 4): 0, (2, 5): 1, (2, 7): 1, (2, 99): 1, (3, 1): 0, (3, 4): 0, (3, 5): 2,
             (3, 9): 2, (3, 10): 3, (3, 19): 3, (3, 20): 4, (3, 33): 4, (3, 400): 4, (0, 9): 0}  # fmt: skip
    user, seen = torch.tensor(list(cases)).T.contiguous()
    assert model.snapshot(user, seen).tolist() == list(cases.values())


@pytest.mark.parametrize("temperature", [None, 0.05])
def test_scores_are_the_formula(temperature: float | None) -> None:
    model = kar(temperature=temperature)
    seq, length = torch.randint(1, 41, (3, 6)), torch.tensor([6, 6, 6])
    positions = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 2, 5])
    batch = TrainBatch(torch.tensor([1, 2, 3]), seq, seq, length, torch.tensor([0, 1, 5]), *positions)
    queries, rows = model.ask(batch, positions)
    items = model.item_embedding.weight * (torch.arange(41) != 7)[:, None] + model.adaptor(model.item_text, ITEM)
    states = model.transformer(items[seq], length)
    # seen 1, 2, 1 + 3 and 5 + 6: snapshots none, of 2, of 4 and of 8 items; users have rows 1-3, 4-6, 7-9
    users = model.adaptor(model.preferences[[0, 1, 5, 9]], USER)
    assert not users[0].any()
    expected = torch.stack([states[0, 0], states[0, 1], states[1, 2], states[2, 5]]) + users
    if temperature is not None:
        expected, items = F.normalize(expected, dim=-1) / temperature, F.normalize(items, dim=-1)
    torch.testing.assert_close(queries, expected)
    torch.testing.assert_close(model.keys(rows), items)


def test_the_future_and_padding_do_not_change_the_past() -> None:
    model, length = kar(), torch.tensor([10])
    first = torch.randint(1, 41, (1, 10))
    second = first.clone()
    second[0, 6:] = torch.randint(1, 41, (4,))
    past, future = (model(seq, length, all_positions(10))[0] for seq in (first, second))
    torch.testing.assert_close(past[:6], future[:6])
    assert not torch.allclose(past[6:], future[6:])
    padded = F.pad(first, (0, 2), value=3)
    torch.testing.assert_close(model(padded, length, all_positions(10))[0], past)


class ByContent(TextEncoder):
    """A vector for each text that depends on nothing but the text."""

    fingerprint, dim = "by content", 8

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Random numbers seeded by the text."""
        rows = [np.random.default_rng(list(text.encode())).normal(size=8) for text in texts]
        return np.array(rows, np.float32)


def other_life(tiny: Dataset, folder: Path, keep: np.ndarray) -> Dataset:
    """The dataset with other items and ratings in each user's rows from keep[user] on."""
    copytree(tiny.folder, folder)
    rows = pl.read_parquet(folder / "interactions.parquet")
    late = np.arange(len(rows)) >= (tiny.offsets[:-1] + keep)[tiny.user_id]
    random = np.random.default_rng(1)
    item = np.where(late, random.integers(1, tiny.num_items + 1, len(rows)), rows["item_id"].to_numpy())
    rating = np.where(late, random.integers(1, 6, len(rows)), rows["rating"].to_numpy())
    rows.with_columns(
        pl.Series("item_id", item, dtype=rows["item_id"].dtype), pl.Series("rating", rating, dtype=rows["rating"].dtype)
    ).write_parquet(folder / "interactions.parquet")
    changed = Dataset(folder)
    changed.info["fingerprint"] = folder.name
    return changed


def knowing(dataset: Dataset, cache: Path) -> KAR:
    """A KAR that has read the texts of a dataset's users; weights and item texts are always the same."""
    model = kar(num_items=dataset.num_items, lengths=[0] * (dataset.num_users + 1), max_seq_len=6)
    offsets = model.user_text.snapshots(dataset).offsets
    users = model.user_text.vectors(dataset, cache, ByContent(), 8)
    model.load_knowledge(model.item_text.numpy().copy(), users, offsets, np.ones(dataset.num_items))
    return model


def queries(model: KAR, batch: TrainBatch | EvalBatch) -> torch.Tensor:
    """(B, L, D) at all positions."""
    rows, columns = torch.meshgrid(
        torch.arange(len(batch.seq_len)), torch.arange(batch.item_seq.shape[1]), indexing="ij"
    )
    with torch.no_grad():
        return model.ask(batch, (rows.flatten(), columns.flatten()))[0].view(*batch.item_seq.shape, -1)


def test_training_never_sees_what_a_user_did_later(
    tiny: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Axes are fitted on the training part's texts, as any weight is; the question here is what a position reads.
    monkeypatch.setattr("msmrec.text.user_text.whiten", lambda vectors, dim, fit: vectors)
    cut = np.minimum(7, tiny.ends[0] - tiny.offsets[:-1])
    changed = other_life(tiny, tmp_path / "changed", cut)
    models = knowing(tiny, tmp_path), knowing(changed, tmp_path)
    kept = later = 0
    # windows of 6: the change lies in another window than the start of most histories
    loaders = (TrainLoader(d, 6, 200, CPU, all_windows=True) for d in (tiny, changed))
    for a, b in zip(*loaders, strict=True):
        assert torch.equal(a.user_id, b.user_id) and torch.equal(a.start, b.start)
        place = a.start[:, None] + torch.arange(a.item_seq.shape[1])
        real = torch.arange(a.item_seq.shape[1]) < a.seq_len[:, None]
        early = real & (place < 7)
        first, second = queries(models[0], a), queries(models[1], b)
        torch.testing.assert_close(first[early], second[early])
        kept += int(early.sum())
        later += int((first != second).any(-1)[real & ~early].sum())
    assert kept > 300 and later > 300


@pytest.mark.parametrize("split", [VAL, TEST])
def test_evaluation_never_sees_what_it_is_asked_for(split: int, tiny: Dataset, tmp_path: Path) -> None:
    """With whitening: the texts that it is fitted on are the training part's, which does not change here."""
    changed = other_life(tiny, tmp_path / "changed", tiny.ends[split - 1] - tiny.offsets[:-1])
    models = knowing(tiny, tmp_path), knowing(changed, tmp_path)
    assert split == TEST or not torch.equal(models[0].preferences, models[1].preferences)  # validation item is told of
    loaders = (EvalLoader(d, split, 6, 16, CPU) for d in (tiny, changed))
    for a, b in zip(*loaders, strict=True):
        assert not torch.equal(a.target_item, b.target_item) and (a.start > 0).any()
        with torch.no_grad():
            torch.testing.assert_close(models[0].scores(a), models[1].scores(b), rtol=0, atol=0)


def test_the_test_history_includes_the_validation_item(tiny: Dataset, tmp_path: Path) -> None:
    model = knowing(tiny, tmp_path)
    rows = []
    for split in (VAL, TEST):
        batches = list(EvalLoader(tiny, split, 6, 200, CPU))
        assert len(batches) == 1
        user, seen = batches[0].user_id, batches[0].start + batches[0].seq_len
        order = user.argsort()
        rows.append(model.snapshot(user, seen)[order])
        assert torch.equal(seen, torch.from_numpy(tiny.ends[split - 1] - tiny.offsets[:-1])[user])
    assert ((rows[1] - rows[0]) >= 0).all() and (rows[1] > rows[0]).any()


def test_an_item_without_text_is_its_id_vector() -> None:
    model = kar()
    keys = model.item_embeddings()
    missing = ~model.item_text.any(1)
    missing[7] = False
    assert missing[5] and missing.sum() > 5
    assert torch.equal(keys[missing], model.item_embedding.weight[missing])
    assert not torch.isclose(keys, model.item_embedding.weight)[~missing].all(1).any()


def test_cold_items_are_scored_by_their_text_or_last(tiny: Dataset) -> None:
    batch = next(iter(EvalLoader(tiny, VAL, 12, 4, CPU)))
    model = kar(num_items=tiny.num_items, lengths=[0] * (tiny.num_users + 1))
    model.item_text[7] = torch.ones(8)
    with torch.no_grad():
        with_text = model.scores(batch)
        model.item_embedding.weight[7] += 100  # an untrained ID vector is noise and must not count
        torch.testing.assert_close(model.scores(batch), with_text)
        assert torch.isfinite(with_text[:, 7]).all() and with_text[:, 7].std() > 0
        model.warm[7], model.item_text[7] = False, 0
        assert (model.scores(batch)[:, 7] == -torch.inf).all()
        model.item_text[7] = 1
        model.cold_items = False
        assert (model.scores(batch)[:, 7] == -torch.inf).all()


@pytest.mark.parametrize(("loss", "golden"), [("softmax", 3.83635), ("bce", 1.28142)])
def test_golden_losses(loss: str, golden: float, tiny: Dataset, tiny_root: Path, cache: Path) -> None:
    """Five epochs on the tiny world. A change here is a change of results: say so in the commit."""
    torch.manual_seed(0)
    text = tiny_text(tiny_root)
    options: dict[str, Any] = {"max_seq_len": 20, "embedding_dim": 16, "dropout": 0.0, "expert_dim": 8, "loss": loss}
    model = KAR(text, tiny.num_items, tiny.num_users, **options)
    model.load_knowledge(
        text.title_and_description(tiny, tiny_root, cache)[:, 1],
        model.user_text.vectors(tiny, cache, text.encoder, text.dim),
        model.user_text.snapshots(tiny).offsets,
        tiny.items["count"].to_numpy(),
    )
    model.log = lambda *args, **kwargs: None  # type: ignore[method-assign,assignment]
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=0.01), []
    for epoch in range(5):
        loader = TrainLoader(tiny, 20, 4096, CPU)
        loader.set_epoch(epoch)
        for batch in loader:
            step = model.training_step(batch, 0)
            optimizer.zero_grad()
            step.backward()
            optimizer.step()
            losses.append(step.item())
    assert all(p.grad is not None and p.grad.any() for p in model.adaptor.parameters())
    assert losses[-1] == pytest.approx(golden, rel=1e-3)
