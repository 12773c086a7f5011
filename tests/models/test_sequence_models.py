"""SASRec and MSMRec: causality, padding, the gate, cold items, and golden losses on the tiny world."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision

from msmrec.data.batches import EvalLoader, TrainLoader
from msmrec.data.prepare import Dataset
from msmrec.models.losses import Keys
from msmrec.models.modality_gate import ModalityGate, causal_mean, masked_softmax
from msmrec.models.msmrec import MSMRec
from msmrec.models.sasrec import SASRec
from msmrec.text.encoder import TfidfSvdEncoder
from msmrec.text.item_text import ItemText
from msmrec.text.modalities import Modality

MODALITIES = [Modality(name, prose=[name]) for name in ("narrative", "visual", "set")]


def tiny_text(root: Path) -> ItemText:
    knowledge = next(root.glob("simulated*/knowledge.jsonl"))
    return ItemText([str(knowledge)], MODALITIES, encoder=TfidfSvdEncoder(32), dim=16)


def sasrec(num_items: int = 40, **options: object) -> SASRec:
    torch.manual_seed(0)
    return SASRec(num_items, max_seq_len=12, embedding_dim=16, num_layers=2, **options).eval()  # type: ignore[arg-type]


def msmrec(num_items: int = 40, **options: object) -> MSMRec:
    """A MSMRec with random vectors, a third of them missing, item 5 without any."""
    torch.manual_seed(0)
    text = ItemText(["unused.jsonl"], MODALITIES, encoder=TfidfSvdEncoder(8), dim=8)
    model = MSMRec(text, num_items, max_seq_len=12, embedding_dim=16, **options).eval()
    model.present.copy_(torch.rand(num_items + 1, 3) > 0.33)
    model.present[[0, 5]] = False
    model.vectors.copy_(torch.randn(num_items + 1, 3, 8) * model.present[..., None])
    torch.nn.init.normal_(model.fuse_item, std=0.5)  # so that text matters at once
    torch.nn.init.normal_(model.fuse_score, std=0.5)
    torch.nn.init.normal_(model.gate.bias)
    return model


MODELS: dict[str, Callable[[], SASRec]] = {
    "sasrec": sasrec,
    "cosine": lambda: sasrec(temperature=0.05),
    "inner": lambda: msmrec(compatibility="inner"),
    "bilinear": lambda: msmrec(compatibility="bilinear"),
    "mlp": lambda: msmrec(compatibility="mlp"),
    "attention": lambda: msmrec(compatibility="attention", temperature=0.05),
    "top2": lambda: msmrec(top_k=2),
    "profile": lambda: msmrec(profile="modality"),
    "profile_mlp": lambda: msmrec(profile="modality", compatibility="mlp"),
}


def all_positions(length: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(length, dtype=torch.long), torch.arange(length)


@pytest.mark.parametrize("name", MODELS)
def test_the_future_does_not_change_the_past(name: str) -> None:
    model, length = MODELS[name](), torch.tensor([10])
    first = torch.randint(1, 41, (1, 10))
    second = first.clone()
    second[0, 6:] = torch.randint(1, 41, (4,))
    past, future = (model(seq, length, all_positions(10))[0] for seq in (first, second))
    torch.testing.assert_close(past[:6], future[:6])
    assert not torch.allclose(past[6:], future[6:])


@pytest.mark.parametrize("name", MODELS)
def test_padding_does_not_leak(name: str) -> None:
    model = MODELS[name]()
    long, short = torch.randint(1, 41, (12,)), torch.randint(1, 41, (5,))
    together = torch.zeros(2, 12, dtype=torch.long)
    together[0], together[1, :5] = long, short
    end = (torch.tensor([1]), torch.tensor([4]))
    alone, _ = model(short[None], torch.tensor([5]), (torch.tensor([0]), torch.tensor([4])))
    padded, _ = model(together, torch.tensor([12, 5]), end)
    torch.testing.assert_close(alone, padded)
    together[1, 5:] = 17  # whatever stands in the padding
    torch.testing.assert_close(model(together, torch.tensor([12, 5]), end)[0], padded)


@pytest.mark.parametrize("compatibility", ["inner", "bilinear", "mlp", "attention"])
@pytest.mark.parametrize("top_k", [None, 1, 2])
def test_gate_weights_sum_to_one_over_present_modalities(compatibility: str, top_k: int | None) -> None:
    model = msmrec(compatibility=compatibility, top_k=top_k)
    seq = torch.randint(1, 41, (3, 12))
    seq[0, 0] = 5  # no modality at all, first of its history
    item_gate, user_gate = model.gate_weights(seq, torch.tensor([12, 12, 12]))
    present = model.present[seq]
    assert (item_gate[~present] == 0).all()
    torch.testing.assert_close(item_gate.sum(-1), present.any(-1).float())
    torch.testing.assert_close(user_gate.sum(-1), (present.cumsum(1) > 0).any(-1).float())
    assert item_gate[0, 0].sum() == 0 and user_gate[0, 0].sum() == 0
    if top_k is not None:
        assert ((item_gate > 0).sum(-1) <= top_k).all() and ((user_gate > 0).sum(-1) <= top_k).all()


def test_inner_gate_is_the_papers_formula() -> None:
    """alpha_k = softmax of <u, e_k>, scaled by sqrt(D); u_t the mean of the items so far."""
    gate = ModalityGate(4, 4, 3, "id", "inner")
    items, vectors = torch.randn(1, 2, 4), torch.randn(1, 2, 3, 4)
    user = causal_mean(items)
    torch.testing.assert_close(user[0, 1], (items[0, 0] + items[0, 1]) / 2)
    expected = torch.softmax(torch.stack([vectors[0, 1, k] @ user[0, 1] / 2 for k in range(3)]), 0)
    item_gate, user_gate = gate(items, vectors, torch.ones(1, 2, 3, dtype=torch.bool))
    torch.testing.assert_close(item_gate[0, 1], expected)
    mean = torch.stack([(vectors[0, 0, k] @ user[0, 0] + vectors[0, 1, k] @ user[0, 1]) / 4 for k in range(3)])
    torch.testing.assert_close(user_gate[0, 1], torch.softmax(mean, 0))


def test_masked_softmax_by_hand() -> None:
    scores = torch.tensor([[0.0, 1.0, 2.0], [3.0, 3.0, 3.0]])
    present = torch.tensor([[True, False, True], [False, False, False]])
    e = torch.tensor(2.0).exp()
    torch.testing.assert_close(
        masked_softmax(scores, present), torch.tensor([[1 / (1 + e), 0, e / (1 + e)], [0, 0, 0]])
    )
    assert masked_softmax(scores, present, top_k=1)[0].tolist() == [0, 0, 1]


def test_modality_dropout_hides_only_in_training() -> None:
    gate, present = ModalityGate(4, 4, 3, modality_dropout=1.0), torch.ones(1, 1, 3, dtype=torch.bool)
    user, vectors = torch.randn(1, 1, 4), torch.randn(1, 1, 3, 4)
    assert gate.train()(user, vectors, present)[0].sum() == 0
    torch.testing.assert_close(gate.eval()(user, vectors, present)[0].sum(), torch.tensor(1.0))


def test_id_and_text_dropout_hide_only_in_training() -> None:
    model = msmrec(id_dropout=0.5, text_dropout=0.5)
    ids = model.eval()._ids()
    assert torch.equal(ids, model.warm_ids())
    torch.testing.assert_close(model._experts(), torch.einsum("nmt,mte->nme", model.vectors, model.expert))
    model.train()
    kept = model._ids()
    shown = kept.any(1)
    assert torch.equal(kept[shown], ids[shown]) and 5 < shown.sum() < 36  # whole vectors, some of 40
    model.vectors.copy_(torch.eye(8)[torch.arange(41) % 8][:, None].expand(41, 3, 8))  # each item reads a dimension
    read = model._experts() / torch.einsum("nmt,mte->nme", model.vectors, model.expert)
    torch.testing.assert_close(read, read[:8].repeat(6, 1, 1)[:41, :, :1].expand_as(read))  # of all items, whole
    assert set(read.detach().round().unique().tolist()) == {0, 2}


def test_cold_items_are_scored_by_their_text_or_last(tiny: Dataset) -> None:
    batch = next(iter(EvalLoader(tiny, 1, 12, 4, torch.device("cpu"))))
    model = msmrec(tiny.num_items)
    model.warm[[3, 4]] = False
    with torch.no_grad():
        with_text = model.scores(batch)
        model.item_embedding.weight[[3, 4]] += 100  # an untrained ID vector is noise and must not count
        torch.testing.assert_close(model.scores(batch), with_text)
        assert torch.isfinite(with_text[:, [3, 4]]).all() and with_text[:, 3].std() > 0
        assert torch.isfinite(with_text[:, 5]).all()  # without a text, but trained on
        model.warm[5] = False
        assert (model.scores(batch)[:, 5] == -torch.inf).all()
        model.cold_items = False
        assert (model.scores(batch)[:, [3, 4]] == -torch.inf).all()


@pytest.mark.parametrize("temperature", [None, 0.05])
def test_the_loss_does_not_push_cold_items_away(temperature: float | None, tiny: Dataset) -> None:
    """The softmax is over items trained on: a text that nothing was learned of gets no gradient as a wrong answer."""
    model = msmrec(tiny.num_items, loss="softmax", temperature=temperature)
    model.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    batch = next(iter(TrainLoader(tiny, 12, 256, torch.device("cpu"))))
    unused = [
        i for i in range(1, tiny.num_items + 1) if not (batch.item_seq == i).any() | (batch.target_item == i).any()
    ]
    cold = unused[0]
    model.set_warm(torch.tensor([i != cold for i in range(1, tiny.num_items + 1)]))
    seen: dict[str, torch.Tensor] = {}

    def ranked(name: str, queries: torch.Tensor, keys: Keys, target: torch.Tensor, num_keys: int, *rest: object) -> Any:
        seen.update(keys=keys(None), drawn=keys(torch.arange(num_keys)), target=target)
        return (queries * keys(target)).sum()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("msmrec.models.sasrec.ranking_loss", ranked)
        model.training_step(batch, 0)
        keys = model.item_embeddings()
        positions = batch.target_item.nonzero(as_tuple=True)
        assert len(seen["keys"]) == tiny.num_items - 1
        torch.testing.assert_close(seen["keys"][seen["target"]], keys[batch.target_item[positions]])
        torch.testing.assert_close(seen["drawn"], seen["keys"])
        assert not (seen["keys"] == keys[cold]).all(1).any()
        model.cold_items = False  # then it ranks last, and may as well be a wrong answer
        model.training_step(batch, 0)
        assert len(seen["keys"]) == tiny.num_items


@pytest.mark.parametrize(("name", "golden"), [("sasrec", 3.93854), ("msmrec", 3.83502)])
def test_golden_losses(name: str, golden: float, tiny: Dataset, tiny_root: Path, cache: Path) -> None:
    """Five steps on the tiny world. A change here is a change of results: say so in the commit."""
    torch.manual_seed(0)
    options = {"max_seq_len": 20, "embedding_dim": 16, "dropout": 0.0}
    if name == "sasrec":
        model = SASRec(tiny.num_items, **options)  # type: ignore[arg-type]
    else:
        text = tiny_text(tiny_root)
        model = MSMRec(text, tiny.num_items, text_dropout=0.0, expert_dim=4, **options)
        made = text.vectors(tiny, tiny_root, cache)
        model.vectors.copy_(torch.from_numpy(made.vectors))
        model.present.copy_(torch.from_numpy(made.present))
    model.log = lambda *args, **kwargs: None  # type: ignore[method-assign,assignment]
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=0.01), []
    for epoch in range(5):
        loader = TrainLoader(tiny, 20, 4096, torch.device("cpu"))
        loader.set_epoch(epoch)
        for batch in loader:
            loss = model.training_step(batch, 0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] == pytest.approx(golden, rel=1e-3)


@pytest.mark.filterwarnings("ignore:`torch.cuda.amp.GradScaler:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*GradScaler is enabled, but CUDA is not available")
def test_float16_gradients_can_be_clipped() -> None:
    """Lightning does not clip scaled gradients beside a fused optimiser: on a GPU the first step failed."""
    model = sasrec()
    model._trainer = SimpleNamespace(precision="16-mixed", estimated_stepping_batches=10)  # type: ignore[assignment]
    optimizer = model.configure_optimizers()["optimizer"]
    model.item_embedding.weight.grad = torch.ones_like(model.item_embedding.weight)
    MixedPrecision("16-mixed", "cuda").clip_gradients(optimizer, 1.0)
    assert model.item_embedding.weight.grad.norm().item() == pytest.approx(1, rel=1e-4)
