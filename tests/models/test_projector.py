"""The projector: InfoNCE against its formula, metrics by hand, both aligners, and that a plain map is found."""

from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch

from msmrec.models.projector import Aligner, Alignment, ItemLoader, Projector, alignment_metrics, info_nce
from msmrec.text.encoder import TfidfSvdEncoder
from msmrec.text.item_text import ItemText


def test_info_nce_is_equation_5() -> None:
    generator = torch.Generator().manual_seed(0)
    text, collaborative = (torch.randn(7, 4, generator=generator) for _ in range(2))
    item = torch.tensor([5, 0, 3])
    cosine = torch.nn.functional.cosine_similarity(text[:, None], collaborative[None], dim=-1)

    def wanted(candidates: list[int]) -> float:
        total = 0.0
        for i in item.tolist():
            f = torch.exp(cosine / 0.2)
            total -= float(torch.log(f[i, i] / sum(f[i, v] for v in candidates)))
            total -= float(torch.log(f[i, i] / sum(f[v, i] for v in candidates)))
        return total / len(item)

    assert float(info_nce(text, collaborative, item, 0.2, True)) == pytest.approx(wanted(list(range(7))), rel=1e-5)
    assert float(info_nce(text, collaborative, item, 0.2, False)) == pytest.approx(wanted(item.tolist()), rel=1e-5)


def test_alignment_metrics_by_hand() -> None:
    # Three items on the axes; item 0's text points to its own vector, item 1's to item 2's.
    collaborative = torch.eye(3)
    text = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0], [0.0, 1.0, 0.0]])
    metrics = alignment_metrics(text, collaborative, torch.tensor([0, 1]))
    assert metrics["recall@1"] == 0.5 and metrics["recall@10"] == 1.0
    assert metrics["alignment"] == pytest.approx((0 + 2) / 2)
    assert metrics["uniformity"] == pytest.approx(-4.0)  # one pair at squared distance 2
    for text, collaborative in (
        (torch.randn(40, 5), torch.ones(40, 5)),
        (torch.full((20, 4), torch.nan), torch.eye(20, 4)),
    ):
        metrics = alignment_metrics(text, collaborative, torch.arange(5))
        assert metrics["recall@1"] == metrics["recall@10"] == 0  # ties are no hits, NaN is none


@pytest.mark.parametrize("kind", ["mlp", "attention"])
def test_an_aligner_finds_a_map_that_holds_for_others(kind: Literal["mlp", "attention"]) -> None:
    torch.manual_seed(0)
    text = torch.randn(600, 2, 8)
    collaborative = text.flatten(1) @ torch.randn(16, 6)
    aligner = Aligner(2, 8, 64, 6, kind, 0.0)
    train, rest = torch.arange(500), torch.arange(500, 600)
    before = alignment_metrics(aligner(text).detach(), collaborative, rest)
    optimizer = torch.optim.Adam(aligner.parameters(), 0.01)
    for _ in range(150):
        optimizer.zero_grad()
        info_nce(aligner(text[train]), collaborative[train], train, 0.1, True).backward()
        optimizer.step()
    after = alignment_metrics(aligner(text).detach(), collaborative, rest)
    assert before["recall@10"] < 0.15 and after["recall@10"] > 0.8 and after["alignment"] < before["alignment"]


def test_attention_tells_the_parts_apart() -> None:
    torch.manual_seed(0)
    aligner = Aligner(2, 8, 16, 4, "attention", 0.0).eval()
    text = torch.randn(5, 2, 8)
    assert not torch.allclose(aligner(text), aligner(text.flip(1)), atol=1e-4)


def test_alignment_of_some_items_is_theirs_among_all_and_its_loss_asks_the_candidates_only() -> None:
    torch.manual_seed(0)
    alignment = Alignment(ItemText(["none.jsonl"], encoder=TfidfSvdEncoder(), dim=8), collaborative_dim=4)
    alignment.reserve(5)
    alignment.text_vectors[1:5] = torch.randn(4, 2, 8)  # item 5 has no text
    alignment.collaborative_vectors[1:] = torch.randn(5, 4)
    every = alignment()
    assert every.shape == (6, 4) and not every[[0, 5]].any() and every[1:5].any(1).all()
    candidates, item = torch.tensor([1, 3, 4]), torch.tensor([4, 1])
    torch.testing.assert_close(alignment(candidates), every[candidates])
    wanted = info_nce(every[candidates], alignment.collaborative_vectors[candidates], torch.tensor([2, 0]), 0.1, True)
    torch.testing.assert_close(alignment.loss(alignment(candidates), candidates, item), wanted)


@pytest.mark.parametrize("drop_last", [True, False])
def test_processes_share_the_items(drop_last: bool) -> None:
    loaders = [ItemLoader(torch.arange(1, 12), 2, torch.device("cpu"), 0, rank, 3, drop_last) for rank in range(3)]
    seen = [torch.cat([batch.item_id for batch in loader]).tolist() for loader in loaders]
    assert [len(list(loader)) for loader in loaders] == [len(loader) for loader in loaders]
    assert len(set().union(*seen)) == sum(map(len, seen))
    assert [len(items) for items in seen] == ([3, 3, 3] if drop_last else [4, 4, 3])


def test_a_resumed_run_keeps_what_the_untrained_map_measured() -> None:
    def projector() -> Projector:
        alignment = Alignment(ItemText(["none.jsonl"], encoder=TfidfSvdEncoder(), dim=8), collaborative_dim=4)
        model = Projector(5, alignment)
        data = SimpleNamespace(dataset=SimpleNamespace(info={"fingerprint": "f", "name": "n"}))
        model._trainer = SimpleNamespace(datamodule=data, loggers=[])  # type: ignore[assignment]
        return model

    first, checkpoint = projector(), dict[str, Any]()
    first.before = {"recall@1": 0.25}
    first.on_save_checkpoint(checkpoint)
    resumed = projector()
    resumed.on_load_checkpoint(checkpoint)
    resumed.on_fit_start()  # would measure the map as it is now
    assert resumed.before == {"recall@1": 0.25}
